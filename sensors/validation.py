"""Launches the restore of what is to be proven, one at a time of a server, and says when a full was not in time."""
# No `from __future__ import annotations` here: Dagster reads the types of decorated functions.

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

import dagster as dg

from assets.partitions import partition_holding, partitions_of
from dr_pipelines.backed_up import of_server
from dr_pipelines.jobs import Job, validated, validation_job_name
from dr_pipelines.metadata import (
    FULL_BACKUP,
    INCREMENTAL_BACKUP,
    PARTITION,
    UNFINISHED,
    asset_key,
    check_evaluation,
    identifier,
    validated_of,
)
from dr_pipelines.plan import Plan
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.resources import SiteResource

if TYPE_CHECKING:
    from dr_pipelines.operations import ValidationState
    from dr_pipelines.validation.due import DueValidation

INTERVAL_SECONDS = 120


def validation_sensor(plan: Plan, server: str, jobs: Mapping[str, Job]) -> dg.SensorDefinition:
    names = [validation_job_name(server, thing) for thing in validated(plan.databases[server])]

    @dg.sensor(
        name=f"{identifier(server)}_validation",
        description=f"Restores every new full of {server}, and of the incrementals the plan's share, to prove them.",
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        jobs=[jobs[name] for name in names],
    )
    def _sensor(context: dg.SensorEvaluationContext, site: SiteResource) -> dg.SensorResult:
        # Imported here: see resources.py.
        from dr_pipelines import operations

        live = site.site()
        state = operations.look_at_validations(live, server)
        busy = any(context.instance.get_runs_count(dg.RunsFilter(job_name=name, statuses=UNFINISHED)) for name in names)
        requests = [] if busy else [request_for(plan, server, one, live.clock.now()) for one in state.ready[:1]]
        told: str | None = json.loads(context.cursor)["said"] if context.cursor else None
        # A sentence names what is late: another one is news too.
        said = f"{state.check.verdict}: {state.check.summary}"
        key = asset_key(server, validated_of(FULL_BACKUP))
        return dg.SensorResult(
            run_requests=requests,
            asset_events=[check_evaluation(key, state.check)] if said != told else [],
            cursor=json.dumps({"said": said}),
            skip_reason=None if requests else _waits(state, busy=busy),
        )

    return _sensor


def request_for(plan: Plan, server: str, due: "DueValidation", now: datetime) -> dg.RunRequest:
    """A run that failed before it could leave a proof is launched again within the next hour, and no sooner."""
    backup = due.backup
    asked_full = backup.asked_kind is BackupKind.FULL or INCREMENTAL_BACKUP not in validated(plan.databases[server])
    thing = FULL_BACKUP if asked_full else INCREMENTAL_BACKUP
    partitions = partitions_of(of_server(server, plan.databases[server]), thing)
    assert partitions is not None
    config = {"label": backup.label, "tier": due.tier}
    return dg.RunRequest(
        run_key=f"validate:{server}:{backup.label}:{due.tier}:{now:%Y-%m-%dT%H}",
        job_name=validation_job_name(server, thing),
        run_config={"ops": {asset_key(server, validated_of(thing)).to_python_identifier(): {"config": config}}},
        # As a tag: `partition_key` is judged against the partitions as they were when the tick began.
        tags={PARTITION: partition_holding(partitions, backup)},
    )


def _waits(state: "ValidationState", *, busy: bool) -> str:
    if busy:
        return "a validation is under way"
    waiting = [f"{one.backup.label} waits for {one.tier}" for one in state.waiting]
    return "; ".join([*waiting, state.check.summary])


def validation_sensors(plan: Plan, jobs: Mapping[str, Job]) -> Iterator[dg.SensorDefinition]:
    for server in plan.databases:
        yield validation_sensor(plan, server, jobs)
