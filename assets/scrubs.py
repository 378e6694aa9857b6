"""A tier read whole against its digests, and repaired from the others."""
# No `from __future__ import annotations` here: Dagster reads the types of decorated functions.
# With checks among its outputs it knows its own result only by the bare name.

from collections.abc import Iterator

import dagster as dg

from dr_pipelines.metadata import (
    VALIDATION,
    LoggedProgress,
    asset_key,
    check_result,
    failures,
    group_of,
    identifier,
    owners,
    scrub_of,
    store_kind,
)
from dr_pipelines.plan import Plan
from dr_pipelines.report_metadata import scrub_metadata
from dr_pipelines.resources import SiteResource

OBJECTS_MATCH = "objects_match_their_digests"


def scrub_asset(plan: Plan, server: str, tier: str, retries: dg.RetryPolicy) -> dg.AssetsDefinition:
    key = asset_key(server, scrub_of(tier))

    @dg.asset(
        key=key,
        group_name=group_of(server, VALIDATION),
        kinds={store_kind(plan, server, tier)},
        owners=owners(plan),
        tags={"dr/server": server, "dr/tier": tier},
        pool=f"scrub_{identifier(server)}_{tier}",
        description=f"Every object of {server} on its {tier} tier, read against its SHA-256. What is damaged or "
        "missing is repaired from another tier; what none can repair is named, and no restore picks it.",
        check_specs=[
            dg.AssetCheckSpec(
                OBJECTS_MATCH,
                asset=key,
                description=f"Every object on {tier} was read, and nothing is left damaged.",
            )
        ],
    )
    def _scrub(context: dg.AssetExecutionContext, site: SiteResource) -> dg.MaterializeResult:  # type: ignore[type-arg]
        with failures(context, retries):
            # Imported here: see resources.py.
            from dr_pipelines import operations

            report = operations.scrub(site.site(), tier, LoggedProgress(context.log), server=server)
            return dg.MaterializeResult(metadata=scrub_metadata(report), check_results=[check_result(report.check)])

    return _scrub


def scrub_assets(plan: Plan, retries: dg.RetryPolicy) -> Iterator[dg.AssetsDefinition]:
    for server, asked in plan.databases.items():
        for tier, _ in asked.storage.items():
            yield scrub_asset(plan, server, tier, retries)
