"""Jobs: selections of assets by group and key, so that nothing but `definitions` imports the rims."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, TypeAlias

import dagster as dg

from dr_pipelines.backed_up import BackedUp, everything, file_sets
from dr_pipelines.metadata import (
    DATABASE_BACKUPS,
    EQUIVALENCE,
    EXPIRY,
    FILE_BACKUPS,
    FULL_BACKUP,
    INCREMENTAL_BACKUP,
    OBJECTIVES,
    POLL,
    RECOVERY_WINDOWS,
    REPLICATION,
    RETENTION,
    RETENTION_PLAN,
    SNAPSHOT,
    VALIDATION,
    asset_key,
    group_of,
    identifier,
    replica_of,
    scrub_of,
    validated_of,
)
from dr_pipelines.objectives.promises import Promise, promises
from dr_pipelines.plan import Plan
from dr_pipelines.plan.model import ServerPlan

if TYPE_CHECKING:
    # Dagster has no public name for what `define_asset_job` returns.
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

Job: TypeAlias = "UnresolvedAssetJobDefinition"


def backup_job_name(server: str, thing: str) -> str:
    return f"{identifier(server)}_{thing}"


EXPECTATIONS = {
    "manifest_meets_expectations": "The objects that the manifest of the newest backup names are as expected: keys, "
    "digests and sizes, held against the store.",
    "catalog_meets_expectations": "All backups as a table are as expected: sizes, LSN order, parents, coverage.",
    "size_is_as_usual": "The newest backup is as large, and compresses as well, as those of its kind before it.",
}
"""Checks that no backup waits for, as they take seconds to load: a sensor reports them. And what they promise."""
FILE_EXPECTATIONS = {
    "snapshot_meets_expectations": "The table of the newest snapshot is as expected: paths, sizes, digests, times, and "
    "where each content lies in the archives that the manifest names.",
}
REFERENCES_MATCH = "references_match"


def expectations_of(backed_up: BackedUp) -> Mapping[str, str]:
    return FILE_EXPECTATIONS if backed_up.is_files else EXPECTATIONS


def expectations_job_name(server: str, thing: str) -> str:
    return f"{identifier(server)}_{thing}_expectations"


def _checks(backed_up: BackedUp, thing: str, names: Iterable[str]) -> dg.AssetSelection:
    return dg.AssetSelection.checks(*(dg.AssetCheckKey(asset_key(backed_up.name, thing), name) for name in names))


def expectations_job(backed_up: BackedUp, thing: str) -> Job:
    return dg.define_asset_job(
        name=expectations_job_name(backed_up.name, thing),
        description=f"Hold the newest {thing.replace('_', ' ')} of {backed_up.name} against expectations, as its "
        "sensor does.",
        selection=_checks(backed_up, thing, expectations_of(backed_up)),
        tags=dict(backed_up.tags),
    )


def backup_job(backed_up: BackedUp, thing: str) -> Job:
    """`shop_full_backup`: takes one backup and runs the quick checks that belong to it."""
    name, group = backed_up.name, FILE_BACKUPS if backed_up.is_files else DATABASE_BACKUPS
    # What others report continuously: no backup waits for it.
    left_out = [*expectations_of(backed_up), *([REFERENCES_MATCH] if backed_up.has_references else [])]
    return dg.define_asset_job(
        name=backup_job_name(name, thing),
        description=f"Take one {thing.replace('_', ' ')} of {name}.",
        selection=dg.AssetSelection.groups(group_of(name, group))
        & dg.AssetSelection.assets(asset_key(name, thing)) - _checks(backed_up, thing, left_out),
        tags=dict(backed_up.tags),
    )


def poll_job_name(file_set: str) -> str:
    return f"{identifier(file_set)}_{POLL}"


def references_job_name(file_set: str) -> str:
    return f"{identifier(file_set)}_references"


def backup_jobs(plan: Plan) -> Iterator[Job]:
    for backed_up in everything(plan):
        for thing in backed_up.things:
            yield backup_job(backed_up, thing)
            yield expectations_job(backed_up, thing)
    for backed_up in file_sets(plan):
        if backed_up.polled_every is not None:
            yield _job(
                poll_job_name(backed_up.name),
                f"Copy the files of {backed_up.name} that rows say are new or changed.",
                backed_up.tags,
                group_of(backed_up.name, FILE_BACKUPS),
                asset_key(backed_up.name, POLL),
            )
        if backed_up.has_references:
            yield dg.define_asset_job(
                name=references_job_name(backed_up.name),
                description=f"Hold the rows that point at {backed_up.name} against the files that are there.",
                selection=_checks(backed_up, SNAPSHOT, [REFERENCES_MATCH]),
                tags=dict(backed_up.tags),
            )


# --- what follows a backup ----------------------------------------------------------------------------------


def validated(asked: ServerPlan) -> list[str]:
    """What is restored to prove it."""
    return [FULL_BACKUP, *([INCREMENTAL_BACKUP] if asked.schedule.incremental is not None else [])]


def validation_job_name(server: str, thing: str) -> str:
    return f"{identifier(server)}_{validated_of(thing)}"


def replication_job_name(server: str, tier: str, thing: str) -> str:
    return f"{identifier(server)}_{replica_of(tier, thing)}"


def expiry_job_name(server: str) -> str:
    return f"{identifier(server)}_{EXPIRY}"


def scrub_job_name(server: str, tier: str) -> str:
    return f"{identifier(server)}_{scrub_of(tier)}"


def windows_job_name(server: str) -> str:
    return f"{identifier(server)}_{RECOVERY_WINDOWS}"


def objectives_job_name(server: str) -> str:
    return f"{identifier(server)}_{OBJECTIVES}"


def equivalence_job_name(server: str) -> str:
    return f"{identifier(server)}_{EQUIVALENCE}"


def promises_of(plan: Plan, server: str) -> list[Promise]:
    """Those that are shown with a server: every line of the plan's tables is with one."""
    return [one for one in promises(plan) if one.home(plan) == server]


