"""Which contents a file set holds already, and where: what makes equal contents be stored once."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dr_pipelines.files.arrays import array, first_of_each, flat, no_rows, strings, text
from dr_pipelines.files.table import FILE

SCHEMA = pa.schema([("sha256", pa.binary(32)), ("size", pa.int64()), ("archive", pa.string()), ("offset", pa.int64())])
Place = tuple[str, int]
"""An archive, and the offset of the content in its tar."""


class Contents:
    """Of earlier snapshots (`table`, in the columns of `SCHEMA`), and what is added. A million of them take some tens
    of megabytes: digests stay in one piece, and are found by their first eight bytes. Safe to use from threads."""

    def __init__(self, table: pa.Table) -> None:
        table = table.take(pc.sort_indices(table["sha256"])).combine_chunks()
        self._table = table
        digests = flat(table["sha256"]) if len(table) else array([], pa.binary(32))
        buffer = digests.buffers()[1]
        # As unsigned bytes: Arrow's are signed, and compare as numbers.
        self._digests = (
            memoryview(buffer).cast("B")[digests.offset * 32 : (digests.offset + len(digests)) * 32] if buffer else b""
        )
        self._heads = np.frombuffer(self._digests, dtype=">u8")[::4].astype(np.uint64) if len(digests) else _NONE
        self._added: dict[bytes, Place] = {}
        self._sizes = set(pc.unique(table["size"]).to_pylist()) if len(table) else set()

    def find(self, digest: bytes) -> Place | None:
        if (place := self._added.get(digest)) is not None:
            return place
        if not len(self._heads):
            return None
        # As an unsigned number: numpy takes any other for a float, which holds 53 bits.
        row = int(np.searchsorted(self._heads, np.uint64(int.from_bytes(digest[:8], "big"))))
        while row < len(self._heads) and self._digests[row * 32 : row * 32 + 8] == digest[:8]:
            if self._digests[row * 32 : row * 32 + 32] == digest:
                return self._table["archive"][row].as_py(), self._table["offset"][row].as_py()
            row += 1
        return None

    def may_hold(self, size: int) -> bool:
        """Whether some content is of this size."""
        return size in self._sizes

    def add(self, digest: bytes, size: int, place: Place) -> Place:
        """Where it is: at `place`, or where another thread has just put it."""
        self._sizes.add(size)
        return self._added.setdefault(digest, place)


_NONE: np.ndarray[tuple[int], np.dtype[np.uint64]] = np.zeros(0, dtype=np.uint64)


def contents_of(table: pa.Table) -> pa.Table:
    """The contents that a snapshot's table names."""
    held = pc.and_(pc.equal(table["type"], text(FILE)), pc.is_valid(table["archive"]))
    return table.select(SCHEMA.names).filter(held).cast(SCHEMA)


def merged(tables: Collection[pa.Table], archives: Collection[str]) -> pa.Table:
    """Contents that lie in these archives, each once."""
    everything = pa.concat_tables([no_rows(SCHEMA), *tables]).combine_chunks()
    kept = everything.filter(pc.is_in(everything["archive"], value_set=strings(archives)))
    return kept.take(first_of_each(kept["sha256"]))
