"""An archive becomes packs: cut every `pack_size` raw bytes, each pack zstd frames in a row, then age, then one object.

It is a pipeline: the caller fills frame buffers; a pool compresses them; one sealer takes the frames in
order, encrypts and hashes them into a pack buffer; putters send full packs. All large buffers are made once and
go round, so memory is bounded whatever the archive's size and a slow store slows the caller. Zstd, the cipher
and the hash release the GIL. What the archive holds (a tar) does not matter here.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue

from dr_pipelines.errors import RepositoryError
from dr_pipelines.repository.buffers import large_buffer
from dr_pipelines.repository.codec import FRAME_SIZE, Codec
from dr_pipelines.repository.encryption import Buffer
from dr_pipelines.repository.manifest import Archive, StoredObject
from dr_pipelines.storage.base import Body

PACK_SIZE = 64 * 1024 * 1024
_WORKERS = 2
PutPack = Callable[[int, Body], StoredObject]


@dataclass(frozen=True)
class _Frame:
    """A frame on its way to the sealer. `last` closes its pack."""

    buffer: memoryview
    compressed: Future[bytes]
    last: bool


class ArchiveBuffers:
    """What writers fill, one writer at a time: making them anew costs more than filling them. With `packs` buffers for
    packs one fills while the others are being put."""

    def __init__(
        self, codec: Codec, *, pack_size: int = PACK_SIZE, frame_size: int = FRAME_SIZE, packs: int = 3
    ) -> None:
        if pack_size % frame_size:
            raise ValueError("a pack holds a whole number of frames")
        self.pack_size, self.frame_size, self.packs = pack_size, frame_size, packs
        self.free_frames: SimpleQueue[memoryview] = SimpleQueue()
        for _ in range(_WORKERS + 2):
            self.free_frames.put(large_buffer(frame_size))
        self.free_packs: SimpleQueue[memoryview] = SimpleQueue()
        for _ in range(packs):
            self.free_packs.put(large_buffer(codec.encoded_bound(pack_size, pack_size // frame_size)))


class ArchiveWriter:
    """Takes an archive's bytes in order and puts packs. `put_pack(number, body)` must return when the pack is
    durable; the body's bytes are only valid until then. An error of any thread is raised by the next call."""

    def __init__(self, put_pack: PutPack, codec: Codec, buffers: ArchiveBuffers | None = None) -> None:
        self._put_pack, self._codec = put_pack, codec
        buffers = buffers or ArchiveBuffers(codec)
        self._pack_size, self._frame_size = buffers.pack_size, buffers.frame_size
        self._free_frames, self._free_packs = buffers.free_frames, buffers.free_packs
        self._compressors = ThreadPoolExecutor(_WORKERS, thread_name_prefix="pack-compress")
        self._putters = ThreadPoolExecutor(max(buffers.packs - 1, 1), thread_name_prefix="pack-put")
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
        return Archive(size=self._size, pack_size=self._pack_size, packs=packs)

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
        self._free_frames.put(self._frame)
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
        if pack is not None:  # abandoned
            self._free_packs.put(pack.buffer)

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
        return Body([self.buffer[:size]], sha256=self._digest.hexdigest(), size=size, hashed=True)

    def _hash(self) -> None:
        self._digest.update(self.buffer[self._hashed : self._sink.position])
        self._hashed = self._sink.position
