"""The folder in which the receiver writes WAL, seen as segments: what is closed, what is open and how far, what may go.

One folder a PostgreSQL system identifier, so WAL of a server that was made anew never meets WAL of the old one.
`sealed/` below it holds what was put aside before the receiver could write over it; it waits to be shipped like
everything else. What does not belong here: stores, servers, processes.

The receiver's naming: `<segment>` is whole, `<segment>.partial` is open and padded with zeros, `<timeline>.history`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Set
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from dr_pipelines.lsn import DEFAULT_SEGMENT_SIZE, Lsn, Timeline, WalSegment, is_history_name, is_segment_name
from dr_pipelines.postgres.wal_pages import PAGE_SIZE, count_filled_pages, end_of_wal

_PARTIAL = ".partial"
_SEALED = "sealed"
_TAIL_PAGES = 64  # read before the first empty page to find the last record; longer records give a lower bound


@dataclass(frozen=True)
class SpoolFile:
    """One file with WAL. `end` is the end of the WAL in it; `whole` says that it is a closed segment."""

    segment: WalSegment
    path: Path
    end: Lsn
    whole: bool

    @property
    def name(self) -> str:
        return str(self.path)

    def read(self) -> bytes:
        """The WAL: a whole segment, or the head of an open one up to `end`. Raises `FileNotFoundError` when the
        receiver closed the segment meanwhile: the next look finds it whole."""
        with self.path.open("rb") as file:
            return file.read(self.end - self.segment.start)


class Spool:
    """All folders of one server."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def system(self, system_id: str) -> SystemSpool:
        """The folder of one system, made if it is not there."""
        directory = self.root / system_id
        (directory / _SEALED).mkdir(parents=True, exist_ok=True)
        return SystemSpool(directory)

    def systems(self) -> list[SystemSpool]:
        if not self.root.is_dir():
            return []
        return [self.system(path.name) for path in sorted(self.root.iterdir()) if path.name.isdigit()]

    def files(self) -> list[SpoolFile]:
        """Every file with WAL of every system, each system's in the order in which it has to be shipped."""
        return [file for system in self.systems() for file in system.files()]

    def room_on_disk(self) -> tuple[int, int]:
        """Bytes that are free, and bytes that the receiver needs: the next segment and a copy of an open one."""
        sizes = [size for system in self.systems() if (size := system.segment_size()) is not None]
        return shutil.disk_usage(self.root).free, 2 * max(sizes, default=DEFAULT_SEGMENT_SIZE)


