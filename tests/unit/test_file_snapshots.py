"""Snapshots of a directory: what is read, what is stored, what the table says, and that it comes back."""

from __future__ import annotations

import os
import resource
import shutil
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from dr_pipelines.errors import CommandFailed, StoreError, UsageError
from dr_pipelines.files.directory import Directory
from dr_pipelines.files.source import FileChanged, Wanted
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.marks import put_damage
from dr_pipelines.repository.snapshots import list_archives, read_snapshots
from dr_pipelines.storage.base import Body
from dr_pipelines.storage.memory import MemoryStore
from tests.support.file_tiers import DOCS, empty
from tests.support.replicas import Counting
from tests.support.watched_sources import FileSet, Noted, Watched, as_nobody, data_puts, tree, write

MIB = 1 << 20


class Taken(FileSet):
    """Of a directory, with what is put and what is opened."""

    def __init__(self, folder: Path, codec: Codec | None = None) -> None:
        self.root = folder / "root"
        self.root.mkdir()
        self.watched = Watched(Directory(self.root))
        self.store = Counting(MemoryStore())
        super().__init__(self.watched, empty(store=self.store, codec=codec), folder / "state")
        self.store.puts.clear()

    def seen(self) -> tuple[list[bytes], list[str]]:
        """What was opened and put since it was asked last."""
        opened, puts = sorted(self.watched.opened), data_puts(self.store.puts)
        self.watched.opened.clear()
        self.store.puts.clear()
        return opened, puts


@pytest.fixture
def files(tmp_path: Path) -> Taken:
    return Taken(tmp_path)


def test_all_that_is_there_comes_back(files: Taken) -> None:
    names = {"a b", "new\nline", "ünï/cödé/😀", "empty", "deep/" * 60 + "x", "-", "large"}
    write(files.root, {name: name.encode() * 100 for name in names})
    write(files.root, {"empty": b"", "large": os.urandom(17 * MIB), "exactly": bytes(16 * MIB - 1)})
    (Path(os.fsdecode(os.fsencode(files.root) + b"/raw\xff"))).write_bytes(b"raw")
    (files.root / "link").symlink_to("nowhere/../a b")
    (files.root / "empty dir").mkdir(mode=0o700)
    (files.root / "-").chmod(0o4711)
    os.utime(files.root / "-", ns=(1, 1_234_567_890_123_456_789))
    os.mkfifo(files.root / "pipe")
    noted = Noted()
    taken = files.snapshot(noted)
    assert files.restored(taken) == tree(files.root) | {b"raw\xff": b"raw"}
    rows = files.rows(taken)
    assert (rows[b"link"]["type"], rows[b"link"]["target"]) == ("link", b"nowhere/../a b")
    assert (rows[b"-"]["mode"], rows[b"-"]["mtime_ns"]) == (0o4711, 1_234_567_890_123_456_789)
    assert (rows[b"empty dir"]["type"], rows[b"empty dir"]["mode"]) == ("directory", 0o700)
    assert "1 sockets, pipes or devices are left out: pipe" in noted.notes
    counts = taken.counts
    assert (counts.files, counts.new, counts.links, counts.unreadable) == (len(names) + 2, len(names) + 2, 1, 0)
    assert counts.directories == sum(path.is_dir() for path in files.root.rglob("*"))
    assert not taken.partial


def test_without_a_change_only_a_manifest_is_put(files: Taken) -> None:
    write(files.root, {"a": b"a", "b/c": b"c", "empty": b""})
    first = files.snapshot()
    files.seen()
    second = files.snapshot()
    assert files.seen() == ([], [])
    assert (second.table, second.changes, second.lists) == (first.table, None, first.lists)
    assert second.archives == first.archives
    counts = second.counts
    assert (counts.new, counts.changed, counts.removed, counts.read_bytes, counts.stored_bytes) == (0, 0, 0, 0, 0)
    assert second.parent == first.label
    verified = files.snapshot(read_all=True)
    assert files.seen() == ([b"a", b"b/c"], [])
    assert verified.counts.read_bytes == 2
    assert files.restored(verified) == tree(files.root)


