"""Locks and bucket settings as the plan promises them, read back from the stores and tried."""

from __future__ import annotations

from datetime import timedelta

from dr_pipelines.checks import CheckResult, failed, not_proven, passed
from dr_pipelines.errors import AccessDenied, DrError
from dr_pipelines.plan.stores import LocalStorePlan
from dr_pipelines.replication import immutability
from dr_pipelines.replication.bucket import Wanted, drift
from dr_pipelines.replication.immutability import LOCK_IS_IN_FORCE, LOCKS_HOLD
from dr_pipelines.site import Site

BUCKET_IS_AS_PLANNED = "bucket_is_as_planned"


def lock_is_in_force(site: Site, server: str, tier: str, label: str | None = None) -> CheckResult:
    """Are what the tier holds of a server's backups and WAL or of a file set's snapshots, or of one of them, locked for
    as long as the plan promises?"""
    name = site.store_name(server, tier)
    lock_for = site.placement(server, tier).lock_for
    if lock_for is None:
        return _not_asked(LOCK_IS_IN_FORCE, name)
    try:
        repository = site.bare_repository(server, tier)
        owner = site.owner(server)
        backup = None if label is None else owner.read(repository.store, label)
        return immutability.lock_is_in_force(repository, owner, lock_for, now=site.clock.now(), backup=backup)
    except DrError as error:
        return not_proven(LOCK_IS_IN_FORCE, f"{tier} cannot be asked: {error.message}", hint=error.hint)


def locks_hold(site: Site, tier_or_store: str) -> CheckResult:
    """Attacks a canary on a store of the plan with the store's own credentials."""
    name = site.name_of(tier_or_store)
    if not _locks(site, name):
        return _not_asked(LOCKS_HOLD, name)
    try:
        return immutability.locks_hold(site.store(name), name, clock=site.clock)
    except DrError as error:
        return not_proven(LOCKS_HOLD, f"{name} cannot be asked: {error.message}", hint=error.hint)


def bucket_is_as_planned(site: Site, tier_or_store: str) -> CheckResult:
    """A store's own settings and lifecycle rules against the plan."""
    name = site.name_of(tier_or_store)
    plan = site.plan.storage[name]
    if isinstance(plan, LocalStorePlan):
        return passed(BUCKET_IS_AS_PLANNED, f"{name} is a directory, which has no settings", applies=False)
    wanted = Wanted(plan.settings, plan.lock is not None, _folder(plan.prefix), _grace(site, name))
    try:
        found = site.store(name).settings()
    except AccessDenied as error:
        hint = error.hint or "give this store's key the right to read the bucket's settings."
        return not_proven(BUCKET_IS_AS_PLANNED, f"{name} may not be asked: {error.message}", hint=hint)
    except DrError as error:
        return not_proven(BUCKET_IS_AS_PLANNED, f"{name} cannot be asked: {error.message}", hint=error.hint)
    seen = drift(found, wanted)
    details = {"wrong": [*seen.wrong], "facts": [*seen.facts]}
    if seen.wrong:
        hint = f"change the bucket, or `storage.{name}.settings` in the plan when that is how it should be."
        return failed(BUCKET_IS_AS_PLANNED, f"{name}: {'; '.join(seen.wrong)}", hint=hint, **details)
    also = f"; {'; '.join(seen.facts)}" if seen.facts else ""
    return passed(BUCKET_IS_AS_PLANNED, f"{name} is set up as planned{also}", **details)


def check_immutability(site: Site, tier_or_store: str, *, canary: bool) -> list[CheckResult]:
    """All that `dr store check` asks about it; locks are read back where there is a backup to look at."""
    name = site.name_of(tier_or_store)
    checks = [bucket_is_as_planned(site, name)]
    for user in site.users:
        for tier, store in site.storage_of(user).items():
            if store == name and (not _locks(site, name) or _has_backups(site, user, tier)):
                checks.append(lock_is_in_force(site, user, tier))
    return [*checks, locks_hold(site, name)] if canary else checks


def _has_backups(site: Site, server: str, tier: str) -> bool:
    try:
        return bool(site.owner(server).catalog(site.read_only_repository(server, tier).store).manifests)
    except DrError:
        return True  # the check says what is the matter


def _locks(site: Site, name: str) -> bool:
    plan = site.plan.storage[name]
    return not isinstance(plan, LocalStorePlan) and plan.lock is not None


def _not_asked(check: str, store: str) -> CheckResult:
    return passed(check, f"{store} does not lock: the plan does not ask for it", applies=False)


def _folder(prefix: str) -> str:
    return f"{prefix.strip('/')}/" if prefix.strip("/") else ""


def _grace(site: Site, name: str) -> timedelta:
    """The longest of those that use the store."""
    graces = [
        server.retention.on(tier).grace
        for server in site.plan.databases.values()
        for tier, store in server.storage.items()
        if store == name
    ]
    return max(graces, default=timedelta())
