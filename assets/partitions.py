"""Partitions of backups: the day or hour in which a backup is *taken*.

A backup shows a server as it is now. So only the partition of now can be taken, and the guard says so: Dagster
itself does not validate the key of a run that was launched through its API.

The first partition is the plan's `since`, fixed on purpose: Dagster counts what is missing from it to now, and a start
that moved with the clock would let old days, and the backups recorded in them, drop out of the history.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import dagster as dg

# A run that was launched at 23:59 may start its work at 00:01, or have it tried again: a window that ended less
# than this ago still counts as now.
GRACE = timedelta(minutes=15)


# `end_offset=1`: the day and the hour that have begun are partitions already.


def daily(since: date) -> dg.DailyPartitionsDefinition:
    return dg.DailyPartitionsDefinition(start_date=f"{since:%Y-%m-%d}", timezone="UTC", end_offset=1)


def hourly(since: date) -> dg.HourlyPartitionsDefinition:
    return dg.HourlyPartitionsDefinition(start_date=f"{since:%Y-%m-%d}-00:00", timezone="UTC", end_offset=1)


def partition_of(partitions: dg.TimeWindowPartitionsDefinition, at: datetime) -> str:
    """The key of the window that holds an instant."""
    return at.astimezone(UTC).replace(minute=0, second=0).strftime(partitions.fmt)


def refusal(partitions: dg.TimeWindowPartitionsDefinition, key: str, now: datetime) -> str | None:
    """Why a backup cannot be taken into partition `key` at `now`; None when it can."""
    current = partition_of(partitions, now)
    if key in (current, partition_of(partitions, now - GRACE)):
        return None
    try:
        begins = datetime.strptime(key, partitions.fmt).replace(tzinfo=UTC)
    except ValueError:
        return f"{key!r} is not a partition of this asset; the one that can be taken now is {current}"
    when = "is in the past" if begins < now else "has not begun"
    return (
        f"partition {key} {when}: a backup shows the server as it is now, so only the partition of now, "
        f"{current} (UTC), can be taken"
    )


def guard(partitions: dg.TimeWindowPartitionsDefinition, key: str, now: datetime) -> None:
    """Raises `dagster.Failure`, not to be retried, when the partition is not the one of now."""
    reason = refusal(partitions, key, now)
    if reason is None:
        return
    raise dg.Failure(
        description=f"{reason}\nHINT: launch partition {partition_of(partitions, now)}; to bring back an older state, "
        "run `dr restore --preview`.",
        metadata={"asked": key, "now": partition_of(partitions, now)},
        allow_retries=False,
    )
