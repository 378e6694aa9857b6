"""The plan's RPO and RTO, each held against what was measured."""
# No `from __future__ import annotations` here: Dagster reads the types of decorated functions.
# With checks among its outputs it knows its own result only by the bare name.

from collections.abc import Iterator

import dagster as dg

from dr_pipelines.backed_up import replicas
from dr_pipelines.jobs import promises_of
from dr_pipelines.metadata import (
    FULL_BACKUP,
    HOUR,
    OBJECTIVES,
    RECOVERY_WINDOWS,
    VALIDATION,
    WAL_ARCHIVE,
    asset_key,
    check_result,
    failures,
    fresh_within,
    group_of,
    owners,
    replica_of,
)
from dr_pipelines.objectives.promises import Promise
from dr_pipelines.plan import Plan
from dr_pipelines.plan.values import format_duration
from dr_pipelines.report_metadata import objectives_metadata
from dr_pipelines.resources import SiteResource


def objectives_asset(plan: Plan, server: str, asked: list[Promise], retries: dg.RetryPolicy) -> dg.AssetsDefinition:
    key = asset_key(server, OBJECTIVES)
    copied = [replica_of(tier, thing) for tier, thing in replicas(plan.databases[server])]

    @dg.asset(
        key=key,
        deps=[asset_key(server, thing) for thing in (FULL_BACKUP, WAL_ARCHIVE, RECOVERY_WINDOWS, *copied)],
        group_name=group_of(server, VALIDATION),
        owners=owners(plan),
        tags={"dr/server": server},
        freshness_policy=fresh_within(HOUR),
        description=f"What would be lost of {server}, and how long its recovery takes, against what the plan promises. "
        "A sensor looks every five minutes; a run shows the numbers over time.",
        check_specs=[dg.AssetCheckSpec(one.check, asset=key, description=_told(one)) for one in asked],
    )
    def _objectives(context: dg.AssetExecutionContext, site: SiteResource) -> dg.MaterializeResult:  # type: ignore[type-arg]
        with failures(context, retries):
            # Imported here: see resources.py.
            from dr_pipelines import operations

            found = operations.measure_objectives(site.site(), asked)
            return dg.MaterializeResult(
                metadata=objectives_metadata(found), check_results=[check_result(line.check) for line in found.lines]
            )

    return _objectives


def _told(promise: Promise) -> str:
    promised = format_duration(promise.promised)
    if promise.table == "rpo":
        return f"Of {promise.name} no more than {promised} would be lost now, as the stores and the server say."
    return f"{promise.name} is back within {promised}, by the slowest of the latest restores that were measured."


def objectives_assets(plan: Plan, retries: dg.RetryPolicy) -> Iterator[dg.AssetsDefinition]:
    for server in plan.databases:
        if asked := promises_of(plan, server):
            yield objectives_asset(plan, server, asked, retries)
