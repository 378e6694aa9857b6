"""Launches expiry after each copy that succeeded; where the plan copies nothing, after each backup."""
# No `from __future__ import annotations` here: Dagster reads the types of decorated functions.

from collections.abc import Iterator, Mapping, Sequence

import dagster as dg

from dr_pipelines.backed_up import BackedUp, everything
from dr_pipelines.jobs import Job, backup_job_name, expiry_job_name, replication_job_name
from dr_pipelines.metadata import WAL_ARCHIVE, identifier
from dr_pipelines.plan import Plan


def expiry_sensor(name: str, followed: Sequence[Job], expire: Job) -> dg.SensorDefinition:
    @dg.run_status_sensor(
        name=f"{identifier(name)}_expiry",
        description=f"Applies the retention of {name} after each copy that succeeded.",
        run_status=dg.DagsterRunStatus.SUCCESS,
        monitored_jobs=list(followed),
        request_job=expire,
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=60,
    )
    def _sensor(context: dg.RunStatusSensorContext) -> dg.RunRequest:
        return dg.RunRequest(run_key=f"expiry:{name}:{context.dagster_run.run_id}")

    return _sensor


def followed_jobs(backed_up: BackedUp) -> list[str]:
    """Copies of WAL alone come every few minutes and let nothing go."""
    name = backed_up.name
    copies = [replication_job_name(name, tier, thing) for tier, thing in backed_up.copies if thing != WAL_ARCHIVE]
    return copies or [backup_job_name(name, thing) for thing in backed_up.things]


def expiry_sensors(plan: Plan, jobs: Mapping[str, Job]) -> Iterator[dg.SensorDefinition]:
    for backed_up in everything(plan):
        followed = [jobs[name] for name in followed_jobs(backed_up)]
        yield expiry_sensor(backed_up.name, followed, jobs[expiry_job_name(backed_up.name)])
