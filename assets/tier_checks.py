"""Checks of the tiers, named as promises: how far copies are behind, locks, buckets. Each reads the stores. Those of
single backups and copies are in `integrity`; those of scrubs, expiry and recovery windows are answered by the runs of
these assets."""
# No `from __future__ import annotations` here: Dagster reads the types of decorated functions.

from collections.abc import Iterator
from typing import TYPE_CHECKING

import dagster as dg

from assets.checks import Look, asset_check
from dr_pipelines.backed_up import BackedUp, everything
from dr_pipelines.checks import CheckResult
from dr_pipelines.jobs import BUCKET_IS_AS_PLANNED, LOCK_IS_IN_FORCE, LOCKS_HOLD
from dr_pipelines.metadata import asset_key, replica_of, scrub_of
from dr_pipelines.plan import Plan

if TYPE_CHECKING:
    from dr_pipelines.site import Site

# The operations are imported when a check looks: see resources.py.


def look_for_current_replica(name: str, tier: str) -> Look:
    def look(site: "Site") -> CheckResult:
        from dr_pipelines import operations

        return operations.replica_is_current(site, name, tier)

    return look


def look_at_locks(name: str, tier: str) -> Look:
    def look(site: "Site") -> CheckResult:
        from dr_pipelines import operations

        return operations.lock_is_in_force(site, name, tier)

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
    for backed_up in everything(plan):
        for tier, store in backed_up.storage.items():
            yield from _checks_of_tier(backed_up, tier, store)


def _checks_of_tier(backed_up: BackedUp, tier: str, store: str) -> Iterator[dg.AssetChecksDefinition]:
    name, newest = backed_up.name, "the newest snapshot" if backed_up.is_files else "the newest backup"
    if tier in backed_up.copied_to:
        yield asset_check(
            asset_key(name, replica_of(tier, backed_up.first)),
            "replica_is_current",
            f"Nothing waits to be copied to {tier} for longer than the plan allows.",
            look_for_current_replica(name, tier),
        )
    scrub = asset_key(name, scrub_of(tier))
    yield asset_check(
        scrub,
        LOCK_IS_IN_FORCE,
        f"What lies on {tier} is immutable for as long as the plan says, read back from the store: {newest}, "
        "and a sample of the rest.",
        look_at_locks(name, tier),
    )
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
