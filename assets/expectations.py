"""Checks against expectations: manifest and catalog of backups as tables, each backup beside those before it; the table
of a snapshot of files."""
# No `from __future__ import annotations` here: Dagster reads the types of decorated functions.

from collections.abc import Iterator, Mapping

import dagster as dg

from dr_pipelines.backed_up import BackedUp, everything
from dr_pipelines.checks import CheckResult, not_proven
from dr_pipelines.errors import DrError
from dr_pipelines.jobs import expectations_of
from dr_pipelines.metadata import FULL_BACKUP, TIER, asset_key, check_result, identifier
from dr_pipelines.plan import Plan
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.resources import SiteResource


def judge(resource: SiteResource, backed_up: BackedUp, thing: str) -> Mapping[str, CheckResult]:
    """The newest of its kind, by the name of the check. Raises what the store raises."""
    # Imported here: see resources.py.
    from dr_pipelines import operations

    if backed_up.is_files:
        return operations.judge_snapshot(resource.site(), backed_up.name)
    kind = BackupKind.FULL if thing == FULL_BACKUP else BackupKind.INCREMENTAL
    return operations.judge_catalog(resource.site(), backed_up.name, TIER, kind)


def unseen(backed_up: BackedUp, error: BaseException) -> Mapping[str, CheckResult]:
    """An error on the way means that nothing is proven."""
    told = (error.message, error.hint) if isinstance(error, DrError) else (f"{type(error).__name__}: {error}", None)
    why, names = f"could not be checked: {told[0]}", expectations_of(backed_up)
    return {name: not_proven(name, why, error=type(error).__name__, hint=told[1]) for name in names}


def expectations(backed_up: BackedUp, thing: str) -> dg.AssetChecksDefinition:
    key = asset_key(backed_up.name, thing)
    promises = expectations_of(backed_up)

    @dg.multi_asset_check(
        name=f"{identifier(backed_up.name)}_{thing}_meets_expectations",
        specs=[dg.AssetCheckSpec(name, asset=key, description=said) for name, said in promises.items()],
        can_subset=True,
    )
    def _checks(context: dg.AssetCheckExecutionContext, site: SiteResource) -> Iterator[dg.AssetCheckResult]:
        wanted = {selected.name for selected in context.selected_asset_check_keys}
        try:
            found = judge(site, backed_up, thing)
        except DrError as error:
            found = unseen(backed_up, error)
        for name, one in found.items():
            if name in wanted:
                yield check_result(one)

    return _checks


def expectation_checks(plan: Plan) -> Iterator[dg.AssetChecksDefinition]:
    for backed_up in everything(plan):
        for thing in backed_up.things:
            yield expectations(backed_up, thing)
