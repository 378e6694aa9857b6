"""The rows of a snapshot, from what its source says, what is known and what was read. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from dr_pipelines.files.arrays import NO, YES, array, booleans, first_of_each, flat, no_rows, number, numbers, text
from dr_pipelines.files.pack import EMPTY, Packed, Read
from dr_pipelines.files.source import Scan, WantedFiles
from dr_pipelines.files.table import (
    CONTENT,
    FILE,
    SCHEMA,
    SOURCE,
    UNCHANGED,
    beside,
    chosen,
    empty,
    equal_columns,
    picked,
    places_in,
    with_all_columns,
    with_columns,
)
from dr_pipelines.repository.snapshot_manifest import Counts

_MARGIN = timedelta(seconds=2)
"""What was written to so shortly before a snapshot began may have been written to again within one tick of its file
system's clock, or one second of a bucket's: it is read once more."""


def newest_of_each(rows: pa.Table) -> pa.Table:
    """Of paths that are there twice the last."""
    backwards = rows.take(numbers(len(rows))[::-1])
    return backwards.take(first_of_each(backwards["path"]))


@dataclass(frozen=True)
class Kept:
    """Rows of a scan that are not read: those of `mask`. What is known of each stands in `previous` at its place in
    `places`, which is null where nothing is."""

    previous: pa.Table
    places: pa.Array
    mask: pa.Array


def is_as_it_was(rows: pa.Table, old: pa.Table, seen_at: datetime | None) -> pa.Array:
    """For each row of a scan whether its file has the content that the row of the same path in `old` names, which was
    seen by a snapshot that began at `seen_at`."""
    known = pc.and_(pc.is_valid(old["sha256"]), equal_columns(rows, old, UNCHANGED))
    if seen_at is not None:
        before = int((seen_at - _MARGIN).timestamp() * 1e9)
        changed = pc.coalesce(rows["ctime_ns"], rows["mtime_ns"])
        known = pc.and_(known, pc.fill_null(pc.less(changed, number(before)), YES))
    return pc.fill_null(known, NO)


def wanted_of(rows: pa.Table, chosen: pa.Array) -> WantedFiles:
    return WantedFiles(rows, pc.indices_nonzero(chosen).cast(pa.int64()))


class ReadRows:
    """The rows of files of a scan that were read, while they become more: what differs from the scan is all that is
    kept of them."""

    def __init__(self, rows: pa.Table) -> None:
        self._rows = rows
        self._contents = [no_rows(_CONTENTS)]
        self._others = [empty()]

    def add(self, reads: Sequence[Read]) -> pa.Table:
        """Their rows."""
        told = rows_of(self._rows, reads)
        places = array([read.wanted.row for read in reads], pa.int64())
        same = booleans([False] * len(told))
        if all(told[name].null_count == len(told) for name in ("headers", "metadata")):  # no listing tells these
            same = equal_columns(told, self._rows.take(places), SOURCE.names)
        contents = told.select(CONTENT.names).add_column(0, "row", places)
        self._contents.append(chosen(contents, same))
        self._others.append(chosen(told, pc.invert(same)))
        return told

    def beside(self, kept: Kept) -> pa.Table:
        """All rows of the scan whose content is known: as they were read, or `kept`. What is neither went away."""
        contents = pa.concat_tables(self._contents).combine_chunks()
        read = pc.index_in(numbers(len(self._rows)), value_set=flat(contents["row"])).cast(pa.int64())
        rows = chosen(_with_content(self._rows, kept, contents, read), pc.or_(kept.mask, pc.is_valid(read)))
        others = pa.concat_tables(self._others)
        return pa.concat_tables([rows, others]) if len(others) else rows


def _with_content(rows: pa.Table, kept: Kept, contents: pa.Table, read: pa.Array) -> pa.Table:
    """The rows, and where their content lies: what is known, or what `contents` says at the places `read`. Columns that
    stay as they are known are not copied: all of them together are the most that a snapshot holds in memory."""
    is_file = flat(pc.equal(rows["type"], text(FILE)))
    nothing = pc.and_(kept.mask, pc.invert(pc.and_(is_file, flat(pc.greater(rows["size"], number(0))))))
    places = pc.if_else(kept.mask, kept.places, _NOWHERE)
    had_content = pc.is_valid(flat(kept.previous["archive"]).take(places))
    places = pc.if_else(pc.and_(nothing, had_content), _NOWHERE, places)
    places = pc.coalesce(places, pc.add(read, number(len(kept.previous))))
    known = with_all_columns(kept.previous.drop_columns(["error"]), _TOLD)
    told = with_all_columns(contents, _TOLD)
    full = with_all_columns(rows)
    for name in _TOLD.names:
        column = picked(known[name], told[name], places)
        if name == "sha256":
            column = pc.if_else(nothing, pc.if_else(is_file, _EMPTY, _NO_DIGEST), column)
        full = full.set_column(SCHEMA.get_field_index(name), SCHEMA.field(name), column)
    return full


_TOLD = pa.schema([*CONTENT, SOURCE.field("headers"), SOURCE.field("metadata")])
"""What a listing does not say. With the same ETag headers and metadata are the same too."""
_NOWHERE, _NO_DIGEST = pa.nulls(1, pa.int64())[0], pa.nulls(1, pa.binary(32))[0]
_EMPTY = array([EMPTY], pa.binary(32))[0]
_CONTENTS = pa.schema([("row", pa.int64()), *CONTENT])


def rows_of(rows: pa.Table, reads: Sequence[Read]) -> pa.Table:
    """The rows of files that were read, as they were while they were read."""
    some = with_all_columns(rows.take(array([read.wanted.row for read in reads], pa.int64())))
    told: dict[str, list[object]] = {
        "sha256": [read.digest for read in reads],
        "archive": [read.place[0] if read.place else None for read in reads],
        "offset": [read.place[1] if read.place else None for read in reads],
        "error": [read.error for read in reads],
        "compresses_to": [read.compresses_to for read in reads],
    }
    for name in {name for read in reads for name in read.columns or ()}:
        scanned = some[name].to_pylist()
        told[name] = [(read.columns or {}).get(name, old) for read, old in zip(reads, scanned, strict=True)]
    for name, values in told.items():
        column = array(values, SCHEMA.field(name).type)
        some = some.set_column(SCHEMA.get_field_index(name), SCHEMA.field(name), column)
    return some


def changed_since(known: pa.Table, seen_at: datetime, looked: Scan, paths: Collection[bytes]) -> list[bytes]:
    """The paths at which a file is now that a snapshot, begun at `seen_at`, does not have like that, or where none is
    any more."""
    rows = with_all_columns(looked.rows)
    old = known.take(places_in(known, rows["path"]))
    other = pc.and_(pc.equal(rows["type"], FILE), pc.invert(is_as_it_was(rows, old, seen_at)))
    asked = pa.array([*paths], pa.binary())
    there = pa.array([*rows["path"].to_pylist(), *looked.unreadable], pa.binary())
    once = known["path"].filter(pc.equal(known["type"], FILE))
    gone = pc.and_(pc.is_in(asked, value_set=flat(once)), pc.invert(pc.is_in(asked, value_set=there)))
    changed: list[bytes] = [*rows["path"].filter(other).to_pylist(), *asked.filter(gone).to_pylist()]
    return changed


def with_looked_at(before: pa.Table, looked: Scan, paths: Collection[bytes]) -> Scan:
    """A scan of everything, as it was before, but for what was looked at again."""
    again = pa.array([*{*paths, *looked.rows["path"].to_pylist()}], pa.binary())
    others = before.filter(pc.invert(pc.is_in(before["path"], value_set=again)))
    # Of these nothing is known but that they are there.
    dark = pc.and_(pc.is_valid(others["error"]), pc.equal(others["size"], 0))
    reasons = dict(zip(*(others.filter(dark)[name].to_pylist() for name in ("path", "error")), strict=True))
    rows = pa.concat_tables([others.filter(pc.invert(dark)).select(SOURCE.names), looked.rows.select(SOURCE.names)])
    return Scan(rows.combine_chunks(), {**reasons, **looked.unreadable}, looked.notes)


def with_unreadable(rows: pa.Table, scan: Scan) -> pa.Table:
    """`rows` of the scan, with what could not be looked at: a directory that cannot be listed has a row already, which
    says so then (what is in it would pass for removed), and what cannot even be looked at gets one."""
    if not scan.unreadable:
        return rows
    paths, reasons = pa.array([*scan.unreadable], pa.binary()), pa.array([*scan.unreadable.values()], pa.string())
    errors = pc.coalesce(rows["error"], reasons.take(pc.index_in(rows["path"], value_set=paths)))
    place = rows.schema.get_field_index("error")
    known = set(rows["path"].to_pylist())
    unknown = [path for path in scan.unreadable if path not in known]
    added = with_columns(
        {
            "path": unknown,
            "type": [FILE] * len(unknown),
            "size": [0] * len(unknown),
            "error": [scan.unreadable[path] for path in unknown],
        }
    )
    return pa.concat_tables([rows.set_column(place, rows.schema.field(place), errors), added])


def counted(rows: pa.Table, before: pa.Table, packed: Packed, tables: int) -> Counts:
    here = beside(before, rows, ["sha256"])
    both = pc.and_(here.is_file, here.was_file)
    changed = pc.and_(both, pc.invert(pc.fill_null(pc.equal(rows["sha256"], here.old["sha256"]), NO)))
    files, known = _sum(here.is_file), _sum(both)
    kinds = {found["values"]: found["counts"] for found in pc.value_counts(rows["type"]).to_pylist()}
    return Counts(
        files=files,
        directories=kinds.get("directory", 0),
        links=kinds.get("link", 0),
        bytes=_sum(rows["size"].filter(here.is_file)),
        new=files - known,
        changed=_sum(changed),
        removed=_sum(pc.equal(before["type"], text(FILE))) - known,
        unreadable=len(rows) - rows["error"].null_count,
        read_bytes=packed.read_bytes,
        new_bytes=packed.new_bytes,
        stored_bytes=packed.stored_bytes + tables,
    )


def _sum(values: pa.ChunkedArray) -> int:
    return int(pc.sum(values).as_py() or 0)
