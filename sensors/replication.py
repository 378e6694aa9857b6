"""Copies what is new to the tiers that the plan sends it to, and says when one is late. A tier that is down delays only
itself."""
# No `from __future__ import annotations` here: Dagster reads the types of decorated functions.

import json
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg

from assets.partitions import partition_holding, partitions_of
from dr_pipelines.backed_up import BackedUp, everything, thing_of
from dr_pipelines.checks import CheckResult
from dr_pipelines.errors import DrError
from dr_pipelines.jobs import Job, replication_job_name
from dr_pipelines.metadata import (
    PARTITION,
    UNFINISHED,
    WAL_ARCHIVE,
    asset_key,
    check_evaluation,
    identifier,
    replica_of,
)
from dr_pipelines.plan import Plan
from dr_pipelines.resources import SiteResource

if TYPE_CHECKING:
    from dr_pipelines.operations import ReplicaState

INTERVAL_SECONDS = 60
AGAIN_EVERY_MINUTES = 10
"""A copy that failed is tried again this often, and no more: its tier may be down for hours."""
LEFT_TO_THE_STREAM = timedelta(minutes=2)
"""WAL that is younger may be on its way: the stream itself ships to every tier of the plan's `wal.tiers`."""


def replication_sensor(backed_up: BackedUp, jobs: Mapping[str, Job]) -> dg.SensorDefinition:
    name, tiers = backed_up.name, backed_up.copied_to
    what = "snapshots" if backed_up.is_files else "backups and WAL"

    @dg.sensor(
        name=f"{identifier(name)}_replication",
        description=f"Copies new {what} of {name} to {' and '.join(tiers)}.",
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        jobs=[jobs[replication_job_name(name, tier, thing)] for tier, thing in backed_up.copies],
    )
    def _sensor(context: dg.SensorEvaluationContext, site: SiteResource) -> dg.SensorResult:
        # Imported here: see resources.py.
        from dr_pipelines import operations

        told: dict[str, str] = json.loads(context.cursor or "{}")
        requests: list[dg.RunRequest] = []
        checks: dict[str, CheckResult] = {}
        live = site.site()
        for tier in tiers:
            try:
                state = operations.look_at_replica(live, name, tier)
                requests += due_runs(backed_up, state, live.clock.now())
                checks[tier] = state.check
            except DrError as error:  # the other tiers must not wait for this one
                checks[tier] = operations.unseen_replica(tier, error)
        fresh = [request for request in requests if not _runs(context.instance, request)]
        said = {tier: str(check.verdict) for tier, check in checks.items()}
        return dg.SensorResult(
            run_requests=fresh,
            # A tier that is down fails its copies, and a failed copy evaluates no check: the alarm must come from here.
            asset_events=[
                check_evaluation(asset_key(name, replica_of(tier, backed_up.first)), checks[tier])
                for tier in tiers
                if said[tier] != told.get(tier)
            ],
            cursor=json.dumps(said),
            skip_reason=None if fresh else "; ".join(check.summary for check in checks.values()),
        )

    return _sensor


def due_runs(backed_up: BackedUp, state: "ReplicaState", now: datetime) -> Iterator[dg.RunRequest]:
    """What must be copied to a tier now. WAL goes along with a backup; alone it is copied when it waits."""
    tier = state.lag.tier
    asked_for: set[tuple[str, str]] = set()
    for manifest in state.due:
        thing = thing_of(manifest)
        if thing not in backed_up.things or (tier, thing) not in backed_up.copies:
            thing = backed_up.first
        partitions = partitions_of(backed_up, thing)
        assert partitions is not None
        key = partition_holding(partitions, manifest)
        if (thing, key) not in asked_for:
            asked_for.add((thing, key))
            yield _request(backed_up.name, tier, thing, key, now)
    if not state.due and state.lag.wal_behind and state.lag.lag >= LEFT_TO_THE_STREAM:
        yield _request(backed_up.name, tier, WAL_ARCHIVE, None, now)


def _request(name: str, tier: str, thing: str, partition: str | None, now: datetime) -> dg.RunRequest:
    attempt = f"{now:%Y-%m-%dT%H}:{now.minute // AGAIN_EVERY_MINUTES}"
    return dg.RunRequest(
        run_key=f"{name}:{tier}:{thing}:{partition}:{attempt}",
        job_name=replication_job_name(name, tier, thing),
        # As a tag: `partition_key` is judged against the partitions as they were when the tick began.
        tags={} if partition is None else {PARTITION: partition},
    )


def _runs(instance: dg.DagsterInstance, request: dg.RunRequest) -> bool:
    """Whether a run for the same is under way."""
    tags = {PARTITION: request.tags[PARTITION]} if PARTITION in (request.tags or {}) else {}
    wanted = dg.RunsFilter(job_name=request.job_name, statuses=UNFINISHED, tags=tags)
    return bool(instance.get_runs_count(wanted))


def replication_sensors(plan: Plan, jobs: Mapping[str, Job]) -> Iterator[dg.SensorDefinition]:
    for backed_up in everything(plan):
        if backed_up.copies:
            yield replication_sensor(backed_up, jobs)
