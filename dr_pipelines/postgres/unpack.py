"""Packs become a data directory: members are written straight into place, incrementals block by block over what the
chain left, and every member is compared with PostgreSQL's own checksum on the way.

`global/pg_control` is held back: whoever puts it last makes the directory a server.
"""

from __future__ import annotations

import errno
import functools
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dr_pipelines.errors import IntegrityError, RestoreError
from dr_pipelines.postgres.backup_manifest import Checksum, ServerManifest, new_checksum
from dr_pipelines.postgres.merge import IncrementalMember, full_label, is_incremental, needed_members, plain_name
from dr_pipelines.postgres.tar_stream import Content, Header, Member, TarWalk
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.repository.pack import ArchiveReader

PG_CONTROL = "global/pg_control"
BACKUP_LABEL = "backup_label"


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
    for number, link in enumerate(chain):
        newest = number == len(chain) - 1
        with _told(target), _Lanes() as lanes:
            unpacker = _Unpacker(link, target, needed[number], lanes, newest=newest)
            for pack in link.archive.packs():
                unpacker.feed(pack)
                lanes.settle()  # the pack's memory is used again
                advance(len(pack))
            control = unpacker.finish()
    return control


def sync_tree(target: Path) -> None:
    """Everything below `target` is on disk when this returns; tablespaces behind links too."""
    files: list[Path] = []
    for here, folders, names in os.walk(target, followlinks=True):
        files += [Path(here), *(Path(here, name) for name in names)]
        folders.sort()
    with ThreadPoolExecutor(8, thread_name_prefix="fsync") as pool:
        for _ in pool.map(_sync, files):
            pass


class _Lanes:
    """The threads that write. All work of one member goes to one lane, so it is done in order."""

    def __init__(self, count: int = 2) -> None:
        self._pools = [ThreadPoolExecutor(1, thread_name_prefix="unpack") for _ in range(count)]
        self._turns = itertools.cycle(self._pools)
        self._waiting: list[Future[None]] = []

    def __enter__(self) -> _Lanes:
        return self

    def __exit__(self, *exc: object) -> None:
        for pool in self._pools:
            pool.shutdown(cancel_futures=True)

    def lane(self) -> Callable[[Callable[[], None]], None]:
        """Where the work of one member is handed in."""
        pool = next(self._turns)
        return lambda work: self._waiting.append(pool.submit(work))

    def settle(self) -> None:
        """Waits until all that was handed in is done. Raises its first error."""
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            future.result()


class _Unpacker:
    """One link."""

    def __init__(self, link: Link, target: Path, needed: frozenset[str], lanes: _Lanes, *, newest: bool) -> None:
        self._link, self._target, self._needed, self._lanes, self._newest = link, target, needed, lanes, newest
        self._walk = TarWalk()
        self._unseen = set(link.told.files)
        self._file: _OpenMember | None = None
        self._lane: Callable[[Callable[[], None]], None] | None = None
        self._control = b""

    def feed(self, pack: memoryview) -> None:
        for event in self._walk.feed(pack):
            if isinstance(event, Header):
                self._begin(event.member)
            elif isinstance(event, Content):
                assert self._file is not None and self._lane is not None
                self._lane(functools.partial(self._file.feed, event.offset, event.data))
                if event.offset + len(event.data) == event.member.size:
                    self._end()

    def finish(self) -> bytes:
        self._walk.finish()
        if self._unseen:
            raise IntegrityError(f"{self._link.manifest.label} lacks {min(self._unseen)}, which its server sent")
        return self._control

    def _begin(self, member: Member) -> None:
        path = _inside(member.name)
        if member.kind == "directory":
            if self._newest:
                (self._target / path).mkdir(parents=True, exist_ok=True, mode=0o700)
            return
        if member.kind != "file" or path not in self._unseen:
            raise IntegrityError(f"{self._link.manifest.label} holds {path}, which its backup_manifest does not name")
        self._unseen.discard(path)
        self._lane = self._lanes.lane()
        self._file = _OpenMember(path, member, self._link, self._destination(path, member))
        if member.size == 0:
            self._end()

    def _destination(self, path: str, member: Member) -> _Destination:
        if self._newest and path in (PG_CONTROL, BACKUP_LABEL):
            return _Held()
        if path not in self._needed:
            return _Nowhere()
        if is_incremental(path):
            return _Blocks(self._target / plain_name(path), path, self._link.manifest.block_size)
        return _Whole(self._target / path, member)

    def _end(self) -> None:
        assert self._file is not None and self._lane is not None
        self._lane(functools.partial(self._finish, self._file))
        self._file = None

    def _finish(self, file: _OpenMember) -> None:
        path, held = file.finish()
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
        held = self._destination.close()
        if self._size != self._told.size or self._checksum.hexdigest() != self._told.checksum:
            raise IntegrityError(
                f"{self._path} in {self._label} is not what its server sent: {self._told.algorithm} "
                f"{self._checksum.hexdigest()}, expected {self._told.checksum}",
                hint="restore an earlier backup with more WAL, or from another tier with --tier.",
            )
        return self._path, held


