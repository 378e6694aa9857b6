"""What a planner says: of everything that has a label on a tier whether it stays, and each time why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.retention.calendar import Reason, latest
from dr_pipelines.retention.view import View

IN_FLIGHT = timedelta(days=2)
"""What reached the store within this time may be a part of something whose end is still to come."""

Reasons = dict[str, list[Reason]]


@dataclass(frozen=True)
class Decision:
    """Of one backup, or one snapshot of files (then `kind` is None). `reasons` to keep it; without one it goes, and
    `otherwise` is why."""

    label: str
    kind: BackupKind | None
    finished_at: datetime
    stored_bytes: int
    reasons: tuple[Reason, ...]
    otherwise: str = ""

    @property
    def keep(self) -> bool:
        return bool(self.reasons)

    @property
    def until(self) -> datetime | None:
        """When it is expected to go, as things stand. None: never, or now."""
        return latest(self.reasons)

    @property
    def why(self) -> str:
        return "; ".join(reason.text for reason in self.reasons) or self.otherwise


@dataclass(frozen=True)
class Retained:
    """What is to happen on one tier. `decisions` oldest first; `prune`: labels that were expired long enough ago,
    `garbage`: of crashes, each with the bytes that go with it."""

    tier: str
    at: datetime
    decisions: tuple[Decision, ...]
    prune: Mapping[str, int] = field(default_factory=dict)
    garbage: Mapping[str, int] = field(default_factory=dict)

    @property
    def expire(self) -> tuple[Decision, ...]:
        """Newest first: what builds on another goes before it."""
        return tuple(decision for decision in reversed(self.decisions) if not decision.keep)


def beside_the_rules(
    labels: Iterable[str], views: Iterable[View[Any]], holds: Mapping[str, Iterable[Reason]], now: datetime
) -> Iterable[tuple[str, Reason]]:
    """What people keep, on whichever tier they said so, and what the store holds."""
    views = list(views)
    for label in labels:
        keeps = {(keep.until, keep.reason, keep.by): keep for view in views for keep in view.keeps(label, now)}
        for keep in keeps.values():
            until = f"until {keep.until:%Y-%m-%d}" if keep.until else "for ever"
            yield label, Reason(f"kept {until} by {keep.by}: {keep.reason}", keep.until)
        for reason in holds.get(label, ()):
            yield label, reason


def whole_day(at: datetime) -> datetime:
    """The end of its day: what is reckoned from it (locks) moves once a day at most."""
    return at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
