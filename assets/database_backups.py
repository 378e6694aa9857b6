"""Full and incremental backups of the plan's servers: one operation a body, and its metadata."""
# No `from __future__ import annotations` here: Dagster reads the types of decorated functions.

from collections.abc import Iterator

import dagster as dg

from assets.partitions import DAILY, HOURLY, guard
from dr_pipelines.metadata import (
    DATABASE_BACKUPS,
    FULL_BACKUP,
    INCREMENTAL_BACKUP,
    LoggedProgress,
    asset_key,
    backup_metadata,
    failures,
    identifier,
)
from dr_pipelines.plan import Plan
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.resources import SiteResource

# Only transient errors reach it: `failures` says so for every other.
RETRIES = dg.RetryPolicy(max_retries=3, delay=20, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)


def pool_of(server: str) -> str:
    """One server has one backup at a time: the instance's limit of a pool is 1."""
    return f"postgres_{identifier(server)}"


def backup_asset(
    server: str, thing: str, kind: BackupKind, partitions: dg.TimeWindowPartitionsDefinition, *, deps: list[dg.AssetKey]
) -> dg.AssetsDefinition:
    @dg.asset(
        key=asset_key(server, thing),
        partitions_def=partitions,
        deps=deps,
        group_name=DATABASE_BACKUPS,
        kinds={"postgres"},
        pool=pool_of(server),
        retry_policy=RETRIES,
        description=f"A {kind} base backup of {server}, in the repository on its primary tier. "
        "A partition is the time in which the backup is taken; only the one of now can be.",
    )
    def _backup(context: dg.AssetExecutionContext, site: SiteResource) -> dg.MaterializeResult[None]:
        guard(partitions, context.partition_key, site.now())
        with failures():
            # Imported here: see resources.py.
            from dr_pipelines import operations

            manifest = operations.take_backup(site.site(), server, kind, LoggedProgress(context.log))
            return dg.MaterializeResult(metadata=backup_metadata(manifest, "primary"))

    return _backup


def database_backups(plan: Plan) -> Iterator[dg.AssetsDefinition]:
    for server, asked in plan.databases.items():
        yield backup_asset(server, FULL_BACKUP, BackupKind.FULL, DAILY, deps=[])
        if asked.schedule.incremental is not None:
            yield backup_asset(
                server,
                INCREMENTAL_BACKUP,
                BackupKind.INCREMENTAL,
                HOURLY,
                deps=[asset_key(server, FULL_BACKUP)],
            )
