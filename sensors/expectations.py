"""After each backup, in a run of its own: what it left is held against expectations. The backup's run does not wait for
it, and Great Expectations alone takes longer to load than a small backup to take."""
# No `from __future__ import annotations` here: Dagster reads the types of decorated functions.

from collections.abc import Iterator, Mapping

import dagster as dg

from dr_pipelines.jobs import Job, backups_of, expectations_job_name
from dr_pipelines.metadata import asset_key
from dr_pipelines.plan import Plan

INTERVAL_SECONDS = 30


def expectations_sensor(server: str, thing: str, jobs: Mapping[str, Job]) -> dg.SensorDefinition:
    name = expectations_job_name(server, thing)

    @dg.asset_sensor(
        asset_key=asset_key(server, thing),
        name=name,
        job=jobs[name],
        description=f"Holds each {thing.replace('_', ' ')} of {server} against expectations.",
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def _sensor(context: dg.SensorEvaluationContext, asset_event: dg.EventLogEntry) -> dg.RunRequest:
        return dg.RunRequest(run_key=f"{name}:{asset_event.run_id}")

    return _sensor


def expectation_sensors(plan: Plan, jobs: Mapping[str, Job]) -> Iterator[dg.SensorDefinition]:
    for server, asked in plan.databases.items():
        for thing in backups_of(asked):
            yield expectations_sensor(server, thing, jobs)
