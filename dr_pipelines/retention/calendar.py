"""Representatives: the newest full of each of the last days, ISO weeks and months that have one. UTC. Pure.

A full counts for the day on which it was started, which its label shows and Dagster's partition is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from dr_pipelines.plan.policies import RetentionPlan
from dr_pipelines.repository.manifest import BackupManifest


@dataclass(frozen=True)
class Reason:
    """Why a backup is kept, and until when as things stand (None: for ever)."""

    text: str
    until: datetime | None


def latest(reasons: Iterable[Reason]) -> datetime | None:
    """Until when all of them hold together. None: for ever, or there is none."""
    times = [reason.until for reason in reasons]
    return None if None in times else max((time for time in times if time is not None), default=None)


@dataclass(frozen=True)
class Period:
    """`start` of the one that a moment lies in; `later`, so many of them after a start."""

    name: str
    shown_as: str
    start: Callable[[datetime], datetime]
    later: Callable[[datetime, int], datetime]

    def shown(self, start: datetime) -> str:
        return f"{self.name} {start.strftime(self.shown_as)}"


def _day(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def _months_later(start: datetime, count: int) -> datetime:
    years, month = divmod(start.month - 1 + count, 12)
    return start.replace(year=start.year + years, month=month + 1)


DAY = Period("daily", "%Y-%m-%d", _day, lambda start, count: start + timedelta(days=count))
WEEK = Period(
    "weekly",
    "%G-W%V",
    lambda at: _day(at) - timedelta(days=at.astimezone(UTC).weekday()),
    lambda start, count: start + timedelta(weeks=count),
)
MONTH = Period("monthly", "%Y-%m", lambda at: _day(at).replace(day=1), _months_later)


def representatives(
    fulls: Sequence[BackupManifest],
    restorable: Collection[str],
    troubles: Mapping[str, str | None],
    rules: RetentionPlan,
    now: datetime,
) -> Iterator[tuple[str, Reason]]:
    """Labels with the reason. Only a period with a full that can be restored counts; of one that has none, the newest
    is kept beside them for as long as it would count: it may be repaired, and it is all that there is of that time."""
    for period, count in ((DAY, rules.daily), (WEEK, rules.weekly), (MONTH, rules.monthly)):
        left = count
        of_period: dict[datetime, list[BackupManifest]] = defaultdict(list)
        for full in sorted(fulls, key=lambda full: full.started_at):
            of_period[period.start(full.started_at)].append(full)
        for start in sorted(of_period, reverse=True):
            if left == 0:
                break
            good = [full for full in of_period[start] if full.label in restorable]
            until = _until(period, start, count, now)
            if good:
                left -= 1
                yield good[-1].label, Reason(period.shown(start), until)
            else:
                newest = of_period[start][-1].label
                yield newest, Reason(f"{period.shown(start)} has no other; {troubles.get(newest)}", until)


def _until(period: Period, start: datetime, count: int, now: datetime) -> datetime:
    """When as many newer periods have a full. Of a week or month that is not over, it is the newest until the next."""
    if period is not DAY and period.later(start, 1) > now:
        return DAY.later(DAY.start(now), 2)
    return period.later(start, count) + timedelta(days=1)
