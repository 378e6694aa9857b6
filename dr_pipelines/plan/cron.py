"""When schedules come due. What people call by a word is known; croniter is loaded for five fields of their own."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

_AT_RANDOM = re.compile(r"\b[Rr]\b")  # croniter's own: it differs each time
# Any moment serves: only distances between ticks are compared.
_REFERENCE_TIME = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Distances:
    """Between two ticks that follow each other."""

    shortest: timedelta
    longest: timedelta


def _always(distance: timedelta) -> Distances:
    return Distances(distance, distance)


WORDS = {"hourly": "0 * * * *", "daily": "0 2 * * *", "weekly": "0 2 * * 0", "monthly": "0 2 1 * *"}
_KNOWN = {
    WORDS["hourly"]: _always(timedelta(hours=1)),
    WORDS["daily"]: _always(timedelta(days=1)),
    WORDS["weekly"]: _always(timedelta(weeks=1)),
    WORDS["monthly"]: Distances(timedelta(days=28), timedelta(days=31)),
}


def is_schedule(cron: str) -> bool:
    """Five fields that make sense. Raises `ValueError` when they do and no day is ever like that."""
    if cron in _KNOWN:
        return True
    from croniter import CroniterBadDateError, croniter

    if len(cron.split()) != 5 or not croniter.is_valid(cron) or _AT_RANDOM.search(cron):
        return False
    try:
        croniter(cron, _REFERENCE_TIME).get_next(datetime)
    except CroniterBadDateError as error:
        raise ValueError("this schedule never comes due") from error
    return True


def distances(cron: str) -> Distances:
    """Of its next ticks."""
    return _KNOWN.get(cron) or measured(cron)


@functools.cache
def measured(cron: str) -> Distances:
    from croniter import croniter

    ticks = croniter(cron, _REFERENCE_TIME)
    times: list[datetime] = [ticks.get_next(datetime) for _ in range(50)]
    between = [later - earlier for earlier, later in pairwise(times)]
    return Distances(min(between, default=timedelta.max), max(between, default=timedelta.max))
