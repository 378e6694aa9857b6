"""What a restore will do with the rows of a snapshot, decided before anything is written. Pure.

A table comes from a store, so nothing in it is trusted: paths that would leave the target, or go through a link or a
file, are refused by name, and so is a row whose content the manifest does not have.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dr_pipelines.files.arrays import NO, YES, array, booleans, flat, number, strings, text, to_numpy
from dr_pipelines.files.restore_target import Row
from dr_pipelines.files.select import folders_above
from dr_pipelines.files.table import DIRECTORY, FILE, LINK, chosen
from dr_pipelines.repository.manifest import StoredObject
from dr_pipelines.repository.snapshot_manifest import FileArchive

Paths = Collection[bytes]
_LEAVES = r"^/|(?:^|/)\.\.(?:/|$)"
_NO_NAME = r"(?:^|/)\.?(?:/|$)|\x00"
"""Parts that are empty or `.`, and so what ends in a slash; and what no path can hold."""
_SOME = 10_000
_TWIN = ("device", "inode", "sha256", "size", "mode", "mtime_ns", "uid", "gid")
"""Files of which all of these are equal were hard links of one."""
_PLACE = ["archive", "offset"]


@dataclass(frozen=True)
class Failure:
    """What was not restored, and why."""

    path: bytes
    reason: str


@dataclass(frozen=True)
class Unit:
    """Rows of `Restoring.contents` (from `start` to before `stop`) whose content lies in one pack of an archive, or
    with `spans` is one that goes over several of its packs."""

    archive: FileArchive
    pack: int
    start: int
    stop: int
    spans: bool


@dataclass(frozen=True)
class Restoring:
    """`contents` are the files that have one, in the order in which they lie in archives; `twins` maps the path of a
    file to the one that it is a hard link of. `folders` are all that must be there, those without a row too."""

    directories: pa.Table
    links: pa.Table
    empty_files: pa.Table
    contents: pa.Table
    units: tuple[Unit, ...] = ()
    folders: tuple[bytes, ...] = ()
    twins: Mapping[bytes, bytes] = field(default_factory=dict)
    failures: tuple[Failure, ...] = ()

    @property
    def bytes(self) -> int:
        """What will be written."""
        return self.bytes_without(())

    def bytes_without(self, paths: Paths) -> int:
        """The same but for what these files have."""
        sizes = self.contents["size"]
        if paths:
            sizes = sizes.filter(pc.invert(pc.is_in(self.contents["path"], value_set=array(paths, pa.binary()))))
        return pc.sum(sizes).as_py() or 0


def plan_restore(rows: pa.Table, archives: Iterable[FileArchive], *, into_bucket: bool = False) -> Restoring:
    """`rows` of one snapshot. In a bucket any key is as good as another, and there are no links or directories."""
    by_name = {archive.name: archive for archive in archives}
    failures: list[Failure] = []
    if into_bucket:
        rows = _refuse(rows, pc.equal(rows["type"], text(LINK)), "a bucket has no links", failures)
        nameless = pc.match_substring_regex(rows["path"], r"^$|\x00")
        rows = _refuse(rows, nameless, "no object can have this key", failures)
    else:
        rows = _with_folder_markers(rows)
        outside = pc.match_substring_regex(rows["path"], _LEAVES)
        rows = _refuse(rows, outside, "the path would leave the target", failures)
        nameless = pc.match_substring_regex(rows["path"], _NO_NAME)
        rows = _refuse(rows, nameless, "no file can have this path: a part of it is empty or a dot alone", failures)
        rows = _refuse(rows, _through_files(rows), "the path goes through a link or a file", failures)
    rows = _refuse_contentless(rows, by_name, failures)
    is_file = pc.equal(rows["type"], text(FILE))
    twins = {} if into_bucket else _twins(rows, is_file)
    if twins:
        is_file = pc.and_(is_file, pc.invert(pc.is_in(rows["path"], value_set=array(twins, pa.binary()))))
    has_content = pc.greater(rows["size"], number(0))
    contents = _as_they_lie(rows, pc.and_(is_file, has_content))
    directories = rows.filter(pc.equal(rows["type"], text(DIRECTORY)))
    needed = set() if into_bucket else _folders(rows["path"]).union(directories["path"].to_pylist())
    return Restoring(
        directories,
        rows.filter(pc.equal(rows["type"], text(LINK))),
        rows.filter(pc.and_(is_file, pc.invert(has_content))),
        contents,
        units_of(contents, by_name),
        tuple(sorted(needed)),  # parents sort before what lies in them
        twins,
        tuple(failures),
    )


def _as_they_lie(rows: pa.Table, mask: pa.Array) -> pa.Table:
    """What is to be known of these rows, in the order of archives and within them. Copied once: there may be
    millions."""
    places = pc.indices_nonzero(mask)
    order = pc.sort_indices(rows.select(_PLACE).take(places), [(name, "ascending") for name in _PLACE])
    return rows.select([*Row._fields, "archive"]).take(places.take(order)).combine_chunks()


def units_of(contents: pa.Table, archives: Mapping[str, FileArchive]) -> tuple[Unit, ...]:
    """What is fetched, pack by pack; what spans packs comes last."""
    if not len(contents):
        return ()
    names = pc.dictionary_encode(flat(contents["archive"]))
    known = [archives[name] for name in names.dictionary.to_pylist()]
    which = to_numpy(names.indices)
    size = np.array([archive.pack_size for archive in known])[which]
    offset = to_numpy(contents["offset"])
    first, last = offset // size, (offset + to_numpy(contents["size"]) - 1) // size
    spans = first != last
    # A content that spans packs is a unit by itself, with the rows that share it.
    ends = np.stack([which, first, spans, np.where(spans, offset, 0)])
    starts = [0, *(np.flatnonzero((ends[:, 1:] != ends[:, :-1]).any(axis=0)) + 1).tolist(), len(contents)]
    units = [
        Unit(known[which[start]], int(first[start]), start, stop, bool(spans[start]))
        for start, stop in itertools.pairwise(starts)
    ]
    return tuple(sorted(units, key=lambda unit: unit.spans))


def packs_of(unit: Unit, contents: pa.Table) -> tuple[StoredObject, ...]:
    """What is fetched for it."""
    if not unit.spans:
        return (unit.archive.packs[unit.pack],)
    end = contents["offset"][unit.start].as_py() + contents["size"][unit.start].as_py()
    return unit.archive.packs[unit.pack : (end - 1) // unit.archive.pack_size + 1]


def _refuse(rows: pa.Table, wrong: pa.Array, reason: str, failures: list[Failure]) -> pa.Table:
    """The others."""
    failures += [Failure(path, reason) for path in rows["path"].filter(wrong).to_pylist()]
    return chosen(rows, pc.invert(wrong))


def _with_folder_markers(rows: pa.Table) -> pa.Table:
    """A bucket's empty object `a/` is how its tools make a folder `a`."""
    is_marker = pc.and_(pc.equal(rows["type"], text(FILE)), pc.equal(rows["size"], number(0)))
    is_marker = pc.fill_null(pc.and_(is_marker, pc.match_substring_regex(rows["path"], "[^/]/$")), NO)
    if not pc.any(is_marker).as_py():
        return rows
    paths = pc.if_else(is_marker, pc.binary_slice(rows["path"], 0, -1), rows["path"])
    types = pc.if_else(is_marker, DIRECTORY, rows["type"])
    return rows.set_column(rows.schema.get_field_index("path"), "path", paths).set_column(
        rows.schema.get_field_index("type"), "type", types
    )


