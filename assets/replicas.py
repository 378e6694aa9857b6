"""Copies of backups, WAL and snapshots on the other tiers, partitioned like what they copy: a backfill copies a range
again."""
# No `from __future__ import annotations` here: Dagster reads the types of decorated functions.

from collections.abc import Iterator

import dagster as dg

from assets.partitions import partitions_of, taken_in
from dr_pipelines.backed_up import BackedUp, everything
from dr_pipelines.metadata import (
    REPLICATION,
    TIER,
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
from dr_pipelines.resources import SiteResource


def pool_of(name: str, tier: str) -> str:
    """One copy at a time to each tier of a server or file set."""
    return f"replication_{identifier(name)}_{tier}"


def replica(plan: Plan, backed_up: BackedUp, tier: str, thing: str, retries: dg.RetryPolicy) -> dg.AssetsDefinition:
    name, partitions = backed_up.name, partitions_of(backed_up, thing)

    @dg.asset(
        key=asset_key(name, replica_of(tier, thing)),
        partitions_def=partitions,
        deps=[asset_key(name, thing)],
        group_name=group_of(name, REPLICATION),
        kinds={store_kind(plan, name, tier)},
        owners=owners(plan),
        tags={**backed_up.tags, "dr/tier": tier},
        pool=pool_of(name, tier),
        description=f"The {thing.replace('_', ' ')} of {name}, copied to its {tier} tier from store to store; every "
        "byte is compared with its SHA-256 on the way. What is there already is not copied again.",
    )
    def _replica(context: dg.AssetExecutionContext, site: SiteResource) -> dg.MaterializeResult[None]:
        with failures(context, retries):
            # Imported here: see resources.py.
            from dr_pipelines import operations

            live, progress = site.site(), LoggedProgress(context.log)
            labels: list[str] = []
            if partitions is not None:
                known = live.owner(name).catalog(live.read_only_repository(name, TIER).store)
                labels = taken_in(partitions, context.partition_key, thing, known.manifests)
                if not labels:
                    raise dg.Failure(
                        f"{TIER} holds no {thing.replace('_', ' ')} of {name} that was begun in "
                        f"{context.partition_key}\nHINT: `{backed_up.lists}` shows what there is.",
                        allow_retries=False,
                    )
            report = operations.replicate(live, name, tier, progress, labels=labels, wal=True)
            return dg.MaterializeResult(metadata=replication_metadata(report))

    return _replica


def replica_assets(plan: Plan, retries: dg.RetryPolicy) -> Iterator[dg.AssetsDefinition]:
    for backed_up in everything(plan):
        for tier, thing in backed_up.copies:
            yield replica(plan, backed_up, tier, thing, retries)
