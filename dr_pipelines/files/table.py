"""The table of a snapshot: a row a file, directory and link, in Parquet.

`path` is the key: bytes relative to the source, parts joined by `/` (a bucket's key in UTF-8). What the source says of
a file stands in the columns of `SOURCE`, where its content lies in those of `CONTENT`. `error` says why a file has no
content; `compresses_to` how much of its beginning is left when it is compressed, in percent (see `sample`). What is
null the source does not have: a bucket knows no modes, a directory no ETags.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dr_pipelines.errors import IntegrityError
from dr_pipelines.files.arrays import (
    NO,
    array,
    booleans,
    flat,
    no_rows,
    number,
    numbers,
    read_parquet,
    strings,
    text,
    to_numpy,
)

FILE, DIRECTORY, LINK, GONE = "file", "directory", "link", "gone"
"""Types of rows. `GONE` only in changes: the row of the table below is no more."""

SOURCE = pa.schema(
    [
        ("path", pa.binary()),
        ("type", pa.string()),
        ("size", pa.int64()),
        ("mtime_ns", pa.int64()),
        ("ctime_ns", pa.int64()),
        ("inode", pa.int64()),
        ("device", pa.int64()),
        ("hard_links", pa.int64()),
        ("mode", pa.int32()),
        ("uid", pa.int64()),
        ("gid", pa.int64()),
        ("user", pa.string()),
        ("group", pa.string()),
        ("target", pa.binary()),
        ("etag", pa.string()),
        ("version", pa.string()),
        ("headers", pa.map_(pa.string(), pa.string())),
        ("metadata", pa.map_(pa.string(), pa.string())),
    ]
)
CONTENT = pa.schema(
    [
        ("sha256", pa.binary(32)),
        ("archive", pa.string()),
        ("offset", pa.int64()),
        ("error", pa.string()),
        ("compresses_to", pa.uint8()),
    ]
)
SCHEMA = pa.unify_schemas([SOURCE, CONTENT])
UNCHANGED = ("size", "mtime_ns", "ctime_ns", "inode", "etag", "version")
"""A file of which all of these are as they were is not read again."""
_COMPARED = tuple(name for name in SCHEMA.names if name != "path")


def empty() -> pa.Table:
    return no_rows(SCHEMA)


def in_order(table: pa.Table) -> pa.Table:
    """By path: the order in which tables are stored, so that equal sets give equal tables."""
    paths = flat(table["path"])
    if pc.all(pc.less_equal(paths[:-1], paths[1:])).as_py() is not False:
        return table.combine_chunks()
    return table.take(pc.sort_indices(paths)).combine_chunks()


def rows_at(table: pa.Table, places: pa.Array) -> pa.Table:
    """The rows at these places; the table itself where that is all of them, as it often is: a copy takes memory."""
    return table if places.equals(numbers(len(table))) else table.take(places)


def not_at(table: pa.Table, places: pa.Array) -> pa.Table:
    """The rows that are at none of these places, each of which is there once at most."""
    places = places.drop_null()
    if len(places) == len(table):
        return no_rows(table.schema)
    rest = np.ones(len(table), dtype=np.bool_)
    rest[to_numpy(places)] = False
    return table.filter(booleans(rest))


def chosen(table: pa.Table, mask: pa.Array) -> pa.Table:
    """The rows where `mask` says so; the table itself where it does everywhere."""
    if pc.all(mask, skip_nulls=False).as_py():
        return table
    return table.filter(mask) if pc.any(mask).as_py() else no_rows(table.schema)  # a slice would hold on to all


@dataclass(frozen=True)
class Beside:
    """What `before` has at the paths of `after`: `places` of its rows, null where it has none, and in `old` some of its
    columns there. `is_file` and `was_file`: for each row of `after`."""

    places: pa.Array
    old: pa.Table
    is_file: pa.Array
    was_file: pa.Array


def beside(before: pa.Table, after: pa.Table, names: Sequence[str]) -> Beside:
    places = places_in(before, after["path"])
    old = rows_at(before.select(["type", *names]), places)
    is_file = pc.equal(after["type"], text(FILE))
    return Beside(places, old, is_file, pc.fill_null(pc.equal(old["type"], text(FILE)), NO))


def encode_table(table: pa.Table) -> memoryview:
    """As Parquet."""
    import pyarrow.parquet as pq  # a snapshot in which nothing changed writes none

    sink = pa.BufferOutputStream()
    repeated = [name for name in SCHEMA.names if name not in ("path", "sha256", "offset", "inode")]
    pq.write_table(table, sink, compression="zstd", use_dictionary=repeated, write_statistics=False)
    return memoryview(sink.getvalue())


def decode_table(data: bytes | IO[bytes]) -> pa.Table:
    """Columns of a newer minor format are left out, those of an older are null. Raises `IntegrityError`."""
    try:
        found = read_parquet(pa.BufferReader(data) if isinstance(data, bytes) else data)
        return with_all_columns(found).combine_chunks()
    except (pa.ArrowException, OSError) as error:
        raise IntegrityError(f"a table of files cannot be read: {error}") from error


def places_in(table: pa.Table, paths: Any) -> pa.Array:
    """For each path the row of `table` that has it; null where none has. Rows of both in the same order are the rule,
    and quick."""
    paths = flat(paths)
    known = flat(table["path"])
    if len(known) == len(paths) and known.equals(paths):
        return numbers(len(known))
    return pc.index_in(paths, value_set=known).cast(pa.int64())


def equal_columns(one: pa.Table, other: pa.Table, names: Sequence[str]) -> pa.Array:
    """For each row whether all of these columns say the same; null is equal to null. Both are of one length."""
    same = None
    for name in names:
        left, right = flat(one[name]), flat(other[name])
        if left.equals(right):
            continue
        alike = booleans(_equal_maps(left, right)) if pa.types.is_map(left.type) else _equal(left, right)
        same = alike if same is None else pc.and_(same, alike)
    return same if same is not None else booleans([True] * len(one))


def _equal(left: pa.Array, right: pa.Array) -> pa.Array:
    both = pc.fill_null(pc.equal(left, right), NO)
    return pc.or_(both, pc.and_(pc.is_null(left), pc.is_null(right)))


def _equal_maps(left: pa.Array, right: pa.Array) -> list[bool]:
    """Arrow compares maps only as whole arrays: by halves, for few of them differ."""
    if len(left) <= 1 or left.equals(right):
        return [left.equals(right)] * len(left)
    half = len(left) // 2
    return _equal_maps(left[:half], right[:half]) + _equal_maps(left[half:], right[half:])


def lay_over(base: pa.Table, changes: pa.Table) -> pa.Table:
    """The table that `base` becomes with the rows of `changes`. Column by column: two whole tables take much memory."""
    if not len(changes):
        return base
    changed = pc.index_in(flat(base["path"]), value_set=flat(changes["path"])).cast(pa.int64())
    gone = flat(pc.equal(changes["type"], text(GONE)))
    known = pc.is_in(numbers(len(changes)), value_set=changed)
    new = pc.indices_nonzero(pc.invert(pc.or_(known, gone))).cast(pa.int64())
    stays = pc.invert(pc.fill_null(gone.take(changed), NO))
    end = number(len(base))
    places = pc.coalesce(pc.add(changed, end), numbers(len(base))).filter(stays)
    if len(new):
        places = pa.concat_arrays([places, pc.add(new, end)])
        places = places.take(pc.sort_indices(picked(base["path"], changes["path"], places)))
    return pa.table([picked(base[name], changes[name], places) for name in SCHEMA.names], schema=SCHEMA)


def picked(one: pa.ChunkedArray, other: pa.ChunkedArray, places: pa.Array) -> pa.Array:
    """Both columns as one, at these places; `one` itself where that is the same."""
    old, new = flat(one), flat(other)
    if len(places) == len(old) and not places.null_count:
        changed = pc.not_equal(places, numbers(len(old)))
        at = pc.subtract(places.filter(changed), number(len(old)))
        if pc.all(pc.greater_equal(at, number(0))).as_py() and new.take(at).equals(old.filter(changed)):
            return old
    return pa.concat_arrays([old, new]).take(places)


def changes_of(base: pa.Table, table: pa.Table) -> pa.Table:
    """The rows that make `table` of `base`."""
    places = places_in(base, table["path"])
    known, there = pc.is_valid(places), places.drop_null()
    columns = ((chosen(table.select([name]), known), rows_at(base.select([name]), there), name) for name in _COMPARED)
    alike = reduce(pc.and_, (equal_columns(new, old, [name]) for new, old, name in columns))
    changed = pc.indices_nonzero(known).filter(pc.invert(alike))
    rows = [chosen(table, pc.invert(known)), table.take(changed)]
    vanished = flat(not_at(base.select(["path"]), places)["path"])
    if len(vanished):
        gone = pa.table({"path": vanished, "type": strings([GONE] * len(vanished))})
        rows.append(with_all_columns(gone))
    return in_order(pa.concat_tables(rows))


def with_all_columns(table: pa.Table, schema: pa.Schema = SCHEMA) -> pa.Table:
    """Those that are not there are null."""
    columns = [
        table[field.name].cast(field.type) if field.name in table.column_names else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def with_columns(columns: Mapping[str, Sequence[Any]], schema: pa.Schema = SCHEMA) -> pa.Table:
    """Of Python's values by column; those that are not there are null."""
    arrays = {name: array(values, schema.field(name).type) for name, values in columns.items()}
    return with_all_columns(pa.table(arrays), schema)


def shown(path: bytes) -> str:
    """A path for people: what is no UTF-8, and what would move the cursor, is escaped."""
    text = path.decode(errors="backslashreplace")
    return text if text.isprintable() else text.encode("unicode_escape").decode()
