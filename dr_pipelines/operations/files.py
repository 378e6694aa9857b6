"""Snapshots of file sets: taking and listing them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from dr_pipelines.errors import BackupNotFound, UsageError
from dr_pipelines.files.beside import Differences
from dr_pipelines.files.directory import Directory
from dr_pipelines.files.memory import SnapshotMemory
from dr_pipelines.files.snapshot import take_snapshot as _take_snapshot
from dr_pipelines.files.source import FileSource
from dr_pipelines.operations.file_anomalies import judge_changes
from dr_pipelines.operations.turns import turn
from dr_pipelines.plan.file_sets import DirectorySource, ReferencePlan
from dr_pipelines.progress import Progress
from dr_pipelines.repository.file_layout import SnapshotLayout
from dr_pipelines.repository.repository import Repository
from dr_pipelines.repository.snapshot_manifest import Snapshot
from dr_pipelines.repository.snapshots import SnapshotCatalog, read_snapshot, read_snapshots
from dr_pipelines.site import Site

if TYPE_CHECKING:
    from dr_pipelines.files.listed import Object


def take_snapshot(site: Site, file_set: str, progress: Progress, *, read_all: bool = False) -> Snapshot:
    """Take a snapshot into the primary tier, and put down whether it is unusual beside the one before. Waits for a
    snapshot or a poll that is under way on this host. Raises what `files.snapshot.take_snapshot` raises."""
    with turn(site, file_set, progress):
        return take_in_turn(site, file_set, progress, read_all=read_all)


def take_in_turn(
    site: Site, file_set: str, progress: Progress, *, read_all: bool = False, only: Collection[bytes] | None = None
) -> Snapshot:
    """The same for whoever has the `turn`: of everything, or of `only` some paths over the one before."""

    def judge(layout: SnapshotLayout, found: Sequence[Differences]) -> bool:
        seen = judge_changes(site, file_set, layout, found)
        if not seen.passed:
            progress.note(seen.summary)
        return seen.passed

    return _take_snapshot(
        file_source(site, file_set),
        site.repository(file_set, "primary"),
        file_set,
        memory=SnapshotMemory(site.state_dir / "files" / file_set),
        clock=site.clock,
        progress=progress,
        read_all=read_all,
        only=only,
        judge=judge,
    )


def file_source(site: Site, file_set: str) -> FileSource:
    """A bucket of Supabase whose rows the plan names is listed by them. Raises `UsageError` where the plan names no
    source, `SecretMissing` of a bucket's store."""
    planned = site.file_set(file_set).source
    if planned is None:
        raise UsageError(
            f"the plan does not say where the files of {file_set} are", hint=f"name file_storage.{file_set}.source."
        )
    if isinstance(planned, DirectorySource):
        return Directory(planned.path, planned.exclude)
    return _bucket_source(site, file_set, planned.store)


def _bucket_source(site: Site, file_set: str, store: str) -> FileSource:
    # Imported here: a directory needs none of it.
    from dr_pipelines.files.bucket import BucketSource
    from dr_pipelines.files.listed import ListedBucket

    bucket = BucketSource(site.bucket(store))
    listing = _supabase_bucket(site, file_set, store)
    return bucket if listing is None else ListedBucket(bucket, lambda: _objects(site, listing))


def _supabase_bucket(site: Site, file_set: str, store: str) -> ReferencePlan | None:
    """Whose rows list all that the source has, when the plan names them; a part of a bucket lists itself."""
    whole = getattr(site.plan.storage[store], "prefix", "") == ""
    named = [one for one in site.file_set(file_set).references.values() if one.supabase is not None]
    return named[0] if whole and len(named) == 1 and not named[0].prefix else None


def _objects(site: Site, listing: ReferencePlan) -> Iterator[Sequence[Object]]:
    # Imported here: files need no driver of PostgreSQL.
    from dr_pipelines.postgres.references import read_objects
    from dr_pipelines.postgres.session import read_session

    with read_session(site.server(listing.server), listing.database, gentle=True) as session:
        session.begin()
        yield from read_objects(session, str(listing.supabase))


def list_snapshots(site: Site, file_set: str, tier: str = "primary") -> SnapshotCatalog:
    repository = site.read_only_repository(file_set, tier)
    repository.check_format()
    return read_snapshots(repository.store, file_set)


def labelled_snapshot(repository: Repository, file_set: str, label: str) -> Snapshot:
    """One of a tier; `latest` is its newest. Raises `BackupNotFound`."""
    if label != "latest":
        return read_snapshot(repository.store, file_set, label)
    snapshots = read_snapshots(repository.store, file_set).snapshots
    if not snapshots:
        raise BackupNotFound(
            f"there is no snapshot of {file_set} on {repository.tier}",
            hint=f"take one: `dr files snapshot {file_set}`.",
        )
    return snapshots[-1]
