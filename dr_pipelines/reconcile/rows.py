"""Rows that point at files as a table, a million of which take some hundred megabytes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import pyarrow as pa

from dr_pipelines.files.arrays import array, booleans, no_rows

SCHEMA = pa.schema(
    [
        ("path", pa.binary()),
        ("size", pa.int64()),
        ("sha256", pa.binary(32)),
        ("etag", pa.string()),
        ("version", pa.string()),
        ("reference", pa.string()),
        ("unusable", pa.bool_()),
    ]
)
"""`path` in the file set; `version` as the source names it (Supabase, anew whenever the object is written); `unusable`:
the row has something in the column of digests that is no SHA-256."""
_HEX = re.compile(rb"(?:\\x)?([0-9a-fA-F]{64})\s*")
_Row = tuple[bytes, int | None, bytes | None, str | None, str | None]


def rows_table(reference: str, prefix: str, batches: Iterable[Sequence[_Row]], *, exact: bool = False) -> pa.Table:
    """Of one reference, from what its database gives. `exact`: a slash at the start of a path is a part of it."""
    folder = folder_of(prefix)
    return pa.Table.from_batches([_batch(reference, folder, rows, exact) for rows in batches if rows], SCHEMA)


def folder_of(prefix: str) -> bytes:
    """What precedes each path, with the slash at its end."""
    folder = prefix.strip("/").encode()
    return folder + b"/" if folder else b""


def together(tables: Sequence[pa.Table]) -> pa.Table:
    return pa.concat_tables([no_rows(SCHEMA), *tables])


def _batch(reference: str, folder: bytes, rows: Sequence[_Row], exact: bool) -> pa.RecordBatch:
    paths, sizes, digests, etags, versions = zip(*rows, strict=True)
    found = [_digest(text) if text else None for text in digests]
    columns = {
        "path": [folder + (path if exact else path.lstrip(b"/")) for path in paths] if folder or not exact else paths,
        "size": sizes,
        "sha256": found,
        "etag": [etag or None for etag in etags],
        "version": [version or None for version in versions],
        "reference": [reference] * len(rows),
    }
    arrays = [array(values, SCHEMA.field(name).type) for name, values in columns.items()]
    unusable = booleans([bool(text) and one is None for text, one in zip(digests, found, strict=True)])
    return pa.record_batch([*arrays, unusable], schema=SCHEMA)


def _digest(text: bytes) -> bytes | None:
    found = _HEX.fullmatch(text)
    return bytes.fromhex(found.group(1).decode()) if found else None