def test_bytes_that_changed_behind_the_times_are_found_by_reading_all(files: Taken) -> None:
    write(files.root, {"a": b"before", "b": b"b"})
    files.snapshot()
    old = (files.root / "a").stat()

    class Forgetful(Directory):
        """Whose file system knows no times of changes."""

        def scan(self):  # type: ignore[no-untyped-def]
            scan = super().scan()
            rows = scan.rows
            at = rows.column_names.index("ctime_ns")
            return type(scan)(rows.set_column(at, rows.schema.field(at), rows["mtime_ns"]))

    files.source = Forgetful(files.root)
    files.snapshot()
    write(files.root, {"a": b"beform"})
    os.utime(files.root / "a", ns=(old.st_atime_ns, old.st_mtime_ns))
    assert files.restored(files.snapshot())[b"a"] == b"before"
    verified = files.snapshot(read_all=True)
    assert verified.counts.changed == 1
    assert files.restored(verified) == tree(files.root)


def test_equal_contents_are_stored_once(files: Taken) -> None:
    large = os.urandom(16 * MIB)
    write(files.root, {"a": b"same", "b": b"same", "large": large, "other": b"other"})
    first = files.snapshot()
    assert first.counts.new_bytes == len(b"same" + b"other" + large)
    files.seen()
    (files.root / "a").rename(files.root / "renamed")
    shutil.copy(files.root / "large", files.root / "copy")
    (files.root / "other").unlink()
    second = files.snapshot()
    opened, puts = files.seen()
    assert (opened, len(puts)) == ([b"copy", b"renamed"], 1)  # the table
    assert (second.counts.new, second.counts.removed, second.counts.new_bytes) == (2, 2, 0)
    assert files.restored(second) == tree(files.root)
    write(files.root, {"back": b"other"})
    third = files.snapshot()
    assert len(files.seen()[1]) == 1
    assert third.counts.new_bytes == 0
    assert files.restored(third) == tree(files.root)
    assert files.restored(first)[b"other"] == b"other"


def test_two_large_files_of_one_content_in_one_snapshot_are_stored_once(files: Taken) -> None:
    large = os.urandom(16 * MIB)
    write(files.root, {"one": large, "two": large})
    taken = files.snapshot()
    assert len(taken.archives) == 1
    assert files.restored(taken) == tree(files.root)


def test_changes_are_laid_over_a_table_until_they_are_many(files: Taken) -> None:
    write(files.root, {f"{number:03}": b"%d" % number for number in range(100)})
    first = files.snapshot()
    write(files.root, {"005": b"new", "new": b"also new"})
    (files.root / "099").unlink()
    second = files.snapshot()
    assert second.table == first.table
    assert second.changes is not None
    assert (second.counts.new, second.counts.changed, second.counts.removed) == (1, 1, 1)
    unchanged = files.snapshot()
    assert (unchanged.table, unchanged.changes) == (second.table, second.changes)
    write(files.root, {f"{number:03}": b"%d!" % number for number in range(30)})
    third = files.snapshot()
    assert third.table != first.table
    assert third.changes is None
    for name in range(30):
        (files.root / f"{name:03}").unlink()
    shutil.rmtree(files.root)
    files.root.mkdir()
    none = files.snapshot()
    assert (none.counts.files, none.counts.removed, none.archives) == (0, 100, ())
    assert files.restored(none) == {}
    assert len(files.restored(first)) == len(files.restored(third)) == 100
    assert files.restored(second)[b"005"] == b"new"


