"""Packs become a data directory: members are written straight into place, incrementals block by block over what the
chain left, and every member is compared with PostgreSQL's own checksum on the way.

`global/pg_control` is held back: whoever puts it last makes the directory a server.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dr_pipelines.disk import start_writeback, sync
from dr_pipelines.errors import HostTooSmall, IntegrityError, RestoreError, disk_is_full
from dr_pipelines.postgres.backup_manifest import Checksum, ServerManifest, new_checksum
from dr_pipelines.postgres.merge import IncrementalMember, full_label, is_incremental, needed_members, plain_name
from dr_pipelines.postgres.tar_stream import Content, Header, Member, TarWalk
from dr_pipelines.postgres.visibility import Changed, forget_settled, mend_maps
from dr_pipelines.repository.archive_reader import ArchiveReader
from dr_pipelines.repository.manifest import BackupManifest

PG_CONTROL = "global/pg_control"
BACKUP_LABEL = "backup_label"
_SMALL = 64 * 1024
_WRITE_SIZE = 1024 * 1024
"""Larger writes make Linux look for long runs of free pages, which takes several times as long."""


@dataclass(frozen=True)
class Link:
    """One backup of a chain, ready to be read."""

    manifest: BackupManifest
    archive: ArchiveReader
    told: ServerManifest


def unpack_chain(chain: Sequence[Link], target: Path, *, advance: Callable[[int], None]) -> bytes:
    """Write the chain (oldest first) into `target`, an existing directory. Returns the content of pg_control, which is
    not written. Raises `IntegrityError` or `RestoreError`; `target` is then worth nothing."""
    needed = needed_members([link.told.files for link in chain])
    control = b""
    changed: dict[str, set[int] | None] = {}
    for number, link in enumerate(chain):
        newest = number == len(chain) - 1
        with _told(target), _Unpacker(link, target, needed[number], newest=newest) as unpacker:
            for piece in link.archive.pieces():
                unpacker.feed(piece)
                advance(len(piece))
            control = unpacker.finish()
        if number:
            _add(changed, unpacker.changed)
            forget_settled(changed, link.told.files)
    manifest = chain[-1].manifest
    with _told(target):
        mend_maps(target, changed, manifest.block_size, checksums=manifest.data_checksums)
    return control


def _add(changed: dict[str, set[int] | None], more: Changed) -> None:
    for path, blocks in more.items():
        known = changed.get(path, set())
        changed[path] = None if blocks is None or known is None else known.union(blocks)


def sync_tree(target: Path) -> None:
    """Everything below `target` is on disk when this returns; tablespaces behind links too. Raises `RestoreError`."""
    files: list[Path] = []
    for here, _, names in os.walk(target, followlinks=True):
        files += [Path(here), *(Path(here, name) for name in names)]
    with _told(target), ThreadPoolExecutor(8, thread_name_prefix="fsync") as pool:
        for _ in pool.map(sync, files):
            pass


class _Lanes:
    """The threads that write. All work of one member goes to one lane, so it is done in order."""

    def __init__(self, count: int = 3) -> None:
        self._pools = [ThreadPoolExecutor(1, thread_name_prefix="unpack") for _ in range(count)]
        self._turns = itertools.cycle(self._pools)
        self._waiting: list[Future[None]] = []

    def lane(self) -> Callable[[Callable[[], None]], None]:
        """Where the work of one member is handed in."""
        pool = next(self._turns)
        return lambda work: self._waiting.append(pool.submit(work))

    def settle(self) -> None:
        """Waits until all that was handed in is done. Raises its first error."""
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            future.result()

    def close(self) -> None:
        """Waits for the work that has begun; what waits for its turn is dropped."""
        for pool in self._pools:
            pool.shutdown(cancel_futures=True)


class _Unpacker:
    """One link. Whatever happened, no thread runs and no file is open after its `with` block."""

    def __init__(self, link: Link, target: Path, needed: frozenset[str], *, newest: bool) -> None:
        self._link, self._target, self._needed, self._newest = link, target, needed, newest
        self._lanes = _Lanes()
        self._walk = TarWalk()
        self._unseen = set(link.told.files)
        self._unfinished: set[_OpenMember] = set()
        self._file: _OpenMember | None = None
        self._lane: Callable[[Callable[[], None]], None] | None = None
        self._control = b""
        self.changed: dict[str, Sequence[int] | None] = {}

    def __enter__(self) -> _Unpacker:
        return self

    def __exit__(self, *exc: object) -> None:
        self._lanes.close()
        for file in self._unfinished:
            file.close()

    def feed(self, piece: memoryview) -> None:
        """All of `piece` is written when this returns, so its memory may be used again."""
        for event in self._walk.feed(piece):
            if isinstance(event, Header):
                self._begin(event.member)
            elif isinstance(event, Content):
                assert self._file is not None and self._lane is not None
                self._lane(functools.partial(self._file.feed, event.offset, event.data))
                if event.offset + len(event.data) == event.member.size:
                    self._end()
        self._lanes.settle()

    def finish(self) -> bytes:
        """The content of pg_control. Raises `IntegrityError` when something is missing."""
        self._walk.finish()
        if self._unseen:
            raise IntegrityError(f"{self._link.manifest.label} lacks {min(self._unseen)}, which its server sent")
        if self._newest and not self._control:
            raise IntegrityError(f"{self._link.manifest.label} has no {PG_CONTROL}")
        return self._control

    def _begin(self, member: Member) -> None:
        path = _inside(member.name)
        if member.kind == "directory":
            if self._newest:
                (self._target / path).mkdir(parents=True, exist_ok=True, mode=0o700)
            return
        if member.kind != "file" or path not in self._unseen:
            raise IntegrityError(
                f"{self._link.manifest.label} holds the {member.kind} {path}, which its backup_manifest does not name"
            )
        self._unseen.discard(path)
        destination = self._destination(path, member)
        # Most members of an incremental are small and make no file: handing them over would cost more than they do.
        at_once = member.size <= _SMALL and not isinstance(destination, _Whole)
        self._lane = _at_once if at_once else self._lanes.lane()
        self._file = _OpenMember(path, member, self._link, destination)
        self._unfinished.add(self._file)
        if member.size == 0:
            self._end()

    def _destination(self, path: str, member: Member) -> _Destination:
        if self._newest and path in (PG_CONTROL, BACKUP_LABEL):
            return _Held()
        if path not in self._needed:
            return _Destination()
        if is_incremental(path):
            return _Blocks(self._target / plain_name(path), path, self._link.manifest.block_size)
        return _Whole(self._target / path, member)

    def _end(self) -> None:
        assert self._file is not None and self._lane is not None
        self._lane(functools.partial(self._finish, self._file))
        self._file = None

    def _finish(self, file: _OpenMember) -> None:
        path, held = file.finish()
        self._unfinished.discard(file)
        if file.has_changed:
            self.changed[plain_name(path)] = file.blocks
        if path == PG_CONTROL:
            self._control = held
        elif path == BACKUP_LABEL and self._newest:
            (self._target / path).write_bytes(full_label(held))
            (self._target / path).chmod(0o600)


class _OpenMember:
    """A member being read: its checksum, and where its bytes go."""

    def __init__(self, path: str, member: Member, link: Link, destination: _Destination) -> None:
        self._path, self._label, self._size = path, link.manifest.label, member.size
        self._told = link.told.files[path]
        self._checksum: Checksum = new_checksum(self._told.algorithm)
        self._destination = destination

    def feed(self, offset: int, data: memoryview) -> None:
        self._checksum.update(data)
        self._destination.write(offset, data)

    def finish(self) -> tuple[str, bytes]:
        """Its path, and its content where that was held back."""
        held = self._destination.finish()
        if self._size != self._told.size or self._checksum.hexdigest() != self._told.checksum:
            raise IntegrityError(
                f"{self._path} in {self._label} is not what its server sent: {self._told.algorithm} "
                f"{self._checksum.hexdigest()}, expected {self._told.checksum}",
                hint="restore an earlier backup with more WAL, or from another tier with --tier.",
            )
        return self._path, held

    @property
    def has_changed(self) -> bool:
        return self._destination.was_opened

    @property
    def blocks(self) -> Sequence[int] | None:
        """That it brought; None for a whole file."""
        return self._destination.blocks

    def close(self) -> None:
        self._destination.close()


class _Destination:
    """Where a member's bytes go; by itself nowhere: a later backup replaces the file, so it is only checked."""

    was_opened = False
    blocks: Sequence[int] | None = None

    def write(self, offset: int, data: memoryview) -> None:
        pass

    def finish(self) -> bytes:
        """All bytes were written. Returns what was held back, if anything was."""
        self.close()
        return b""

    def close(self) -> None:
        """Lets go of the file; may be called again."""


