"""What retention keeps of each tier, and why; and the removal of the rest."""
# No `from __future__ import annotations` here: Dagster reads the types of decorated functions.
# With checks among its outputs it knows its own result only by the bare name.

from collections.abc import Iterator

import dagster as dg

from dr_pipelines.backed_up import BackedUp, everything
from dr_pipelines.checks import together
from dr_pipelines.errors import DrError
from dr_pipelines.metadata import (
    EXPIRY,
    RETENTION,
    RETENTION_PLAN,
    LoggedProgress,
    asset_key,
    check_result,
    failures,
    group_of,
    identifier,
    owners,
    replica_of,
)
from dr_pipelines.plan import Plan
from dr_pipelines.report_metadata import applied_metadata, retention_metadata
from dr_pipelines.resources import SiteResource

RETENTION_IS_APPLIED = "retention_is_applied"


class ExpiryConfig(dg.Config):
    """`yes`: remove also more than the plan's largest share, as `dr retention apply --yes` does."""

    yes: bool = False


def retention_plan(plan: Plan, backed_up: BackedUp, retries: dg.RetryPolicy) -> dg.AssetsDefinition:
    name = backed_up.name

    @dg.asset(
        key=asset_key(name, RETENTION_PLAN),
        deps=[asset_key(name, replica_of(tier, thing)) for tier, thing in backed_up.copies],
        group_name=group_of(name, RETENTION),
        owners=owners(plan),
        tags=backed_up.tags,
        description=f"Which {backed_up.noun}s of {name} each tier keeps and which it lets go, with reasons. "
        "Removes nothing.",
    )
    def _plan(context: dg.AssetExecutionContext, site: SiteResource) -> dg.MaterializeResult[None]:
        with failures(context, retries):
            # Imported here: see resources.py.
            from dr_pipelines import operations

            live = site.site()
            tables, unread = [], {}
            for tier in live.tiers(name):
                try:
                    tables.append(operations.plan_retention(live, name, tier))
                except DrError as error:  # the other tiers must not wait for this one
                    unread[tier] = error
            if not tables:
                raise next(iter(unread.values()))
            told = {tier: error.message for tier, error in unread.items()}
            return dg.MaterializeResult(metadata=retention_metadata(tables, told))

    return _plan


def expiry(plan: Plan, backed_up: BackedUp, retries: dg.RetryPolicy) -> dg.AssetsDefinition:
    name = backed_up.name
    key = asset_key(name, EXPIRY)

    @dg.asset(
        key=key,
        deps=[asset_key(name, RETENTION_PLAN)],
        group_name=group_of(name, RETENTION),
        owners=owners(plan),
        tags=backed_up.tags,
        pool=f"expiry_{identifier(name)}",
        description=f"Lets go what the plan no longer keeps of {name}, and prunes what was let go before the grace "
        "period. `dr retention undo` brings back what is not pruned yet. What stays moves "
        "to the storage class of its age.",
        check_specs=[
            dg.AssetCheckSpec(
                RETENTION_IS_APPLIED, asset=key, description="Nothing stops expiry: what the plan lets go can go."
            )
        ],
    )
    def _expiry(context: dg.AssetExecutionContext, config: ExpiryConfig, site: SiteResource) -> dg.MaterializeResult:  # type: ignore[type-arg]
        with failures(context, retries):
            # Imported here: see resources.py.
            from dr_pipelines import operations

            live, progress = site.site(), LoggedProgress(context.log)
            reports, aged, unread = [], [], {}
            for tier in live.tiers(name):
                try:
                    operations.prove_if_stale(live, name, tier, progress)
                    reports.append(operations.apply_retention(live, name, tier, progress, yes=config.yes))
                    aged.append(operations.age_storage(live, name, tier, progress))
                except DrError as error:  # the other tiers must not wait for this one
                    unread[tier] = error
                    context.log.error(f"{tier}: {error}")
            if unread:
                raise next(iter(unread.values()))
            done = together(RETENTION_IS_APPLIED, [report.check for report in reports])
            return dg.MaterializeResult(metadata=applied_metadata(reports, aged), check_results=[check_result(done)])

    return _expiry


def retention_assets(plan: Plan, retries: dg.RetryPolicy) -> Iterator[dg.AssetsDefinition]:
    for backed_up in everything(plan):
        yield retention_plan(plan, backed_up, retries)
        yield expiry(plan, backed_up, retries)
