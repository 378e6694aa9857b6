"""What a source has now, with digests where they are asked for: those of files that are as a snapshot saw them are its,
the others are read. Nothing is stored."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from dr_pipelines.files.pack import EMPTY
from dr_pipelines.files.rows import is_as_it_was, wanted_of
from dr_pipelines.files.source import FileChanged, FileSource, FileUnreadable, FileVanished, Scan, Wanted, each_wanted
from dr_pipelines.files.table import FILE, SCHEMA, empty, places_in, with_all_columns
from dr_pipelines.progress import Progress

_PIECE = 1 << 20


def known_digests(scan: Scan, known: pa.Table | None, seen_at: datetime | None) -> pa.Table:
    """The scan's rows in all columns of a snapshot, with the digests that `known` has of files that are as they were
    at `seen_at`, and of empty ones."""
    rows = with_all_columns(scan.rows)
    known = known if known is not None else empty()
    old = known.take(places_in(known, rows["path"]))
    is_file = pc.equal(rows["type"], FILE)
    digest = pc.if_else(is_as_it_was(scan.rows, old, seen_at), old["sha256"], pa.scalar(None, pa.binary(32)))
    nothing = pc.and_(is_file, pc.equal(rows["size"], 0))
    return _with_digests(rows, pc.if_else(nothing, pa.scalar(EMPTY, pa.binary(32)), digest))


def read_digests(source: FileSource, rows: pa.Table, chosen: pa.Array, progress: Progress) -> pa.Table:
    """`rows` with the digests of the chosen files, read as they are now: none where one was changed while it was read,
    and why not where it cannot be read; without those that are gone. Raises what a store raises."""
    wanted = [*each_wanted(wanted_of(rows, pc.and_(chosen, pc.equal(rows["type"], FILE))))]
    if not wanted:
        return rows
    progress.phase("read", sum(one.size for one in wanted))
    with ThreadPoolExecutor(source.readers, thread_name_prefix="digests") as pool:
        found = [*pool.map(lambda one: _digest(source, one, progress), wanted)]
    digests, errors = rows["sha256"].to_pylist(), rows["error"].to_pylist()
    for one, content in zip(wanted, found, strict=True):
        digests[one.row], errors[one.row] = content.digest, content.error
    column = pa.array(errors, pa.string())
    rows = rows.set_column(SCHEMA.get_field_index("error"), SCHEMA.field("error"), column)
    rows = _with_digests(rows, pa.array(digests, pa.binary(32)))
    gone = [one.row for one, content in zip(wanted, found, strict=True) if content.gone]
    return rows.filter(pc.invert(pc.is_in(pa.array(range(len(rows))), value_set=pa.array(gone, pa.int64()))))


@dataclass(frozen=True, slots=True)
class _Content:
    digest: bytes | None = None
    error: str | None = None
    gone: bool = False


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
    unchanged = not left and seen.columns.get("size", wanted.size) == wanted.size
    return _Content(digest.digest() if unchanged else None)


def _with_digests(rows: pa.Table, digests: pa.Array) -> pa.Table:
    return rows.set_column(SCHEMA.get_field_index("sha256"), SCHEMA.field("sha256"), digests)
