"""Contents of files into archives: small ones together, a large one in an archive of its own.

Builders of packs read small files side by side, this one's threads and, where there is much to read in a directory of
this host, other processes (what a slow source has is fetched ahead of them); large files are streamed one after the
other. So memory is bounded, whatever the number of files. What was written to while it was read is read again, and in
the end told as unreadable: nothing torn is ever stored under a name.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from dr_pipelines.errors import CommandFailed
from dr_pipelines.files import tar
from dr_pipelines.files.arrays import array, number
from dr_pipelines.files.contents import Contents, Place
from dr_pipelines.files.pack_builder import (
    BATCH,
    CHANGED,
    LARGE,
    LARGER,
    PACK_SIZE,
    READ,
    UNREADABLE,
    Builder,
    Outcome,
    PackBuilder,
    Sealed,
    encoded_size,
)
from dr_pipelines.files.read_ahead import ReadAhead
from dr_pipelines.files.sample import SAMPLE, compresses_to
from dr_pipelines.files.source import (
    FileChanged,
    FileSource,
    FileUnreadable,
    FileVanished,
    Opener,
    OpenFile,
    Wanted,
    WantedFiles,
)
from dr_pipelines.files.tree import Tree
from dr_pipelines.progress import Progress
from dr_pipelines.repository.archive_writer import ArchiveBuffers
from dr_pipelines.repository.buffers import empty, large_buffer
from dr_pipelines.repository.snapshot_manifest import FileArchive
from dr_pipelines.repository.snapshots import SnapshotWriter
from dr_pipelines.storage.base import Body

EMPTY = hashlib.sha256(b"").digest()
_ATTEMPTS = 3
_BUILDERS = 2
"""Of a source that is not of this host."""
_MOST_BUILDERS = 4
_MANY, _MUCH = 2000, 64 * 1024 * 1024
"""From so many files or bytes on other processes are worth their start."""
_BATCH = 1000
"""Files that are read between two answers, at most."""
_ALL_SAMPLED = 4000
"""Of so many files it is said of each whether its content compresses; where more are read, of one in eight."""
_FRUGAL = 50_000
"""From so many files on what their rows take makes up for buffers that are given back, which costs time."""
_PIECE = 4 * 1024 * 1024


class Read(NamedTuple):
    """What came of one file. `place` None: it is empty, or `error` says why it could not be read; `columns` as `Seen`
    has them."""

    wanted: Wanted
    digest: bytes | None
    place: Place | None
    columns: Mapping[str, Any] | None = None
    error: str | None = None
    compresses_to: int | None = None


Took = Callable[[FileArchive | None, Sequence[Read]], None]
"""Told of each file that was not gone, some at a time and never by two threads at once; with an archive, once it is
durable, of those whose content it holds."""


@dataclass
class Packed:
    """`new_bytes` of contents that were not known, `stored_bytes` as put."""

    archives: list[FileArchive] = field(default_factory=list)
    read_bytes: int = 0
    new_bytes: int = 0
    stored_bytes: int = 0


class Packer:
    """Reads what a snapshot wants and stores what is not known. Use once."""

    def __init__(
        self, source: FileSource, writer: SnapshotWriter, contents: Contents, took: Took, progress: Progress
    ) -> None:
        self._source, self._writer, self._contents = source, writer, contents
        self._took, self._progress = took, progress
        self._packed = Packed()
        self._lock = threading.Lock()
        self._sampled, self._many = 1, False
        self._large: list[Wanted] = []
        self._again: list[Wanted] = []
        self._halt = threading.Event()

    def pack(self, files: WantedFiles) -> Packed:
        """Raises what a store raises; what cannot be read of the source is told in its place."""
        self._progress.phase("read", pc.sum(files.sizes).as_py() or 0)
        self._sampled = 1 if len(files) <= _ALL_SAMPLED else 8
        self._many = len(files) >= _FRUGAL
        for _ in range(_ATTEMPTS):
            self._again = []
            self._pack_all(files)
            if not self._again:
                break
            again = array([wanted.row for wanted in self._again], pa.int64())
            files = files.where(pc.is_in(files.places, value_set=again))
        self._tell(None, [Read(wanted, None, None, error=_RESTLESS) for wanted in self._again])
        return self._packed

    def _pack_all(self, files: WantedFiles) -> None:
        """The large ones beside the small ones: what they cost is mostly compressing, which waits for no other."""
        is_large = pc.greater_equal(files.sizes, number(LARGE))
        self._large = [*files.where(is_large)]
        small = files.where(pc.invert(is_large))
        with ExitStack() as stack:
            lanes = [_Lane(builder) for builder in self._builders(small, stack)]
            queue = _Queue(iter(small))
            putters = stack.enter_context(ThreadPoolExecutor(len(lanes), thread_name_prefix="put-packs"))
            pool = stack.enter_context(ThreadPoolExecutor(len(lanes) + 1, thread_name_prefix="read-files"))
            stack.enter_context(self._halting())  # before the pools are waited for: a signal ends this one first
            work = [pool.submit(self._guarded, self._pack_large, 1 if self._many else 2)]
            work += [pool.submit(self._guarded, self._pack_some, lane, queue, putters) for lane in lanes]
            for done in work:
                done.result()
        self._pack_large()  # what grew meanwhile

    def _builders(self, files: WantedFiles, stack: ExitStack) -> list[Builder]:
        if self._source.tree is not None:
            return self._builders_of(self._source.tree, files, stack)
        opener: Opener = self._source
        if self._source.readers > _BUILDERS:
            opener = stack.enter_context(ReadAhead(self._source, files))
        return [self._builder(opener) for _ in range(_BUILDERS)]

    def _builders_of(self, tree: Tree, files: WantedFiles, stack: ExitStack) -> list[Builder]:
        """One of this process, and others where there is enough to read, as many as the system lets begin."""
        builders: list[Builder] = [self._builder(self._source)]
        if len(files) >= _MANY or (pc.sum(files.sizes).as_py() or 0) >= _MUCH:
            # Imported here: few snapshots need them.
            from dr_pipelines.files.pack_process import PackProcess

            with suppress(OSError, CommandFailed):
                while len(builders) < min(len(os.sched_getaffinity(0)), _MOST_BUILDERS):
                    process = PackProcess(tree, self._writer.repository.codec)
                    builders.append(stack.enter_context(closing(process)))
        return builders

    def _builder(self, opener: Opener) -> PackBuilder:
        codec = self._writer.repository.codec
        return PackBuilder(opener, codec, [large_buffer(encoded_size(codec)) for _ in range(2)])

    @contextmanager
    def _halting(self) -> Iterator[None]:
        """What fails in it halts all: what has no archive yet is given up."""
        try:
            yield
        except BaseException:
            self._halt.set()
            raise

    def _guarded(self, work: Callable[..., None], *arguments: Any) -> None:
        with self._halting():
            work(*arguments)

    # --- small files ---

    def _pack_some(self, lane: _Lane, queue: _Queue, putters: ThreadPoolExecutor) -> None:
        if not lane.builder.ready():
            with self._lock:
                self._progress.note("a process to read files with did not begin: the others read them")
            return
        while not self._halt.is_set() and (batch := queue.take()):
            while batch:
                found = lane.builder.read(batch, self._sampled)
                if found:
                    self._keep(lane, [*zip(batch, found, strict=False)])
                    batch = batch[len(found) :]
                else:  # it has no room
                    self._seal(lane, putters)
        if not self._halt.is_set():
            self._seal(lane, putters)
        lane.wait()

    def _keep(self, lane: _Lane, found: Sequence[tuple[Wanted, Outcome]]) -> None:
        """What was read and is not known goes into the pack."""
        kept, others, size = [], [], 0
        at = lane.builder.end
        for number_, (wanted, outcome) in enumerate(found):
            if outcome.what != READ:
                others += self._not_read(wanted, outcome)
                continue
            size += outcome.size
            place = None
            if outcome.size:
                here = lane.archive(self._writer), at + outcome.head
                place = self._contents.find(outcome.digest) or self._contents.add(outcome.digest, outcome.size, here)
            read = Read(wanted, outcome.digest, place, outcome.columns, None, outcome.compresses_to)
            if place is not None and place is here:
                kept.append(number_)
                lane.reads.append(read)
                at += outcome.taken
            else:
                others.append(read)
        lane.builder.keep(kept)
        self._tell(None, others, size)

    def _not_read(self, wanted: Wanted, outcome: Outcome) -> list[Read]:
        if outcome.what == LARGER:
            self._large.append(wanted)
        elif outcome.what == CHANGED:
            self._again.append(wanted)
        elif outcome.what == UNREADABLE:
            return [Read(wanted, None, None, error=outcome.why)]
        return []

    def _seal(self, lane: _Lane, putters: ThreadPoolExecutor) -> None:
        """It is put while the next one is read."""
        if not lane.reads:
            return
        lane.wait()
        sealed = lane.builder.seal()
        lane.put = putters.submit(self._put, lane.name, sealed, lane.builder.buffers[sealed.buffer], lane.reads)
        lane.name, lane.reads = "", []

    def _put(self, name: str, sealed: Sealed, buffer: memoryview, reads: Sequence[Read]) -> None:
        body = Body([buffer[: sealed.stored]], sha256=sealed.sha256, size=sealed.stored, hashed=True)
        pack = self._writer.put_pack(name, 0, body)
        if self._many:
            empty(buffer)
        self._tell(FileArchive(name=name, size=sealed.size, pack_size=PACK_SIZE, packs=(pack,)), reads)

    # --- large files ---

    def _pack_large(self, packs: int = 2) -> None:
        """With two buffers for `packs` one fills while the other is put."""
        if not self._large:
            return
        buffers = ArchiveBuffers(self._writer.repository.codec, pack_size=PACK_SIZE, packs=packs)
        while self._large and not self._halt.is_set():
            wanted = self._large.pop()
            try:
                self._add_large(wanted, buffers)
            except FileChanged:
                self._again.append(wanted)
            except FileUnreadable as error:
                self._tell(None, [Read(wanted, None, None, error=error.message)])
            except (FileVanished, _Halted):
                pass

    def _add_large(self, wanted: Wanted, buffers: ArchiveBuffers) -> None:
        if self._contents.may_hold(wanted.size) and self._is_known(wanted):
            return
        name = self._writer.new_archive()
        archive = self._writer.large_archive(name, buffers)
        try:
            with closing(self._source.open(wanted)) as file:
                archive.write(tar.header(wanted.path, file.size, (wanted.mtime_ns or 0) // 1_000_000_000))
                start = archive.size
                digest, left = self._stream(file, archive.write)
                seen = file.finish()
            archive.write(bytes(tar.padding(file.size)) + tar.END)
            whole = archive.close()
        finally:
            archive.abort()
        # Where it has just been put: if it lies in another archive too, that one may be lost before this one is named.
        self._contents.add(digest, file.size, (name, start))
        read = Read(wanted, digest, (name, start), seen.columns, None, left)
        self._tell(FileArchive(name=name, **dict(whole)), [read], file.size)

    def _is_known(self, wanted: Wanted) -> bool:
        """A large file is read twice rather than stored twice."""
        with closing(self._source.open(wanted)) as file:
            digest, left = self._stream(file, lambda piece: None)
            seen = file.finish()
        place = self._contents.find(digest)
        if place is not None:
            self._tell(None, [Read(wanted, digest, place, seen.columns, None, left)], file.size)
        return place is not None

    def _stream(self, file: OpenFile, take: Callable[[memoryview], None]) -> tuple[bytes, int | None]:
        """The digest, and what its beginning compresses to."""
        digest, left, buffer = hashlib.sha256(), file.size, memoryview(bytearray(_PIECE))
        sample: int | None = None
        while left:
            if self._halt.is_set():
                raise _Halted
            count = file.read_into(buffer[: min(left, _PIECE)])
            if not count:
                raise FileChanged("it became shorter while it was read")
            if left == file.size:
                sample = compresses_to(buffer[: min(count, SAMPLE)])
            digest.update(buffer[:count])
            take(buffer[:count])
            left -= count
        return digest.digest(), sample

    def _tell(self, archive: FileArchive | None, reads: Sequence[Read], size: int = 0) -> None:
        """`size`: bytes that were read, and not told before."""
        with self._lock:
            self._packed.read_bytes += size
            if archive is not None:
                self._packed.archives.append(archive)
                self._packed.new_bytes += sum((read.columns or {}).get("size", read.wanted.size) for read in reads)
                self._packed.stored_bytes += archive.stored_size
            if reads:
                self._took(archive, reads)
        self._progress.advance(size)


_RESTLESS = "it was written to each time it was read"


class _Halted(Exception):
    """Why, whoever failed says."""


class _Queue:
    """Files for whoever has time. Safe to use from threads."""

    def __init__(self, files: Iterator[Wanted]) -> None:
        self._files, self._lock = files, threading.Lock()

    def take(self) -> list[Wanted]:
        """The next ones; none when there are no more."""
        batch: list[Wanted] = []
        size = 0
        with self._lock:
            while size < BATCH and len(batch) < _BATCH and (wanted := next(self._files, None)) is not None:
                batch.append(wanted)
                size += wanted.size
        return batch


@dataclass
class _Lane:
    """A builder, and the archive that it is building: its name once one is needed, the files whose content it has.
    `put`: of the one before."""

    builder: Builder
    name: str = ""
    reads: list[Read] = field(default_factory=list)
    put: Future[None] | None = None

    def archive(self, writer: SnapshotWriter) -> str:
        self.name = self.name or writer.new_archive()
        return self.name

    def wait(self) -> None:
        """Raises what was wrong with it."""
        if self.put is not None:
            self.put.result()
