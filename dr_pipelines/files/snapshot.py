"""Taking a snapshot of a file set: what is as it was is not read again, what is known is not stored again.

The order is what makes it safe: a claim, archives, a listing that shows every archive that a row names, tables, then
the manifest. An interrupted snapshot leaves archives, and this host a note of what they hold: the next one goes on.
"""

from __future__ import annotations

import socket
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from dr_pipelines import __version__
from dr_pipelines.clock import Clock
from dr_pipelines.errors import BackupNotFound, IntegrityError, KeyUnusable, ObjectNotFound, RepositoryError, StoreError
from dr_pipelines.files.arrays import NO, booleans, flat, number, strings, text
from dr_pipelines.files.beside import Baseline, Differences, baseline_of, differences
from dr_pipelines.files.break_glass import bundle
from dr_pipelines.files.contents import Contents, contents_of, with_new
from dr_pipelines.files.liveness import liveness
from dr_pipelines.files.memory import Past, SnapshotMemory
from dr_pipelines.files.pack import Packed, Packer, Read
from dr_pipelines.files.read_table import read_table, read_tables
from dr_pipelines.files.rows import (
    Kept,
    ReadRows,
    counted,
    is_as_it_was,
    newest_of_each,
    wanted_of,
    with_looked_at,
    with_unreadable,
)
from dr_pipelines.files.source import FileSource, Scan, WantedFiles
from dr_pipelines.files.table import (
    FILE,
    UNCHANGED,
    changes_of,
    empty,
    encode_table,
    in_order,
    lay_over,
    places_in,
    rows_at,
    with_all_columns,
)
from dr_pipelines.progress import Progress
from dr_pipelines.repository.buffers import give_back_freed_memory
from dr_pipelines.repository.file_layout import SnapshotLayout, archive_begun, archive_of
from dr_pipelines.repository.manifest import StoredObject
from dr_pipelines.repository.marks import read_damage
from dr_pipelines.repository.repository import Repository
from dr_pipelines.repository.snapshot_manifest import FileArchive, Snapshot, SnapshotManifest
from dr_pipelines.repository.snapshots import (
    SnapshotCatalog,
    SnapshotWriter,
    begin_snapshot,
    list_archives,
    read_snapshot_manifest,
    read_snapshots,
)

_LARGEST_CHANGES = 0.2
"""From which share of the rows on a table is stored whole again."""
_RESUMED_FOR = timedelta(days=1)
"""How long archives of a snapshot that did not end are used; they are pruned later than that."""


Judge = Callable[[SnapshotLayout, Sequence[Differences]], bool]
"""Told of a snapshot how it differs from the one before and from the baseline, where they are known. Says whether that
is usual."""


def take_snapshot(
    source: FileSource,
    repository: Repository,
    file_set: str,
    *,
    memory: SnapshotMemory,
    clock: Clock,
    progress: Progress,
    read_all: bool = False,
    only: Collection[bytes] | None = None,
    judge: Judge | None = None,
) -> Snapshot:
    """With `only`, nothing but these paths is looked at, and what the snapshot before says of all others is taken over;
    where that is not known, everything is. With `read_all` every file is read, whatever its time says. Contents of
    archives that are mostly dead are stored anew, so that these can go with the snapshots that name them; so is what a
    scrub found lost. `judge` is told how it differs from those before while it is not there yet: what it puts down
    under the label is there with the snapshot. Raises what a store raises, `UsageError` when there is no such source;
    what cannot be read in it has a row that says so."""
    give_back_freed_memory()
    repository.check_format()
    past = _known(repository, file_set, memory, clock.now())
    writer = begin_snapshot(repository, file_set, clock=clock)
    try:
        lost = _lost(repository, past.manifest)
        if lost:
            progress.note(f"{len(lost)} objects of {file_set} are damaged on every tier: what they held is stored anew")
        snapshot = _Snapshot(source, writer, past, memory, clock, progress, lost, judge)
        manifest = snapshot.take(read_all, only)
    except BaseException:
        writer.abandon()
        raise
    snapshot.remember(manifest)
    return manifest


