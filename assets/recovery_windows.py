"""To which instants each tier can bring a server back, as a table and a chart."""
# No `from __future__ import annotations` here: Dagster reads the types of decorated functions.
# With checks among its outputs it knows its own result only by the bare name.

from collections.abc import Iterator

import dagster as dg

from dr_pipelines.backed_up import replicas
from dr_pipelines.checks import together
from dr_pipelines.metadata import (
    FULL_BACKUP,
    HOUR,
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
from dr_pipelines.plan import Plan
from dr_pipelines.report_metadata import windows_metadata
from dr_pipelines.resources import SiteResource

WINDOW_IS_KEPT = "recovery_window_is_kept"


def windows_asset(plan: Plan, server: str, retries: dg.RetryPolicy) -> dg.AssetsDefinition:
    key = asset_key(server, RECOVERY_WINDOWS)
    copied = [replica_of(tier, thing) for tier, thing in replicas(plan.databases[server])]

    @dg.asset(
        key=key,
        deps=[asset_key(server, thing) for thing in (FULL_BACKUP, WAL_ARCHIVE, *copied)],
        group_name=group_of(server, VALIDATION),
        owners=owners(plan),
        tags={"dr/server": server},
        freshness_policy=fresh_within(HOUR),
        description=f"The stretches of time in which any instant of {server} can be restored, tier by tier, with the "
        "gaps and why they are there.",
        check_specs=[
            dg.AssetCheckSpec(
                WINDOW_IS_KEPT, asset=key, description="Any instant within the plan's recovery window can be restored."
            )
        ],
    )
    def _windows(context: dg.AssetExecutionContext, site: SiteResource) -> dg.MaterializeResult:  # type: ignore[type-arg]
        with failures(context, retries):
            # Imported here: see resources.py.
            from dr_pipelines import operations

            live = site.site()
            tiers = operations.recovery_windows(live, server)
            promised = plan.databases[server].retention.recovery_window
            told = windows_metadata(server, tiers, promised=promised, now=live.clock.now())
            kept = together(WINDOW_IS_KEPT, [tier.kept for tier in tiers if tier.kept is not None])
            return dg.MaterializeResult(metadata=told, check_results=[check_result(kept)])

    return _windows


def windows_assets(plan: Plan, retries: dg.RetryPolicy) -> Iterator[dg.AssetsDefinition]:
    for server in plan.databases:
        yield windows_asset(plan, server, retries)