def test_what_is_written_to_while_it_is_read_is_read_again(files: Taken) -> None:
    write(files.root, {"log": b"first line\n", "large": bytes(16 * MIB), "quiet": b"quiet"})

    def append(name: str) -> Callable[[], None]:
        def writes() -> None:
            with (files.root / name).open("ab") as file:
                file.write(b"another line\n")

        def in_a_thread() -> None:
            thread = threading.Thread(target=writes)
            thread.start()
            thread.join()

        return in_a_thread

    files.watched.at = {("finish", b"log"): append("log"), ("finish", b"large"): append("large")}
    taken = files.snapshot()
    assert sorted(files.watched.opened) == [b"large", b"large", b"log", b"log", b"quiet"]
    assert files.restored(taken) == tree(files.root)
    assert not taken.partial


def test_what_is_written_to_without_a_pause_is_never_torn(tmp_path: Path) -> None:
    """Several writes are of one tick of the file system's clock, so that the file's times do not tell them apart."""
    file, size, done = tmp_path / "file", 4 * MIB, threading.Event()
    file.write_bytes(bytes(size))

    def rewrite() -> None:
        descriptor, number = os.open(file, os.O_RDWR), 0
        while not done.is_set():
            number = (number + 1) % 256
            os.pwrite(descriptor, bytes([number]) * size, 0)
        os.close(descriptor)

    writer = threading.Thread(target=rewrite)
    writer.start()
    try:
        whole = [content for _ in range(40) if (content := _read(Directory(tmp_path)))]
    finally:
        done.set()
        writer.join()
    assert all(len({*content}) == 1 for content in whole)
    assert _read(Directory(tmp_path))


def _read(source: Directory) -> bytes | None:
    """None where it was told to have changed."""
    with closing(source.open(Wanted(0, b"file", 0))) as file:
        content = bytearray(file.size)
        file.read_into(memoryview(content))
        try:
            file.finish()
        except FileChanged:
            return None
        return bytes(content)


def test_what_is_always_written_to_is_marked_and_nothing_of_it_is_stored(files: Taken) -> None:
    write(files.root, {"log": b"line\n", "quiet": b"quiet"})
    files.snapshot()

    def append() -> None:
        with (files.root / "log").open("ab") as file:
            file.write(b"line\n")
        files.watched.at["finish", b"log"] = append

    append()
    taken = files.snapshot()
    row = files.rows(taken)[b"log"]
    assert (row["sha256"], row["error"]) == (None, "it was written to each time it was read")
    assert taken.partial
    assert files.restored(taken) == {b"quiet": b"quiet"}
    files.watched.at.clear()
    again = files.snapshot()
    assert not again.partial
    assert files.restored(again) == tree(files.root)


def test_what_became_shorter_or_large_while_it_was_waiting(files: Taken) -> None:
    write(files.root, {"shorter": b"x" * 1000, "grown": b"x"})
    files.watched.at = {
        ("scan", b""): lambda: write(files.root, {"shorter": b"x", "grown": os.urandom(17 * MIB)}),
        ("open", b"shorter"): lambda: os.truncate(files.root / "shorter", 0),
    }
    taken = files.snapshot()
    assert files.restored(taken) == tree(files.root)
    assert files.rows(taken)[b"shorter"]["size"] == 0
    assert files.snapshot().counts.changed == 0


@pytest.mark.parametrize("event", ["scan", "open"])
def test_what_vanished_is_no_trouble(files: Taken, event: str) -> None:
    write(files.root, {"gone": b"gone", "stays": b"stays"})
    files.watched.at[event, b"gone" if event == "open" else b""] = (files.root / "gone").unlink
    taken = files.snapshot()
    assert not taken.partial
    assert [*files.rows(taken)] == [b"stays"]


