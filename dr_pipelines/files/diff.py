"""What differs between two snapshots, or a snapshot and the source as it is now."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from dr_pipelines.errors import DrError
from dr_pipelines.files.arrays import flat
from dr_pipelines.files.source import FileChanged, FileSource, FileUnreadable, FileVanished, Wanted
from dr_pipelines.files.table import FILE, equal_columns, places_in, shown, with_all_columns

SHOWN = 100
_PIECE = 1 << 20
_ABOUT = ("mode", "uid", "gid")


@dataclass(frozen=True)
class Change:
    """`what` is `added`, `removed`, `changed` (content), `type` or `mode` (mode or owner, with the same content).
    Sizes in bytes, None where it is not."""

    path: str
    what: str
    before: int | None
    after: int | None


@dataclass(frozen=True)
class Difference:
    """`counts` by what happened; `changes` in order of the path, as many as were asked for. `compared` says by what
    contents were compared; `unread` are those that could not be, and why."""

    before: str
    after: str
    compared: str
    counts: dict[str, int]
    changes: tuple[Change, ...]
    unread: dict[str, str] = field(default_factory=dict)


def diff_tables(before: pa.Table, after: pa.Table, changed: Callable[[pa.Table, pa.Table], pa.Array]) -> pa.Table:
    """A row a change: `path`, `what`, `before`, `after`. `changed` says of files of both, row by row, whose content
    differs."""
    places = places_in(before, after["path"])
    known = pc.is_valid(places)
    new, old = after.filter(known), before.take(places.drop_null())
    other_type = pc.not_equal(new["type"], old["type"])
    content = pc.and_(pc.invert(other_type), pc.fill_null(changed(old, new), True))
    target = pc.invert(equal_columns(old, new, ("target",)))
    content = pc.or_(content, pc.and_(pc.invert(other_type), target))
    about = pc.invert(equal_columns(old, new, _ABOUT))
    what = pc.case_when(
        pc.make_struct(other_type, content, about, field_names=["type", "content", "about"]),
        "type",
        "changed",
        "mode",
    )
    both = _changes(new["path"], what, old["size"], new["size"]).filter(pc.is_valid(what))
    added = after.filter(pc.invert(known))
    gone = before.filter(pc.invert(pc.is_in(before["path"], value_set=flat(after["path"]))))
    nothing = pa.nulls(len(added), pa.int64()), pa.nulls(len(gone), pa.int64())
    found = pa.concat_tables(
        [
            both,
            _changes(added["path"], pa.repeat("added", len(added)), nothing[0], added["size"]),
            _changes(gone["path"], pa.repeat("removed", len(gone)), gone["size"], nothing[1]),
        ]
    )
    return found.take(pc.sort_indices(found["path"]))


def difference(before: str, after: str, compared: str, found: pa.Table, most: int | None = SHOWN) -> Difference:
    """At most so many of the changes; None for all."""
    counts = {one["values"]: one["counts"] for one in pc.value_counts(found["what"]).to_pylist()}
    rows = found.slice(0, most).to_pylist()
    changes = tuple(Change(shown(row["path"]), row["what"], row["before"], row["after"]) for row in rows)
    return Difference(before, after, compared, {what: counts.get(what, 0) for what in _KINDS}, changes)


_KINDS = ("added", "changed", "removed", "type", "mode")


def by_digest(old: pa.Table, new: pa.Table) -> pa.Array:
    """Two snapshots know the SHA-256 of every content; what could not be read has none."""
    return pc.invert(equal_columns(old, new, ("sha256",)))


def by_time(old: pa.Table, new: pa.Table) -> pa.Array:
    """As far as a listing shows: size, time and ETag of files. Directories change their time with what is in them."""
    is_file = pc.equal(new["type"], FILE)
    return pc.and_(is_file, pc.invert(equal_columns(old, new, ("size", "mtime_ns", "etag"))))


class LiveContents:
    """Compares by reading the source. `unread` are files that could not be: these count as changed."""

    def __init__(self, source: FileSource) -> None:
        self._source = source
        self.unread: dict[str, str] = {}

    def __call__(self, old: pa.Table, new: pa.Table) -> pa.Array:
        same_size = pc.fill_null(pc.equal(old["size"], new["size"]), False)
        candidates = pc.and_(pc.equal(new["type"], FILE), same_size)
        rows = pc.indices_nonzero(candidates)
        some = new.take(rows).select(["path", "size", "mtime_ns", "etag", "version"])
        wanted = [Wanted(*row) for row in zip(rows.to_pylist(), *(one.to_pylist() for one in some), strict=True)]
        with ThreadPoolExecutor(2, thread_name_prefix="compare-files") as pool:
            digests = [*pool.map(self._digest, wanted)]
        differs = pc.and_(pc.equal(new["type"], FILE), pc.invert(same_size)).to_pylist()
        known = old["sha256"].take(rows).to_pylist()
        for one, digest, told in zip(wanted, digests, known, strict=True):
            differs[one.row] = digest is None or digest != told
        return pa.array(differs, pa.bool_())

    def _digest(self, wanted: Wanted) -> bytes | None:
        digest, buffer = hashlib.sha256(), memoryview(bytearray(_PIECE))
        try:
            with closing(self._source.open(wanted)) as file:
                while count := file.read_into(buffer):
                    digest.update(buffer[:count])
                file.finish()
        except (FileChanged, FileUnreadable, FileVanished) as error:
            self._note(wanted, error)
            return None
        return digest.digest()

    def _note(self, wanted: Wanted, error: DrError) -> None:
        self.unread[shown(wanted.path)] = error.message


def live_rows(source: FileSource) -> pa.Table:
    """The source as it is, in the columns of a table."""
    return with_all_columns(source.scan().rows)


def _changes(path: pa.Array, what: pa.Array, before: pa.Array, after: pa.Array) -> pa.Table:
    return pa.table([path, what, before, after], schema=_SCHEMA)


_SCHEMA = pa.schema([("path", pa.binary()), ("what", pa.string()), ("before", pa.int64()), ("after", pa.int64())])
