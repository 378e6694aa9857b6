"""Contents of files out of packs: only those packs are fetched that hold something of what is wanted, each once.

Some workers take the packs in turn, each into memory of its own, so that packs are fetched and decoded side by side and
memory is bounded. A content that spans packs is streamed by itself, its packs decoded ahead. Nothing is handed on that
does not match the SHA-256 of its row.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial

import pyarrow as pa

from dr_pipelines.errors import IntegrityError, ObjectOffline, RepositoryError
from dr_pipelines.files.restore_plan import Failure, Unit
from dr_pipelines.files.restore_target import NotRestored, Row, Target, rows_in
from dr_pipelines.files.tiers import Tiers
from dr_pipelines.progress import Progress
from dr_pipelines.repository.archive_reader import PIECE_SIZE
from dr_pipelines.repository.buffers import large_buffer

_WORKERS = 2
"""Each holds a pack twice, as it is stored and as it was."""
_AHEAD = 3
"""Packs of one large file that are decoded side by side."""


class Unpacking:
    """Of one restore, in one run or several. `failures` are files that could not be restored; `fetched` are stored
    bytes."""

    def __init__(self, tiers: Tiers, target: Target, contents: pa.Table, progress: Progress) -> None:
        self._tiers, self._target, self._contents, self._progress = tiers, target, contents, progress
        self._lock = threading.Lock()
        self._halt = threading.Event()
        self.failures: list[Failure] = []
        self.packs = self.fetched = 0

    def run(self, units: Sequence[Unit]) -> None:
        """Raises what leaves no hope for the rest: a store that does not answer, a full disk, a missing key."""
        small = [unit for unit in units if not unit.spans]
        workers = min(_WORKERS, len(small))
        if small:
            queue = iter(small)
            with ThreadPoolExecutor(workers, thread_name_prefix="restore-files") as pool:
                for done in [pool.submit(self._some, queue, small) for _ in range(workers)]:
                    done.result()
        for unit in units:
            if unit.spans:
                self._large(unit)

    def _some(self, queue: Iterator[Unit], units: Sequence[Unit]) -> None:
        try:
            with closing(_Memory(self._tiers, units, self._target.writers)) as memory:
                for unit in queue:  # a list's iterator may be shared by threads
                    if self._halt.is_set():
                        return
                    self._small(unit, memory)
        except BaseException:
            self._halt.set()
            raise

    def _small(self, unit: Unit, memory: _Memory) -> None:
        rows = rows_in(self._contents, unit.start, unit.stop)
        base = unit.pack * unit.archive.pack_size
        end = max(_place(row)[1] for row in rows) - base
        try:
            raw = memory.decode(unit, end)
        except (IntegrityError, RepositoryError, ObjectOffline) as error:
            self._fail(rows, error.message)
            return
        self._count(unit, [unit.pack])

        def put(row: Row) -> None:
            start, stop = _place(row)
            self._put(row, raw[start - base : stop - base])

        for _ in memory.writers.map(put, rows) if memory.writers else map(put, rows):
            pass
        self._progress.advance(sum(row.size for row in rows))

    def _put(self, row: Row, content: memoryview) -> None:
        try:
            if hashlib.sha256(content).digest() != row.sha256:
                raise NotRestored("its content does not match the SHA-256 in the snapshot's table")
            self._target.put(row, content)
        except NotRestored as error:
            self._fail([row], error.message)

    def _large(self, unit: Unit) -> None:
        rows = rows_in(self._contents, unit.start, unit.stop)
        # Whoever made the table may have given one place several digests: at most one of them is right.
        for digest in dict.fromkeys(row.sha256 for row in rows):
            alike = [row for row in rows if row.sha256 == digest]
            try:
                self._target.put_large(alike, partial(self._pieces, unit, alike[0]))
            except (NotRestored, IntegrityError, RepositoryError, ObjectOffline) as error:
                self._fail(alike, error.message)

    def _pieces(self, unit: Unit, row: Row) -> Iterator[memoryview]:
        start, stop = _place(row)
        first, last = start // unit.archive.pack_size, (stop - 1) // unit.archive.pack_size
        part = unit.archive.model_copy(
            update={
                "packs": unit.archive.packs[first : last + 1],
                "size": min(unit.archive.size, (last + 1) * unit.archive.pack_size) - first * unit.archive.pack_size,
            }
        )
        self._count(unit, range(first, last + 1))
        at, digest = first * unit.archive.pack_size, hashlib.sha256()
        with closing(self._tiers.reader(part, workers=_AHEAD).pieces()) as pieces:  # type: ignore[type-var]
            for piece in pieces:
                content = piece[max(start - at, 0) : max(stop - at, 0)]
                at += len(piece)
                if len(content):
                    digest.update(content)
                    yield content
                    self._progress.advance(len(content))
        if digest.digest() != row.sha256:
            raise IntegrityError("its content does not match the SHA-256 in the snapshot's table")

    def _count(self, unit: Unit, packs: Sequence[int]) -> None:
        with self._lock:
            self.packs += len(packs)
            self.fetched += sum(unit.archive.packs[number].size for number in packs)

    def _fail(self, rows: Sequence[Row], reason: str) -> None:
        with self._lock:
            self.failures += [Failure(row.path, reason) for row in rows]


class _Memory:
    """A worker's: one pack as it is stored, and as it was; and the threads that write out of it, where there are."""

    def __init__(self, tiers: Tiers, units: Sequence[Unit], writers: int) -> None:
        self._tiers = tiers
        self.writers = ThreadPoolExecutor(writers, thread_name_prefix="put-files") if writers > 1 else None
        self._scratch = large_buffer(max(unit.archive.packs[unit.pack].size for unit in units))
        self._raw = large_buffer(max(min(unit.archive.pack_size, unit.archive.size) for unit in units) + PIECE_SIZE)

    def close(self) -> None:
        if self.writers is not None:
            self.writers.shutdown(cancel_futures=True)

    def decode(self, unit: Unit, end: int) -> memoryview:
        """The raw bytes of a pack, at least up to `end`. Raises `IntegrityError`."""
        at = 0

        def next_buffer() -> memoryview:
            return self._raw[at : at + PIECE_SIZE]

        reader = self._tiers.reader(unit.archive, workers=1)
        with closing(reader.decode(unit.pack, self._scratch, next_buffer)) as pieces:  # type: ignore[type-var]
            for _, filled in pieces:
                at += filled
                if at >= end:
                    break
        return self._raw[:at]


def _place(row: Row) -> tuple[int, int]:
    """Where its content begins and ends in the archive's tar."""
    assert row.offset is not None
    return row.offset, row.offset + row.size
