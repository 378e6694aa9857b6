"""Packs become an archive again: each is fetched whole and proven, then decrypted and decompressed piece by piece.

Some workers take the packs in turn, each a few pieces ahead of the reader in memory of its own that goes round: so
packs are fetched and decoded side by side, memory is bounded whatever the archive's size, and what is handed out is
still in the processor's cache. What the archive holds (a tar) does not matter here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from queue import SimpleQueue
from typing import IO, cast

import zstandard

from dr_pipelines.errors import IntegrityError, RepositoryError
from dr_pipelines.repository.buffers import large_buffer
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.encryption import Decryptor, is_encrypted
from dr_pipelines.repository.fetch import DAMAGED, Fetch, fetch_into
from dr_pipelines.repository.manifest import Archive
from dr_pipelines.storage.base import ObjectStore

PIECE_SIZE = 4 * 1024 * 1024
_PIECES = 4  # of a worker: one is being read, the others wait or are being filled
_READ_SIZE = 1024 * 1024
Source = memoryview | Decryptor
Piece = tuple[memoryview, int]
"""A buffer, and how many bytes of it are filled."""


class ArchiveReader:
    """Reads an archive back. Of a pack whose stored bytes do not match their SHA-256 nothing is handed out.

    `fetch` brings packs from elsewhere too, where `store` has not got them whole."""

    def __init__(
        self, store: ObjectStore, archive: Archive, codec: Codec, *, workers: int = 3, fetch: Fetch | None = None
    ) -> None:
        self._store, self._archive, self._codec, self._count = store, archive, codec, workers
        self._fetch = fetch or partial(fetch_into, store)
        expected = -(-archive.size // archive.pack_size)
        if len(archive.packs) != expected:
            raise RepositoryError(
                f"an archive of {archive.size} bytes has {len(archive.packs)} packs instead of {expected}"
            )

    def pieces(self) -> Iterator[memoryview]:
        """The archive in order, in pieces of a few MiB. A view is valid until the next one is asked for.

        Raises `IntegrityError` that names the object, `KeyUnusable`, or what the store raises.
        """
        numbers = range(len(self._archive.packs))
        workers = [_Worker(self, numbers[first :: self._count]) for first in numbers[: self._count]]
        try:
            for number in numbers:
                yield from workers[number % self._count].next_pack()
        finally:
            for worker in workers:
                worker.stop()
            for worker in workers:
                worker.join()

    def stored_sizes(self, numbers: Sequence[int]) -> list[int]:
        return [self._archive.packs[number].size for number in numbers]

    def decode(self, number: int, scratch: memoryview, next_buffer: Callable[[], memoryview]) -> Iterator[Piece]:
        """One pack, fetched into `scratch`, decoded into buffers that `next_buffer` gives."""
        stored = self._archive.packs[number]
        size = min(self._archive.pack_size, self._archive.size - number * self._archive.pack_size)
        encoded = scratch[: stored.size]
        self._fetch(stored, encoded)
        try:
            yield from _decompress(self._plain(encoded), size, next_buffer)
        except IntegrityError as error:
            raise IntegrityError(f"{stored.key} on {self._store.name}: {error.message}", hint=DAMAGED) from error

    def _plain(self, encoded: memoryview) -> Source:
        return Decryptor(encoded, self._codec.identities) if is_encrypted(encoded) else encoded


class _Stopped(Exception):
    """The reader wants no more."""


class _Worker:
    """Decodes some packs, one after the other, as far ahead of the reader as its buffers go."""

    def __init__(self, reader: ArchiveReader, numbers: Sequence[int]) -> None:
        self._reader, self._numbers = reader, numbers
        self._free: SimpleQueue[memoryview | None] = SimpleQueue()
        self._ready: SimpleQueue[Piece | Exception | None] = SimpleQueue()
        self._stopped = threading.Event()
        memory = large_buffer(_PIECES * PIECE_SIZE)
        for start in range(0, len(memory), PIECE_SIZE):
            self._free.put(memory[start : start + PIECE_SIZE])
        self._thread = threading.Thread(target=self._run, name="archive-read", daemon=True)
        self._thread.start()

    def next_pack(self) -> Iterator[memoryview]:
        while (piece := self._ready.get()) is not None:
            if isinstance(piece, Exception):
                raise piece
            buffer, size = piece
            yield buffer[:size]
            self._free.put(buffer)

    def stop(self) -> None:
        self._stopped.set()
        self._free.put(None)

    def join(self) -> None:
        self._thread.join()

    def _run(self) -> None:
        try:
            scratch = large_buffer(max(self._reader.stored_sizes(self._numbers)))
            for number in self._numbers:
                for piece in self._reader.decode(number, scratch, self._buffer):
                    self._ready.put(piece)
                self._ready.put(None)
        except _Stopped:
            pass
        except Exception as error:  # noqa: BLE001 - raised to the reader
            self._ready.put(error)

    def _buffer(self) -> memoryview:
        buffer = self._free.get()
        if buffer is None or self._stopped.is_set():
            raise _Stopped
        return buffer


def _decompress(source: Source, size: int, next_buffer: Callable[[], memoryview]) -> Iterator[Piece]:
    """Frames in a row, `size` bytes of them. Raises `IntegrityError` when they do not hold exactly these."""
    wrong = IntegrityError(f"does not hold the {size} bytes that the manifest says")
    plain = cast("IO[bytes]", source)  # what it reads needs no more than `read`
    try:
        with zstandard.ZstdDecompressor().stream_reader(plain, _READ_SIZE, read_across_frames=True) as reader:
            while size:
                buffer = next_buffer()
                filled = _fill(reader, buffer[:size])
                if filled < min(size, len(buffer)):
                    raise wrong
                size -= filled
                yield buffer, filled
            if reader.read(1):
                raise wrong
    except zstandard.ZstdError as error:
        raise IntegrityError(f"does not decompress: {error}") from error


def _fill(reader: zstandard.ZstdDecompressionReader, target: memoryview) -> int:
    """As many bytes as there are, up to all of `target`; returns how many."""
    at = 0
    while at < len(target) and (count := reader.readinto(target[at:])):
        at += count
    return at