def test_a_file_in_place_of_which_something_else_is(files: Taken) -> None:
    write(files.root, {"pipe": b"x", "link": b"x", "parent/file": b"x"})

    def replace() -> None:
        (files.root / "pipe").unlink()
        os.mkfifo(files.root / "pipe")
        (files.root / "link").unlink()
        (files.root / "link").symlink_to("/etc/passwd")
        shutil.rmtree(files.root / "parent")
        (files.root / "parent").write_bytes(b"a file")

    files.watched.at["scan", b""] = replace
    taken = files.snapshot()
    assert files.restored(taken) == {}
    assert {row["error"] for path, row in files.rows(taken).items() if path in (b"link", b"parent/file")} == {
        "too many levels of symbolic links",
        "not a directory",
    }
    after = files.snapshot()
    assert files.restored(after) == {b"parent": b"a file"}
    assert not after.partial


def test_nothing_is_read_through_a_directory_that_became_a_link_out(files: Taken, folder: Path) -> None:
    write(folder, {"secret": b"of another"})
    write(files.root, {"parent/secret": b"x", "stays": b"y"})

    def swap() -> None:
        shutil.rmtree(files.root / "parent")
        (files.root / "parent").symlink_to(folder)

    files.watched.at["scan", b""] = swap
    taken = files.snapshot()
    assert files.restored(taken) == {b"stays": b"y"}
    assert files.rows(taken)[b"parent/secret"]["error"] == "a directory above it became a link out of the source"
    assert taken.partial


def test_a_host_without_descriptors_is_no_fault_of_the_files(files: Taken) -> None:
    write(files.root, {"folder/file": b"x"})
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)

    def none_left() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))

    files.watched.at["open", b"folder/file"] = none_left
    try:
        with pytest.raises(CommandFailed, match="no more files"):
            files.snapshot()
        with pytest.raises(CommandFailed, match="no more files"):
            Directory(files.root).scan()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert files.restored(files.snapshot()) == {b"folder/file": b"x"}


def test_what_has_no_content_any_more_names_none(files: Taken) -> None:
    write(files.root, {"emptied": b"x", "folder": b"x", "link": b"x", "filled": b"", "stays": b"x" * 9})
    files.snapshot()
    write(files.root, {"emptied": b"", "filled": b"y"})
    (files.root / "folder").unlink()
    (files.root / "folder").mkdir()
    (files.root / "link").unlink()
    (files.root / "link").symlink_to("stays")
    rows = files.rows(files.snapshot())
    assert {path for path, row in rows.items() if row["archive"]} == {b"filled", b"stays"}
    assert {path for path, row in rows.items() if row["sha256"]} == {b"emptied", b"filled", b"stays"}
    assert {path for path, row in rows.items() if row["offset"] is not None} == {b"filled", b"stays"}


def test_what_may_not_be_read_is_named_and_the_rest_is_there(folder: Path) -> None:
    files = Taken(folder)
    write(files.root, {"secret": b"s", "hidden/inside": b"h", "open": b"o"})
    first = files.snapshot()
    write(files.root, {"secret": b"changed"})
    (files.root / "secret").chmod(0)
    (files.root / "hidden").chmod(0)
    shutil.rmtree(files.state)
    files.state.mkdir()
    files.state.chmod(0o777)
    folder.chmod(0o755)
    with as_nobody():
        taken = files.snapshot()
    rows = files.rows(taken)
    errors = {path: row["error"] for path, row in rows.items() if row["error"]}
    assert errors == {b"secret": "permission denied", b"hidden": "permission denied"}
    assert (taken.counts.unreadable, taken.partial) == (2, True)
    assert files.restored(taken) == {b"open": b"o"}
    assert taken.parent == first.label
    with pytest.raises(UsageError, match="cannot be read: permission denied"), as_nobody_at(files.root):
        files.snapshot()
    files.root.chmod(0o755)
    (files.root / "hidden").chmod(0o755)
    whole = files.snapshot()
    assert not whole.partial
    assert files.restored(whole) == tree(files.root)


def as_nobody_at(root: Path):  # type: ignore[no-untyped-def]
    root.chmod(0)
    return as_nobody()


def test_a_source_that_is_not_there_is_no_empty_one(files: Taken) -> None:
    files.snapshot()
    files.root.rmdir()
    with pytest.raises(UsageError, match="is no directory here"):
        files.snapshot()


