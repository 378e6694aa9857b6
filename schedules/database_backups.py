"""Schedules take: full and incremental backups when the plan's cron says so, in UTC."""
# No `from __future__ import annotations` here: Dagster reads the types of decorated functions.

from collections.abc import Iterator

import dagster as dg

from assets.partitions import daily, hourly, partition_of
from dr_pipelines.jobs import backup_job_name
from dr_pipelines.metadata import FULL_BACKUP, INCREMENTAL_BACKUP
from dr_pipelines.plan import Plan
from dr_pipelines.plan.values import Schedule
from dr_pipelines.resources import SiteResource

PARTITION = "dagster/partition"
"""Dagster's tag of the partition that a run is for."""


def backup_schedule(
    server: str, thing: str, schedule: Schedule, partitions: dg.TimeWindowPartitionsDefinition
) -> dg.ScheduleDefinition:
    """Runs from the start: a backup that the plan promises must not wait for someone to flip a switch."""
    job = backup_job_name(server, thing)

    @dg.schedule(
        name=f"{job}_schedule",
        job_name=job,
        description=f"Takes the {thing.replace('_', ' ')} of {server} when the plan says so: {schedule.text}, in UTC.",
        cron_schedule=schedule.cron,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        tags={"dr/server": server},
    )
    def _schedule(context: dg.ScheduleEvaluationContext, site: SiteResource) -> dg.RunRequest | dg.SkipReason:
        tick = context.scheduled_execution_time
        if tick < partitions.start:
            return dg.SkipReason(f"the plan asks for backups of {server} since {partitions.start:%Y-%m-%d}")
        # A tick that was missed while the daemon was down comes late: what is taken then belongs to its own time. As
        # a tag, since `partition_key` is judged by the time of the tick, when that partition had not begun.
        key = partition_of(partitions, max(tick, site.now()))
        return dg.RunRequest(run_key=f"{server}:{thing}:{tick:%Y-%m-%dT%H:%M}", tags={PARTITION: key})

    return _schedule


def backup_schedules(plan: Plan) -> Iterator[dg.ScheduleDefinition]:
    for server, asked in plan.databases.items():
        yield backup_schedule(server, FULL_BACKUP, asked.schedule.full, daily(asked.since))
        if asked.schedule.incremental is not None:
            yield backup_schedule(server, INCREMENTAL_BACKUP, asked.schedule.incremental, hourly(asked.since))
