"""Snapshots of the plan's file sets, and polls between them: one operation a body, and its metadata."""
# No `from __future__ import annotations` here: Dagster reads the types of decorated functions.

from collections.abc import Iterator

import dagster as dg

from assets.database_backups import launched_at
from assets.partitions import guard, partitions_of
from dr_pipelines.backed_up import BackedUp, file_sets
from dr_pipelines.file_metadata import file_promises, poll_metadata, poll_promises, snapshot_metadata
from dr_pipelines.metadata import (
    FILE_BACKUPS,
    POLL,
    SNAPSHOT,
    TIER,
    LoggedProgress,
    asset_key,
    exposure_metadata,
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
    """One snapshot or poll of a file set at a time."""
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

            live = site.site()
            # Before, not after: trouble with the store must not make a good snapshot's run fail and be tried again.
            before = operations.exposure_on(live, name, TIER)
            taken = operations.take_snapshot(live, name, LoggedProgress(context.log))
            until = before.recoverable_until
            exposed = exposure_metadata(None if until is None else taken.finished_at - until)
            return dg.MaterializeResult(metadata=snapshot_metadata(taken, TIER) | exposed)

    return _snapshot


def poll_asset(plan: Plan, backed_up: BackedUp, retries: dg.RetryPolicy) -> dg.AssetsDefinition:
    name = backed_up.name

    @dg.asset(
        key=asset_key(name, POLL),
        group_name=group_of(name, FILE_BACKUPS),
        kinds={"file", store_kind(plan, name)},
        owners=owners(plan),
        tags=backed_up.tags,
        metadata=poll_promises(plan, name),
        pool=pool_of(name),
        description=f"What rows say is new or changed in {name} between two snapshots, copied before it is overwritten."
        " A sensor looks, and asks for a run when there is something to copy. It is observed at times also when there "
        "is not: `rpo_exposure_seconds` is how long ago every committed row had its file in the newest snapshot.",
    )
    def _poll(context: dg.AssetExecutionContext, site: SiteResource) -> dg.MaterializeResult[None]:
        with failures(context, retries):
            # Imported here: see resources.py.
            from dr_pipelines import operations

            live = site.site()
            polled = operations.poll(live, name, LoggedProgress(context.log), wait=True)
            metadata = poll_metadata(polled.at, polled.changed, polled.exposed)
            if polled.snapshot is not None:
                metadata |= snapshot_metadata(polled.snapshot, TIER)
            return dg.MaterializeResult(metadata=metadata)

    return _poll


def file_snapshots(plan: Plan, retries: dg.RetryPolicy) -> Iterator[dg.AssetsDefinition]:
    for backed_up in file_sets(plan):
        yield snapshot_asset(plan, backed_up, retries)
        if backed_up.polled_every is not None:
            yield poll_asset(plan, backed_up, retries)
