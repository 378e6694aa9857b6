"""Launches expiry after each copy that succeeded; where the plan copies nothing, after each backup."""
# No `from __future__ import annotations` here: Dagster reads the types of decorated functions.

from collections.abc import Iterator, Mapping, Sequence

import dagster as dg

from dr_pipelines.jobs import Job, backup_job_name, expiry_job_name, replicas, replication_job_name
from dr_pipelines.metadata import FULL_BACKUP, INCREMENTAL_BACKUP, WAL_ARCHIVE, identifier
from dr_pipelines.plan import Plan
from dr_pipelines.plan.model import ServerPlan


def expiry_sensor(server: str, followed: Sequence[Job], expire: Job) -> dg.SensorDefinition:
    @dg.run_status_sensor(
        name=f"{identifier(server)}_expiry",
        description=f"Applies the retention of {server} after each copy that succeeded.",
        run_status=dg.DagsterRunStatus.SUCCESS,
        monitored_jobs=list(followed),
        request_job=expire,
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=60,
    )
    def _sensor(context: dg.RunStatusSensorContext) -> dg.RunRequest:
        return dg.RunRequest(run_key=f"expiry:{server}:{context.dagster_run.run_id}")

    return _sensor


def followed_jobs(server: str, asked: ServerPlan) -> list[str]:
    """Copies of WAL alone come every few minutes and let nothing go."""
    copies = [replication_job_name(server, tier, thing) for tier, thing in replicas(asked) if thing != WAL_ARCHIVE]
    taken = [FULL_BACKUP] + ([INCREMENTAL_BACKUP] if asked.schedule.incremental is not None else [])
    return copies or [backup_job_name(server, thing) for thing in taken]


def expiry_sensors(plan: Plan, jobs: Mapping[str, Job]) -> Iterator[dg.SensorDefinition]:
    for server, asked in plan.databases.items():
        followed = [jobs[name] for name in followed_jobs(server, asked)]
        yield expiry_sensor(server, followed, jobs[expiry_job_name(server)])
