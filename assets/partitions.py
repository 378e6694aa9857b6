"""Partitions of backups: the day or hour in which a backup is *launched*.

A backup shows a server as it is now. So only the partition of now can be launched, and the guard says so: Dagster
itself does not validate the key of a run that was launched through its API. What counts is the launch, not the start:
an incremental of 02:00 that waits until the night's full of the same server is done is late, and no mistake.

The first partition is the plan's `since`, fixed on purpose: Dagster counts what is missing from it to now, and a start
that moved with the clock would let old days, and the backups recorded in them, drop out of the history.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

import dagster as dg

from dr_pipelines.backed_up import BackedUp, Manifest, thing_of
from dr_pipelines.repository.due import Window

# Between choosing a partition, at 23:59:50, and its run being made, at 00:00:10.
SLACK = timedelta(minutes=2)
# A run that waited for longer in the queue would show another time than its partition says.
LONGEST_WAIT = timedelta(days=1)


# `end_offset=1`: the day and the hour that have begun are partitions already.


def daily(since: date) -> dg.DailyPartitionsDefinition:
    return dg.DailyPartitionsDefinition(start_date=f"{since:%Y-%m-%d}", timezone="UTC", end_offset=1)


def hourly(since: date) -> dg.HourlyPartitionsDefinition:
    return dg.HourlyPartitionsDefinition(start_date=f"{since:%Y-%m-%d}-00:00", timezone="UTC", end_offset=1)


def partition_of(partitions: dg.TimeWindowPartitionsDefinition, at: datetime) -> str:
    """The key of the window that holds an instant."""
    return at.astimezone(UTC).replace(minute=0, second=0).strftime(partitions.fmt)


def partitions_of(backed_up: BackedUp, thing: str) -> dg.TimeWindowPartitionsDefinition | None:
    """None of WAL."""
    window = backed_up.window(thing)
    if window is None:
        return None
    return daily(backed_up.since) if window is Window.DAY else hourly(backed_up.since)


def partition_holding(partitions: dg.TimeWindowPartitionsDefinition, manifest: Manifest) -> str:
    return partition_of(partitions, manifest.started_at)


def taken_in(
    partitions: dg.TimeWindowPartitionsDefinition, key: str, thing: str, manifests: Sequence[Manifest]
) -> list[str]:
    """Labels of what was begun in a partition, by what was asked for."""
    return [
        manifest.label
        for manifest in manifests
        if thing_of(manifest) == thing and partition_holding(partitions, manifest) == key
    ]


def refusal(
    partitions: dg.TimeWindowPartitionsDefinition, key: str, *, launched: datetime, now: datetime
) -> str | None:
    """Why a run that was launched for partition `key` takes no backup at `now`; None when it takes one."""
    current = partition_of(partitions, now)
    asked_in_time = key in (partition_of(partitions, launched), partition_of(partitions, launched - SLACK))
    if key == current or (asked_in_time and now - launched <= LONGEST_WAIT):
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


def guard(partitions: dg.TimeWindowPartitionsDefinition, key: str, *, launched: datetime, now: datetime) -> None:
    """Raises `dagster.Failure`, not to be retried, when the run was launched for another partition than that of now."""
    reason = refusal(partitions, key, launched=launched, now=now)
    if reason is None:
        return
    current = partition_of(partitions, now)
    raise dg.Failure(
        description=f"{reason}\nHINT: launch partition {current}; to bring back an older state, "
        "run `dr restore --preview`.",
        metadata={"asked": key, "now": current},
        allow_retries=False,
    )
