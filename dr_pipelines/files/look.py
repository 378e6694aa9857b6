"""What a source has now, with digests where they are asked for: those of files that are as a snapshot saw them are its,
the others are read. Nothing is stored."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dr_pipelines.files.arrays import array, flat, number, text
from dr_pipelines.files.pack import EMPTY
from dr_pipelines.files.rows import is_as_it_was, wanted_of
from dr_pipelines.files.source import FileChanged, FileSource, FileUnreadable, FileVanished, Scan, Wanted
from dr_pipelines.files.table import FILE, SCHEMA, UNCHANGED, empty, places_in
from dr_pipelines.progress import Progress

_PIECE = 1 << 20
_INDEXED = 200_000
_SOME = 50_000
"""So many rows are compared at once: what is known of a million is not copied whole to be compared."""
SEEN = ("path", "type", *UNCHANGED, "sha256", "error")
"""What is known here of a file. All that a snapshot has would take thrice the memory."""


def known_digests(scan: Scan, known: pa.Table | None, seen_at: datetime | None) -> pa.Table:
    """The scan's rows in the columns of `SEEN`, with the digests that `known` has of files that are as they were at
    `seen_at`, and of empty ones."""
    rows = scan.rows.select(["path", "type", *UNCHANGED])
    known = (known if known is not None else empty()).select(["path", *UNCHANGED, "sha256"])
    places = _places(known, rows["path"])
    digests = [
        _known_digests(rows.slice(start, _SOME), known.take(places.slice(start, _SOME)), seen_at)
        for start in range(0, len(rows), _SOME)
    ]
    column = pa.chunked_array([chunk for one in digests for chunk in one.chunks], pa.binary(32))
    rows = rows.append_column(SCHEMA.field("sha256"), column)
    return rows.append_column(SCHEMA.field("error"), pa.nulls(len(rows), pa.string()))


def _places(known: pa.Table, paths: pa.ChunkedArray) -> pa.Array:
    """As `places_in`, which makes an index of all that is known: here of a part of it at a time."""
    if len(known) <= _INDEXED:
        return places_in(known, paths)
    found = pa.nulls(len(paths), pa.int64())
    for start in range(0, len(known), _INDEXED):
        there = pc.index_in(paths, value_set=flat(known["path"].slice(start, _INDEXED)))
        found = pc.coalesce(found, pc.add(flat(there).cast(pa.int64()), number(start)))
    return found


def _known_digests(rows: pa.Table, old: pa.Table, seen_at: datetime | None) -> pa.ChunkedArray:
    unknown, nothing = array([None, EMPTY], pa.binary(32))
    digest = pc.if_else(is_as_it_was(rows, old, seen_at), old["sha256"], unknown)
    is_empty = pc.and_(pc.equal(rows["type"], text(FILE)), pc.equal(rows["size"], number(0)))
    return pc.if_else(is_empty, nothing, digest)


def read_digests(source: FileSource, rows: pa.Table, chosen: pa.Array, progress: Progress) -> pa.Table:
    """`rows` with the digests of the chosen files as they are now, with their size and ETag: none where one was changed
    while it was read, and why not where it cannot be read; without those that are gone. Raises what a store raises."""
    chosen = flat(pc.and_(chosen, pc.equal(rows["type"], text(FILE))))
    wanted = [*wanted_of(rows, chosen)]
    if not wanted:
        return rows
    progress.phase("read", sum(one.size for one in wanted))
    with ThreadPoolExecutor(source.readers, thread_name_prefix="digests") as pool:
        found = [*pool.map(lambda one: _digest(source, one, progress), wanted)]
    told: dict[str, list[Any]] = {"sha256": [one.digest for one in found], "error": [one.error for one in found]}
    for name in {name for one in found for name in one.seen if name in UNCHANGED}:
        listed = rows[name].filter(chosen).to_pylist()
        told[name] = [one.seen.get(name, old) for one, old in zip(found, listed, strict=True)]
    for name, values in told.items():
        rows = _with(rows, name, chosen, values)
    gone = [one.path for one, content in zip(wanted, found, strict=True) if content.gone]
    return rows.filter(pc.invert(pc.is_in(rows["path"], value_set=array(gone, pa.binary()))))


@dataclass(frozen=True, slots=True)
class _Content:
    digest: bytes | None = None
    error: str | None = None
    gone: bool = False
    seen: Mapping[str, Any] = field(default_factory=dict)


def _digest(source: FileSource, wanted: Wanted, progress: Progress) -> _Content:
    digest, buffer = hashlib.sha256(), memoryview(bytearray(min(_PIECE, wanted.size + 1)))
    try:
        with closing(source.open(wanted)) as file:
            left = file.size
            while left and (count := file.read_into(buffer[: min(left, _PIECE)])):
                digest.update(buffer[:count])
                progress.advance(count)
                left -= count
            seen = file.finish()
    except FileUnreadable as error:
        return _Content(error=error.message)
    except FileChanged:
        return _Content()
    except FileVanished:
        return _Content(gone=True)
    whole = not left and seen.columns.get("size", wanted.size) == file.size
    return _Content(digest.digest() if whole else None, seen=seen.columns)


def _with(rows: pa.Table, name: str, chosen: pa.Array, values: Sequence[Any]) -> pa.Table:
    """Other values of the chosen rows."""
    kind = SCHEMA.field(name)
    column = pc.replace_with_mask(flat(rows[name]), chosen, array(values, kind.type))
    return rows.set_column(rows.schema.get_field_index(name), kind, column)
