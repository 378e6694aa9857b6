"""Is what a partition holds whole? Checks of its backups and of their copies, read from the stores.

They run with the run that took or copied a backup, and look at that partition; alone, at the partition that they are
launched with, or at the newest backup. One step makes all of them: a backup is read once.
"""
# No `from __future__ import annotations` here: Dagster reads the types of decorated functions.

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import dagster as dg

from assets.partitions import partitions_of, taken_in
from dr_pipelines.backed_up import BackedUp, Manifest, everything, thing_of
from dr_pipelines.checks import CheckResult, failed, not_proven, together
from dr_pipelines.errors import DrError
from dr_pipelines.metadata import (
    INCREMENTAL_BACKUP,
    TIER,
    WAL_ARCHIVE,
    LoggedProgress,
    asset_key,
    check_result,
    identifier,
    replica_of,
)
from dr_pipelines.plan import Plan
from dr_pipelines.repository.completeness import CHAIN_IS_COMPLETE, MANIFEST_IS_COMPLETE, SNAPSHOT_IS_COMPLETE
from dr_pipelines.resources import SiteResource

if TYPE_CHECKING:
    from dr_pipelines.site import Site

# The names of checks whose modules are not imported to load the code location; the step says so if one differs.
OF_EVERYTHING = {
    "recipients_are_as_planned": "It is encrypted for the recipients of the plan and for nobody else.",
    "lock_is_in_force": "Its objects are immutable for as long as the plan says, read back from the store.",
}
OF_DATABASES = {
    CHAIN_IS_COMPLETE: "All that it builds on is there whole, and fits together.",
    "wal_is_continuous": "WAL is there without a gap from its start to now, across timelines; of what is older than "
    "the recovery window, the WAL that makes it consistent.",
    **OF_EVERYTHING,
}
OF_BACKUPS = {
    MANIFEST_IS_COMPLETE: "Every object is in the store, with its size.",
    "objects_match_sha256": "What was read of it (the plan's `validation.sample`) matches its SHA-256.",
    "contents_match_backup_manifest": "Its files match PostgreSQL's own checksums, as pg_verifybackup compares them.",
    **OF_DATABASES,
}
OF_COPIES = {
    "replica_equals": "The copy has the manifest of the original and every object; what was read of it matches.",
    **OF_DATABASES,
}
OF_SNAPSHOTS = {
    SNAPSHOT_IS_COMPLETE: "Every object is in the store, with its size, and every file of the source could be read.",
    "objects_match_sha256": "What was read of it (the file set's `sample`) matches its SHA-256.",
    "contents_match": "What was read of its files matches the SHA-256 that its table has of each.",
    **OF_EVERYTHING,
}
OF_SNAPSHOT_COPIES = {"replica_equals": OF_COPIES["replica_equals"], **OF_EVERYTHING}
BLOCKING = frozenset({MANIFEST_IS_COMPLETE, CHAIN_IS_COMPLETE, SNAPSHOT_IS_COMPLETE, "replica_equals"})
"""What is not there whole is nothing to build on, to copy, or to let older backups go for: what follows in the same run
does not run, and expiry does not follow the run. The next backup is a run of its own: it is taken all the same."""


class Which(dg.Config):
    """What checks look at that were launched alone."""

    partition: str | None = None


def integrity_checks(plan: Plan) -> Iterator[dg.AssetChecksDefinition]:
    for backed_up in everything(plan):
        for thing in backed_up.things:
            yield _checks(backed_up, TIER, thing)
        for tier, thing in backed_up.copies:
            if thing != WAL_ARCHIVE:
                yield _checks(backed_up, tier, thing)


def _promises(backed_up: BackedUp, tier: str) -> dict[str, str]:
    if backed_up.is_files:
        return OF_SNAPSHOTS if tier == TIER else OF_SNAPSHOT_COPIES
    return OF_BACKUPS if tier == TIER else OF_COPIES