class _Held(_Destination):
    """A small file that is kept for the end."""

    def __init__(self) -> None:
        self._data = bytearray()

    def write(self, offset: int, data: memoryview) -> None:
        self._data += data

    def finish(self) -> bytes:
        return bytes(self._data)


class _File(_Destination):
    """A file of the target, opened at its first use: by the lane, for that takes as long as writing a small one."""

    def __init__(self, path: Path, flags: int, mode: int) -> None:
        self._path, self._flags, self._mode = path, flags, mode
        self._descriptor: int | None = None

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _opened(self) -> int:
        if self._descriptor is None:
            if not self._path.parent.is_dir():
                self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CLOEXEC | self._flags, self._mode)
            self.was_opened = True
            self._prepare(self._descriptor)
        return self._descriptor

    def _prepare(self, descriptor: int) -> None:
        """What is done to the file before the first write."""


class _Whole(_File):
    """A file as it is."""

    def __init__(self, path: Path, member: Member) -> None:
        super().__init__(path, os.O_CREAT | os.O_TRUNC, member.mode & 0o700 or 0o600)

    def write(self, offset: int, data: memoryview) -> None:
        _write_at(self._opened(), data, offset)

    def finish(self) -> bytes:
        self._opened()  # an empty file is one too
        return super().finish()


