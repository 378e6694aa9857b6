"""A file set with a directory as its source, taken and restored in this process."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa

from dr_pipelines.clock import FixedClock
from dr_pipelines.files.directory import Directory
from dr_pipelines.files.memory import SnapshotMemory
from dr_pipelines.files.read_table import read_table
from dr_pipelines.files.restore import FilesReport, restore_to_directory
from dr_pipelines.files.snapshot import take_snapshot
from dr_pipelines.files.source import FileSource
from dr_pipelines.files.table import encode_table
from dr_pipelines.files.tiers import Tiers, Wanted
from dr_pipelines.progress import Silent
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.repository import Repository
from dr_pipelines.repository.snapshot_manifest import Snapshot
from dr_pipelines.repository.snapshots import begin_snapshot
from dr_pipelines.storage.base import Body, ObjectStore, read_all
from dr_pipelines.storage.memory import MemoryStore

BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
NAME = "docs"


def repository(name: str = "primary", store: ObjectStore | None = None, codec: Codec | None = None) -> Repository:
    made = Repository(store or MemoryStore(name, FixedClock(BEGIN)), codec or Codec(1), name)
    made.initialise()
    return made


@dataclass
class FileSet:
    """`source` is what is taken, an hour apart; `tiers` are read in order, the first is written to."""

    folder: Path
    tiers: list[Repository] = field(default_factory=lambda: [repository()])
    taken: int = 0

    def __post_init__(self) -> None:
        self.source = self.folder / "source"
        self.source.mkdir(parents=True)
        self.notes: list[str] = []

    def write(self, files: Mapping[str, bytes]) -> None:
        for name, content in files.items():
            path = self.source / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def take(self, source: FileSource | None = None) -> Snapshot:
        self.taken += 1
        return take_snapshot(
            source or Directory(self.source), self.tiers[0], NAME, memory=SnapshotMemory(self.folder / "memory"),
            clock=FixedClock(BEGIN + timedelta(hours=self.taken)), progress=Silent(),
        )  # fmt: skip

    def read(self) -> Tiers:
        return Tiers(self.tiers, NAME, self)

    def restore(
        self, target: Path, wanted: Wanted = "latest", *, paths: Sequence[str] = (), overwrite: bool = False
    ) -> FilesReport:
        tiers = self.read()
        return restore_to_directory(
            tiers, tiers.find(wanted), target, paths=paths, overwrite=overwrite, clock=FixedClock(BEGIN), progress=self
        )

    def copy_to(self, name: str) -> Repository:
        """Another tier, the same to the byte."""
        made = repository(name)
        for info in self.tiers[0].store.list("files/"):
            made.store.put(info.key, Body.of(read_all(self.tiers[0].store, info.key)))
        self.tiers.append(made)
        return made

    def forge(self, change: Mapping[str, Sequence[object]]) -> Snapshot:
        """A snapshot as the newest, but with these columns in its table."""
        [*_, known] = self.read().known()
        rows = read_table(self.tiers[0], known.manifest)
        for name, values in change.items():
            place = rows.schema.get_field_index(name)
            rows = rows.set_column(place, rows.schema.field(name), pa.array(values, rows.schema.field(name).type))
        self.taken += 1
        at = BEGIN + timedelta(hours=self.taken)
        writer = begin_snapshot(self.tiers[0], NAME, clock=FixedClock(at))
        table = writer.put_table(encode_table(rows), changes=False)
        update = {"label": writer.label, "table": table, "changes": None, "started_at": at, "break_glass": ()}
        return writer.commit(known.manifest.model_copy(update=update), known.manifest.archives)

    # Progress

    def phase(self, name: str, total_bytes: int | None = None) -> None:
        pass

    def advance(self, count: int) -> None:
        pass

    def note(self, text: str) -> None:
        self.notes.append(text)


def tree(root: Path, *, times: bool = True) -> dict[bytes, tuple[object, ...]]:
    """Everything below `root`: what it is, mode, owner, time, content or target, and which paths are one file."""
    found: dict[bytes, tuple[object, ...]] = {}
    inodes: dict[int, bytes] = {}
    start = len(os.fsencode(root)) + 1
    for here, folders, names in os.walk(os.fsencode(root)):
        folders.sort()
        for name in sorted([*folders, *names]):
            path = here + b"/" + name
            seen = os.lstat(path)
            first = inodes.setdefault(seen.st_ino, path[start:])
            there = Path(os.fsdecode(path))
            if there.is_symlink():
                what: object = there.readlink()
            else:
                what = None if there.is_dir() else there.read_bytes()
            about = (seen.st_mode, seen.st_uid, seen.st_gid, *((seen.st_mtime_ns,) if times else ()))
            found[path[start:]] = (*about, what, first)
    return found
