"""Schedules take: full and incremental backups when the plan's cron says so, in UTC."""
# No `from __future__ import annotations` here: Dagster reads the types of decorated functions.

from collections.abc import Iterator

import dagster as dg

from assets.partitions import DAILY, HOURLY, partition_of
from dr_pipelines.jobs import backup_job_name
from dr_pipelines.metadata import FULL_BACKUP, INCREMENTAL_BACKUP
from dr_pipelines.plan import Plan


def backup_schedule(
    server: str, thing: str, cron: str, partitions: dg.TimeWindowPartitionsDefinition
) -> dg.ScheduleDefinition:
    """Runs from the start: a backup that the plan promises must not wait for someone to flip a switch."""
    job = backup_job_name(server, thing)

    @dg.schedule(
        name=f"{job}_schedule",
        job_name=job,
        cron_schedule=cron,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
    def _schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        key = partition_of(partitions, context.scheduled_execution_time)
        return dg.RunRequest(run_key=f"{server}:{thing}:{key}", partition_key=key)

    return _schedule


def backup_schedules(plan: Plan) -> Iterator[dg.ScheduleDefinition]:
    for server, asked in plan.databases.items():
        yield backup_schedule(server, FULL_BACKUP, asked.schedule.full.cron, DAILY)
        if asked.schedule.incremental is not None:
            yield backup_schedule(server, INCREMENTAL_BACKUP, asked.schedule.incremental.cron, HOURLY)
