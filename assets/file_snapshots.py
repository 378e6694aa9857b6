"""Snapshots of the plan's file sets: one operation a body, and its metadata."""
# No `from __future__ import annotations` here: Dagster reads the types of decorated functions.

from collections.abc import Iterator

import dagster as dg

from assets.database_backups import launched_at
from assets.partitions import guard, partitions_of
from dr_pipelines.backed_up import BackedUp, file_sets
from dr_pipelines.file_metadata import file_promises, snapshot_metadata
from dr_pipelines.metadata import (
    FILE_BACKUPS,
    SNAPSHOT,
    TIER,
    LoggedProgress,
    asset_key,
    failures,
    fresh_within,
    group_of,
    identifier,
    owners,
    store_kind,
)
from dr_pipelines.plan import Plan
from dr_pipelines.repository.due import Window
from dr_pipelines.resources import SiteResource


def pool_of(file_set: str) -> str:
    """One snapshot of a file set at a time."""
    return f"files_{identifier(file_set)}"


def snapshot_asset(plan: Plan, backed_up: BackedUp, retries: dg.RetryPolicy) -> dg.AssetsDefinition:
    name, [taken] = backed_up.name, backed_up.taken
    partitions = partitions_of(backed_up, SNAPSHOT)
    assert partitions is not None
    window = "day" if taken.window is Window.DAY else "hour"

    @dg.asset(
        key=asset_key(name, SNAPSHOT),
        partitions_def=partitions,
        group_name=group_of(name, FILE_BACKUPS),
        kinds={"file", store_kind(plan, name)},
        owners=owners(plan),
        tags=backed_up.tags,
        metadata=file_promises(plan, name),
        pool=pool_of(name),
        freshness_policy=fresh_within(taken.schedule.longest_interval),
        description=f"Snapshots of {name}, in the repository on its primary tier. What is as it was is not read again, "
        f"what is known is not stored again. A partition is the {window} in which one is launched: only that of now "
        "can be.",
    )
    def _snapshot(context: dg.AssetExecutionContext, site: SiteResource) -> dg.MaterializeResult[None]:
        guard(partitions, context.partition_key, launched=launched_at(context), now=site.now())
        with failures(context, retries):
            # Imported here: see resources.py.
            from dr_pipelines import operations

            taken = operations.take_snapshot(site.site(), name, LoggedProgress(context.log))
            return dg.MaterializeResult(metadata=snapshot_metadata(taken, TIER))

    return _snapshot


def file_snapshots(plan: Plan, retries: dg.RetryPolicy) -> Iterator[dg.AssetsDefinition]:
    for backed_up in file_sets(plan):
        yield snapshot_asset(plan, backed_up, retries)
