"""What a repository holds of a file set, and how a snapshot comes to be there: a claim, archives, the table, then the
manifest as the last put. Archives belong to the file set: a later snapshot names those of earlier ones."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from pydantic import ValidationError

from dr_pipelines.clock import Clock
from dr_pipelines.errors import BackupNotFound, DrError, IntegrityError, ObjectLocked, ObjectNotFound, RepositoryError
from dr_pipelines.repository.archive_writer import ArchiveBuffers, ArchiveWriter
from dr_pipelines.repository.file_layout import (
    SnapshotLayout,
    archive_name,
    archive_of,
    archive_pack,
    archives_prefix,
    snapshot_label,
    snapshot_of,
    snapshots_prefix,
)
from dr_pipelines.repository.labels import Listed, list_labels
from dr_pipelines.repository.manifest import FORMAT_VERSION, StoredObject
from dr_pipelines.repository.marks import Expired, Marks, read_expired
from dr_pipelines.repository.repository import Repository
from dr_pipelines.repository.snapshot_manifest import SnapshotManifest, decode_snapshot, encode_snapshot
from dr_pipelines.storage.base import Body, ObjectInfo, ObjectStore, read_all

_UNMARKED = Marks()


@dataclass(frozen=True)
class SnapshotCatalog:
    """`snapshots` oldest first, whatever their state; `marks` of each by its label; `unfinished`, `expired`,
    `problems` and `lost` as in a server's catalog; `archives`: what lies in the store of each archive, whoever names
    it. A table that others name may be all that is left of a snapshot: its label is none of these."""

    snapshots: tuple[SnapshotManifest, ...] = ()
    unfinished: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    marks: Mapping[str, Marks] = field(default_factory=dict)
    expired: tuple[Expired[SnapshotManifest], ...] = ()
    archives: Mapping[str, tuple[ObjectInfo, ...]] = field(default_factory=dict)
    lost: frozenset[str] = frozenset()

    @property
    def manifests(self) -> tuple[SnapshotManifest, ...]:
        return self.snapshots

    @property
    def usable(self) -> tuple[SnapshotManifest, ...]:
        """Those of which all is there, and nothing is marked as damaged. Oldest first."""
        return tuple(snapshot for snapshot in self.snapshots if self.trouble(snapshot) is None)

    def trouble(self, snapshot: SnapshotManifest) -> str | None:
        """Why no restore can use it whole, as far as the listing shows; None when it can."""
        marks = self.marks.get(snapshot.label, _UNMARKED)
        if marks.damage:
            return "is damaged, and no tier had it whole"
        lacking = [key for key in marks.missing if key not in {one.key for one in snapshot.break_glass}]
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        return f"has no whole {lacking[0]}{more}" if lacking else None

    def is_unusual(self, label: str) -> bool:
        """Whether it was found to be, beside the one before, and nobody accepted it."""
        found = self.marks.get(label, _UNMARKED).anomaly()
        return found is not None and found.verdict == "fail"

    def failed_validation(self, snapshot: SnapshotManifest) -> str | None:
        """Which restore of it failed, when none passed since; None when none did."""
        newest = self.marks.get(snapshot.label, _UNMARKED).validated()
        failed = newest is not None and newest.verdict == "fail"
        return f"its validation failed on {newest.at:%Y-%m-%d %H:%M} UTC" if newest and failed else None


def read_snapshots(store: ObjectStore, file_set: str) -> SnapshotCatalog:
    """Raises what the store raises: a listing that is not whole is no catalog."""
    labels, problems = list_labels(
        store,
        snapshots_prefix(file_set),
        lambda key: SnapshotLayout(file_set, label) if (label := snapshot_of(file_set, key)) else None,
    )
    archives, strange = list_archives(store, file_set)
    sizes = {info.key: info.size for infos in archives.values() for info in infos}
    for listed in labels.values():
        sizes |= listed.sizes
    found: dict[str, SnapshotManifest] = {}
    marks: dict[str, Marks] = {}
    expired: list[Expired[SnapshotManifest]] = []
    lost: set[str] = set()
    with ThreadPoolExecutor(8, thread_name_prefix="snapshots") as pool:
        for listed, read in zip(
            labels.values(), pool.map(lambda one: _try_read(store, one), labels.values()), strict=True
        ):
            if isinstance(read, str):
                problems.append(read)
                lost |= {read} if listed.damage else set()
            elif isinstance(read, Expired):
                expired.append(read)
            elif read is not None:
                found[read.label] = read
                marks[read.label] = listed.marks(store, read.objects, sizes, read.finished_at)
    named = {stored.key for one in (*found.values(), *(gone.manifest for gone in expired)) for stored in one.tables}
    return SnapshotCatalog(
        snapshots=tuple(sorted(found.values(), key=lambda one: (one.started_at, one.label))),
        unfinished=tuple(
            label
            for label, one in labels.items()
            if not (one.committed or one.expired) and (one.claimed or not named.issuperset(one.sizes))
        ),
        problems=(*problems, *strange),
        marks=marks,
        expired=tuple(expired),
        archives=archives,
        lost=frozenset(lost),
    )


def list_archives(store: ObjectStore, file_set: str) -> tuple[dict[str, tuple[ObjectInfo, ...]], list[str]]:
    """By name, and one sentence for each object that belongs to none."""
    found: dict[str, list[ObjectInfo]] = defaultdict(list)
    problems = []
    for info in store.list(archives_prefix(file_set)):
        name = archive_of(file_set, info.key)
        if name is None:
            problems.append(f"{info.key} on {store.name} belongs to no archive")
        else:
            found[name].append(info)
    return {name: tuple(infos) for name, infos in found.items()}, problems


def read_snapshot(store: ObjectStore, file_set: str, label: str) -> SnapshotManifest:
    """Raises `BackupNotFound`; `IntegrityError` when it is damaged or another's; `RepositoryError` when it is of a
    newer format or no manifest."""
    try:
        data = read_all(store, SnapshotLayout(file_set, label).manifest)
    except ObjectNotFound:
        raise BackupNotFound(
            f"there is no snapshot {label} of {file_set} on {store.name}",
            hint=f"`dr files list {file_set}` shows what there is.",
        ) from None
    return parse_snapshot(data, store, file_set, label)


def parse_snapshot(data: bytes, store: ObjectStore, file_set: str, label: str) -> SnapshotManifest:
    """What was read from `store` as the manifest of this snapshot. Raises as `read_snapshot`."""
    key = SnapshotLayout(file_set, label).manifest
    repair = f"`dr scrub {store.name}` repairs it from another tier."
    try:
        manifest = decode_snapshot(data)
    except IntegrityError as error:
        raise IntegrityError(f"{key} on {store.name} is damaged: {error.message}", hint=repair) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RepositoryError(f"{key} on {store.name} is no readable manifest: {where}: {first['msg']}") from error
    if manifest.format > FORMAT_VERSION:
        raise RepositoryError(
            f"{key} on {store.name} is of format {manifest.format}; this program reads up to {FORMAT_VERSION}",
            hint="use the newer version of dr that wrote it.",
        )
    if (manifest.file_set, manifest.label) != (file_set, label):
        raise IntegrityError(
            f"{key} on {store.name} describes {manifest.label} of {manifest.file_set}: a misplaced copy", hint=repair
        )
    return manifest


def _try_read(
    store: ObjectStore, listed: Listed[SnapshotLayout]
) -> SnapshotManifest | Expired[SnapshotManifest] | str | None:
    try:
        if listed.committed:
            return read_snapshot(store, listed.layout.file_set, listed.layout.label)
        return read_expired(store, listed.layout, decode_snapshot) if listed.expired else None
    except (BackupNotFound, ObjectNotFound):  # it was removed since the listing
        return None
    except (RepositoryError, IntegrityError) as error:
        return error.message


class SnapshotWriter:
    """One snapshot in the making. End it with `commit` or `abandon`; a crash between leaves archives that the next
    snapshot may use, or `prune` collects, never half a snapshot. Archives may be put from several threads."""

    def __init__(self, repository: Repository, layout: SnapshotLayout, claim: str) -> None:
        self.layout, self.repository = layout, repository
        self._claim = claim
        self._numbers = itertools.count()
        self._lock = threading.Lock()

    @property
    def label(self) -> str:
        return self.layout.label

    def new_archive(self) -> str:
        with self._lock:
            return archive_name(self.label, next(self._numbers))

    def put_pack(self, archive: str, number: int, body: Body) -> StoredObject:
        suffix = self.repository.codec.suffix
        return self._put(archive_pack(self.layout.file_set, archive, number, suffix), body)

    def large_archive(self, archive: str, buffers: ArchiveBuffers) -> ArchiveWriter:
        """The writer of one that is not in memory whole; its packs go straight to the store."""
        return ArchiveWriter(lambda number, body: self.put_pack(archive, number, body), self.repository.codec, buffers)

    def put_table(self, data: bytes, *, changes: bool) -> StoredObject:
        """`data` is Parquet: all rows, or those that are laid over an earlier table."""
        codec = self.repository.codec
        key = self.layout.changes(codec.suffix) if changes else self.layout.table(codec.suffix)
        return self._put(key, Body.of(codec.encode(data)))

    def put_break_glass(self, name: str, data: bytes) -> StoredObject:
        return self._put(self.layout.break_glass(name), Body.of(data))

    def commit(self, manifest: SnapshotManifest) -> SnapshotManifest:
        """From that moment the snapshot exists."""
        if manifest.layout != self.layout:
            raise ValueError(f"a manifest of {manifest.label} cannot be committed as {self.label}")
        self._put(self.layout.manifest, Body.of(encode_snapshot(manifest)))
        with contextlib.suppress(DrError):  # a claim beside a manifest says nothing
            self.repository.store.delete(self._claim)
        return manifest

    def abandon(self) -> None:
        """Removes what lies under the label, as far as the store lets us; archives stay, so that the next snapshot need
        not read their files again. Raises nothing."""
        store = self.repository.store
        with contextlib.suppress(DrError):
            store.delete(self.layout.manifest)
            for info in store.list(self.layout.prefix):
                if info.key != self._claim:
                    with contextlib.suppress(ObjectLocked):
                        store.delete(info.key)
            store.delete(self._claim)

    def _put(self, key: str, body: Body) -> StoredObject:
        self.repository.put(key, body)
        return StoredObject(key=key, size=body.size, sha256=body.sha256)


def begin_snapshot(repository: Repository, file_set: str, *, clock: Clock) -> SnapshotWriter:
    """A writer under a label that no other writer has."""
    layout, claim = repository.claim(lambda at: SnapshotLayout(file_set, snapshot_label(at)), clock=clock)
    return SnapshotWriter(repository, layout, claim)
