"""Snapshots whose files other processes read too: what they read comes back, and when one of them, or this process, is
ended, nothing wrong is stored and nobody waits for ever."""

from __future__ import annotations

import gc
import multiprocessing
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dr_pipelines.clock import SystemClock
from dr_pipelines.errors import CommandFailed, RepositoryError, StoreUnavailable, UsageError
from dr_pipelines.files.directory import Directory
from dr_pipelines.files.pack_process import PackProcess
from dr_pipelines.files.source import Wanted
from dr_pipelines.files.tree import Tree
from dr_pipelines.progress import Silent
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.repository import Repository
from dr_pipelines.repository.snapshots import read_snapshots
from dr_pipelines.storage.base import Body, ObjectInfo, ObjectStore
from dr_pipelines.storage.local import LocalStore
from dr_pipelines.storage.wrappers import Forwarding
from tests.support.file_tiers import DOCS, empty
from tests.support.watched_sources import FileSet, Noted, Watched, tree, write

MIB = 1 << 20
_PATIENCE = 20.0
_FILES = 3000
"""Some batches."""
needs_two = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one processor: nobody else reads")


def children() -> set[int]:
    """Processes that this one started, and whose end it has not seen."""
    found = set()
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            told = place.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(told[1]) == os.getpid():
            found.add(int(place.parent.name))
    return found


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


class NoArchives(Forwarding):
    """A store that takes none."""

    def put(self, key: str, body: Body, **how: Any) -> ObjectInfo:
        if "/archives/" in key:
            raise StoreUnavailable("it takes no archives, as told")
        return super().put(key, body, **how)


class Meeting(Silent):
    """Once two of those that read have something, `happens`, and the others wait for that."""

    def __init__(self, happens: Callable[[], object]) -> None:
        self.notes: list[str] = []
        self._happens = happens
        self._met: set[int] = set()
        self._lock, self._over = threading.Lock(), threading.Event()

    def note(self, text: str) -> None:
        self.notes.append(text)

    def advance(self, count: int) -> None:
        if self._over.is_set() or not threading.current_thread().name.startswith("read-files") or not count:
            return
        with self._lock:
            self._met.add(threading.get_ident())
            if len(self._met) == 2 and not self._over.is_set():
                self._happens()
                self._over.set()
        assert self._over.wait(_PATIENCE)

    @property
    def happened(self) -> bool:
        return self._over.is_set()


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some empty, each tenth like others, some with much in them."""
    root = tmp_path_factory.mktemp("many") / "root"
    contents = {
        f"{number % 50}/{number}": b"%d " % (number % 10 or number) * (number % 200) for number in range(_FILES)
    }
    write(root, {**contents, "almost large": os.urandom(16 * MIB - 1), "the same": os.urandom(MIB)})
    shutil.copy(root / "the same", root / "1" / "the same")
    return root


@pytest.fixture
def files(many: Path, tmp_path: Path) -> Iterator[FileSet]:
    before = children()
    yield FileSet(Directory(many), empty(store=LocalStore(tmp_path / "repository", "primary")), tmp_path / "state")
    assert children() - before == set()


def snapshots(files: FileSet) -> int:
    return len(read_snapshots(files.repository.store, DOCS).snapshots)


@needs_two
def test_what_they_read_comes_back(files: FileSet, many: Path) -> None:
    gc.collect()  # of other tests
    before, open_before = children(), descriptors()
    meeting = Meeting(lambda: others.update(children() - before))
    others: set[int] = set()
    taken = files.snapshot(meeting)
    assert len(others) >= 1
    assert files.restored(taken) == tree(many)
    assert taken.counts.files == _FILES + 3
    distinct = {*tree(many).values()} - {b""}
    assert taken.counts.new_bytes == sum(map(len, distinct))
    assert meeting.notes == []
    assert descriptors() <= open_before
    again = files.snapshot()
    assert again.counts.read_bytes == 0


@needs_two
def test_one_that_is_killed_ends_the_snapshot_and_the_next_goes_on(files: FileSet, many: Path) -> None:
    before = children()
    meeting = Meeting(lambda: [os.kill(one, signal.SIGKILL) for one in children() - before])
    with pytest.raises(CommandFailed, match=r"was ended \(exit code -9\)"):
        files.snapshot(meeting)
    assert meeting.happened
    assert snapshots(files) == 0
    assert files.restored(files.snapshot()) == tree(many)


@needs_two
def test_a_store_that_fails_ends_all(files: FileSet, many: Path) -> None:
    faulty = NoArchives(files.repository.store)
    with pytest.raises(StoreUnavailable, match="as told"):
        FileSet(files.source, Repository(faulty, Codec(1), "primary"), files.state, files.clock).snapshot()
    assert files.restored(files.snapshot()) == tree(many)


@needs_two
@pytest.mark.parametrize("program", ["/bin/false", "/nowhere/python"])
def test_where_none_can_begin_the_others_read_all(
    files: FileSet, many: Path, program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", program)
    noted = Noted()
    assert files.restored(files.snapshot(noted)) == tree(many)
    others = [note for note in noted.notes if note.startswith("a process to read files with did not begin")]
    assert len(others) == len(noted.notes) == (min(len(os.sched_getaffinity(0)), 4) - 1) * (program == "/bin/false")


@pytest.fixture
def one_processor() -> Iterator[None]:
    processors = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(processors)})
    yield
    os.sched_setaffinity(0, processors)


@pytest.mark.usefixtures("one_processor")
def test_with_one_processor_there_are_no_others(files: FileSet, many: Path) -> None:
    watched = Watching(children())
    assert files.restored(files.snapshot(watched)) == tree(many)
    assert watched.seen == set()


class FirstIsSlow(Forwarding, Silent):
    """A store that takes the first archive only once all files were read, or soon, for they are not read before."""

    def __init__(self, store: ObjectStore, size: int) -> None:
        super().__init__(store)
        self._left, self._read, self._first = size, threading.Event(), True

    def advance(self, count: int) -> None:
        self._left -= count
        if not self._left:
            self._read.set()

    def put(self, key: str, body: Body, **how: Any) -> ObjectInfo:
        if "/archives/" in key and self._first:
            self._first = False
            self._read.wait(0.3)
        return super().put(key, body, **how)


@pytest.mark.usefixtures("one_processor")
def test_what_is_being_put_is_not_written_over(tmp_path: Path) -> None:
    """Packs are made in two buffers in turn."""
    root = tmp_path / "root"
    write(root, {f"{number}": b"%d" % number for number in range(9)})
    for number in range(9):
        os.truncate(root / f"{number}", 15 * MIB)
    store = FirstIsSlow(empty(store=LocalStore(tmp_path / "repository", "primary")).store, 9 * 15 * MIB)
    files = FileSet(Directory(root), Repository(store, Codec(1), "primary"), tmp_path / "state")
    taken = files.snapshot(store)
    assert len(taken.archives) == 5
    assert files.restored(taken) == tree(root)


class Watching(Silent):
    """Which other processes there are while files are read."""

    def __init__(self, before: set[int]) -> None:
        self._before, self.seen = before, set[int]()

    def advance(self, count: int) -> None:
        self.seen |= children() - self._before


def test_modules_are_found_where_this_process_finds_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dagster runs from the folder of the project, where nothing need be installed."""
    write(tmp_path, {"file": b"file"})
    monkeypatch.syspath_prepend(str(_shadowing(tmp_path / "modules")))
    with closing(PackProcess(Tree(tmp_path), Codec(1))) as process:
        assert not process.ready()


