"""Contents of files into archives: small ones together, a large one in an archive of its own.

A few threads read small files, each into memory of its own that becomes one pack and one put (what a slow source has
is fetched ahead of them); large files are streamed one after the other. So memory is bounded, whatever the number of
files. What was written to while it was read is read again, and in the end told as unreadable: nothing torn is ever
stored under a name.
"""

from __future__ import annotations

import hashlib
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field
from functools import partial

from dr_pipelines.errors import RepositoryError
from dr_pipelines.files import tar
from dr_pipelines.files.contents import Contents, Place
from dr_pipelines.files.read_ahead import ReadAhead
from dr_pipelines.files.sample import SAMPLE, compresses_to
from dr_pipelines.files.source import (
    FileChanged,
    FileSource,
    FileUnreadable,
    FileVanished,
    Opener,
    OpenFile,
    Seen,
    Wanted,
)
from dr_pipelines.progress import Progress
from dr_pipelines.repository.archive_writer import FRAME_SIZE
from dr_pipelines.repository.buffers import large_buffer
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.snapshot_manifest import FileArchive
from dr_pipelines.repository.snapshots import SnapshotWriter
from dr_pipelines.storage.base import Body

PACK_SIZE = 32 * 1024 * 1024
"""Raw bytes of a pack: one file of it is restored by fetching all of it."""
LARGE = 16 * 1024 * 1024
"""From this size on a file has an archive of its own."""
EMPTY = hashlib.sha256(b"").digest()
_ATTEMPTS = 3
_PACKERS = 2
_ALL_SAMPLED = 4000
"""Of so many files it is said of each whether its content compresses; where more are read, of one in eight."""
_PIECE = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Read:
    """What came of one file. `place` None: it is empty, or `error` says why it could not be read."""

    wanted: Wanted
    digest: bytes | None
    place: Place | None
    seen: Seen
    error: str | None = None
    compresses_to: int | None = None


Stored = Callable[[FileArchive, Sequence[Read]], None]
"""Told of each archive once it is durable, with the files whose content it holds."""


@dataclass
class Packed:
    """`reads` of all files that are still there; `new_bytes` of contents that were not known, `stored_bytes` as put."""

    reads: list[Read] = field(default_factory=list)
    archives: list[FileArchive] = field(default_factory=list)
    read_bytes: int = 0
    new_bytes: int = 0
    stored_bytes: int = 0