def _folders(paths: pa.ChunkedArray) -> set[bytes]:
    """All that lie above one of them."""
    nearest: set[bytes] = set()
    for start in range(0, len(paths), _SOME):
        nearest.update(path.rpartition(b"/")[0] for path in paths.slice(start, _SOME).to_pylist())
    return {folder for path in nearest for folder in (path, *folders_above(path))} - {b""}


def _through_files(rows: pa.Table) -> pa.Array:
    """Which rows lie below a path that is a link or a file: what is written there would follow it."""
    no_folder = pc.not_equal(rows["type"], text(DIRECTORY))
    is_folder = pc.is_in(rows["path"], value_set=array(_folders(rows["path"]), pa.binary()))
    blocked = set(rows["path"].filter(pc.and_(no_folder, is_folder)).to_pylist())
    if not blocked:
        return booleans([False] * len(rows))
    return booleans([not blocked.isdisjoint(folders_above(path)) for path in rows["path"].to_pylist()])


def _refuse_contentless(rows: pa.Table, archives: Mapping[str, FileArchive], failures: list[Failure]) -> pa.Table:
    told = pc.is_valid(rows["error"])
    failures += [
        Failure(path, f"the snapshot has not got it: {why}")
        for path, why in zip(rows["path"].filter(told).to_pylist(), rows["error"].filter(told).to_pylist(), strict=True)
    ]
    # A directory that could not be listed is one all the same.
    rows = chosen(rows, pc.or_(pc.invert(told), pc.equal(rows["type"], text(DIRECTORY))))
    total = array([one.size for one in archives.values()], pa.int64())
    place = pc.index_in(rows["archive"], value_set=strings(archives))
    end = pc.add(rows["offset"], rows["size"])
    there = pc.and_(pc.less_equal(end, total.take(place)), pc.greater_equal(rows["offset"], number(0)))
    whole = pc.and_(pc.fill_null(there, NO), pc.is_valid(rows["sha256"]))
    content = pc.and_(pc.equal(rows["type"], text(FILE)), pc.fill_null(pc.not_equal(rows["size"], number(0)), YES))
    negative = pc.fill_null(pc.less(rows["size"], number(0)), YES)
    wrong = pc.and_(content, pc.or_(pc.invert(whole), negative))
    return _refuse(rows, wrong, "the snapshot's table names a content that its archives have not", failures)


def _twins(rows: pa.Table, is_file: pa.Array) -> dict[bytes, bytes]:
    """Each hard link but the first of a file → the first."""
    some = rows.filter(pc.and_(is_file, pc.fill_null(pc.greater(rows["hard_links"], number(1)), NO)))
    some = some.take(pc.sort_indices(some["path"])).select(["path", *_TWIN]) if len(some) else some
    first: dict[tuple[object, ...], bytes] = {}
    found: dict[bytes, bytes] = {}
    for row in some.to_batches():
        for path, *who in zip(*(row[name].to_pylist() for name in ("path", *_TWIN)), strict=True):
            leader = first.setdefault(tuple(who), path)
            if leader is not path:
                found[path] = leader
    return found
