"""Copies of backups and WAL on the other tiers, partitioned like what they copy: a backfill copies a range again."""
# No `from __future__ import annotations` here: Dagster reads the types of decorated functions.

from collections.abc import Iterator, Sequence

import dagster as dg

from assets.partitions import daily, hourly, partition_of
from dr_pipelines.jobs import replicas
from dr_pipelines.metadata import (
    FULL_BACKUP,
    INCREMENTAL_BACKUP,
    REPLICATION,
    TIER,
    WAL_ARCHIVE,
    LoggedProgress,
    asset_key,
    failures,
    group_of,
    identifier,
    owners,
    replica_of,
    store_kind,
)
from dr_pipelines.plan import Plan
from dr_pipelines.report_metadata import replication_metadata
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.resources import SiteResource

KINDS = {FULL_BACKUP: BackupKind.FULL, INCREMENTAL_BACKUP: BackupKind.INCREMENTAL}


def pool_of(server: str, tier: str) -> str:
    """One copy at a time to each tier of a server."""
    return f"replication_{identifier(server)}_{tier}"


def partitions_of(plan: Plan, server: str, thing: str) -> dg.TimeWindowPartitionsDefinition | None:
    since = plan.databases[server].since
    return {FULL_BACKUP: daily(since), INCREMENTAL_BACKUP: hourly(since)}.get(thing)


def partition_holding(partitions: dg.TimeWindowPartitionsDefinition, backup: BackupManifest) -> str:
    return partition_of(partitions, backup.started_at)


def taken_in(
    partitions: dg.TimeWindowPartitionsDefinition, key: str, thing: str, backups: Sequence[BackupManifest]
) -> list[str]:
    """Labels of the backups that were begun in a partition, by what was asked for."""
    return [
        backup.label
        for backup in backups
        if backup.asked_kind is KINDS[thing] and partition_holding(partitions, backup) == key
    ]


def replica(plan: Plan, server: str, tier: str, thing: str, retries: dg.RetryPolicy) -> dg.AssetsDefinition:
    partitions = partitions_of(plan, server, thing)

    @dg.asset(
        key=asset_key(server, replica_of(tier, thing)),
        partitions_def=partitions,
        deps=[asset_key(server, thing)],
        group_name=group_of(server, REPLICATION),
        kinds={store_kind(plan, server, tier)},
        owners=owners(plan),
        tags={"dr/server": server, "dr/tier": tier},
        pool=pool_of(server, tier),
        description=f"The {thing.replace('_', ' ')} of {server}, copied to its {tier} tier from store to store; every "
        "byte is compared with its SHA-256 on the way. What is there already is not copied again.",
    )
    def _replica(context: dg.AssetExecutionContext, site: SiteResource) -> dg.MaterializeResult[None]:
        with failures(context, retries):
            # Imported here: see resources.py.
            from dr_pipelines import operations

            live, progress = site.site(), LoggedProgress(context.log)
            if partitions is None:
                report = operations.replicate(live, server, tier, progress, labels=[], wal=True)
                return dg.MaterializeResult(metadata=replication_metadata(report))
            backups = live.read_only_repository(server, TIER).backups(server)
            labels = taken_in(partitions, context.partition_key, thing, backups)
            if not labels:
                raise dg.Failure(
                    f"{TIER} holds no {thing.replace('_', ' ')} of {server} that was begun in {context.partition_key}"
                    f"\nHINT: `dr list {server}` shows what there is.",
                    allow_retries=False,
                )
            report = operations.replicate(live, server, tier, progress, labels=labels, wal=True)
            return dg.MaterializeResult(metadata=replication_metadata(report))

    return _replica


def replica_assets(plan: Plan, retries: dg.RetryPolicy) -> Iterator[dg.AssetsDefinition]:
    for server, asked in plan.databases.items():
        for tier, thing in replicas(asked):
            yield replica(plan, server, tier, thing, retries)


__all__ = ["WAL_ARCHIVE", "partition_holding", "replica_assets"]
