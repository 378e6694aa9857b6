"""RTO: how long restores of a server took, and what the recovery of a system comes to, with all that must be back
before it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from dr_pipelines.checks import Verdict
from dr_pipelines.objectives.promises import all_needed
from dr_pipelines.objectives.trend import Trend, trend_of
from dr_pipelines.plan.model import SystemPlan
from dr_pipelines.repository.validations import Validation

LAST = 5
"""The worst of so many counts, on each tier: single restores differ by a third and more."""


@dataclass(frozen=True)
class Measurement:
    """One restore that gave a good server: `seconds` without validating and without waiting for cold storage."""

    tier: str
    label: str
    at: datetime
    seconds: float
    bytes: int


@dataclass(frozen=True)
class RecoveryTimes:
    """Of one server: the `newest` measurement on each tier, and the `worst` of the last few on the tiers that the plan
    validates from. `growth` of the time, in seconds, is that of the tier on which it grows fastest; None where too
    little is known. `stale` since when there should be a newer one; `spoilt` is the newest restore where it
    failed. `unread`: tiers whose evidence could not be read, with why."""

    server: str
    newest: Mapping[str, Measurement]
    worst: Measurement | None = None
    growth: Trend | None = None
    growth_bytes: Trend | None = None
    stale: datetime | None = None
    spoilt: str | None = None
    unread: Mapping[str, str] = field(default_factory=dict)


def measured(validation: Validation) -> bool:
    """Whether it says how long a recovery takes: the WAL was replayed, and nothing was found to be wrong."""
    return validation.reached is not None and validation.verdict is not Verdict.FAIL


def recovery_times(
    server: str,
    validations: Iterable[Validation],
    tiers: Sequence[str],
    *,
    within: timedelta,
    now: datetime,
    unread: Mapping[str, str] | None = None,
) -> RecoveryTimes:
    """`tiers` are those that the plan validates from; `within` such a time there must be a measurement."""
    known = sorted(validations, key=lambda one: one.at)
    points = [_measurement(one) for one in known if measured(one)]
    by_tier = {tier: [point for point in points if point.tier == tier] for tier in {point.tier for point in points}}
    counted = [point for tier in tiers for point in by_tier.get(tier, [])[-LAST:]]
    last = max((point.at for point in counted), default=None)
    seconds = [trend_of([(point.at, point.seconds) for point in by_tier.get(tier, [])]) for tier in tiers]
    sizes = [trend_of([(point.at, float(point.bytes)) for point in by_tier.get(tier, [])]) for tier in tiers]
    # What could not be seen takes nothing back: a host without the key says nothing of how long a recovery takes.
    told = [one for one in known if measured(one) or one.verdict is not Verdict.NOT_PROVEN]
    spoilt = told[-1] if told and not measured(told[-1]) else None
    return RecoveryTimes(
        server,
        {tier: by_tier[tier][-1] for tier in sorted(by_tier)},
        max(counted, key=lambda point: point.seconds, default=None),
        _fastest(seconds),
        _fastest(sizes),
        last + within if last is not None and last + within < now else None,
        None if spoilt is None else f"{spoilt.label} from {spoilt.tier}: {spoilt.summary}",
        unread or {},
    )


def _measurement(one: Validation) -> Measurement:
    return Measurement(one.tier, one.label, one.at, one.recovery_seconds, one.bytes)


def _fastest(trends: Iterable[Trend | None]) -> Trend | None:
    return max((trend for trend in trends if trend is not None), key=lambda trend: trend.per_day, default=None)


@dataclass(frozen=True)
class Way:
    """Servers that are restored one after the other before a system is back."""

    servers: tuple[str, ...]

    def seconds(self, times: Mapping[str, RecoveryTimes]) -> float:
        """Of those that were measured."""
        worsts = (times[server].worst for server in self.servers)
        return sum(worst.seconds for worst in worsts if worst is not None)

    def growth(self, times: Mapping[str, RecoveryTimes]) -> float | None:
        """In seconds a day; None where too little is known of one."""
        found = [times[server].growth for server in self.servers]
        return None if None in found else sum(trend.per_day for trend in found if trend is not None)


def ways(systems: Mapping[str, SystemPlan], name: str) -> list[Way]:
    """Every way through what a system depends on, as the servers on it; one that is on it twice is restored once."""
    known: dict[str, dict[tuple[str, ...], None]] = {}

    def through(system: str) -> dict[tuple[str, ...], None]:
        if system not in known:
            own = systems[system].server
            before = [way for needed in systems[system].depends_on for way in through(needed)] or [()]
            known[system] = {way if own is None or own in way else (*way, own): None for way in before}
        return known[system]

    return [Way(way) for way in through(name)]


def unmeasured(systems: Mapping[str, SystemPlan], name: str, times: Mapping[str, RecoveryTimes]) -> list[str]:
    """The system itself and what it depends on, as far as no restore of it was ever measured."""
    found = []
    for one in (name, *all_needed(systems, name)):
        server = systems[one].server
        if server is None or times[server].worst is None:
            found.append(one)
    return found
