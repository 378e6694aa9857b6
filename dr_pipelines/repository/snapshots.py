"""What a repository holds of a file set, and how a snapshot comes to be there: a claim, archives, the table, lists of
the archives, then the manifest as the last put. Archives and their lists belong to the file set: a later snapshot names
those of earlier ones."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from pydantic import ValidationError

from dr_pipelines.clock import Clock
from dr_pipelines.errors import BackupNotFound, DrError, IntegrityError, ObjectLocked, ObjectNotFound, RepositoryError
from dr_pipelines.repository.archive_lists import arranged, encode_list, with_archives
from dr_pipelines.repository.archive_writer import ArchiveBuffers, ArchiveWriter
from dr_pipelines.repository.encryption import Buffer
from dr_pipelines.repository.file_layout import (
    SnapshotLayout,
    archive_list,
    archive_name,
    archive_of,
    archive_pack,
    archives_prefix,
    list_of,
    lists_prefix,
    snapshot_label,
    snapshot_of,
    snapshots_prefix,
)
from dr_pipelines.repository.labels import Listed, list_labels
from dr_pipelines.repository.manifest import StoredObject
from dr_pipelines.repository.marks import ANOMALY, Expired, Marks, read_expired
from dr_pipelines.repository.repository import Repository
from dr_pipelines.repository.snapshot_manifest import (
    SNAPSHOT_FORMAT,
    ArchiveList,
    FileArchive,
    Snapshot,
    SnapshotManifest,
    decode_snapshot,
    encode_snapshot,
    with_lists,
)
from dr_pipelines.storage.base import Body, ObjectInfo, ObjectStore, read_all

_UNMARKED = Marks()


@dataclass(frozen=True)
class SnapshotCatalog:
    """`snapshots` oldest first, whatever their state; `marks` of each by its label; `unfinished`, `expired`,
    `problems` and `lost` as in a server's catalog; `archives`: what lies in the store of each archive, whoever names
    it; `lists`: the same of lists. A table that others name may be all that is left of a snapshot: its label is none of
    these. A list that cannot be read is a problem, and what names it has all the same its place in `snapshots`."""

    snapshots: tuple[Snapshot, ...] = ()
    unfinished: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    marks: Mapping[str, Marks] = field(default_factory=dict)
    expired: tuple[Expired[Snapshot], ...] = ()
    archives: Mapping[str, tuple[ObjectInfo, ...]] = field(default_factory=dict)
    lists: Mapping[str, ObjectInfo] = field(default_factory=dict)
    lost: frozenset[str] = frozenset()

    @property
    def manifests(self) -> tuple[Snapshot, ...]:
        return self.snapshots

    @property
    def usable(self) -> tuple[Snapshot, ...]:
        """Those of which all is there, and nothing is marked as damaged. Oldest first."""
        return tuple(snapshot for snapshot in self.snapshots if self.trouble(snapshot) is None)

    def trouble(self, snapshot: Snapshot) -> str | None:
        """Why no restore can use it whole, as far as the listing shows; None when it can."""
        marks = self.marks.get(snapshot.label, _UNMARKED)
        if marks.damage:
            return "is damaged, and no tier had it whole"
        lacking = [key for key in marks.missing if key not in {one.key for one in snapshot.break_glass}]
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        if lacking:
            return f"has no whole {lacking[0]}{more}"
        return next((f"has a list that cannot be read: {one.trouble}" for one in snapshot.unread), None)

    def is_unusual(self, label: str) -> bool:
        """Whether it was found to be, beside the one before, and nobody accepted it."""
        found = self.marks.get(label, _UNMARKED).anomaly()
        return found is not None and found.verdict == "fail"

    def was_unusual(self, label: str) -> bool:
        """Whether it was found to be, accepted or not."""
        proofs = self.marks.get(label, _UNMARKED).proofs
        return any(proof.kind == ANOMALY and proof.verdict == "fail" for proof in proofs)

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
    lists, unlike = list_lists(store, file_set)
    there = _There(labels, archives, lists)
    found: list[SnapshotManifest] = []
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
                found.append(read)
    known = with_archives(store, [*found, *(gone.manifest for gone in expired)])
    snapshots = sorted(known[: len(found)], key=lambda one: (one.started_at, one.label))
    marks = {one.label: labels[one.label].marks(store, there.lacked_by(one), {}, one.finished_at) for one in snapshots}
    unread = _unread(snapshots, marks)
    named = {stored.key for one in known for stored in one.tables}
    return SnapshotCatalog(
        snapshots=tuple(snapshots),
        unfinished=tuple(
            label
            for label, one in labels.items()
            if not (one.committed or one.expired) and (one.claimed or not named.issuperset(one.sizes))
        ),
        problems=(*problems, *strange, *unlike, *unread),
        marks=marks,
        expired=tuple(
            Expired(one, gone.at, gone.reason, gone.data)
            for gone, one in zip(expired, known[len(found) :], strict=True)
        ),
        archives=archives,
        lists=lists,
        lost=frozenset(lost | {trouble for trouble, known_of in unread.items() if known_of}),
    )


class _There:
    """What the listing shows of objects that manifests and lists name. Of a list that many name it is found once."""

    def __init__(
        self,
        labels: Mapping[str, Listed[SnapshotLayout]],
        archives: Mapping[str, Sequence[ObjectInfo]],
        lists: Mapping[str, ObjectInfo],
    ) -> None:
        self._sizes = {info.key: info.size for infos in archives.values() for info in infos}
        self._sizes |= {info.key: info.size for info in lists.values()}
        for listed in labels.values():
            self._sizes |= listed.sizes
        self._lacked: dict[ArchiveList, list[StoredObject]] = {}

    def lacked_by(self, snapshot: Snapshot) -> list[StoredObject]:
        """What it names, itself or by its lists, that is not there with its size."""
        return [*self._gone(snapshot.besides), *(lacked for one in snapshot.listed for lacked in self._of_list(one))]

    def _of_list(self, one: ArchiveList) -> list[StoredObject]:
        if one not in self._lacked:
            self._lacked[one] = self._gone(one.packs)
        return self._lacked[one]

    def _gone(self, named: Iterable[StoredObject]) -> list[StoredObject]:
        return [stored for stored in named if self._sizes.get(stored.key) != stored.size]


def _unread(snapshots: Sequence[Snapshot], marks: Mapping[str, Marks]) -> dict[str, bool]:
    """Why lists cannot be read, each with whether a scrub has found that out: then all that names it is marked."""
    found: dict[str, bool] = {}
    for snapshot in snapshots:
        for one in snapshot.unread:
            assert one.trouble is not None
            found[one.trouble] = found.get(one.trouble, True) and bool(marks[snapshot.label].damage)
    return found


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


def list_lists(store: ObjectStore, file_set: str) -> tuple[dict[str, ObjectInfo], list[str]]:
    """Lists of archives by name, and one sentence for each object that is none."""
    found: dict[str, ObjectInfo] = {}
    problems = []
    for info in store.list(lists_prefix(file_set)):
        name = list_of(file_set, info.key)
        if name is None:
            problems.append(f"{info.key} on {store.name} is no list of archives")
        else:
            found[name] = info
    return found, problems


def read_snapshot(store: ObjectStore, file_set: str, label: str) -> Snapshot:
    """Which of its lists cannot be read is in its `unread`. Raises `BackupNotFound`; `IntegrityError` when its manifest
    is damaged or another's; `RepositoryError` when it is of a newer format or no manifest."""
    [snapshot] = with_archives(store, [read_snapshot_manifest(store, file_set, label)])
    return snapshot


