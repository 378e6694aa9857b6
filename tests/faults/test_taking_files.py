"""Snapshots of files of which any call fails, or that are killed: whole or not there, and the next one is right."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dr_pipelines.clock import FixedClock, SystemClock
from dr_pipelines.errors import DrError, StoreUnavailable
from dr_pipelines.files.directory import Directory
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.repository import Repository
from dr_pipelines.repository.snapshots import list_archives, list_lists, read_snapshots
from dr_pipelines.storage.base import Body, ObjectStore, read_all
from dr_pipelines.storage.local import LocalStore
from dr_pipelines.storage.memory import MemoryStore
from tests.support.faulty_store import FaultyStore
from tests.support.file_tiers import DOCS, assert_whole_or_invisible, empty
from tests.support.replicas import Counting
from tests.support.watched_sources import FileSet, Noted, Watched, data_puts, later, tree, write

MIB = 1 << 20


def copy_of(store: ObjectStore) -> MemoryStore:
    copy = MemoryStore()
    for info in store.list():
        copy.put(info.key, Body.of(read_all(store, info.key)))
    return copy


class Begun:
    """A set with one snapshot, to which files are added, changed and removed since, a large one too."""

    def __init__(self, folder: Path) -> None:
        self.root, self.state, self.store = folder / "root", folder / "state", MemoryStore()
        write(self.root, {"a": b"a", "b": b"b", "dir/gone": b"gone"})
        self.clock = later()
        FileSet(Directory(self.root), empty(store=self.store), self.state, self.clock).snapshot()
        write(self.root, {"a": b"changed", "new": b"new", "large": b"l" * 16 * MIB})
        shutil.rmtree(self.root / "dir")
        self.now = tree(self.root)

    def copy(self, folder: Path) -> FileSet:
        shutil.copytree(self.state, folder)
        return FileSet(Directory(self.root), Repository(copy_of(self.store), Codec(1), "primary"), folder, self.clock)

    def assert_right(self, files: FileSet) -> None:
        """Nothing is half there, and the next snapshot is what the source is."""
        store = files.repository.store
        for taken in read_snapshots(store, DOCS).snapshots[1:]:  # the call that failed came after the manifest
            assert files.restored(taken) == self.now
        taken = files.snapshot()
        assert_whole_or_invisible(store)
        assert files.restored(taken) == self.now
        assert not taken.partial
        assert len(read_snapshots(store, DOCS).unfinished) <= 1  # a claim that could not be taken back


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Begun:
    return Begun(tmp_path_factory.mktemp("files"))


def unnamed_lists(store: ObjectStore) -> set[str]:
    named = {stored.key for one in read_snapshots(store, DOCS).snapshots for stored in one.lists}
    return {info.key for info in list_lists(store, DOCS)[0].values()} - named


def disturbed(files: FileSet, **fault: Any) -> FaultyStore:
    """A snapshot to a store that fails."""
    faulty = FaultyStore(files.repository.store, **fault)
    FileSet(files.source, Repository(faulty, Codec(1), "primary"), files.state, files.clock).snapshot()
    return faulty


@pytest.mark.parametrize("stays_down", [False, True], ids=["once", "for good"])
def test_any_call_of_the_store_fails(begun: Begun, tmp_path: Path, stays_down: bool) -> None:
    calls = disturbed(begun.copy(tmp_path / "dry")).calls
    ended_well = []
    for number in range(1, calls + 1):
        files = begun.copy(tmp_path / str(number))
        try:
            disturbed(files, fail_at=number, stays_down=stays_down)
            ended_well.append(number)
        except DrError:
            pass
        if not stays_down:  # what was begun could be taken back
            assert not unnamed_lists(files.repository.store)
        begun.assert_right(files)
    assert calls > 10
    assert {*ended_well} <= {calls - 1, calls}  # the claim of what is committed; archives may be one more or less


def test_any_call_of_the_source_fails(begun: Begun, tmp_path: Path) -> None:
    quiet = begun.copy(tmp_path / "dry")
    watched = Watched(quiet.source)
    FileSet(watched, quiet.repository, quiet.state, quiet.clock).snapshot()
    assert watched.calls > 10
    for number in range(1, watched.calls + 1):
        files = begun.copy(tmp_path / str(number))
        source = Watched(files.source, fail_at=number)
        with pytest.raises(DrError, match="as told"):
            FileSet(source, files.repository, files.state, files.clock).snapshot()
        assert len(read_snapshots(files.repository.store, DOCS).snapshots) == 1
        begun.assert_right(files)


def _local(folder: Path) -> tuple[FileSet, Watched, Counting]:
    source, store = Watched(Directory(folder / "root")), Counting(LocalStore(folder / "repository", "primary"))
    return FileSet(source, Repository(store, Codec(1), "primary"), folder / "state"), source, store


def at_the_last_large_file(source: Watched, happens: Callable[[], None]) -> None:
    """When the archives of all others are there."""

    def one_more() -> None:
        if len(source.opened) == _FILES:
            happens()

    source.at = {("open", b"large %d" % number): one_more for number in range(3)}


_FILES = 5


def _filled(folder: Path) -> None:
    write(folder / "root", {f"large {number}": bytes([number]) * (16 * MIB + number) for number in range(3)})
    write(folder / "root", {"small": b"small", "other": b"other"})
    empty(store=LocalStore(folder / "repository", "primary"))


def _take_and_die(folder: Path) -> None:
    files, source, _ = _local(folder)
    at_the_last_large_file(source, lambda: os.kill(os.getpid(), signal.SIGKILL))
    files.snapshot()


def test_a_killed_snapshot_goes_on(tmp_path: Path) -> None:
    _filled(tmp_path)
    process = multiprocessing.get_context("forkserver").Process(target=_take_and_die, args=(tmp_path,))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    (files, source, store), noted = _local(tmp_path), Noted()
    assert read_snapshots(store, DOCS).snapshots == ()
    left = {*list_archives(store, DOCS)[0]}
    (files.state / ".new-of one that was killed later").mkdir()
    write(tmp_path / "root", {"other": b"changed"})
    taken = files.snapshot(noted)
    assert noted.notes == [f"{len(left)} archives of a snapshot that did not end are used"]
    large, other = sorted(source.opened)
    assert (large[:5], other) == (b"large", b"other")
    assert len(data_puts(store.puts)) == 3  # an archive for each, and the table
    assert files.restored(taken) == tree(tmp_path / "root")
    assert len(left & {one.name for one in taken.archives}) >= 3
    assert [path.name for path in files.state.iterdir()] == ["last"]


def test_what_was_written_just_before_a_first_snapshot_that_did_not_end_is_read_again(tmp_path: Path) -> None:
    """It may have been written to again within one tick."""
    _filled(tmp_path)
    files, source, _ = _local(tmp_path)
    files.clock = FixedClock(SystemClock().now() - timedelta(hours=1))  # it is one hour later when a snapshot begins

    def fail() -> None:
        raise StoreUnavailable("as told")

    at_the_last_large_file(source, fail)
    with pytest.raises(StoreUnavailable):
        files.snapshot()
    source.opened.clear()
    assert files.restored(files.snapshot()) == tree(tmp_path / "root")
    assert {*source.opened} == {*tree(tmp_path / "root")}


def test_what_an_unfinished_snapshot_left_and_is_gone_is_not_used(tmp_path: Path) -> None:
    _filled(tmp_path)
    files, source, store = _local(tmp_path)

    def fail() -> None:
        raise StoreUnavailable("as told")

    at_the_last_large_file(source, fail)
    with pytest.raises(StoreUnavailable):
        files.snapshot()
    first, *_ = (info.key for infos in list_archives(store, DOCS)[0].values() for info in infos)
    store.delete(first)
    assert files.restored(files.snapshot()) == tree(tmp_path / "root")
