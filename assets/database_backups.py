"""Full and incremental backups of the plan's servers: one operation a body, and its metadata."""
# No `from __future__ import annotations` here: Dagster reads the types of decorated functions.

from collections.abc import Iterator
from datetime import datetime

import dagster as dg

from assets.partitions import daily, guard, hourly
from dr_pipelines.metadata import (
    DATABASE_BACKUPS,
    FULL_BACKUP,
    INCREMENTAL_BACKUP,
    TIER,
    LoggedProgress,
    asset_key,
    backup_metadata,
    exposure_metadata,
    failures,
    fresh_within,
    group_of,
    identifier,
    owners,
    promises,
    store_kind,
)
from dr_pipelines.plan import Plan
from dr_pipelines.repository.due import exposure
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.resources import SiteResource

# Of transient errors, within the run.
RETRIES = dg.RetryPolicy(max_retries=3, delay=20, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)


def pool_of(server: str) -> str:
    """One server has one backup at a time: the instance's limit of a pool is 1."""
    return f"postgres_{identifier(server)}"


AUTOMATIC_RETRY = "dagster/retry_number"
"""Dagster's tag of a run that it made anew, because the process of the run before it was lost."""


def launched_at(context: dg.AssetExecutionContext) -> datetime:
    """When the run was made, which is before it waited in the queue; of one that Dagster made anew, the first run."""
    run = context.run
    launched = run.root_run_id if AUTOMATIC_RETRY in run.tags and run.root_run_id else run.run_id
    record = context.instance.get_run_record_by_id(launched)
    if record is None:
        raise dg.Failure(f"run {launched} is not in the instance's storage", allow_retries=False)
    made: datetime = record.create_timestamp
    return made


def backup_asset(
    plan: Plan, server: str, kind: BackupKind, *, deps: list[dg.AssetKey], retries: dg.RetryPolicy
) -> dg.AssetsDefinition:
    asked = plan.databases[server]
    full = kind is BackupKind.FULL
    partitions = daily(asked.since) if full else hourly(asked.since)
    schedule = asked.schedule.full if full else asked.schedule.incremental
    assert schedule is not None

    @dg.asset(
        key=asset_key(server, FULL_BACKUP if full else INCREMENTAL_BACKUP),
        partitions_def=partitions,
        deps=deps,
        group_name=group_of(server, DATABASE_BACKUPS),
        kinds={"postgres", store_kind(plan, server)},
        owners=owners(plan),
        tags={"dr/server": server},
        metadata=promises(plan, server, kind),
        pool=pool_of(server),
        freshness_policy=fresh_within(schedule.longest_interval),
        description=f"{str(kind).capitalize()} base backups of {server}, in the repository on its primary tier. "
        f"A partition is the {'day' if full else 'hour'} in which a backup is launched: only that of now can be.",
    )
    def _backup(context: dg.AssetExecutionContext, site: SiteResource) -> dg.MaterializeResult[None]:
        guard(partitions, context.partition_key, launched=launched_at(context), now=site.now())
        with failures(context, retries):
            # Imported here: see resources.py.
            from dr_pipelines import operations

            live = site.site()
            # Before, not after: trouble with the store must not make a good backup's run fail and be tried again.
            earlier = live.repository(server, TIER).backups(server)
            taken = operations.take_backup(live, server, kind, LoggedProgress(context.log))
            metadata = backup_metadata(taken, TIER)
            if isinstance(taken, BackupManifest):
                metadata |= exposure_metadata(exposure(earlier, taken))
            return dg.MaterializeResult(metadata=metadata)

    return _backup


def database_backups(plan: Plan, retries: dg.RetryPolicy = RETRIES) -> Iterator[dg.AssetsDefinition]:
    for server, asked in plan.databases.items():
        yield backup_asset(plan, server, BackupKind.FULL, deps=[], retries=retries)
        if asked.schedule.incremental is not None:
            full = asset_key(server, FULL_BACKUP)
            yield backup_asset(plan, server, BackupKind.INCREMENTAL, deps=[full], retries=retries)