class _Blocks(_File):
    """Changed blocks over what the chain left. Most members have none: their files are not even opened."""

    def __init__(self, path: Path, name: str, block_size: int) -> None:
        super().__init__(path, 0, 0o600)
        self._block_size = block_size
        self._member = IncrementalMember(name, block_size)

    def write(self, offset: int, data: memoryview) -> None:
        for position, piece in self._member.feed(data):
            _write_at(self._opened(), piece, position)

    def finish(self) -> bytes:
        header = self._member.finish()
        self.blocks = header.blocks
        if self._path.stat().st_size != header.length * self._block_size:
            self._opened()
        return super().finish()

    def _prepare(self, descriptor: int) -> None:
        """Its new length: what lies beyond the truncation is void, what no member holds is zeros."""
        assert self._member.header is not None
        truncation = self._member.header.truncation_length * self._block_size
        os.ftruncate(descriptor, min(os.fstat(descriptor).st_size, truncation))
        os.ftruncate(descriptor, self._member.header.length * self._block_size)


def _at_once(work: Callable[[], None]) -> None:
    work()


def _inside(name: str) -> str:
    """The path of a member, which must stay below the target."""
    path = name.removeprefix("./")
    if path.startswith("/") or ".." in path.split("/") or not path:
        raise IntegrityError(f"the archive names a path outside of the data directory: {name!r}")
    return path


def _write_at(descriptor: int, data: memoryview, offset: int) -> None:
    start, end = offset, offset + len(data)
    while len(data):
        written = os.pwrite(descriptor, data[:_WRITE_SIZE], offset)
        data, offset = data[written:], offset + written
    if end - start > _SMALL:
        start_writeback(descriptor, start, end - start)  # the disk works while we decode; `sync_tree` finds little left


@contextmanager
def _told(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if disk_is_full(error):
            raise HostTooSmall(
                f"the disk of {target} is full", hint="make room or restore to another disk; nothing was left behind."
            ) from error
        raise RestoreError(f"cannot write below {target}: {error.strerror} ({error.filename or ''})") from error