class SystemSpool:
    """The folder of one system. Safe to read from several threads while the receiver writes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.sealed = directory / _SEALED

    @property
    def system_id(self) -> str:
        return self.directory.name

    def segment_size(self) -> int | None:
        """Bytes of a segment, from the files; None while there is none."""
        sizes = [size for path in self._wal_paths() if _is_segment_size(size := _size(path))]
        return max(sizes, default=None)

    def histories(self) -> list[Timeline]:
        return sorted(Timeline.of_history_file(path.name) for path in self._files() if is_history_name(path.name))

    def read_history(self, timeline: Timeline) -> bytes:
        return (self.directory / timeline.history_file).read_bytes()

    def files(self) -> list[SpoolFile]:
        """Every file with WAL in the order in which it has to be shipped: by timeline, then position; of a segment the
        whole before the head."""
        files = self._list()
        # A file that is renamed while a folder is listed may be seen under neither name: then there is a hole to see.
        return self._list() if _has_hole(files) else files

    def _list(self) -> list[SpoolFile]:
        size = self.segment_size()
        if size is None:
            return []
        found = [file for path in self._wal_paths() if (file := _look(path, size)) is not None]
        return sorted(found, key=lambda file: (file.segment, not file.whole, file.end))

    def received(self) -> tuple[Timeline, Lsn] | None:
        """How far the receiver is on the newest timeline; None while it has received nothing."""
        files = [file for file in self.files() if file.path.parent == self.directory]
        if not files:
            return None
        newest = max(file.segment.timeline for file in files)
        return newest, max(file.end for file in files if file.segment.timeline == newest)

    def is_empty(self) -> bool:
        """Whether the receiver would find nothing here to go on from."""
        return not any(path.parent == self.directory for path in self._wal_paths())

    def seal(self, *, before: Timeline) -> list[Path]:
        """Copy the open segments of timelines older than `before` aside: a receiver that goes on over a timeline switch
        writes their heads anew."""
        sealed = []
        for file in self.files():
            if file.whole or file.path.parent == self.sealed or not file.segment.timeline < before:
                continue
            target = self.sealed / f"{file.segment.name}.{file.end.value:016X}{_PARTIAL}"
            if not target.exists():
                _write(target, file.path.read_bytes())
            sealed.append(target)
        return sealed

    def set_aside(self) -> None:
        """Move everything with WAL aside, to be shipped from there, so that the receiver starts where its slot says."""
        for file in self.files():
            if file.path.parent == self.directory:
                name = file.segment.name if file.whole else f"{file.segment.name}.{file.end.value:016X}{_PARTIAL}"
                file.path.replace(self.sealed / name)
        for path in self._wal_paths():
            if path.parent == self.directory:
                path.unlink(missing_ok=True)  # a head without a byte of WAL

    def remove_unpadded(self, segment_size: int) -> None:
        """Heads that the receiver could not pad to their size (the disk was full): they have no WAL, and it refuses to
        go on from them. Only while no receiver runs."""
        for path in list(self._wal_paths()):
            if path.name.endswith(_PARTIAL) and path.parent == self.directory and _size(path) not in (0, segment_size):
                path.unlink(missing_ok=True)

    def write_history(self, timeline: Timeline, data: bytes) -> None:
        """Whole and durable; one that is there stays."""
        target = self.directory / timeline.history_file
        if not target.exists():
            _write(target, data)

    def seed(self, segment: WalSegment) -> None:
        """Make the receiver start at this segment: it goes on from the newest file, and an empty head is one."""
        (self.directory / f"{segment.name}{_PARTIAL}").touch()

    def free(self, held: Set[str]) -> list[SpoolFile]:
        """Remove what is in `held` (names of files) but not what the receiver goes on from or still writes: the newest
        whole segment and the open ones of the newest timeline."""
        files = self.files()
        here = [file for file in files if file.path.parent == self.directory]
        newest = max((file.segment.timeline for file in here), default=None)
        resume = max((file.segment for file in here if file.whole), default=None)
        freed = []
        for file in files:
            in_use = file.path.parent == self.directory and (
                file.segment == resume or (not file.whole and file.segment.timeline == newest)
            )
            if not in_use and file.name in held:
                file.path.unlink(missing_ok=True)
                freed.append(file)
        return freed

    def _files(self) -> Iterator[Path]:
        yield from self.directory.iterdir()
        yield from self.sealed.iterdir()

    def _wal_paths(self) -> Iterator[Path]:
        for path in self._files():
            if is_segment_name(path.name) or (path.name.endswith(_PARTIAL) and is_segment_name(path.name[:24])):
                yield path


def _has_hole(files: list[SpoolFile]) -> bool:
    return any(
        before.segment.timeline == after.segment.timeline and after.segment.number > before.segment.number + 1
        for before, after in pairwise(files)
    )


def _look(path: Path, size: int) -> SpoolFile | None:
    """None when the file vanished, or is a head without a byte of WAL."""
    segment = WalSegment.parse(path.name[:24], size)
    if is_segment_name(path.name):
        # Of another length: the receiver is just making it, or it is damaged and cannot be taken for a segment.
        return SpoolFile(segment, path, segment.end, whole=True) if _size(path) == size else None
    try:
        end = _end_of_head(path, size)
    except FileNotFoundError:
        return None
    return SpoolFile(segment, path, segment.start + end, whole=False) if end else None


def _end_of_head(path: Path, size: int) -> int:
    """Found from one look at the tail; the bytes before it were written earlier, so a later read has them all."""
    with path.open("rb") as file:
        descriptor = file.fileno()
        pages = count_filled_pages(lambda number: os.pread(descriptor, 2, number * PAGE_SIZE), size // PAGE_SIZE)
        first = max(0, pages - _TAIL_PAGES)
        tail = os.pread(descriptor, (pages - first) * PAGE_SIZE, first * PAGE_SIZE)
    return first * PAGE_SIZE + end_of_wal(tail) if pages else 0


def _size(path: Path) -> int:
    """0 when the file vanished."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _is_segment_size(size: int) -> bool:
    """While the receiver makes a file it has other sizes, and no WAL."""
    return size >= 1 << 20 and size & (size - 1) == 0


def _write(target: Path, data: bytes) -> None:
    """Whole and durable, or not there."""
    scratch = target.with_suffix(".copying")
    with scratch.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(target)