class _Snapshot:
    def __init__(
        self,
        source: FileSource,
        writer: SnapshotWriter,
        past: Past,
        memory: SnapshotMemory,
        clock: Clock,
        progress: Progress,
        lost: frozenset[str],
        judge: Judge | None,
    ) -> None:
        self._source, self._writer, self._past, self._memory = source, writer, past, memory
        self._clock, self._progress, self._lost, self._judge = clock, progress, lost, judge
        self._began = clock.now()
        self._scanned_at: datetime | None = None
        self._now_known = past
        self._unfinished: dict[datetime, list[str]] = defaultdict(list)  # archives by when their snapshot was begun
        self._before = lay_over(past.base, past.changes)
        named = past.manifest.archives if past.manifest is not None else ()
        damaged = (archive_of(writer.layout.file_set, key) for key in lost)
        self._left_behind = liveness(self._before, named).left_behind | {name for name in damaged if name is not None}

    def take(self, read_all: bool, only: Collection[bytes] | None = None) -> Snapshot:
        # None of these stays in memory longer than it is needed.
        return self._commit(*self._read(self._look(only), read_all))

    def _look(self, only: Collection[bytes] | None) -> Scan:
        self._progress.phase("look", None)
        last = self._past.manifest
        if only is None or last is None:
            scan = self._source.scan()
        else:
            scan = with_looked_at(self._before, self._source.look(only), only)
            self._scanned_at = last.looked_at
        for note in scan.notes:
            self._progress.note(note)
        return scan

    def _read(self, scan: Scan, read_all: bool) -> tuple[pa.Table, dict[str, FileArchive], Packed]:
        """The rows of the snapshot, all archives that are known then, and what was stored for it."""
        previous, archives = self._resumed()
        kept = self._kept(scan.rows, previous, read_all)
        wanted, read = wanted_of(scan.rows, pc.invert(kept.mask)), ReadRows(scan.rows)
        packed = self._pack(read, wanted) if len(wanted) else Packed()
        archives |= {one.name: one for one in packed.archives}
        return in_order(with_unreadable(read.beside(kept), scan)), archives, packed

    # --- what is known ---

    def _resumed(self) -> tuple[pa.Table, dict[str, FileArchive]]:
        """The rows that were known before, those of a snapshot that did not end laid over them, and all archives."""
        previous, archives = self._before, dict(self._past.archives)
        found = [
            (archive, rows)
            for archive, rows in self._memory.unfinished()
            if archive_begun(archive.name) > self._began - _RESUMED_FOR
        ]
        if not found:
            return previous, archives
        there = _whole_archives(self._writer.repository, self._writer.layout.file_set)
        whole = [(archive, rows) for archive, rows in found if _is_whole(archive, there)]
        if whole:
            self._progress.note(f"{len(whole)} archives of a snapshot that did not end are used")
            resumed = pa.concat_tables([with_all_columns(rows) for _, rows in whole])
            previous = lay_over(previous, newest_of_each(resumed))
        for archive, _ in whole:
            self._unfinished[archive_begun(archive.name)].append(archive.name)
        return previous, archives | {archive.name: archive for archive, _ in whole}

    def _kept(self, rows: pa.Table, previous: pa.Table, read_all: bool) -> Kept:
        """The rows whose content is known already; all others are files that are to be read."""
        places = places_in(previous, rows["path"])
        old = rows_at(previous.select([*UNCHANGED, "sha256", "archive"]), places)
        is_file = pc.equal(rows["type"], text(FILE))
        # An empty object is read too: its headers come with it. Only objects have an ETag, if an empty one.
        nothing_to_read = pc.and_(pc.equal(rows["size"], number(0)), pc.is_null(rows["etag"]))
        content_free = pc.or_(pc.invert(is_file), nothing_to_read)
        known = self._is_known(rows, old)
        if self._left_behind:
            stale = pc.is_in(old["archive"], value_set=strings(self._left_behind))
            known = pc.and_(known, pc.invert(stale))
        known = pc.and_(pc.fill_null(known, NO), booleans([not read_all] * len(rows)))
        return Kept(previous, places, flat(pc.or_(content_free, known)))

    def _is_known(self, rows: pa.Table, old: pa.Table) -> pa.Array:
        """Each row was seen by the last snapshot, or by the one that did not end which put its archive."""
        last = self._past.manifest
        known = is_as_it_was(rows, old, last.started_at) if last is not None else booleans([False] * len(rows))
        for begun, names in self._unfinished.items():
            theirs = pc.is_in(old["archive"], value_set=strings(names))
            known = pc.or_(known, pc.and_(theirs, is_as_it_was(rows, old, begun)))
        return known

    def _pack(self, read: ReadRows, wanted: WantedFiles) -> Packed:
        last = self._past.manifest
        named = {archive.name for archive in last.archives} if last is not None else set()
        contents = Contents(self._past.contents, named - self._left_behind, self._archives_of_others)

        def took(archive: FileArchive | None, reads: Sequence[Read]) -> None:
            rows = read.add(reads)
            if archive is not None:
                self._memory.note(archive, rows)

        return Packer(self._source, self._writer, contents, took, self._progress).pack(wanted)

    def _archives_of_others(self) -> set[str]:
        """Those that earlier snapshots name: nothing removes them while this one is taken. What only this host
        remembers may be about to be pruned."""
        catalog = read_snapshots(self._writer.repository.store, self._writer.layout.file_set)
        named = {archive.name for snapshot in catalog.snapshots for archive in snapshot.archives}
        return named - self._left_behind

    # --- what is stored ---

    def _commit(self, rows: pa.Table, archives: Mapping[str, FileArchive], packed: Packed) -> Snapshot:
        self._progress.phase("store", None)
        used = {name for name in pc.unique(rows["archive"]).to_pylist() if name is not None}
        named = tuple(archives[name] for name in sorted(used))
        archives = self._whole(archives, named)
        past, (table, changes, stored) = self._put_tables(rows)
        baseline = self._judged(rows)
        contents, archives_before = self._past.contents, self._past.archives
        if archives != archives_before:
            contents = with_new(contents, contents_of(rows, archives_before), archives)
        self._now_known = replace(past, contents=contents, archives=archives, baseline=baseline)
        last = self._past.manifest
        before = last.listed if last is not None else ()
        trusted = [one for one in before if one.stored is not None and one.stored.key not in self._lost]
        return self._writer.commit(
            SnapshotManifest(
                file_set=self._writer.layout.file_set,
                label=self._writer.label,
                parent=last.label if last is not None else None,
                started_at=self._began,
                scanned_at=self._scanned_at,
                finished_at=self._clock.now(),
                tool_version=__version__,
                taken_on=socket.gethostname(),
                source=self._source.description,
                encoding=self._writer.repository.codec.encoding,
                counts=counted(rows, self._before, packed, stored),
                table=table,
                changes=changes,
                break_glass=self._put_bundle(),
            ),
            named,
            trusted,
        )

    def _judged(self, rows: pa.Table) -> Baseline | None:
        """What the next one is held against besides this one. A snapshot of everything is its own baseline."""
        last, known = self._past.manifest, self._past.baseline
        before = baseline_of(last.label, self._before) if last is not None else None
        is_usual = True
        if self._judge is not None:
            beside = [one for one in (before, known) if one is not None]
            is_usual = self._judge(self._writer.layout, [differences(one, rows) for one in beside])
        return (known or before) if self._scanned_at is not None and is_usual else None

    def _put_bundle(self) -> tuple[StoredObject, ...]:
        layout, encoding = self._writer.layout, self._writer.repository.codec.encoding
        files = bundle(layout.file_set, layout.label, encoding.recipients)
        return tuple(self._writer.put_break_glass(name, data) for name, data in files.items())

    def _whole(self, archives: Mapping[str, FileArchive], named: Sequence[FileArchive]) -> dict[str, FileArchive]:
        """Those that are all there. A manifest must not name what was removed meanwhile, by whomever."""
        there = _whole_archives(self._writer.repository, self._writer.layout.file_set)
        whole = {name: archive for name, archive in archives.items() if _is_whole(archive, there)}
        gone = [archive.name for archive in named if archive.name not in whole]
        if gone:
            self._memory.forget()
            raise StoreError(
                f"archive {gone[0]} of {self._writer.layout.file_set} is not on {self._writer.repository.store.name}"
                " any more",
                hint="take the snapshot again: it reads all files anew; `dr scrub` says what else is lost.",
            )
        return whole

    def _put_tables(self, rows: pa.Table) -> tuple[Past, tuple[StoredObject, StoredObject | None, int]]:
        """The table as it was, the rows in which it differs from one that is stored, or all rows."""
        last = self._past.manifest
        if last is not None and not any(table.key in self._lost for table in last.tables):
            changes = changes_of(self._past.base, rows)
            if not len(changes):
                return replace(self._past, changes=empty()), (last.table, None, 0)
            if changes.equals(self._past.changes) and last.changes is not None:
                return self._past, (last.table, last.changes, 0)
            if len(changes) <= _LARGEST_CHANGES * max(len(self._past.base), 1):
                stored = self._writer.put_table(encode_table(changes), changes=True)
                return replace(self._past, changes=changes), (last.table, stored, stored.size)
        stored = self._writer.put_table(encode_table(rows), changes=False)
        return Past(base=rows), (stored, None, stored.size)

    def remember(self, manifest: Snapshot) -> None:
        """What was committed. It is there, whatever becomes of this."""
        try:
            self._memory.keep(replace(self._now_known, manifest=manifest))
        except (OSError, pa.ArrowException) as error:
            self._progress.note(f"what was taken could not be remembered here ({error}): the next one reads all files")