def canary_job_name(server: str) -> str:
    return f"{identifier(server)}_canary"


def _job(name: str, description: str, tags: Mapping[str, str], group: str, *keys: dg.AssetKey) -> Job:
    return dg.define_asset_job(
        name=name,
        description=description,
        selection=dg.AssetSelection.groups(group) & dg.AssetSelection.assets(*keys),
        tags=dict(tags),
    )


LOCK_IS_IN_FORCE = "lock_is_in_force"
LOCKS_HOLD = "locks_hold"
BUCKET_IS_AS_PLANNED = "bucket_is_as_planned"


def tier_jobs(plan: Plan) -> Iterator[Job]:
    """What follows what is taken, on every tier; of servers also validations, recovery windows and objectives."""
    for backed_up in everything(plan):
        yield from _of_tiers(backed_up)
    for server, asked in plan.databases.items():
        yield from _of_server(plan, server, asked)


def _of_tiers(backed_up: BackedUp) -> Iterator[Job]:
    """Replication by tier and thing, expiry, scrubbing by tier, canaries."""
    name, tags = backed_up.name, backed_up.tags
    for tier, thing in backed_up.copies:
        yield _job(
            replication_job_name(name, tier, thing),
            f"Copy the {thing.replace('_', ' ')} of {name} to its {tier} tier.",
            tags,
            group_of(name, REPLICATION),
            asset_key(name, replica_of(tier, thing)),
        )
    yield _job(
        expiry_job_name(name),
        f"Show what retention keeps of {name}, and remove the rest.",
        tags,
        group_of(name, RETENTION),
        asset_key(name, RETENTION_PLAN),
        asset_key(name, EXPIRY),
    )
    for tier in backed_up.tiers:
        yield _job(
            scrub_job_name(name, tier),
            f"Read everything of {name} on its {tier} tier against its digests, and repair it.",
            tags,
            group_of(name, VALIDATION),
            asset_key(name, scrub_of(tier)),
        )
    yield dg.define_asset_job(
        name=canary_job_name(name),
        description=f"Attack a locked object on each tier of {name}, and compare the buckets with the plan.",
        selection=dg.AssetSelection.checks(
            *(
                dg.AssetCheckKey(asset_key(name, scrub_of(tier)), check)
                for tier in backed_up.tiers
                for check in (LOCK_IS_IN_FORCE, LOCKS_HOLD, BUCKET_IS_AS_PLANNED)
            )
        ),
        tags=dict(tags),
    )


def _of_server(plan: Plan, server: str, asked: ServerPlan) -> Iterator[Job]:
    tags, group = {"dr/server": server}, group_of(server, VALIDATION)
    for thing in validated(asked):
        said = f"Restore a {thing.replace('_', ' ')} of {server} to a scratch server, check it, and remove it."
        yield _job(validation_job_name(server, thing), said, tags, group, asset_key(server, validated_of(thing)))
    said = f"Compute to which instants {server} can be restored."
    yield _job(windows_job_name(server), said, tags, group, asset_key(server, RECOVERY_WINDOWS))
    if promises_of(plan, server):
        said = f"Hold every RPO and RTO that rests on {server} against what is measured."
        yield _job(objectives_job_name(server), said, tags, group, asset_key(server, OBJECTIVES))
    if asked.schedule.incremental is not None:
        said = f"Compare the incrementals of {server}, merged, with the WAL of their full."
        yield _job(equivalence_job_name(server), said, tags, group, asset_key(server, EQUIVALENCE))