def read_snapshot_manifest(store: ObjectStore, file_set: str, label: str) -> SnapshotManifest:
    """Without what its lists say. Raises as `read_snapshot`."""
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
    if manifest.format > SNAPSHOT_FORMAT:
        raise RepositoryError(
            f"{key} on {store.name} is of format {manifest.format}; this program reads up to {SNAPSHOT_FORMAT}",
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
            return read_snapshot_manifest(store, listed.layout.file_set, listed.layout.label)
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
        self._numbers, self._list_numbers = itertools.count(), itertools.count()
        self._lists: list[str] = []
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

    def put_table(self, data: Buffer, *, changes: bool) -> StoredObject:
        """`data` is Parquet: all rows, or those that are laid over an earlier table."""
        codec = self.repository.codec
        key = self.layout.changes(codec.suffix) if changes else self.layout.table(codec.suffix)
        return self._put(key, Body.of(codec.encode(data)))

    def put_break_glass(self, name: str, data: bytes) -> StoredObject:
        return self._put(self.layout.break_glass(name), Body.of(data))

    def commit(
        self, manifest: SnapshotManifest, archives: Iterable[FileArchive], before: Iterable[ArchiveList] = ()
    ) -> Snapshot:
        """Puts the lists of its `archives`, as far as those of the snapshot before it do not say the same, then the
        manifest. From that moment the snapshot exists; it is returned as it was stored."""
        if manifest.layout != self.layout:
            raise ValueError(f"a manifest of {manifest.label} cannot be committed as {self.label}")
        lists = self._put_lists(archives, before)
        named = tuple(one.stored for one in lists if one.stored is not None)
        committed = with_lists(manifest.model_copy(update={"lists": named}), lists)
        self._put(self.layout.manifest, Body.of(encode_snapshot(committed)))
        with contextlib.suppress(DrError):  # a claim beside a manifest says nothing
            self.repository.store.delete(self._claim)
        return committed

    def _put_lists(self, archives: Iterable[FileArchive], before: Iterable[ArchiveList]) -> list[ArchiveList]:
        """What is not there any more is not named again."""
        there = {info.key: info.size for info in list_lists(self.repository.store, self.layout.file_set)[0].values()}
        whole = [one for one in before if one.stored is not None and there.get(one.stored.key) == one.stored.size]
        lists, new = arranged(archives, whole)
        for some in new:
            key = archive_list(self.layout.file_set, archive_name(self.label, next(self._list_numbers)))
            self._lists.append(key)
            lists.append(ArchiveList(some, self._put(key, Body.of(encode_list(some)))))
        return lists

    def abandon(self) -> None:
        """Removes what lies under the label, as far as the store lets us; archives stay, so that the next snapshot need
        not read their files again. Raises nothing."""
        store = self.repository.store
        with contextlib.suppress(DrError):
            store.delete(self.layout.manifest)
            for key in self._lists:
                with contextlib.suppress(ObjectLocked, ObjectNotFound):
                    store.delete(key)
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