class _Destination(Protocol):
    """Where a member's bytes go. `close` returns what was held back, if anything was."""

    def write(self, offset: int, data: memoryview) -> None: ...

    def close(self) -> bytes: ...


class _Nowhere:
    """A later backup replaces the file: it is only checked."""

    def write(self, offset: int, data: memoryview) -> None:
        pass

    def close(self) -> bytes:
        return b""


class _Held:
    """A small file that is kept for the end."""

    def __init__(self) -> None:
        self._data = bytearray()

    def write(self, offset: int, data: memoryview) -> None:
        self._data += data

    def close(self) -> bytes:
        return bytes(self._data)


class _Whole:
    """A file as it is."""

    def __init__(self, path: Path, member: Member) -> None:
        self._path, self._mode = path, member.mode & 0o700 or 0o600

    @functools.cached_property
    def _descriptor(self) -> int:
        """Opened by the lane: making files takes as long as writing small ones."""
        return _open(self._path, os.O_CREAT | os.O_TRUNC, self._mode)

    def write(self, offset: int, data: memoryview) -> None:
        _write_at(self._descriptor, data, offset)

    def close(self) -> bytes:
        os.close(self._descriptor)
        return b""


class _Blocks:
    """Changed blocks over what the chain left. Most members have none: their files are not even opened."""

    def __init__(self, path: Path, name: str, block_size: int) -> None:
        self._path, self._block_size = path, block_size
        self._member = IncrementalMember(name, block_size)
        self._descriptor: int | None = None

    def write(self, offset: int, data: memoryview) -> None:
        for position, piece in self._member.feed(data):
            _write_at(self._resized(), piece, position)

    def close(self) -> bytes:
        try:
            header = self._member.finish()
            if self._path.stat().st_size != header.length * self._block_size:
                self._resized()
        finally:
            if self._descriptor is not None:
                os.close(self._descriptor)
        return b""

    def _resized(self) -> int:
        """The open file, at its new length: what lies beyond the truncation is void, what no member holds is zeros."""
        if self._descriptor is None:
            assert self._member.header is not None
            self._descriptor = _open(self._path, 0, 0o600)
            truncation = self._member.header.truncation_length * self._block_size
            os.ftruncate(self._descriptor, min(os.fstat(self._descriptor).st_size, truncation))
            os.ftruncate(self._descriptor, self._member.header.length * self._block_size)
        return self._descriptor


def _inside(name: str) -> str:
    """The path of a member, which must stay below the target."""
    path = name.removeprefix("./")
    if path.startswith("/") or ".." in path.split("/") or not path:
        raise IntegrityError(f"the archive names a path outside of the data directory: {name!r}")
    return path


def _open(path: Path, flags: int, mode: int) -> int:
    if not path.parent.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return os.open(path, os.O_RDWR | os.O_CLOEXEC | flags, mode)


def _write_at(descriptor: int, data: memoryview, offset: int) -> None:
    while len(data):
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _told(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise RestoreError(
                f"the disk of {target} is full", hint="make room or restore to another disk; nothing was left behind."
            ) from error
        raise RestoreError(f"cannot write below {target}: {error.strerror} ({error.filename or ''})") from error
