"""Whether rows that point at files are looked at as often as the plan's `poll` says. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from dr_pipelines.checks import CheckResult, failed, passed
from dr_pipelines.clock import CLOCK_DRIFT
from dr_pipelines.plan.values import format_duration

ROWS_ARE_POLLED = "rows_are_polled"
_SEVERAL = 3
"""Intervals without a poll are news."""
_LEAST = timedelta(minutes=1)
"""A run that copies takes its time to begin, however short the interval."""


@dataclass(frozen=True)
class Polls:
    """What this host knows of its polls of a file set. `until`: every row that was committed by then has its file in
    the newest snapshot, if it had one. The last attempt was at `tried_at`; where it came to nothing, it `waits` for a
    snapshot or another poll, or had the `trouble`."""

    until: datetime | None = None
    tried_at: datetime | None = None
    waits: bool = False
    trouble: str | None = None


def rows_are_polled(file_set: str, polls: Polls, every: timedelta, *, longest: timedelta, now: datetime) -> CheckResult:
    """`every`: the plan's `poll`. While a snapshot is taken no poll can be, for as `longest` as two of them are
    apart."""
    late = max(every * _SEVERAL, _LEAST)
    details: dict[str, Any] = {"poll_seconds": every.total_seconds(), "polled_until": polls.until}
    since = "at all" if polls.until is None else f"since {polls.until:%Y-%m-%d %H:%M:%S} UTC"
    if _within(late, polls.until, now):
        return passed(ROWS_ARE_POLLED, f"every row of {polls.until:%Y-%m-%d %H:%M:%S} UTC was looked at", **details)
    waits = polls.waits and _within(late, polls.tried_at, now)
    if waits and _within(longest + late, polls.until, now):
        return passed(ROWS_ARE_POLLED, f"the next poll waits for a snapshot; none was made {since}", **details)
    why = polls.trouble or ("a snapshot or a poll does not come to its end" if waits else None)
    said = f"the rows of {file_set} were not looked at {since}; the plan says every {format_duration(every)}"
    hint = f"`dr files poll {file_set}` looks now; Dagster's sensor, or a timer where there is no Dagster, must run it."
    return failed(ROWS_ARE_POLLED, f"{said}{': ' if why else ''}{why or ''}", **details, hint=hint)


def _within(span: timedelta, at: datetime | None, now: datetime) -> bool:
    """What is of the future was written while a clock was ahead, and would serve until then whatever happens."""
    return at is not None and now - span <= at <= now + CLOCK_DRIFT
