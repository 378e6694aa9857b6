"""One pack of small files in the making: contents that were read lie one behind the other as a tar, and become zstd
frames and an age file as they come. What to keep of them another one decides, who knows which contents there are.

It runs in a thread of the snapshot or in a process of its own: each method is one question and its answer.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any, NamedTuple, Protocol

from dr_pipelines.errors import RepositoryError
from dr_pipelines.files import tar
from dr_pipelines.files.sample import SAMPLE, compresses_to
from dr_pipelines.files.source import FileChanged, FileUnreadable, FileVanished, Opener, Wanted
from dr_pipelines.repository.buffers import large_buffer
from dr_pipelines.repository.codec import FRAME_SIZE, Codec

PACK_SIZE = 32 * 1024 * 1024
"""Raw bytes of a pack: one file of it is restored by fetching all of it."""
LARGE = 16 * 1024 * 1024
"""From this size on a file has an archive of its own."""
BATCH = 4 * 1024 * 1024
"""Bytes of files that are read between two answers; one file may be larger."""
_LONGEST_HEADER = 4 * tar.BLOCK
_RAW = FRAME_SIZE + BATCH + LARGE + 64 * tar.BLOCK

READ, LARGER, CHANGED, VANISHED, UNREADABLE = range(5)
"""What came of a file: it was read; it has become one for an archive of its own; it was written to while it was read;
it is gone; it cannot be read."""


class Outcome(NamedTuple):
    """Of one file: `size` in bytes and `digest` of its content, `head` bytes of its header in the tar, `columns` as
    `Seen` has them, `compresses_to` as `sample` says; or why it could not be read."""

    what: int
    size: int = 0
    digest: bytes = b""
    head: int = 0
    columns: Mapping[str, Any] | None = None
    compresses_to: int | None = None
    why: str | None = None

    @property
    def taken(self) -> int:
        """Bytes of the tar."""
        return self.head + self.size + tar.padding(self.size)


class Sealed(NamedTuple):
    """A pack: raw bytes of its tar, in which buffer it is, its stored bytes, and their SHA-256 in hex."""

    size: int
    buffer: int
    stored: int
    sha256: str


class Builder(Protocol):
    """`end`: raw bytes of the pack so far; the header of what is kept next is there. `buffers`: two that take turns,
    while one is stored, the other fills."""

    end: int
    buffers: Sequence[memoryview]

    def ready(self) -> bool:
        """Waits until it can be asked for more; False: it never can, the others do its work."""
        ...

    def read(self, files: Sequence[Wanted], sampled: int) -> list[Outcome]:
        """Of these files, in their order, as many as the pack has room for; of one in `sampled` it is said whether its
        content compresses. Raises what a store raises."""
        ...

    def keep(self, places: Sequence[int]) -> None:
        """Of those that were just read, by their place among them; the others are dropped."""
        ...

    def seal(self) -> Sealed:
        """The pack; the next one begins. Its bytes stay as they are until the next call of this."""
        ...


class PackBuilder:
    """Each of the two `buffers` has `encoded_size` bytes."""

    def __init__(self, opener: Opener, codec: Codec, buffers: Sequence[memoryview]) -> None:
        self._opener, self._codec, self.buffers = opener, codec, buffers
        self._raw = large_buffer(_RAW)
        self._filled = 0  # of it: what is kept and not compressed yet
        self._read: list[tuple[int, int]] = []  # where in it each header begins, and its content ends
        self._begin(0)

    def _begin(self, buffer: int) -> None:
        self.end, self._buffer = 0, buffer
        self._sink = self._codec.sink(self.buffers[buffer])

    def ready(self) -> bool:
        return True

    def read(self, files: Sequence[Wanted], sampled: int) -> list[Outcome]:
        found: list[Outcome] = []
        at, room = self._filled, PACK_SIZE - self.end - len(tar.END)
        self._read = []
        for wanted in files:
            outcome = self._try(wanted, at, room, sampled)
            if outcome is None:
                break
            found.append(outcome)
            taken = outcome.taken
            self._read.append((at, at + taken))
            at, room = at + taken, room - taken
        return found

    def _try(self, wanted: Wanted, at: int, room: int, sampled: int) -> Outcome | None:
        """None when there is no room for it."""
        try:
            return self._read_one(wanted, at, room, sampled)
        except FileChanged:
            return Outcome(CHANGED)
        except FileVanished:
            return Outcome(VANISHED)
        except FileUnreadable as error:
            return Outcome(UNREADABLE, why=error.message)

    def _read_one(self, wanted: Wanted, at: int, room: int, sampled: int) -> Outcome | None:
        room = min(room, _RAW - at) - _LONGEST_HEADER - len(wanted.path) - tar.BLOCK
        if wanted.size > room:  # it is not even opened: what was fetched ahead would be fetched again
            return None
        with closing(self._opener.open(wanted)) as file:
            size = file.size
            if size >= LARGE:
                return Outcome(LARGER)
            if size > room:
                return None
            head = tar.header(wanted.path, size, (wanted.mtime_ns or 0) // 1_000_000_000)
            start = at + len(head)
            content = self._raw[start : start + size]
            if file.read_into(content) != size:
                raise FileChanged("it became shorter while it was read")
            seen = file.finish()
        self._raw[at:start] = head
        pad = tar.padding(size)
        self._raw[start + size : start + size + pad] = bytes(pad)
        left = compresses_to(content[:SAMPLE]) if zlib.crc32(wanted.path) % sampled == 0 else None
        return Outcome(READ, size, hashlib.sha256(content).digest(), len(head), seen.columns, left)

    def keep(self, places: Sequence[int]) -> None:
        at = self._filled
        for start, end in (self._read[place] for place in places):
            if start != at:
                self._raw[at : at + end - start] = bytes(self._raw[start:end])
            at += end - start
        self.end += at - self._filled
        self._filled = at
        self._compress(whole=True)

    def _compress(self, *, whole: bool) -> None:
        """Whole frames, or all that is there."""
        at = 0
        while self._filled - at >= (FRAME_SIZE if whole else 1):
            size = min(FRAME_SIZE, self._filled - at)
            self._sink.update(self._codec.compress(self._raw[at : at + size]))
            at += size
        if at:
            self._raw[: self._filled - at] = bytes(self._raw[at : self._filled])
            self._filled -= at

    def seal(self) -> Sealed:
        if not self.end:
            raise RepositoryError("an archive without files is none")
        size = self.end + len(tar.END)
        self._raw[self._filled : self._filled + len(tar.END)] = tar.END
        self._filled += len(tar.END)
        self._compress(whole=False)
        buffer, stored = self._buffer, self._sink.finish()
        sha256 = hashlib.sha256(self.buffers[buffer][:stored]).hexdigest()
        self._begin(1 - buffer)
        return Sealed(size, buffer, stored, sha256)


def encoded_size(codec: Codec) -> int:
    """So long may a pack become."""
    return codec.encoded_bound(PACK_SIZE, PACK_SIZE // FRAME_SIZE + 1)