class Packer:
    """Reads what a snapshot wants and stores what is not known. Use once."""

    def __init__(
        self, source: FileSource, writer: SnapshotWriter, contents: Contents, stored: Stored, progress: Progress
    ) -> None:
        self._source, self._writer, self._contents = source, writer, contents
        self._stored, self._progress = stored, progress
        self._packed = Packed()
        self._lock = threading.Lock()
        self._sampled = 1
        self._large: list[Wanted] = []
        self._again: list[Wanted] = []
        self._halt = threading.Event()

    def pack(self, files: Sequence[Wanted]) -> Packed:
        """Raises what a store raises; what cannot be read of the source is told in its place."""
        self._progress.phase("read", sum(wanted.size for wanted in files))
        self._sampled = 1 if len(files) <= _ALL_SAMPLED else 8
        for last in range(_ATTEMPTS - 1, -1, -1):
            self._large = [wanted for wanted in files if wanted.size >= LARGE]
            self._pack_all([wanted for wanted in files if wanted.size < LARGE])
            self._pack_large()  # what grew meanwhile
            if not self._again:
                break
            files, self._again = self._again, []
            if not last:
                for wanted in files:
                    self._failed(wanted, "it was written to each time it was read")
        return self._packed

    def _pack_all(self, files: Sequence[Wanted]) -> None:
        """One thread sees to the large files first: what they cost is mostly compressing, which waits for no other."""
        queue = iter(files)

        def large_ones_first(opener: Opener) -> None:
            self._pack_large()
            self._pack_some(opener, queue)

        with self._opener(files) as opener, ThreadPoolExecutor(_PACKERS, thread_name_prefix="read-files") as pool:
            first = pool.submit(large_ones_first, opener)
            others = [pool.submit(self._pack_some, opener, queue) for _ in range(_PACKERS - 1)]
            for done in (first, *others):
                done.result()

    def _pack_large(self) -> None:
        try:
            while self._large and not self._halt.is_set():
                self._try(self._large.pop(), self._add_large)
        except BaseException:
            self._halt.set()
            raise

    def _opener(self, files: Sequence[Wanted]) -> AbstractContextManager[Opener]:
        if self._source.readers <= _PACKERS:
            return nullcontext(self._source)
        return ReadAhead(self._source, files)

    def _pack_some(self, opener: Opener, files: Iterator[Wanted]) -> None:
        archive = _SmallArchive(self._writer.repository.codec)
        try:
            for wanted in files:  # a list's iterator may be shared by threads
                if self._halt.is_set():
                    return
                self._try(wanted, partial(self._add_small, opener, archive))
            self._seal(archive)
        except BaseException:
            self._halt.set()
            raise

    def _try(self, wanted: Wanted, read: Callable[[Wanted], None]) -> None:
        try:
            read(wanted)
        except FileChanged:
            self._again.append(wanted)
        except FileUnreadable as error:
            self._failed(wanted, error.message)
        except FileVanished:
            pass

    def _add_small(self, opener: Opener, archive: _SmallArchive, wanted: Wanted) -> None:
        with closing(opener.open(wanted)) as file:
            if file.size >= LARGE:
                self._large.append(wanted)
                return
            if not archive.has_room(wanted.path, file.size):
                self._seal(archive)
            content = archive.read(file, wanted)
            seen = file.finish()
        digest = hashlib.sha256(content).digest()
        known = self._contents.find(digest) if file.size else None
        left = compresses_to(content[:SAMPLE]) if zlib.crc32(wanted.path) % self._sampled == 0 else None
        read = Read(wanted, digest, known, seen, compresses_to=left)
        if file.size and known is None:
            archive.name = archive.name or self._writer.new_archive()
            place = archive.place
            read = Read(wanted, digest, self._contents.add(digest, file.size, place), seen, compresses_to=left)
            if read.place == place:
                archive.keep(read, file.size)
        self._note(read, file.size)

    def _seal(self, archive: _SmallArchive) -> None:
        if not archive.reads:
            return
        raw, body, reads = archive.close()
        pack = self._writer.put_pack(archive.name, 0, body)
        self._end(FileArchive(name=archive.name, size=raw, pack_size=PACK_SIZE, packs=(pack,)), reads)
        archive.empty()

    def _add_large(self, wanted: Wanted) -> None:
        if self._contents.may_hold(wanted.size) and self._is_known(wanted):
            return
        name = self._writer.new_archive()
        archive = self._writer.large_archive(name, PACK_SIZE)
        try:
            with closing(self._source.open(wanted)) as file:
                archive.write(tar.header(wanted.path, file.size, _seconds(wanted)))
                start = archive.size
                digest, left = self._stream(file, archive.write)
                seen = file.finish()
            archive.write(bytes(tar.padding(file.size)) + tar.END)
            whole = archive.close()
        finally:
            archive.abort()
        read = Read(wanted, digest, self._contents.add(digest, file.size, (name, start)), seen, compresses_to=left)
        self._end(FileArchive(name=name, **dict(whole)), [read])
        self._note(read, file.size)

    def _is_known(self, wanted: Wanted) -> bool:
        """A large file is read twice rather than stored twice."""
        with closing(self._source.open(wanted)) as file:
            digest, left = self._stream(file, lambda piece: None)
            seen = file.finish()
        place = self._contents.find(digest)
        if place is not None:
            self._note(Read(wanted, digest, place, seen, compresses_to=left), file.size)
        return place is not None

    def _stream(self, file: OpenFile, take: Callable[[memoryview], None]) -> tuple[bytes, int | None]:
        """The digest, and what its beginning compresses to."""
        digest, left, buffer = hashlib.sha256(), file.size, memoryview(bytearray(_PIECE))
        sample: int | None = None
        while left:
            count = file.read_into(buffer[: min(left, _PIECE)])
            if not count:
                raise FileChanged("it became shorter while it was read")
            if left == file.size:
                sample = compresses_to(buffer[: min(count, SAMPLE)])
            digest.update(buffer[:count])
            take(buffer[:count])
            left -= count
        return digest.digest(), sample

    def _note(self, read: Read, size: int) -> None:
        with self._lock:
            self._packed.reads.append(read)
            self._packed.read_bytes += size
        self._progress.advance(size)

    def _failed(self, wanted: Wanted, why: str) -> None:
        with self._lock:
            self._packed.reads.append(Read(wanted, None, None, Seen(), why))

    def _end(self, archive: FileArchive, reads: Sequence[Read]) -> None:
        with self._lock:
            self._packed.archives.append(archive)
            self._packed.new_bytes += sum(int(read.seen.columns.get("size", read.wanted.size)) for read in reads)
            self._packed.stored_bytes += archive.stored_size
            self._stored(archive, reads)


class _SmallArchive:
    """A tar of small files in the making, in memory that is used again."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._raw = large_buffer(PACK_SIZE)
        self._encoded = large_buffer(codec.encoded_bound(PACK_SIZE, PACK_SIZE // FRAME_SIZE))
        self._end = self._content = 0
        self.name = ""
        self.reads: list[Read] = []

    def has_room(self, path: bytes, size: int) -> bool:
        """With the longest header that there is for the path, and the end of the tar."""
        return self._end + 4 * tar.BLOCK + len(path) + size + tar.BLOCK + len(tar.END) <= PACK_SIZE

    @property
    def place(self) -> Place:
        """Where the content that was read last is, if it is kept."""
        return self.name, self._content

    def read(self, file: OpenFile, wanted: Wanted) -> memoryview:
        """A file's content behind its header, where the next `keep` keeps it. Raises `FileChanged`."""
        head = tar.header(wanted.path, file.size, _seconds(wanted))
        self._raw[self._end : self._end + len(head)] = head
        self._content = self._end + len(head)
        content = self._raw[self._content : self._content + file.size]
        if file.read_into(content) != file.size:
            raise FileChanged("it became shorter while it was read")
        return content

    def keep(self, read: Read, size: int) -> None:
        end = self._content + size
        pad = tar.padding(size)
        self._raw[end : end + pad] = bytes(pad)
        self._end = end + pad
        self.reads.append(read)

    def close(self) -> tuple[int, Body, list[Read]]:
        """Its raw size, the pack, and what it holds. The pack's bytes are valid until the next `read`."""
        if not self.reads:
            raise RepositoryError("an archive without files is none")
        self._raw[self._end : self._end + len(tar.END)] = tar.END
        size = self._end + len(tar.END)
        sink = self._codec.sink(self._encoded)
        for start in range(0, size, FRAME_SIZE):
            sink.update(self._codec.compress(self._raw[start : min(start + FRAME_SIZE, size)]))
        stored = self._encoded[: sink.finish()]
        body = Body([stored], sha256=hashlib.sha256(stored).hexdigest(), size=len(stored), hashed=True)
        return size, body, self.reads

    def empty(self) -> None:
        self._end, self.name, self.reads = 0, "", []


def _seconds(wanted: Wanted) -> int:
    return (wanted.mtime_ns or 0) // 1_000_000_000
