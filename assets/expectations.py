"""Checks of backups against expectations: manifest and catalog as tables, and each backup beside those before it."""
# No `from __future__ import annotations` here: Dagster reads the types of decorated functions.

from collections.abc import Iterator, Mapping

import dagster as dg

from dr_pipelines.checks import CheckResult, not_proven
from dr_pipelines.errors import DrError
from dr_pipelines.jobs import EXPECTATIONS, backups_of
from dr_pipelines.metadata import FULL_BACKUP, TIER, asset_key, check_result, identifier
from dr_pipelines.plan import Plan
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.resources import SiteResource


def judge(resource: SiteResource, server: str, thing: str) -> Mapping[str, CheckResult]:
    """The newest backup of its kind, by the name of the check. Raises what the store raises."""
    # Imported here: see resources.py.
    from dr_pipelines import operations

    kind = BackupKind.FULL if thing == FULL_BACKUP else BackupKind.INCREMENTAL
    return operations.judge_catalog(resource.site(), server, TIER, kind)


def unseen(error: BaseException) -> Mapping[str, CheckResult]:
    """An error on the way means that nothing is proven."""
    told = (error.message, error.hint) if isinstance(error, DrError) else (f"{type(error).__name__}: {error}", None)
    why = f"could not be checked: {told[0]}"
    return {name: not_proven(name, why, error=type(error).__name__, hint=told[1]) for name in EXPECTATIONS}


def backup_expectations(server: str, thing: str) -> dg.AssetChecksDefinition:
    key = asset_key(server, thing)

    @dg.multi_asset_check(
        name=f"{identifier(server)}_{thing}_meets_expectations",
        specs=[dg.AssetCheckSpec(name, asset=key, description=said) for name, said in EXPECTATIONS.items()],
        can_subset=True,
    )
    def _checks(context: dg.AssetCheckExecutionContext, site: SiteResource) -> Iterator[dg.AssetCheckResult]:
        wanted = {selected.name for selected in context.selected_asset_check_keys}
        try:
            found = judge(site, server, thing)
        except DrError as error:
            found = unseen(error)
        for name, one in found.items():
            if name in wanted:
                yield check_result(one)

    return _checks


def expectation_checks(plan: Plan) -> Iterator[dg.AssetChecksDefinition]:
    for server, asked in plan.databases.items():
        for thing in backups_of(asked):
            yield backup_expectations(server, thing)
