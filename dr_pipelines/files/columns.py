"""The table of a snapshot as plain columns, for whoever judges it: what is true of each row, None where that is not
asked of it. Whole columns at once: a set may have hundreds of thousands of files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dr_pipelines.files.table import DIRECTORY, FILE, LINK, shown


def columns_of(table: pa.Table, archives: Mapping[str, int]) -> dict[str, list[Any]]:
    """`archives`: raw sizes of those that the manifest names, in bytes. Of files: `size`, `modified` (Unix seconds);
    `has_digest` of those that could be read; `is_placed` and `is_within` of those that also have content."""
    is_file = pc.equal(table["type"], FILE)
    read = pc.and_(is_file, pc.is_null(table["error"]))
    full = pc.and_(read, pc.greater(table["size"], 0))
    sizes = pa.array([*archives.values()], pa.int64())
    place = pc.index_in(table["archive"], value_set=pa.array([*archives], pa.string()))
    room = pc.subtract(sizes.take(place.combine_chunks()), table["size"].combine_chunks())
    offset = table["offset"].combine_chunks()
    within = pc.and_(pc.greater_equal(offset, 0), pc.less_equal(offset, room))
    return {
        "path": _paths(table["path"]),
        "type": table["type"].to_pylist(),
        "is_known_type": pc.is_in(table["type"], value_set=pa.array([FILE, DIRECTORY, LINK])).to_pylist(),
        "size": _where(is_file, table["size"]),
        "modified": _where(is_file, pc.divide(table["mtime_ns"], 1_000_000_000)),
        "has_digest": _where(read, pc.is_valid(table["sha256"])),
        "is_placed": _where(full, pc.is_valid(place)),
        "is_within": _where(full, pc.fill_null(within, False)),
    }


def _where(asked: Any, values: Any) -> list[Any]:
    values = values if isinstance(values, pa.ChunkedArray) else pa.chunked_array([values])
    found: list[Any] = pc.if_else(asked, values, pa.scalar(None, values.type)).to_pylist()
    return found


def _paths(paths: pa.ChunkedArray) -> list[str]:
    try:
        text: list[str] = paths.cast(pa.string()).to_pylist()
    except pa.ArrowInvalid:  # a name that is no UTF-8
        text = [shown(path) for path in paths.to_pylist()]
    return text
