"""Where files are backed up from: a directory, a bucket. What a snapshot makes of them does not belong here."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from dr_pipelines.errors import DrError

if TYPE_CHECKING:  # processes that only read files need no tables
    import pyarrow as pa

    from dr_pipelines.files.tree import Tree

_SOME = 2000


class FileChanged(DrError):
    """A file is not what it was when it was begun to be read: what was read of it is no version of it."""

    exit_code = 21


class FileVanished(DrError):
    """A file that was listed is not there any more."""

    exit_code = 21


class FileUnreadable(DrError):
    """A file's content cannot be had; the message says why."""

    exit_code = 21


@dataclass(frozen=True)
class Scan:
    """Everything that the source has, in the columns of `table.SOURCE`, one row a path; `unreadable`: what could not be
    looked at, by path, and why; `notes`: what is left out by nature (sockets, devices), one line each."""

    rows: pa.Table
    unreadable: Mapping[bytes, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file whose content is to be read: its row in the scan, and what reading needs of it."""

    row: int
    path: bytes
    size: int
    mtime_ns: int | None = None
    etag: str | None = None
    version: str | None = None


@dataclass(frozen=True)
class WantedFiles:
    """The files at some places (whole numbers) of a scan. They are made as they are asked for: there may be
    millions."""

    rows: pa.Table
    places: pa.Array

    def __len__(self) -> int:
        return len(self.places)

    def __iter__(self) -> Iterator[Wanted]:
        told = self.rows.select(["path", "size", "mtime_ns", "etag", "version"])
        for start in range(0, len(self), _SOME):
            places = self.places.slice(start, _SOME)
            yield from map(Wanted, places.to_pylist(), *(column.to_pylist() for column in told.take(places).columns))

    @property
    def sizes(self) -> pa.Array:
        return self.rows["size"].take(self.places).combine_chunks()

    def where(self, mask: pa.Array) -> WantedFiles:
        return WantedFiles(self.rows, self.places.filter(mask))


@dataclass(frozen=True, slots=True)
class Seen:
    """What a file was while all of it was read: the columns of `table.SOURCE` that may differ from the scan's."""

    columns: Mapping[str, Any] = field(default_factory=dict)


class OpenFile(Protocol):
    """One file being read. `size` in bytes, as of now."""

    size: int

    def read_into(self, target: memoryview) -> int:
        """Fills `target` as far as there are bytes; 0 at the end. Raises `FileUnreadable`; what a store raises."""
        ...

    def finish(self) -> Seen:
        """To be called once `size` bytes were read. Raises `FileChanged` where they are not one version of it."""
        ...

    def close(self) -> None: ...


class Opener(Protocol):
    def open(self, wanted: Wanted) -> OpenFile:
        """Raises `FileVanished`, `FileUnreadable`, `FileChanged`; what a store raises."""
        ...


class FileSource(Opener, Protocol):
    """`description` is for people and manifests; `readers`: how many files are read side by side, at most."""

    description: str
    readers: int

    @property
    def tree(self) -> Tree | None:
        """What it is where it is a directory of this host: other processes can read that too."""
        ...

    def scan(self) -> Scan:
        """Either whole or it raises: what is missing in a scan passes for removed."""
        ...

    def look(self, paths: Collection[bytes]) -> Scan:
        """What is at these paths now, with the directories above them; nothing where nothing is. Raises as `scan`."""
        ...


Advance = Callable[[int], None]
