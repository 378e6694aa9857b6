"""A file set with its source, its repository and what this host remembers; sources that are disturbed on order."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from dr_pipelines.clock import FixedClock, SystemClock
from dr_pipelines.errors import StoreUnavailable
from dr_pipelines.files.memory import SnapshotMemory
from dr_pipelines.files.read_table import read_table
from dr_pipelines.files.snapshot import take_snapshot
from dr_pipelines.files.source import FileSource, OpenFile, Scan, Seen, Wanted
from dr_pipelines.progress import Progress, Silent
from dr_pipelines.repository.archive_reader import ArchiveReader
from dr_pipelines.repository.repository import Repository
from dr_pipelines.repository.snapshot_manifest import Snapshot
from dr_pipelines.repository.snapshots import read_snapshot
from tests.support.file_tiers import DOCS

NOBODY = 65534


def later() -> FixedClock:
    """A clock by which nothing was written just now."""
    return FixedClock(SystemClock().now() + timedelta(hours=1))


@dataclass
class FileSet:
    source: FileSource
    repository: Repository
    state: Path
    clock: FixedClock = field(default_factory=later)

    def snapshot(self, progress: Progress | None = None, **how: Any) -> Snapshot:
        """One, an hour after the last."""
        self.clock.advance(timedelta(hours=1))
        return take_snapshot(
            self.source, self.repository, DOCS, memory=SnapshotMemory(self.state), clock=self.clock,
            progress=progress or Silent(), **how,
        )  # fmt: skip

    def rows(self, taken: Snapshot) -> dict[bytes, dict[str, Any]]:
        """The snapshot's rows by path."""
        return {row["path"]: row for row in read_table(self.repository, taken).to_pylist()}

    def restored(self, taken: Snapshot) -> dict[bytes, bytes]:
        """The content of each file that has one, each held against its SHA-256, from what the store says."""
        stored = read_snapshot(self.repository.store, DOCS, taken.label)
        assert stored == taken and not stored.unread
        tars = {archive.name: self._tar(archive) for archive in stored.archives}
        contents = {}
        for path, row in self.rows(taken).items():
            if row["sha256"] is not None:
                start = row["offset"] or 0
                content = tars[row["archive"]][start : start + row["size"]] if row["size"] else b""
                assert hashlib.sha256(content).digest() == row["sha256"], path
                contents[path] = content
        return contents

    def _tar(self, archive: Any) -> bytes:
        reader = ArchiveReader(self.repository.store, archive, self.repository.codec)
        return b"".join(bytes(piece) for piece in reader.pieces())


def tree(root: Path) -> dict[bytes, bytes]:
    """The files below, by path."""
    files = (path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    return {os.fsencode(path.relative_to(root)): path.read_bytes() for path in files}


def write(root: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


class Watched:
    """A source of which it is known what was opened. `at[event, path]`, called once, happens before a file is opened
    (`open`), after its content was read (`finish`) or, with any path, before the scan ends (`scan`); `fail_at` is the
    number (from 1) of the call that raises `StoreUnavailable`, as does every later one with `stays_down`."""

    def __init__(self, source: FileSource, *, fail_at: int | None = None, stays_down: bool = False) -> None:
        self._source, self._fail_at, self._stays_down = source, fail_at, stays_down
        self.description, self.readers, self.tree = source.description, source.readers, None
        self.opened: list[bytes] = []
        self.at: dict[tuple[str, bytes], Callable[[], object]] = {}
        self.calls = 0
        self._lock = threading.Lock()

    def scan(self) -> Scan:
        self.called("scan")
        scan = self._source.scan()
        self.happens("scan", b"")
        return scan

    def open(self, wanted: Wanted) -> OpenFile:
        self.opened.append(wanted.path)
        self.happens("open", wanted.path)
        self.called("open")
        return _WatchedFile(self, self._source.open(wanted), wanted.path)

    def happens(self, event: str, path: bytes) -> None:
        self.at.pop((event, path), lambda: None)()

    def called(self, what: str) -> None:
        with self._lock:
            self.calls += 1
            calls = self.calls
        if self._fail_at is not None and (calls == self._fail_at or (self._stays_down and calls > self._fail_at)):
            raise StoreUnavailable(f"the source fails at call {calls} ({what}), as told")


class _WatchedFile:
    def __init__(self, source: Watched, file: OpenFile, path: bytes) -> None:
        self._source, self._file, self._path = source, file, path
        self.size = file.size

    def read_into(self, target: memoryview) -> int:
        self._source.called("read")
        return self._file.read_into(target)

    def finish(self) -> Seen:
        self._source.happens("finish", self._path)
        self._source.called("finish")
        return self._file.finish()

    def close(self) -> None:
        self._file.close()


class Noted(Silent):
    """What a person would see."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@contextmanager
def as_nobody() -> Iterator[None]:
    """As a user that modes and owners mean something to."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(before)


def data_puts(keys: Iterable[str]) -> list[str]:
    """Keys of contents and tables: no claims, no manifests."""
    return [key for key in keys if "/archives/" in key or ".parquet" in key]
