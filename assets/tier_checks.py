"""Checks of the tiers, named as promises: copies, locks, buckets. Each reads the stores. Those of scrubs, expiry and
recovery windows are answered by the runs of these assets."""
# No `from __future__ import annotations` here: Dagster reads the types of decorated functions.

from collections.abc import Iterator
from typing import TYPE_CHECKING

import dagster as dg

from assets.checks import Look, asset_check
from dr_pipelines.checks import CheckResult, failed
from dr_pipelines.jobs import BUCKET_IS_AS_PLANNED, LOCKS_HOLD, replicas
from dr_pipelines.metadata import (
    FULL_BACKUP,
    TIER,
    asset_key,
    replica_of,
    scrub_of,
)
from dr_pipelines.plan import Plan

if TYPE_CHECKING:
    from dr_pipelines.site import Site

REPLICA_IS_COMPLETE = "replica_is_complete"

# The operations are imported when a check looks: see resources.py.


def look_for_current_replica(server: str, tier: str) -> Look:
    def look(site: "Site") -> CheckResult:
        from dr_pipelines import operations

        return operations.replica_is_current(site, server, tier)

    return look


def look_for_complete_replica(server: str, tier: str) -> Look:
    def look(site: "Site") -> CheckResult:
        from dr_pipelines import operations

        copies = site.read_only_repository(server, tier).backups(server)
        if not copies:
            return failed(REPLICA_IS_COMPLETE, f"there is no copy of {server} on {tier}")
        return operations.replica_is_complete(site, server, copies[-1].label, tier)

    return look


def look_at_locks(server: str, tier: str) -> Look:
    def look(site: "Site") -> CheckResult:
        from dr_pipelines import operations

        return operations.lock_is_in_force(site, server, tier)

    return look


def attack_locks(store: str) -> Look:
    def look(site: "Site") -> CheckResult:
        from dr_pipelines import operations

        return operations.locks_hold(site, store)

    return look


def look_at_bucket(store: str) -> Look:
    def look(site: "Site") -> CheckResult:
        from dr_pipelines import operations

        return operations.bucket_is_as_planned(site, store)

    return look


def tier_checks(plan: Plan) -> Iterator[dg.AssetChecksDefinition]:
    for server, asked in plan.databases.items():
        for tier, store in asked.storage.items():
            yield from _checks_of_tier(server, tier, store, copied=(tier, FULL_BACKUP) in [*replicas(asked)])


def _checks_of_tier(server: str, tier: str, store: str, *, copied: bool) -> Iterator[dg.AssetChecksDefinition]:
    fulls = asset_key(server, FULL_BACKUP if tier == TIER else replica_of(tier, FULL_BACKUP))
    if copied:
        yield asset_check(
            fulls,
            REPLICA_IS_COMPLETE,
            f"The newest copy on {tier} has every object, and the manifest of the original.",
            look_for_complete_replica(server, tier),
        )
        yield asset_check(
            fulls,
            "replica_is_current",
            f"Nothing waits to be copied to {tier} for longer than the plan allows.",
            look_for_current_replica(server, tier),
        )
    if copied or tier == TIER:
        yield asset_check(
            fulls,
            "lock_is_in_force",
            f"Objects on {tier} are immutable for as long as the plan says, read back from the store.",
            look_at_locks(server, tier),
        )
    scrub = asset_key(server, scrub_of(tier))
    yield asset_check(
        scrub,
        LOCKS_HOLD,
        f"A locked object on {store} was attacked with the backup's own credentials, and held.",
        attack_locks(store),
    )
    yield asset_check(
        scrub,
        BUCKET_IS_AS_PLANNED,
        f"Versioning, lifecycle rules, lock and encryption of {store} are as the plan says.",
        look_at_bucket(store),
    )
