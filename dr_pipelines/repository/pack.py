"""An archive as packs: cut every `pack_size` raw bytes, each pack zstd frames in a row, then age, then one object.

Writing is a pipeline: the caller fills frame buffers; a pool compresses them; one sealer takes the frames in
order, encrypts and hashes them into a pack buffer; putters send full packs. All large buffers are made once and
go round, so memory is bounded whatever the archive's size and a slow store slows the caller. Zstd, the cipher
and the hash release the GIL. What the archive holds (a tar) does not matter here.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import IO, cast

import zstandard

from dr_pipelines.errors import IntegrityError, RepositoryError
from dr_pipelines.repository.buffers import large_buffer
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.encryption import Buffer, Decryptor, is_encrypted
from dr_pipelines.repository.manifest import Archive, StoredObject
from dr_pipelines.storage.base import Body, ObjectStore

PACK_SIZE = 64 * 1024 * 1024
FRAME_SIZE = 4 * 1024 * 1024  # four are in memory, raw and compressed
_PACK_BUFFERS = 3  # one fills while two are being put
_READ_SIZE = 1024 * 1024
PutPack = Callable[[int, Body], StoredObject]


@dataclass(frozen=True)
class _Frame:
    """A frame on its way to the sealer. `last` closes its pack."""

    buffer: memoryview
    compressed: Future[bytes]
    last: bool


class ArchiveWriter:
    """Takes an archive's bytes in order and puts packs. `put_pack(number, body)` must return when the pack is
    durable; the body's bytes are only valid until then. An error of any thread is raised by the next call."""

    def __init__(
        self,
        put_pack: PutPack,
        codec: Codec,
        *,
        pack_size: int = PACK_SIZE,
        frame_size: int = FRAME_SIZE,
        workers: int = 2,
    ) -> None:
        if pack_size % frame_size:
            raise ValueError("a pack holds a whole number of frames")
        self._put_pack, self._codec, self._pack_size, self._frame_size = put_pack, codec, pack_size, frame_size
        frames = pack_size // frame_size
        self._free_frames: SimpleQueue[memoryview] = SimpleQueue()
        for _ in range(workers + 2):
            self._free_frames.put(large_buffer(frame_size))
        self._free_packs: SimpleQueue[memoryview] = SimpleQueue()
        for _ in range(_PACK_BUFFERS):
            self._free_packs.put(large_buffer(codec.encoded_bound(pack_size, frames)))
        self._compressors = ThreadPoolExecutor(workers, thread_name_prefix="pack-compress")
        self._putters = ThreadPoolExecutor(_PACK_BUFFERS - 1, thread_name_prefix="pack-put")
        self._ordered: SimpleQueue[_Frame | None] = SimpleQueue()
        self._sealer = threading.Thread(target=self._seal_all, name="pack-seal", daemon=True)
        self._sealer.start()
        self._error: Exception | None = None
        self._puts: list[Future[StoredObject]] = []
        self._frame = self._free_frames.get()
        self._filled = 0
        self._size = 0
        self._closed = False

    @property
    def size(self) -> int:
        """Raw bytes taken so far: the offset at which the next write lands."""
        return self._size

    def write(self, data: Buffer) -> None:
        """Copies `data`, so its buffer may be reused at once. Waits when the store is slower than the caller."""
        self._check()
        if self._closed:
            raise RepositoryError("the archive is closed")
        view = memoryview(data)
        size, at = len(view), 0
        while at < size:
            if self._filled == self._frame_size:  # only now: the last frame must be known as the last
                self._hand_on(last=self._size % self._pack_size == 0)
            count = min(self._frame_size - self._filled, size - at)
            self._frame[self._filled : self._filled + count] = view[at : at + count]
            self._filled += count
            self._size += count
            at += count

    def close(self) -> Archive:
        """Waits until every pack is durable."""
        self._check()
        if self._filled:
            self._hand_on(last=True)
        self._stop()
        self._check()
        packs = tuple(put.result() for put in self._puts)
        return _counted(Archive(size=self._size, pack_size=self._pack_size, packs=packs))

    def abort(self) -> None:
        """Stops at once; packs that were put stay, as garbage. Harmless after `close`."""
        if not self._closed:
            self._error = self._error or RepositoryError("the archive was abandoned")
            self._stop()

    def _check(self) -> None:
        if self._error is not None:
            self._stop()
            raise self._error

    def _hand_on(self, *, last: bool) -> None:
        full = self._frame[: self._filled]
        self._filled = 0
        self._ordered.put(_Frame(self._frame, self._compressors.submit(self._codec.compress, full), last))
        self._frame = self._free_frames.get()

    def _stop(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._ordered.put(None)
        self._sealer.join()
        self._compressors.shutdown()
        self._putters.shutdown()
        # The buffers are large: let go of them now, not when the garbage collector finds this writer.
        self._free_frames, self._free_packs = SimpleQueue(), SimpleQueue()
        self._frame = memoryview(b"")

    def _seal_all(self) -> None:
        """The sealer's thread. After an error it only gives buffers back, so that no one waits for ever."""
        pack: _OpenPack | None = None
        while (frame := self._ordered.get()) is not None:
            try:
                compressed = frame.compressed.result()
                if self._error is None:
                    pack = pack or _OpenPack(self._codec, self._free_packs.get())
                    pack.add(compressed)
                    if frame.last:
                        self._puts.append(self._putters.submit(self._put, len(self._puts), pack))
                        pack = None
            except Exception as error:  # noqa: BLE001 - raised to the caller by its next call
                self._error = self._error or error
            finally:
                self._free_frames.put(frame.buffer)

    def _put(self, number: int, pack: _OpenPack) -> StoredObject:
        try:
            if self._error is not None:
                raise self._error
            return self._put_pack(number, pack.close())
        except Exception as error:
            self._error = self._error or error
            raise
        finally:
            self._free_packs.put(pack.buffer)


class _OpenPack:
    """A pack being sealed in a reused buffer: hashed while its bytes are still in the processor's cache."""

    def __init__(self, codec: Codec, buffer: memoryview) -> None:
        self.buffer = buffer
        self._sink = codec.sink(buffer)
        self._hashed = 0
        self._digest = hashlib.sha256()

    def add(self, compressed: bytes) -> None:
        self._sink.update(compressed)
        self._hash()

    def close(self) -> Body:
        size = self._sink.finish()
        self._hash()
        return Body([self.buffer[:size]], sha256=self._digest.hexdigest(), size=size)

    def _hash(self) -> None:
        self._digest.update(self.buffer[self._hashed : self._sink.position])
        self._hashed = self._sink.position


class ArchiveReader:
    """Reads an archive back. Each pack is fetched whole, compared with its SHA-256, decrypted and decompressed;
    nothing of a pack that does not match is handed out. Safe to use from several threads."""

    def __init__(
        self, store: ObjectStore, archive: Archive, codec: Codec, *, workers: int = 2, read_ahead: int = 2
    ) -> None:
        self._store, self._archive, self._codec = store, _counted(archive), codec
        self._workers, self._read_ahead = workers, max(read_ahead, 1)
        self._of_thread = threading.local()

    def packs(self) -> Iterator[memoryview]:
        """Raw packs in order, up to `read_ahead` decoded beforehand. A view is valid until the next one is asked for:
        its memory goes round.

        Raises `IntegrityError` that names the object, `KeyUnusable`, or what the store raises.
        """
        numbers = iter(range(len(self._archive.packs)))
        free = deque(self._buffer() for _ in range(self._read_ahead + 1))
        waiting: deque[tuple[memoryview, Future[memoryview]]] = deque()
        pool = ThreadPoolExecutor(self._workers, thread_name_prefix="pack-read")
        try:
            while True:
                while free and (number := next(numbers, None)) is not None:
                    buffer = free.popleft()
                    waiting.append((buffer, pool.submit(self._decode, number, buffer)))
                if not waiting:
                    return
                buffer, decoded = waiting.popleft()
                yield decoded.result()
                free.append(buffer)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes of the archive from `offset`; fetches only the packs that cover them."""
        if offset < 0 or length < 0 or offset + length > self._archive.size:
            raise ValueError(f"{offset}+{length} is outside an archive of {self._archive.size} bytes")
        size = self._archive.pack_size
        parts = []
        for number in range(offset // size, -(-(offset + length) // size) if length else 0):
            start = max(offset - number * size, 0)
            parts.append(self.pack(number)[start : offset + length - number * size])
        return b"".join(parts)

    def pack(self, number: int) -> memoryview:
        """One raw pack, in memory of its own."""
        return self._decode(number, self._buffer())

    def _buffer(self) -> memoryview:
        return large_buffer(min(self._archive.pack_size, self._archive.size))

    def _decode(self, number: int, out: memoryview) -> memoryview:
        """One raw pack into `out`."""
        stored = self._archive.packs[number]
        raw = out[: min(self._archive.pack_size, self._archive.size - number * self._archive.pack_size)]
        try:
            encoded = self._fetch(stored)
            _decompress(Decryptor(encoded, self._codec.identities) if is_encrypted(encoded) else encoded, raw)
            return raw
        except IntegrityError as error:
            if stored.key in error.message:
                raise
            raise IntegrityError(f"{stored.key} on {self._store.name}: {error.message}", hint=DAMAGED) from error

    def _fetch(self, stored: StoredObject) -> memoryview:
        """The stored bytes, in this thread's reused buffer, proven by their SHA-256."""
        buffer = getattr(self._of_thread, "fetched", None)
        if buffer is None or len(buffer) < stored.size:
            buffer = self._of_thread.fetched = large_buffer(stored.size)
        target: memoryview = buffer[: stored.size]
        fetch_into(self._store, stored, target)
        return target


def _counted(archive: Archive) -> Archive:
    """The same archive, when it has as many packs as its size needs."""
    expected = -(-archive.size // archive.pack_size)
    if len(archive.packs) != expected:
        raise RepositoryError(
            f"an archive of {archive.size} bytes has {len(archive.packs)} packs instead of {expected}"
        )
    return archive


def _decompress(frames: memoryview | Decryptor, out: memoryview) -> None:
    """Frames in a row into `out`, in small pieces that stay in the processor's cache. Raises `IntegrityError` when
    they are not exactly its size."""
    source = cast("IO[bytes]", frames)  # what it reads needs no more than `read`
    at = 0
    try:
        with zstandard.ZstdDecompressor().stream_reader(source, _READ_SIZE, read_across_frames=True) as reader:
            while at < len(out) and (count := reader.readinto(out[at:])):
                at += count
            whole = at == len(out) and not reader.read(1)
    except zstandard.ZstdError as error:
        raise IntegrityError(f"does not decompress: {error}") from error
    if not whole:
        raise IntegrityError(f"does not hold the {len(out)} bytes that the manifest says")


DAMAGED = "take the backup from another tier (`dr restore --tier …`) or an older one; `dr verify` says which are whole."


def fetch_verified(store: ObjectStore, stored: StoredObject) -> bytes:
    """A stored object whole. Raises `IntegrityError` that names it when it is not what its manifest says."""
    data = bytearray(stored.size)
    fetch_into(store, stored, memoryview(data))
    return bytes(data)


def fetch_into(store: ObjectStore, stored: StoredObject, target: memoryview) -> None:
    """As `fetch_verified`, into `target` of the object's size."""
    digest, at = hashlib.sha256(), 0
    for piece in store.open(stored.key):
        end = at + len(piece)
        if end > stored.size:
            break
        target[at:end] = piece
        digest.update(piece)
        at = end
    else:
        if at == stored.size and digest.hexdigest() == stored.sha256:
            return
    raise IntegrityError(
        f"{stored.key} on {store.name} does not match the size and SHA-256 of its manifest", hint=DAMAGED
    )
