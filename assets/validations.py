"""Backups restored to prove them, partitioned like the backups: a backfill proves a range again."""
# No `from __future__ import annotations` here: Dagster reads the types of decorated functions.
# With checks among its outputs it knows its own result only by the bare name.

from collections.abc import Iterator
from typing import TYPE_CHECKING

import dagster as dg

from assets.checks import Look, asset_check
from assets.partitions import partitions_of, taken_in
from dr_pipelines.backed_up import of_server
from dr_pipelines.checks import CheckResult
from dr_pipelines.jobs import validated
from dr_pipelines.metadata import (
    FULL_BACKUP,
    VALIDATION,
    LoggedProgress,
    asset_key,
    check_result,
    failures,
    group_of,
    identifier,
    owners,
    validated_of,
)
from dr_pipelines.plan import Plan
from dr_pipelines.report_metadata import validation_metadata
from dr_pipelines.resources import SiteResource
from dr_pipelines.validation.due import FULLS_ARE_PROVEN, RESTORES_AND_VALIDATES

if TYPE_CHECKING:
    from dr_pipelines.repository.manifest import BackupManifest
    from dr_pipelines.site import Site


class ValidationConfig(dg.Config):
    """`label`: of a partition that holds several backups; without it the newest. `tier`: without it the one whose turn
    it is."""

    label: str = ""
    tier: str = ""


def validation_pool(server: str) -> str:
    """One restore of a server at a time."""
    return f"validation_{identifier(server)}"


def validation(plan: Plan, server: str, thing: str, retries: dg.RetryPolicy) -> dg.AssetsDefinition:
    key = asset_key(server, validated_of(thing))
    partitions = partitions_of(of_server(server, plan.databases[server]), thing)
    assert partitions is not None
    tiers = " and ".join(plan.databases[server].validation.tiers)

    @dg.asset(
        key=key,
        partitions_def=partitions,
        deps=[asset_key(server, thing)],
        group_name=group_of(server, VALIDATION),
        kinds={"postgres"},
        owners=owners(plan),
        tags={"dr/server": server},
        pool=validation_pool(server),
        description=f"The {thing.replace('_', ' ')} of {server}, restored from {tiers} in turn, each tier alone, to a "
        "scratch server that nobody else reaches, replayed to its newest point, checked, and removed. What it took is "
        "the measured RTO.",
        check_specs=[
            dg.AssetCheckSpec(
                RESTORES_AND_VALIDATES,
                asset=key,
                description="It was restored, and every check found it good. While this fails, no restore begins with "
                "it.",
            )
        ],
    )
    def _validated(
        context: dg.AssetExecutionContext, config: ValidationConfig, site: SiteResource
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]
        with failures(context, retries):
            # Imported here: see resources.py.
            from dr_pipelines import operations

            live = site.site()
            backup = _chosen(live, server, thing, context.partition_key, config, partitions)
            tier = config.tier or operations.tier_to_validate(live, backup)
            progress, run = LoggedProgress(context.log), f"Dagster run {context.run.run_id}"
            report = operations.validate_backup(live, server, backup.label, tier, progress, run=run)
            return dg.MaterializeResult(
                metadata=validation_metadata(report), check_results=[check_result(report.check)]
            )

    return _validated


def _chosen(
    live: "Site",
    server: str,
    thing: str,
    partition: str,
    config: ValidationConfig,
    partitions: dg.TimeWindowPartitionsDefinition,
) -> "BackupManifest":
    """On the primary or, where that cannot be read or holds it no more, on the tier that is validated."""
    from dr_pipelines import operations

    backups = operations.known_backups(live, server, config.tier or None)
    labels = [config.label] if config.label else taken_in(partitions, partition, thing, [*backups.values()])
    found = [backups[label] for label in labels if label in backups]
    if not found:
        what = config.label or f"{thing.replace('_', ' ')} that was begun in {partition}"
        raise dg.Failure(
            f"no tier that is validated holds a {what} of {server}\nHINT: `dr list {server}` shows what there is.",
            allow_retries=False,
        )
    return max(found, key=lambda backup: backup.started_at)


def look_for_proven_fulls(server: str) -> Look:
    def look(site: "Site") -> CheckResult:
        # Imported here: see resources.py.
        from dr_pipelines import operations

        return operations.fulls_are_proven(site, server)

    return look


def validation_assets(plan: Plan, retries: dg.RetryPolicy) -> Iterator[dg.AssetsDefinition]:
    for server, asked in plan.databases.items():
        for thing in validated(asked):
            yield validation(plan, server, thing, retries)


def validation_checks(plan: Plan) -> Iterator[dg.AssetChecksDefinition]:
    for server in plan.databases:
        yield asset_check(
            asset_key(server, validated_of(FULL_BACKUP)),
            FULLS_ARE_PROVEN,
            "Every full was restored and found good within the time that the plan gives.",
            look_for_proven_fulls(server),
        )
