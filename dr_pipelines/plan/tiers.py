"""Which store plays which tier."""

from __future__ import annotations

from collections.abc import Iterator

from dr_pipelines.plan.values import Model


class TierPlan(Model):
    """Of one server, or one file set."""

    primary: str
    secondary: str | None = None
    archive: str | None = None

    def items(self) -> Iterator[tuple[str, str]]:
        """(tier, store name) of the tiers that are used."""
        for tier in ("primary", "secondary", "archive"):
            if (store := getattr(self, tier)) is not None:
                yield tier, store