@pytest.mark.parametrize("identity_at_hand", [True, False])
def test_a_host_that_forgot(tmp_path: Path, identity: tuple[str, str], identity_at_hand: bool) -> None:
    """With the identity it reads the last table; without it every file is read and stored again."""
    files = Taken(tmp_path, Codec(1, (identity[1],), (identity[0],) if identity_at_hand else ()))
    write(files.root, {"a": b"a", "b": b"b", "large": os.urandom(16 * MIB)})
    first = files.snapshot()
    shutil.rmtree(files.state)
    files.seen()
    second = files.snapshot()
    opened, puts = files.seen()
    if identity_at_hand:
        assert (opened, puts, second.parent) == ([], [], first.label)
    else:
        assert (opened, second.parent) == ([b"a", b"b", b"large"], None)
        assert len(puts) == len(second.archives) + 1
        assert {one.name for one in first.archives}.isdisjoint(one.name for one in second.archives)
    files.repository = type(files.repository)(files.store, Codec(1, (), (identity[0],)), "primary")
    assert files.restored(second) == files.restored(first) == tree(files.root)


SPOILED = ["manifest.json", "base.arrow", "contents.arrow", "archives.json", "lists.json"]


@pytest.mark.parametrize("spoiled", SPOILED)
def test_what_a_host_remembers_and_is_damaged_is_nothing(files: Taken, spoiled: str) -> None:
    write(files.root, {"a": b"a"})
    files.snapshot()
    (path,) = files.state.rglob(spoiled)
    path.write_bytes(path.read_bytes()[:-7])
    assert files.restored(files.snapshot()) == tree(files.root)


def test_what_is_left_of_a_mostly_dead_archive_is_stored_anew(files: Taken) -> None:
    write(files.root, {f"{number}": b"%d" % number * 2000 for number in range(20)})
    first = files.snapshot()
    rows, fullest = files.rows(first), max(first.archives, key=lambda archive: archive.size).name
    lying_there = [os.fsdecode(path) for path, row in rows.items() if row["archive"] == fullest]
    for name in lying_there[1:]:
        (files.root / name).unlink()
    second = files.snapshot()
    files.seen()
    third = files.snapshot()
    assert os.fsencode(lying_there[0]) in files.seen()[0]
    assert fullest in {one.name for one in second.archives} - {one.name for one in third.archives}
    for taken in (first, second, third):
        assert files.restored(taken).items() >= tree(files.root).items()
    files.snapshot()
    assert files.seen() == ([], [])


def test_an_archive_that_was_lost_is_not_named_again(files: Taken) -> None:
    write(files.root, {"a": b"a"})
    first = files.snapshot()
    files.store.delete(first.archives[0].packs[0].key)
    write(files.root, {"b": b"b"})
    with pytest.raises(StoreError, match="is not on memory any more") as caught:
        files.snapshot()
    assert "dr scrub" in (caught.value.hint or "")
    taken = files.snapshot()
    assert files.restored(taken) == tree(files.root)
    assert first.archives[0].name not in list_archives(files.store, DOCS)[0]


@pytest.mark.parametrize("how", ["gone", "damaged"])
def test_a_list_of_archives_that_was_lost_is_written_anew(files: Taken, how: str) -> None:
    write(files.root, {"a": b"a"})
    first = files.snapshot()
    lost = first.lists[0].key
    files.store.delete(lost)
    if how == "damaged":
        files.store.put(lost, Body.of(bytes(first.lists[0].size)))
        put_damage(files.store, first.layout, [lost], at=files.clock.now(), found_by="scrub")
    files.seen()
    second = files.snapshot()
    assert files.seen()[0] == []
    assert (second.archives, second.lists == first.lists) == (first.archives, False)
    assert files.restored(second) == tree(files.root)
    assert read_snapshots(files.store, DOCS).usable == (second,)
