"""A tier read whole against its digests, and repaired from the others."""
# No `from __future__ import annotations` here: Dagster reads the types of decorated functions.
# With checks among its outputs it knows its own result only by the bare name.

from collections.abc import Iterator

import dagster as dg

from dr_pipelines.backed_up import BackedUp, everything
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


def scrub_asset(plan: Plan, backed_up: BackedUp, tier: str, retries: dg.RetryPolicy) -> dg.AssetsDefinition:
    name = backed_up.name
    key = asset_key(name, scrub_of(tier))

    @dg.asset(
        key=key,
        group_name=group_of(name, VALIDATION),
        kinds={store_kind(plan, name, tier)},
        owners=owners(plan),
        tags={**backed_up.tags, "dr/tier": tier},
        pool=f"scrub_{identifier(name)}_{tier}",
        description=f"Every object of {name} on its {tier} tier, read against its SHA-256. What is damaged or "
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

            report = operations.scrub(site.site(), tier, LoggedProgress(context.log), server=name)
            return dg.MaterializeResult(metadata=scrub_metadata(report), check_results=[check_result(report.check)])

    return _scrub


def scrub_assets(plan: Plan, retries: dg.RetryPolicy) -> Iterator[dg.AssetsDefinition]:
    for backed_up in everything(plan):
        for tier in backed_up.tiers:
            yield scrub_asset(plan, backed_up, tier, retries)
