"""What is to be validated now, and whether it is late: for whoever launches validations."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from dr_pipelines.checks import CheckResult
from dr_pipelines.errors import BackupNotFound, DrError
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.site import Site
from dr_pipelines.validation.due import DueValidation, SeenTier, due_validations, fulls_are_proven_in_time, next_tier

_SETTLES = timedelta(minutes=2)
"""Until then the WAL that was written when the backup ended may be on its way."""


@dataclass(frozen=True)
class ValidationState:
    """`ready` can be restored now, what matters most first; `waiting` is due and waits for its copy or its WAL."""

    ready: tuple[DueValidation, ...]
    waiting: tuple[DueValidation, ...]
    check: CheckResult


def look_at_validations(site: Site, server: str) -> ValidationState:
    """One tier that cannot be read does not stop the others. Raises the first one's trouble when none can."""
    plan, now = site.plan_of(server).validation, site.clock.now()
    tiers, unread = _tiers(site, server)
    due = due_validations(tiers, plan, now)
    # What does not come in half of the time is a trouble that a validation shows.
    ready = [one for one in due if one.is_there and _may_begin(site, one, patience=plan.within / 2)]
    check = fulls_are_proven_in_time(tiers, plan, now, unread)
    return ValidationState(tuple(ready), tuple(one for one in due if one not in ready), check)


def fulls_are_proven(site: Site, server: str) -> CheckResult:
    """Raises what `look_at_validations` does."""
    tiers, unread = _tiers(site, server)
    return fulls_are_proven_in_time(tiers, site.plan_of(server).validation, site.clock.now(), unread)


def tier_to_validate(site: Site, backup: BackupManifest) -> str:
    """Whose turn it is of the tiers that hold the backup. Raises `BackupNotFound`."""
    tiers, unread = _tiers(site, backup.server)
    found = next_tier(tiers, backup)
    if found is None:
        planned = ", ".join(site.plan_of(backup.server).validation.tiers)
        raise BackupNotFound(
            "; ".join((f"none of the tiers that are validated ({planned}) holds {backup.label}", *unread)),
            hint=f"copy it there (`dr replicate {backup.server}`), or name a tier.",
        )
    return found.tier


def known_backups(site: Site, server: str, tier: str | None = None) -> dict[str, BackupManifest]:
    """By label, on one tier or on those that are validated. Raises what `look_at_validations` does."""
    if tier is not None:
        return {backup.label: backup for backup in site.read_only_repository(server, tier).backups(server)}
    tiers, _ = _tiers(site, server)
    return {backup.label: backup for seen in tiers for backup in seen.catalog.backups}


def _tiers(site: Site, server: str) -> tuple[list[SeenTier], list[str]]:
    """Those of the plan that the server has, in its order; and why others cannot be looked at."""
    found: list[SeenTier] = []
    unread: list[str] = []
    trouble: DrError | None = None
    replication = site.plan_of(server).replication
    for tier in site.plan_of(server).validation.tiers:
        if tier not in site.tiers(server):
            continue
        sent = replication.of(tier)
        try:
            catalog = site.read_only_repository(server, tier).catalog(server)
        except DrError as error:
            trouble = trouble or error
            unread.append(f"{tier} cannot be read: {error.message}")
        else:
            everything = tier == "primary" or (sent is not None and sent.send == "everything")
            found.append(SeenTier(tier, catalog, everything))
    if not found and trouble is not None:
        raise trouble
    return found, unread


def _may_begin(site: Site, due: DueValidation, *, patience: timedelta) -> bool:
    """The tier holds the WAL without which the backup is none, or it is not to be expected any more."""
    backup = due.backup
    age = site.clock.now() - backup.finished_at
    if age > patience:
        return True
    if age < _SETTLES:
        return False
    repository = site.read_only_repository(backup.server, due.tier)
    try:
        spans = repository.wal(backup.server, backup.system_id, backup.segment_size).ranges()
    except DrError:
        return False
    return all(
        any(span.timeline == timeline and span.start <= start and span.end >= end for span in spans)
        for timeline, start, end in backup.needed_wal
    )
