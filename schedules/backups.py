"""Schedules take: backups and snapshots when the plan's cron says so, in UTC."""
# No `from __future__ import annotations` here: Dagster reads the types of decorated functions.

from collections.abc import Iterator

import dagster as dg

from assets.partitions import partition_of, partitions_of
from dr_pipelines.backed_up import BackedUp, Taken, everything
from dr_pipelines.jobs import backup_job_name
from dr_pipelines.metadata import PARTITION
from dr_pipelines.plan import Plan
from dr_pipelines.resources import SiteResource


def backup_schedule(backed_up: BackedUp, taken: Taken) -> dg.ScheduleDefinition:
    """Runs from the start: a backup that the plan promises must not wait for someone to flip a switch."""
    name, thing, schedule = backed_up.name, taken.thing, taken.schedule
    job, partitions = backup_job_name(name, thing), partitions_of(backed_up, thing)
    assert partitions is not None

    @dg.schedule(
        name=f"{job}_schedule",
        job_name=job,
        description=f"Takes the {thing.replace('_', ' ')} of {name} when the plan says so: {schedule.text}, in UTC.",
        cron_schedule=schedule.cron,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        tags=backed_up.tags,
    )
    def _schedule(context: dg.ScheduleEvaluationContext, site: SiteResource) -> dg.RunRequest | dg.SkipReason:
        tick = context.scheduled_execution_time
        if tick < partitions.start:
            return dg.SkipReason(f"the plan asks for {backed_up.noun}s of {name} since {partitions.start:%Y-%m-%d}")
        # A tick that was missed while the daemon was down comes late: what is taken then belongs to its own time. As
        # a tag, since `partition_key` is judged by the time of the tick, when that partition had not begun.
        key = partition_of(partitions, max(tick, site.now()))
        return dg.RunRequest(run_key=f"{name}:{thing}:{tick:%Y-%m-%dT%H:%M}", tags={PARTITION: key})

    return _schedule


def backup_schedules(plan: Plan) -> Iterator[dg.ScheduleDefinition]:
    for backed_up in everything(plan):
        for taken in backed_up.taken:
            yield backup_schedule(backed_up, taken)
