"""All that can be said of one stored snapshot of files without restoring it: its bytes, for whom it is encrypted, its
locks, its copies."""

from __future__ import annotations

from collections.abc import Collection

from dr_pipelines.checks import CheckResult
from dr_pipelines.files.verify import CONTENTS_MATCH, verify_snapshot
from dr_pipelines.operations.backups import put_down
from dr_pipelines.operations.files import labelled_snapshot
from dr_pipelines.operations.immutability import lock_is_in_force
from dr_pipelines.operations.integrity import Looks, look, recipients_of
from dr_pipelines.operations.replication import replica_equals, replicas_equal
from dr_pipelines.progress import Progress
from dr_pipelines.replication.checks import REPLICA_EQUALS
from dr_pipelines.replication.immutability import LOCK_IS_IN_FORCE
from dr_pipelines.repository.completeness import SNAPSHOT_IS_COMPLETE, manifest_is_complete, snapshot_is_complete
from dr_pipelines.repository.digests import OBJECTS_MATCH
from dr_pipelines.repository.recipients import RECIPIENTS_ARE_AS_PLANNED
from dr_pipelines.repository.repository import Repository
from dr_pipelines.repository.sampling import part_of_today
from dr_pipelines.repository.snapshot_manifest import Snapshot
from dr_pipelines.site import Site


def check_snapshot(
    site: Site,
    file_set: str,
    label: str,
    tier: str,
    progress: Progress,
    *,
    sample: int = 100,
    only: Collection[str] | None = None,
) -> list[CheckResult]:
    """Every integrity check of a snapshot on a tier (`label` may be `latest`), or `only` those of these names; `sample`
    percent of its bytes are read. Of one on the primary its copies are looked at too. What was found of its bytes
    is put down beside it as a proof, as of a backup. Raises `BackupNotFound`."""
    repository = site.read_only_repository(file_set, tier)
    snapshot = labelled_snapshot(repository, file_set, label)
    label, partial = snapshot.label, site.file_set(file_set).partial
    complete: Looks = {SNAPSHOT_IS_COMPLETE: lambda: snapshot_is_complete(repository.store, snapshot, partial)}
    found = look(label, complete, only)
    if only is None or {OBJECTS_MATCH, CONTENTS_MATCH} & {*only}:
        found += _read(site, repository, snapshot, progress, sample)
    found += look(label, _surroundings(site, repository, snapshot), only)
    if tier == "primary" and (only is None or REPLICA_EQUALS in only):
        found += replicas_equal(site, file_set, label, sample=sample)
    return found


def check_snapshot_replica(
    site: Site,
    file_set: str,
    label: str,
    tier: str,
    progress: Progress,
    *,
    sample: int = 100,
    only: Collection[str] | None = None,
) -> list[CheckResult]:
    """The same of a copy, whose bytes are held against the original's. Raises `BackupNotFound`."""
    repository = site.read_only_repository(file_set, tier)
    snapshot = labelled_snapshot(repository, file_set, label)
    progress.phase(f"{snapshot.label} on {tier}")
    looks: Looks = {
        REPLICA_EQUALS: lambda: replica_equals(site, file_set, snapshot.label, tier, sample=sample),
        **_surroundings(site, repository, snapshot),
    }
    return look(snapshot.label, looks, only)


def _read(site: Site, repository: Repository, snapshot: Snapshot, progress: Progress, sample: int) -> list[CheckResult]:
    part = part_of_today(sample, snapshot.label, site.clock.now())
    _, *read = verify_snapshot(repository, snapshot, progress=progress, part=part)
    # That its source had files which could not be read says nothing of the bytes that are there.
    whole = manifest_is_complete(repository.store, snapshot)
    put_down(site, snapshot, repository.tier, [whole, *read], progress, part, contents=CONTENTS_MATCH)
    return read


def _surroundings(site: Site, repository: Repository, snapshot: Snapshot) -> Looks:
    return {
        RECIPIENTS_ARE_AS_PLANNED: lambda: recipients_of(site, repository, snapshot),
        LOCK_IS_IN_FORCE: lambda: lock_is_in_force(site, snapshot.file_set, repository.tier, snapshot.label),
    }
