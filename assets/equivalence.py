"""Full and incrementals merged, against full and WAL: whether incrementals may be trusted."""
# No `from __future__ import annotations` here: Dagster reads the types of decorated functions.
# With checks among its outputs it knows its own result only by the bare name.

from collections.abc import Iterator

import dagster as dg

from dr_pipelines.metadata import (
    EQUIVALENCE,
    INCREMENTAL_BACKUP,
    VALIDATION,
    LoggedProgress,
    asset_key,
    check_result,
    failures,
    group_of,
    identifier,
    owners,
    store_kind,
)
from dr_pipelines.plan import Plan
from dr_pipelines.report_metadata import equivalence_metadata
from dr_pipelines.resources import SiteResource

INCREMENTALS_ARE_EQUIVALENT = "incrementals_are_equivalent"


def equivalence_asset(plan: Plan, server: str, retries: dg.RetryPolicy) -> dg.AssetsDefinition:
    key = asset_key(server, EQUIVALENCE)

    @dg.asset(
        key=key,
        deps=[asset_key(server, INCREMENTAL_BACKUP)],
        group_name=group_of(server, VALIDATION),
        kinds={"postgres", store_kind(plan, server)},
        owners=owners(plan),
        tags={"dr/server": server},
        pool=f"equivalence_{identifier(server)}",
        description=f"The newest incremental of {server} and its chain, restored merged and once more by WAL alone, "
        "and compared page by page. Where they differ, no restore uses the incrementals any more, and a full is taken.",
        check_specs=[
            dg.AssetCheckSpec(
                INCREMENTALS_ARE_EQUIVALENT,
                asset=key,
                description="Full and incrementals, merged, give every page that full and WAL give.",
            )
        ],
    )
    def _equivalence(context: dg.AssetExecutionContext, site: SiteResource) -> dg.MaterializeResult:  # type: ignore[type-arg]
        with failures(context, retries):
            # Imported here: see resources.py.
            from dr_pipelines import operations

            report = operations.prove_incrementals(site.site(), server, LoggedProgress(context.log))
            return dg.MaterializeResult(
                metadata=equivalence_metadata(report), check_results=[check_result(report.check)]
            )

    return _equivalence


def equivalence_assets(plan: Plan, retries: dg.RetryPolicy) -> Iterator[dg.AssetsDefinition]:
    for server, asked in plan.databases.items():
        if asked.schedule.incremental is not None:
            yield equivalence_asset(plan, server, retries)
