"""Jobs: selections of assets by group and key, so that nothing but `definitions` imports the rims."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeAlias

import dagster as dg

from dr_pipelines.metadata import (
    DATABASE_BACKUPS,
    EQUIVALENCE,
    EXPIRY,
    FULL_BACKUP,
    INCREMENTAL_BACKUP,
    OBJECTIVES,
    RECOVERY_WINDOWS,
    REPLICATION,
    RETENTION,
    RETENTION_PLAN,
    VALIDATION,
    WAL_ARCHIVE,
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


def backups_of(asked: ServerPlan) -> list[str]:
    return [FULL_BACKUP, *([INCREMENTAL_BACKUP] if asked.schedule.incremental is not None else [])]


def expectations_job_name(server: str, thing: str) -> str:
    return f"{identifier(server)}_{thing}_expectations"


def _expectations(server: str, thing: str) -> dg.AssetSelection:
    return dg.AssetSelection.checks(*(dg.AssetCheckKey(asset_key(server, thing), name) for name in EXPECTATIONS))


def expectations_job(server: str, thing: str) -> Job:
    return dg.define_asset_job(
        name=expectations_job_name(server, thing),
        description=f"Hold the newest {thing.replace('_', ' ')} of {server} against expectations, as its sensor does.",
        selection=_expectations(server, thing),
        tags={"dr/server": server},
    )


def backup_job(server: str, thing: str) -> Job:
    """`shop_full_backup`: takes one backup and runs the quick checks that belong to it."""
    return dg.define_asset_job(
        name=backup_job_name(server, thing),
        description=f"Take one {thing.replace('_', ' ')} of {server}.",
        selection=dg.AssetSelection.groups(group_of(server, DATABASE_BACKUPS))
        & dg.AssetSelection.assets(asset_key(server, thing)) - _expectations(server, thing),
        tags={"dr/server": server},
    )


def backup_jobs(plan: Plan) -> Iterator[Job]:
    for server, asked in plan.databases.items():
        for thing in backups_of(asked):
            yield backup_job(server, thing)
            yield expectations_job(server, thing)


# --- what follows a backup ----------------------------------------------------------------------------------


def replicas(asked: ServerPlan) -> Iterator[tuple[str, str]]:
    """(tier, thing) of all that the plan sends to other tiers. Incrementals go where everything goes."""
    for tier, _ in asked.storage.items():
        sent = asked.replication.of(tier)
        if sent is None or sent.send == "nothing":
            continue
        yield tier, FULL_BACKUP
        if sent.send == "everything" and asked.schedule.incremental is not None:
            yield tier, INCREMENTAL_BACKUP
        yield tier, WAL_ARCHIVE


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


def _job(name: str, description: str, server: str, group: str, *things: str) -> Job:
    return dg.define_asset_job(
        name=name,
        description=description,
        selection=dg.AssetSelection.groups(group_of(server, group))
        & dg.AssetSelection.assets(*(asset_key(server, thing) for thing in things)),
        tags={"dr/server": server},
    )


LOCK_IS_IN_FORCE = "lock_is_in_force"
LOCKS_HOLD = "locks_hold"
BUCKET_IS_AS_PLANNED = "bucket_is_as_planned"


def tier_jobs(plan: Plan) -> Iterator[Job]:
    """Of every server: replication by tier and thing, expiry, scrubbing by tier, canaries, the recovery windows,
    the objectives."""
    for server, asked in plan.databases.items():
        for tier, thing in replicas(asked):
            yield _job(
                replication_job_name(server, tier, thing),
                f"Copy the {thing.replace('_', ' ')} of {server} to its {tier} tier.",
                server,
                REPLICATION,
                replica_of(tier, thing),
            )
        for thing in validated(asked):
            yield _job(
                validation_job_name(server, thing),
                f"Restore a {thing.replace('_', ' ')} of {server} to a scratch server, check it, and remove it.",
                server,
                VALIDATION,
                validated_of(thing),
            )
        yield _job(
            expiry_job_name(server),
            f"Show what retention keeps of {server}, and remove the rest.",
            server,
            RETENTION,
            RETENTION_PLAN,
            EXPIRY,
        )
        yield _job(
            windows_job_name(server),
            f"Compute to which instants {server} can be restored.",
            server,
            VALIDATION,
            RECOVERY_WINDOWS,
        )
        if promises_of(plan, server):
            yield _job(
                objectives_job_name(server),
                f"Hold every RPO and RTO that rests on {server} against what is measured.",
                server,
                VALIDATION,
                OBJECTIVES,
            )
        if asked.schedule.incremental is not None:
            yield _job(
                equivalence_job_name(server),
                f"Compare the incrementals of {server}, merged, with the WAL of their full.",
                server,
                VALIDATION,
                EQUIVALENCE,
            )
        tiers = [tier for tier, _ in asked.storage.items()]
        for tier in tiers:
            yield _job(
                scrub_job_name(server, tier),
                f"Read everything of {server} on its {tier} tier against its digests, and repair it.",
                server,
                VALIDATION,
                scrub_of(tier),
            )
        yield dg.define_asset_job(
            name=canary_job_name(server),
            description=f"Attack a locked object on each tier of {server}, and compare the buckets with the plan.",
            selection=dg.AssetSelection.checks(
                *(
                    dg.AssetCheckKey(asset_key(server, scrub_of(tier)), name)
                    for tier in tiers
                    for name in (LOCK_IS_IN_FORCE, LOCKS_HOLD, BUCKET_IS_AS_PLANNED)
                )
            ),
            tags={"dr/server": server},
        )
