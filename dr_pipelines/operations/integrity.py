"""All that can be said of one stored backup without restoring it: its bytes, what it builds on, the WAL after it, for
whom it is encrypted, its locks, its copies."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import timedelta

from dr_pipelines.checks import CheckResult, not_proven
from dr_pipelines.errors import DrError
from dr_pipelines.operations.backups import verify_backup
from dr_pipelines.operations.immutability import lock_is_in_force
from dr_pipelines.operations.replication import replica_equals, replicas_equal
from dr_pipelines.operations.windows import promised_window
from dr_pipelines.plan.references import is_reference
from dr_pipelines.postgres.verify import CONTENTS_MATCH
from dr_pipelines.postgres.wal_checks import WAL_IS_CONTINUOUS, wal_is_continuous
from dr_pipelines.progress import Progress
from dr_pipelines.replication.checks import REPLICA_EQUALS
from dr_pipelines.replication.immutability import LOCK_IS_IN_FORCE
from dr_pipelines.repository.completeness import (
    CHAIN_IS_COMPLETE,
    MANIFEST_IS_COMPLETE,
    chain_is_complete,
    manifest_is_complete,
)
from dr_pipelines.repository.digests import OBJECTS_MATCH
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.repository.recipients import RECIPIENTS_ARE_AS_PLANNED, recipients_are_as_planned
from dr_pipelines.repository.repository import Repository
from dr_pipelines.repository.sampling import Manifest, part_of_today
from dr_pipelines.retention.window import window_of
from dr_pipelines.site import Site

_WAL_ON_ITS_WAY = timedelta(seconds=30)
"""After a backup ended: its last segment is closed then, and the stream ships it."""
_LOOK_EVERY = 1.0  # seconds


Looks = Mapping[str, Callable[[], CheckResult]]


def check_backup(
    site: Site,
    server: str,
    label: str,
    tier: str,
    progress: Progress,
    *,
    sample: int = 100,
    only: Collection[str] | None = None,
) -> list[CheckResult]:
    """Every integrity check of a backup on a tier, or `only` those of these names; `sample` percent of its bytes are
    read. Of a backup on the primary its copies are looked at too. Raises `BackupNotFound`."""
    repository = site.read_only_repository(server, tier)
    backup = repository.backup(server, label)
    looks: Looks = {
        MANIFEST_IS_COMPLETE: lambda: manifest_is_complete(repository.store, backup),
        CHAIN_IS_COMPLETE: lambda: chain_is_complete(repository, backup),
    }
    found = look(label, looks, only)
    if only is None or {OBJECTS_MATCH, CONTENTS_MATCH} & {*only}:
        _, *read = verify_backup(site, server, label, tier, progress, sample=sample)
        found += read
    found += look(label, _surroundings(site, repository, backup), only)
    if tier == "primary" and (only is None or REPLICA_EQUALS in only):
        found += replicas_equal(site, server, label, sample=sample)
    return found


def check_replica(
    site: Site,
    server: str,
    label: str,
    tier: str,
    progress: Progress,
    *,
    sample: int = 100,
    only: Collection[str] | None = None,
) -> list[CheckResult]:
    """The same of a copy, whose bytes are held against the original's. Raises `BackupNotFound`."""
    repository = site.read_only_repository(server, tier)
    backup = repository.backup(server, label)
    progress.phase(f"{label} on {tier}")
    looks: Looks = {
        REPLICA_EQUALS: lambda: replica_equals(site, server, label, tier, sample=sample),
        CHAIN_IS_COMPLETE: lambda: chain_is_complete(repository, backup),
        **_surroundings(site, repository, backup),
    }
    return look(label, looks, only)


def _surroundings(site: Site, repository: Repository, backup: BackupManifest) -> Looks:
    return {
        WAL_IS_CONTINUOUS: lambda: _wal(site, repository, backup),
        RECIPIENTS_ARE_AS_PLANNED: lambda: recipients_of(site, repository, backup),
        LOCK_IS_IN_FORCE: lambda: lock_is_in_force(site, backup.server, repository.tier, backup.label),
    }


def look(label: str, looks: Looks, only: Collection[str] | None) -> list[CheckResult]:
    """What each says, or those of these names; one that could not look proves nothing."""
    return [_looked(name, label, look) for name, look in looks.items() if only is None or name in only]


def _looked(name: str, label: str, look: Callable[[], CheckResult]) -> CheckResult:
    """What the look says; an error on the way means that nothing is proven."""
    try:
        return look()
    except DrError as error:
        return not_proven(name, f"{label} could not be looked at: {error.message}", label=label, hint=error.hint)


def _wal(site: Site, repository: Repository, backup: BackupManifest) -> CheckResult:
    """WAL of a backup that has just been taken is given the time to come; of one that is older than the recovery
    window, only what makes it consistent is asked for."""
    found = wal_is_continuous(repository, backup)
    while "waits_for" in found.details and site.clock.now() < backup.finished_at + _WAL_ON_ITS_WAY:
        site.clock.wait(_LOOK_EVERY)
        found = wal_is_continuous(repository, backup)
    if found.passed or _is_in_window(site, repository, backup):
        return found
    return wal_is_continuous(repository, backup, to_now=False)


def _is_in_window(site: Site, repository: Repository, backup: BackupManifest) -> bool:
    """Whether any instant after it is promised to be restorable from this tier."""
    promised = promised_window(site, backup.server, repository.tier)
    if promised is None:
        return False
    catalog = repository.catalog(backup.server)
    usable = {found.label for found in catalog.usable}
    window = window_of(catalog.backups, usable, {}, site.clock.now() - promised)
    return backup.label in window.bases | window.inside


def recipients_of(site: Site, repository: Repository, backup: Manifest) -> CheckResult:
    """Where the plan's recipients are not set, as on a host that recovers, its identity is one of them. Raises
    `SecretMissing` when that does not tell all of them."""
    encryption = site.plan.encryption
    listed = encryption.recipients if encryption else ()
    planned = {recipient for recipient in listed if not is_reference(recipient)}
    if len(planned) < len(listed):
        ours = {str(identity.recipient) for identity in repository.codec.identities}
        planned |= ours & {*backup.encoding.recipients}
    if encryption and len(planned) != len({*listed}):
        planned = {*encryption.public_keys()}
    part = part_of_today(1, backup.label, site.clock.now())
    return recipients_are_as_planned(repository, backup, planned, part)
