"""What the plan says about keeping backups: on which tiers, for how long, and how they are watched there."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Literal

from pydantic import Field

from dr_pipelines.plan.values import (
    Days,
    Duration,
    Model,
    Months,
    PositiveDuration,
    ScheduleField,
    Share,
    Weeks,
    left_out,
)

ReplicatedTier = Literal["secondary", "archive"]


class TierReplicationPlan(Model):
    """What is sent to a tier: `everything`; `monthly`, the newest full of each month with the WAL that it needs;
    or `nothing`. A copy that is later than `lag` is an alarm."""

    send: Literal["everything", "monthly", "nothing"] = "everything"
    lag: PositiveDuration = Field(default="1 hour", validate_default=True)


class ReplicationPlan(Model):
    """From the primary to the other tiers. Cold storage charges for 90 to 180 days at least, so only what is kept for
    months goes to the archive; the newest of it stays on the other tiers too."""

    secondary: TierReplicationPlan = left_out()
    archive: TierReplicationPlan = Field(default={"send": "monthly", "lag": "1 day"}, validate_default=True)

    def of(self, tier: str) -> TierReplicationPlan | None:
        """None for the primary, which nothing is copied to."""
        return {"secondary": self.secondary, "archive": self.archive}.get(tier)


class TierRetentionPlan(Model):
    """What differs on one tier; what is not named is as for all."""

    daily: Days | None = None
    weekly: Weeks | None = None
    monthly: Months | None = None
    window: PositiveDuration | None = None


class RetentionPlan(Model):
    """The newest full of each of so many days, ISO weeks and months (UTC) is kept; `window` is how far back any instant
    can be restored (as many days as `daily`, when it is not named).

    What is expired can be undone for `grace`. Expiry stops by itself when it would remove more than `largest_share` of
    a tier's backups at once, and when no backup was proven `proven_within` until now.
    """

    daily: Days = 7
    weekly: Weeks = 4
    monthly: Months = 12
    window: PositiveDuration | None = None
    tiers: dict[Literal["primary", "secondary", "archive"], TierRetentionPlan] = {}
    grace: Duration = Field(default="3 days", validate_default=True)
    largest_share: Share = Field(default="30 %", validate_default=True)
    proven_within: PositiveDuration = Field(default="3 days", validate_default=True)

    @property
    def longest(self) -> timedelta:
        """How long the oldest backup that is kept is kept."""
        return max(timedelta(days=self.daily), timedelta(weeks=self.weekly), timedelta(days=31 * self.monthly))

    @property
    def recovery_window(self) -> timedelta:
        return timedelta(days=self.daily) if self.window is None else self.window

    def on(self, tier: str) -> RetentionPlan:
        """As it is for one tier."""
        given = self.tiers.get(tier)  # type: ignore[call-overload]
        changed = {} if given is None else dict(_given(given))
        return self.model_copy(update={**changed, "tiers": {}})


def _given(model: Model) -> Iterator[tuple[str, object]]:
    return ((name, value) for name in type(model).model_fields if (value := getattr(model, name)) is not None)


class ScrubPlan(Model):
    """When every tier is read against its digests, and which share of its objects each time (by bytes: WAL, packs)."""

    schedule: ScheduleField = Field(default="monthly", validate_default=True)
    sample: Share = Field(default="100 %", validate_default=True)
