"""Rows that point at files as a table, a million of which take some hundred megabytes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import pyarrow as pa

SCHEMA = pa.schema(
    [
        ("path", pa.binary()),
        ("size", pa.int64()),
        ("sha256", pa.binary(32)),
        ("etag", pa.string()),
        ("reference", pa.string()),
        ("unusable", pa.bool_()),
    ]
)
"""`path` in the file set; `unusable`: the row has something in the column of digests that is no SHA-256."""
_HEX = re.compile(rb"(?:\\x)?([0-9a-fA-F]{64})\s*")
_Row = tuple[bytes, int | None, bytes | None, str | None]


def rows_table(reference: str, prefix: str, batches: Iterable[Sequence[_Row]], *, exact: bool = False) -> pa.Table:
    """Of one reference, from what its database gives. `exact`: a slash at the start of a path is a part of it."""
    folder = folder_of(prefix)
    return pa.Table.from_batches([_batch(reference, folder, rows, exact) for rows in batches], SCHEMA)


def folder_of(prefix: str) -> bytes:
    """What precedes each path, with the slash at its end."""
    folder = prefix.strip("/").encode()
    return folder + b"/" if folder else b""


def together(tables: Sequence[pa.Table]) -> pa.Table:
    return pa.concat_tables([SCHEMA.empty_table(), *tables]).combine_chunks()


def _batch(reference: str, folder: bytes, rows: Sequence[_Row], exact: bool) -> pa.RecordBatch:
    digests = [_digest(row[2]) for row in rows]
    columns = [
        [folder + (row[0] if exact else row[0].lstrip(b"/")) for row in rows],
        [row[1] for row in rows],
        digests,
        [row[3] or None for row in rows],
        [reference] * len(rows),
        [bool(row[2]) and found is None for row, found in zip(rows, digests, strict=True)],
    ]
    arrays = [pa.array(values, field.type) for values, field in zip(columns, SCHEMA, strict=True)]
    return pa.record_batch(arrays, schema=SCHEMA)


def _digest(text: bytes | None) -> bytes | None:
    found = _HEX.fullmatch(text) if text else None
    return bytes.fromhex(found.group(1).decode()) if found else None