def _lost(repository: Repository, last: Snapshot | None) -> frozenset[str]:
    """The keys of what marks of damage beside the last snapshot name: nothing new may stand on them."""
    if last is None:
        return frozenset()
    found: set[str] = set()
    for mark in [*repository.store.list(last.layout.damages)]:
        try:
            found |= {*read_damage(repository.store, mark.key)}
        except ObjectNotFound:  # it was lifted
            continue
        except IntegrityError:  # what it is about nobody knows
            found |= {stored.key for stored in last.objects}
    return frozenset(found)


def _known(repository: Repository, file_set: str, memory: SnapshotMemory, now: datetime) -> Past:
    """What this host remembers, when the repository has it too; or else what it can read there."""
    past = memory.recall()
    if past is not None and past.manifest is not None:
        try:
            if read_snapshot_manifest(repository.store, file_set, past.manifest.label) == past.manifest:
                return past
        except (BackupNotFound, IntegrityError, RepositoryError):
            pass
    if not repository.codec.can_decrypt:
        return Past()
    catalog = read_snapshots(repository.store, file_set)
    for manifest in reversed(catalog.usable):
        try:
            base, changes = read_tables(repository, manifest)
        except (IntegrityError, KeyUnusable):
            continue
        archives = {archive.name: archive for archive in manifest.archives}
        baseline = _baseline(repository, catalog, manifest)
        return Past(manifest, base, changes, contents_of(lay_over(base, changes)), archives, baseline)
    return Past()


def _baseline(repository: Repository, catalog: SnapshotCatalog, last: Snapshot) -> Baseline | None:
    """Of a poll, as the repository knows it."""
    until = [one for one in catalog.usable if one.started_at <= last.started_at]
    ended = [one for one in until if not one.is_poll or catalog.was_unusual(one.label)]
    if not ended or ended[-1].label == last.label:
        return None
    try:
        return baseline_of(ended[-1].label, read_table(repository, ended[-1]))
    except (IntegrityError, KeyUnusable):
        return None


def _whole_archives(repository: Repository, file_set: str) -> dict[str, int]:
    """The size of each object of each archive, by key."""
    found, _ = list_archives(repository.store, file_set)
    return {info.key: info.size for infos in found.values() for info in infos}


def _is_whole(archive: FileArchive, there: Mapping[str, int]) -> bool:
    return all(there.get(pack.key) == pack.size for pack in archive.packs)
