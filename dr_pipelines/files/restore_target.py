"""Where files are restored to: a directory, a bucket."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import pyarrow as pa

from dr_pipelines.errors import RestoreError


class Row(NamedTuple):
    """A file as the table has it; what its source did not know is None. `headers` and `metadata` of a bucket's."""

    path: bytes
    size: int
    mtime_ns: int | None
    mode: int | None
    uid: int | None
    gid: int | None
    sha256: bytes | None
    offset: int | None
    headers: Mapping[str, str] | None
    metadata: Mapping[str, str] | None


class NotRestored(RestoreError):
    """One file cannot be written; the message says why. The others can."""


Pieces = Callable[[], Iterator[memoryview]]
"""The content from its beginning, each time it is called; a piece is valid until the next. It raises `IntegrityError`
at the end when it was not what its row says."""


class Target(Protocol):
    """`writers`: how many files each of these threads may write side by side. Called from several, each file once.
    Raises `NotRestored` for one file; `HostTooSmall`, what a store raises, when none of the others could be written
    either."""

    @property
    def writers(self) -> int: ...

    def put(self, row: Row, content: memoryview) -> None:
        """A file whole, proven already."""
        ...

    def put_large(self, rows: Sequence[Row], pieces: Pieces) -> None:
        """A content that is not in memory whole, under each of these paths. What is not proven does not stay."""
        ...


def rows_in(table: pa.Table, start: int = 0, stop: int | None = None) -> list[Row]:
    part = table.slice(start, None if stop is None else stop - start)
    return [Row(*values) for values in zip(*(_values(part, name) for name in Row._fields), strict=True)]


def _values(table: pa.Table, name: str) -> list[Any]:
    column = table[name]
    if name in ("headers", "metadata"):
        if column.null_count == len(column):
            return [None] * len(column)
        return [None if value is None else dict(value) for value in column.to_pylist()]
    values: list[Any] = column.to_pylist()
    return values
