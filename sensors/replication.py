"""Copies what is new to the tiers that the plan sends it to, and says when one is late. A tier that is down delays only
itself."""
# No `from __future__ import annotations` here: Dagster reads the types of decorated functions.

import json
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg

from assets.replicas import partition_holding, partitions_of
from dr_pipelines.checks import CheckResult
from dr_pipelines.errors import DrError
from dr_pipelines.jobs import Job, replicas, replication_job_name
from dr_pipelines.metadata import (
    FULL_BACKUP,
    INCREMENTAL_BACKUP,
    PARTITION,
    UNFINISHED,
    WAL_ARCHIVE,
    asset_key,
    check_evaluation,
    identifier,
    replica_of,
)
from dr_pipelines.plan import Plan
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.resources import SiteResource

if TYPE_CHECKING:
    from dr_pipelines.operations import ReplicaState

INTERVAL_SECONDS = 60
AGAIN_EVERY_MINUTES = 10
"""A copy that failed is tried again this often, and no more: its tier may be down for hours."""
LEFT_TO_THE_STREAM = timedelta(minutes=2)
"""WAL that is younger may be on its way: the stream itself ships to every tier of the plan's `wal.tiers`."""
_THINGS = {BackupKind.FULL: FULL_BACKUP, BackupKind.INCREMENTAL: INCREMENTAL_BACKUP}


def replication_sensor(plan: Plan, server: str, jobs: Mapping[str, Job]) -> dg.SensorDefinition:
    asked = plan.databases[server]
    sent = [*replicas(asked)]
    tiers = list(dict.fromkeys(tier for tier, _ in sent))

    @dg.sensor(
        name=f"{identifier(server)}_replication",
        description=f"Copies new backups and WAL of {server} to {' and '.join(tiers)}.",
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        jobs=[jobs[replication_job_name(server, tier, thing)] for tier, thing in sent],
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
                state = operations.look_at_replica(live, server, tier)
                requests += due_runs(plan, server, state, live.clock.now())
                checks[tier] = state.check
            except DrError as error:  # the other tiers must not wait for this one
                checks[tier] = operations.unseen_replica(tier, error)
        fresh = [request for request in requests if not _runs(context.instance, request)]
        said = {tier: str(check.verdict) for tier, check in checks.items()}
        return dg.SensorResult(
            run_requests=fresh,
            # A tier that is down fails its copies, and a failed copy evaluates no check: the alarm must come from here.
            asset_events=[
                check_evaluation(asset_key(server, replica_of(tier, FULL_BACKUP)), checks[tier])
                for tier in tiers
                if said[tier] != told.get(tier)
            ],
            cursor=json.dumps(said),
            skip_reason=None if fresh else "; ".join(check.summary for check in checks.values()),
        )

    return _sensor


def due_runs(plan: Plan, server: str, state: "ReplicaState", now: datetime) -> Iterator[dg.RunRequest]:
    """What must be copied to a tier now. WAL goes along with a backup; alone it is copied when it waits."""
    tier = state.lag.tier
    asked_for: set[tuple[str, str]] = set()
    for backup in state.due:
        assert isinstance(backup, BackupManifest)
        thing = _THINGS[backup.asked_kind]
        partitions = partitions_of(plan, server, thing)
        if partitions is None or (tier, thing) not in [*replicas(plan.databases[server])]:
            thing, partitions = FULL_BACKUP, partitions_of(plan, server, FULL_BACKUP)
        assert partitions is not None
        key = partition_holding(partitions, backup)
        if (thing, key) not in asked_for:
            asked_for.add((thing, key))
            yield _request(server, tier, thing, key, now)
    if not state.due and state.lag.wal_behind and state.lag.lag >= LEFT_TO_THE_STREAM:
        yield _request(server, tier, WAL_ARCHIVE, None, now)


def _request(server: str, tier: str, thing: str, partition: str | None, now: datetime) -> dg.RunRequest:
    attempt = f"{now:%Y-%m-%dT%H}:{now.minute // AGAIN_EVERY_MINUTES}"
    return dg.RunRequest(
        run_key=f"{server}:{tier}:{thing}:{partition}:{attempt}",
        job_name=replication_job_name(server, tier, thing),
        # As a tag: `partition_key` is judged against the partitions as they were when the tick began.
        tags={} if partition is None else {PARTITION: partition},
    )


def _runs(instance: dg.DagsterInstance, request: dg.RunRequest) -> bool:
    """Whether a run for the same is under way."""
    tags = {PARTITION: request.tags[PARTITION]} if PARTITION in (request.tags or {}) else {}
    wanted = dg.RunsFilter(job_name=request.job_name, statuses=UNFINISHED, tags=tags)
    return bool(instance.get_runs_count(wanted))


def replication_sensors(plan: Plan, jobs: Mapping[str, Job]) -> Iterator[dg.SensorDefinition]:
    for server, asked in plan.databases.items():
        if any(replicas(asked)):
            yield replication_sensor(plan, server, jobs)
