"""Which contents a file set holds already, and where: what makes equal contents be stored once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dr_pipelines.files.arrays import first_of_each, flat, number, strings, text, to_numpy
from dr_pipelines.files.pack_builder import LARGE
from dr_pipelines.files.table import FILE, chosen

SCHEMA = pa.schema([("sha256", pa.binary(32)), ("size", pa.int64()), ("archive", pa.string()), ("offset", pa.int64())])
Place = tuple[str, int]
"""An archive, and the offset of the content in its tar."""
_FEW = 16384


class Contents:
    """Of earlier snapshots (`table`, in the columns of `SCHEMA`), and what is added. `usable` are archives in which
    they may be found at once; which of the others are kept `others` tells, asked when it first matters. A million
    contents take some tens of megabytes. Safe to use from threads."""

    def __init__(
        self, table: pa.Table, usable: Collection[str], others: Callable[[], Collection[str]] = frozenset
    ) -> None:
        self._lock = threading.Lock()
        self._usable, self._others = set(usable), others
        self._asked = False
        archives = flat(table["archive"]).dictionary_encode()
        self._names: list[str] = archives.dictionary.to_pylist()
        self._codes = {name: code for code, name in enumerate(self._names)}
        self._sorted = _sorted(_bytes_of(table["sha256"]), to_numpy(archives.indices), to_numpy(table["offset"]))
        self._added: dict[bytes, tuple[int, int]] = {}
        sizes = flat(table["size"])
        self._sizes = {*sizes.filter(pc.greater_equal(sizes, number(LARGE))).to_pylist()}

    def find(self, digest: bytes) -> Place | None:
        with self._lock:
            return self._find(digest)

    def may_hold(self, size: int) -> bool:
        """Whether some content is of this size, which is that of a large one."""
        return size in self._sizes

    def add(self, digest: bytes, size: int, place: Place) -> Place:
        """Where it is: at `place`, or where another thread has just put it."""
        with self._lock:
            if (known := self._find(digest)) is not None:
                return known
            if size >= LARGE:
                self._sizes.add(size)
            name, offset = place
            if name not in self._codes:
                self._codes[name] = len(self._names)
                self._names.append(name)
                self._usable.add(name)
            self._added[digest] = self._codes[name], offset
            if len(self._added) >= max(_FEW, len(self._sorted.heads) // 2):
                self._settle()
            return place

    def _find(self, digest: bytes) -> Place | None:
        if (added := self._added.get(digest)) is not None:
            return self._names[added[0]], added[1]
        for code, offset in self._sorted.places(digest):
            if self._may_use(self._names[code]):
                return self._names[code], offset
        return None

    def _may_use(self, archive: str) -> bool:
        if archive not in self._usable and not self._asked:
            self._asked = True
            self._usable.update(self._others())
        return archive in self._usable

    def _settle(self) -> None:
        """What was added is kept like the rest: an object each takes four times as much memory."""
        places = np.array([*self._added.values()], dtype=np.int64)
        self._sorted = _sorted(
            b"".join([bytes(self._sorted.digests), *self._added]),
            np.concatenate([self._sorted.archives, places[:, 0]]),
            np.concatenate([self._sorted.offsets, places[:, 1]]),
        )
        self._added = {}


@dataclass(frozen=True)
class _Sorted:
    """Contents in the order of the first eight bytes of their digests (`heads`)."""

    heads: np.ndarray[Any, np.dtype[np.uint64]]
    digests: memoryview
    archives: np.ndarray[Any, np.dtype[np.int64]]
    offsets: np.ndarray[Any, np.dtype[np.int64]]

    def places(self, digest: bytes) -> Iterator[tuple[int, int]]:
        # As an unsigned number: numpy takes any other for a float, which holds 53 bits.
        head = np.uint64(int.from_bytes(digest[:8], "big"))
        row = int(np.searchsorted(self.heads, head))
        while row < len(self.heads) and self.heads[row] == head:
            if self.digests[row * 32 : row * 32 + 32] == digest:
                yield int(self.archives[row]), int(self.offsets[row])
            row += 1


def _sorted(digests: bytes, archives: np.ndarray[Any, Any], offsets: np.ndarray[Any, Any]) -> _Sorted:
    heads = np.frombuffer(digests, dtype=">u8")[::4].astype(np.uint64)
    order = np.argsort(heads, kind="stable")
    ordered = np.frombuffer(digests, dtype="V32")[order]
    return _Sorted(heads[order], memoryview(ordered.tobytes()), archives[order], offsets[order])


def _bytes_of(digests: pa.ChunkedArray) -> bytes:
    whole = flat(digests)
    buffer = whole.buffers()[1]
    return buffer[whole.offset * 32 : (whole.offset + len(whole)) * 32].to_pybytes() if buffer is not None else b""


def contents_of(table: pa.Table, besides: Collection[str] = ()) -> pa.Table:
    """The contents that a snapshot's table names, in other archives than those of `besides`."""
    held = pc.and_(pc.equal(table["type"], text(FILE)), pc.is_valid(table["archive"]))
    if besides:
        held = pc.and_(held, pc.invert(pc.is_in(table["archive"], value_set=strings(besides))))
    return table.select(SCHEMA.names).filter(held).cast(SCHEMA)


def with_new(known: pa.Table, new: pa.Table, archives: Collection[str]) -> pa.Table:
    """The contents that lie in these archives: what is in `new` as it is there, each once, and what else is `known`."""
    new = chosen(new, pc.is_in(new["archive"], value_set=strings(archives)))
    new = new.take(first_of_each(new["sha256"]))
    known = chosen(known, pc.is_in(known["archive"], value_set=strings(archives)))
    known = chosen(known, pc.invert(pc.is_in(known["sha256"], value_set=flat(new["sha256"]))))
    return pa.concat_tables([known, new])
