"""Which archives the next snapshot leaves behind: those that are mostly dead, and small ones that are too many."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from dr_pipelines.clock import FixedClock
from dr_pipelines.files.directory import Directory
from dr_pipelines.files.liveness import CRUMB, MOST_CRUMBS, crumbs, live_bytes, liveness, mostly_dead
from dr_pipelines.files.memory import SnapshotMemory
from dr_pipelines.files.read_table import read_table
from dr_pipelines.files.snapshot import take_snapshot
from dr_pipelines.progress import Silent
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.repository import Repository
from dr_pipelines.repository.snapshot_manifest import FileArchive, Snapshot
from dr_pipelines.storage.memory import MemoryStore


class Tree:
    """A directory, and the repository of its snapshots."""

    def __init__(self, folder: Path) -> None:
        self.files, self._memory = folder / "files", SnapshotMemory(folder / "state")
        self.files.mkdir()
        self._clock = FixedClock(datetime.now(UTC))
        self.repository = Repository(MemoryStore(), Codec(1), "primary")
        self.repository.initialise()

    def write(self, name: str, size: int) -> None:
        (self.files / name).write_bytes(os.urandom(size))

    def take(self) -> Snapshot:
        self._clock.advance(timedelta(hours=1))  # what was just written would be read again
        return take_snapshot(
            Directory(self.files, ()), self.repository, "assets",
            memory=self._memory, clock=self._clock, progress=Silent(),
        )  # fmt: skip


def test_what_is_left_of_a_mostly_dead_archive_is_stored_anew_and_the_archive_is_named_no_more(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    for number in range(10):
        tree.write(f"file {number}", 3000)
    tree.write("large", 17 << 20)
    first = tree.take()
    table = read_table(tree.repository, first)
    assert live_bytes(table) == {one.name: one.size for one in first.archives}
    assert liveness(table, first.archives).left_behind == frozenset()
    for number in range(8):
        (tree.files / f"file {number}").unlink()
    second = tree.take()
    assert {one.name for one in second.archives} <= {one.name for one in first.archives}
    table = read_table(tree.repository, second)
    left = mostly_dead(live_bytes(table), second.archives)
    seen = liveness(table, second.archives)
    assert left == seen.left_behind
    stored = {one.name: one.stored_size for one in first.archives}
    assert left and sum(stored[name] for name in left) < 80_000
    assert 0 < seen.dead_bytes < sum(stored[name] for name in left)
    third = tree.take()
    assert not left & {one.name for one in third.archives}
    assert third.counts.new_bytes == third.counts.read_bytes > 0
    table = read_table(tree.repository, third)
    assert {*live_bytes(table)} == {one.name for one in third.archives}
    assert liveness(table, third.archives).left_behind == frozenset()
    assert tree.take().counts.read_bytes == 0  # once is enough


def test_equal_contents_count_once(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.write("one", 1000)
    (tree.files / "two").write_bytes((tree.files / "one").read_bytes())
    (tree.files / "empty").touch()
    made = tree.take()
    table = read_table(tree.repository, made)
    assert live_bytes(table) == {one.name: one.size for one in made.archives}


def test_small_archives_are_put_together_when_they_are_too_many() -> None:
    def archives(count: int, size: int) -> list[FileArchive]:
        return [FileArchive(name=f"{size}-{number}", size=size, pack_size=size, packs=()) for number in range(count)]

    assert crumbs(archives(MOST_CRUMBS, CRUMB - 1) + archives(100, CRUMB)) == frozenset()
    small = archives(MOST_CRUMBS + 1, CRUMB - 1)
    assert crumbs(small + archives(100, CRUMB)) == {one.name for one in small}