def _checks(backed_up: BackedUp, tier: str, thing: str) -> dg.AssetChecksDefinition:
    original = tier == TIER
    name = thing if original else replica_of(tier, thing)
    key, promises = asset_key(backed_up.name, name), _promises(backed_up, tier)

    @dg.multi_asset_check(
        name=f"{identifier(backed_up.name)}_{name}_integrity",
        specs=[
            dg.AssetCheckSpec(promise, asset=key, description=said, blocking=promise in BLOCKING)
            for promise, said in promises.items()
        ],
        can_subset=True,
    )
    def _check(context: dg.AssetCheckExecutionContext, config: Which, site: SiteResource):  # type: ignore[no-untyped-def]
        wanted = {check.name for check in context.selected_asset_check_keys}
        asked = _partition(context, config)
        try:
            # Imported here: see resources.py.
            from dr_pipelines import operations

            live, progress = site.site(), LoggedProgress(context.log)
            found = _looked_for(context, live, backed_up, tier, thing, asked)
            if isinstance(found, CheckResult):
                results = [found]
            else:
                of_files = (operations.check_snapshot, operations.check_snapshot_replica)
                looks = of_files if backed_up.is_files else (operations.check_backup, operations.check_replica)
                check: Callable[..., list[CheckResult]] = looks[0] if original else looks[1]
                results = [
                    result
                    for label in found
                    for result in check(
                        live, backed_up.name, label, tier, progress, sample=backed_up.sample, only=wanted
                    )
                ]
        except DrError as error:
            results = [not_proven("", f"could not be checked: {error.message}", hint=error.hint)]
        for promise in wanted:
            about = [result for result in results if result.name in (promise, "")]
            yield check_result(together(promise, about))

    return _check


def _partition(context: dg.AssetCheckExecutionContext, config: Which) -> str | None:
    run = context.op_execution_context
    return config.partition or (run.partition_key if run.has_partition_key else None)


def _looked_for(
    context: dg.AssetCheckExecutionContext,
    site: "Site",
    backed_up: BackedUp,
    tier: str,
    thing: str,
    partition: str | None,
) -> list[str] | CheckResult:
    """Labels of what a partition holds, or of the newest; or what is to say where there is none."""
    name = backed_up.name
    catalog = site.owner(name).catalog(site.read_only_repository(name, tier).store)
    manifests, what = catalog.manifests, f"{thing.replace('_', ' ')} of {name} on {tier}"
    if thing == INCREMENTAL_BACKUP and manifests and getattr(manifests[-1], "hourly_points_are_wal", False):
        return [manifests[-1].label]  # what an hour without incrementals has: WAL, and the backup that it follows
    if partition is None:
        taken = [one for one in manifests if thing_of(one) == thing]
        newest = max(taken, key=lambda one: one.started_at, default=None)
        return [newest.label] if newest is not None else failed("", f"there is no {what}")
    partitions = partitions_of(backed_up, thing)
    assert partitions is not None
    labels = _recorded(context, name, thing, partition, manifests) if tier == TIER else []
    labels = labels or taken_in(partitions, partition, thing, manifests)
    if labels:
        return labels
    gone = taken_in(partitions, partition, thing, [expired.manifest for expired in catalog.expired])
    if gone:
        return not_proven("", f"{', '.join(gone)} was let go by retention; `dr retention undo` brings it back")
    return failed("", f"there is no {what} that was begun in {partition}", partition=partition)


def _recorded(
    context: dg.AssetCheckExecutionContext, name: str, thing: str, partition: str, manifests: Sequence[Manifest]
) -> list[str]:
    """The one that the partition's run took: one that waited in the queue was begun later than its partition. Only its
    label is taken from our records; where it is not in the store, that is what the store says."""
    records = context.instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=asset_key(name, thing), asset_partitions=[partition]), limit=1
    ).records
    made = records[0].asset_materialization if records else None
    label = made.metadata.get("label") if made is not None else None
    there = {one.label for one in manifests}
    return [str(label.value)] if label is not None and label.value in there else []