def _shadowing(folder: Path) -> Path:
    """Modules of which a process that found them would be none of ours."""
    write(folder, {"zstandard.py": b"raise SystemExit(3)\n"})
    return folder


def test_what_goes_wrong_there_is_raised_here(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    source = Tree(tmp_path / "root")
    source.begin()
    with closing(PackProcess(source, Codec(1))) as process:
        assert process.ready()
        (tmp_path / "root").rmdir()
        with pytest.raises(UsageError, match="went away") as raised:
            process.read([Wanted(0, b"file", 1)], 1)
        assert raised.value.hint is not None
        process.keep([])
        with pytest.raises(CommandFailed, match="was ended"):
            process.seal()
    with closing(PackProcess(source, Codec(1))) as process:
        assert process.ready()
        with pytest.raises(RepositoryError, match="without files"):
            process.seal()


def _begin_and_be_killed(folder: Path) -> None:
    before = children()
    process = PackProcess(Tree(folder), Codec(1))
    assert process.ready()
    [other] = children() - before
    (folder / "pid").write_text(str(other))
    os.kill(os.getpid(), signal.SIGKILL)


def test_it_ends_when_this_process_is_killed(tmp_path: Path) -> None:
    parent = multiprocessing.get_context("forkserver").Process(target=_begin_and_be_killed, args=(tmp_path,))
    parent.start()
    parent.join(60)
    assert parent.exitcode == -signal.SIGKILL
    other = Path("/proc") / (tmp_path / "pid").read_text()
    clock = SystemClock()
    for _ in range(400):
        if not other.exists() or "\nState:\tZ" in (other / "status").read_text():
            return
        clock.wait(0.05)
    raise AssertionError("it goes on")


class Interrupted(Watched):
    """This process gets a signal at some call, when all threads have begun."""

    def called(self, what: str) -> None:
        super().called(what)
        if self.calls == 20:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
def test_a_signal_ends_a_snapshot_soon(tmp_path: Path, large: bool) -> None:
    """What a signal's handler raises in the first thread is not put off until all is read."""
    root = tmp_path / "root"
    write(root, {f"{number}": b"" for number in range(1 if large else 800)})
    for number, path in enumerate(root.iterdir()):
        os.truncate(path, 3 << 30 if large else MIB + number)
    source = Interrupted(Directory(root))
    files = FileSet(source, empty(store=LocalStore(tmp_path / "repository", "primary")), tmp_path / "state")
    with pytest.raises(KeyboardInterrupt):
        files.snapshot()
    assert source.calls < (3 << 30) // (4 * MIB) if large else len(source.opened) < 800
    assert snapshots(files) == 0
