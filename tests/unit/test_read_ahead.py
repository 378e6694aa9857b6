"""Files that are fetched before they are asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from dr_pipelines.files.read_ahead import ReadAhead
from dr_pipelines.files.source import FileChanged, FileVanished, OpenFile, Scan, Seen, Wanted

_PATIENCE = 20


class Slow:
    """Files of which `content` tells what they are; no more than `readers` are open at once, and it waits for that many
    where they are `awaited`."""

    description = "slow"

    def __init__(self, content: Callable[[Wanted], bytes], *, readers: int = 4, awaited: int = 1) -> None:
        self.readers, self._content = readers, content
        self._together = threading.Barrier(awaited)
        self._lock = threading.Lock()
        self.opened = 0

    def scan(self) -> Scan:
        raise NotImplementedError

    def open(self, wanted: Wanted) -> OpenFile:
        with self._lock:
            self.opened += 1
        self._together.wait(_PATIENCE)
        return _SlowFile(self._content(wanted))


class _SlowFile:
    def __init__(self, content: bytes) -> None:
        self.size, self._content = len(content), content

    def read_into(self, target: memoryview) -> int:
        count = min(len(target), len(self._content))
        target[:count] = self._content[:count]
        return count

    def finish(self) -> Seen:
        return Seen({"etag": str(self.size)})

    def close(self) -> None: ...


def wanted(count: int, size: int = 10) -> list[Wanted]:
    return [Wanted(row, b"%d" % row, size) for row in range(count)]


def content(file: OpenFile) -> bytes:
    target = bytearray(file.size)
    assert file.read_into(memoryview(target)) == file.size
    assert file.finish().columns == {"etag": str(file.size)}
    file.close()
    return bytes(target)


def of_its_row(one: Wanted) -> bytes:
    return (b"%d" % one.row).ljust(one.size, b".")


def test_as_many_as_there_are_readers_are_fetched_at_once() -> None:
    source, files = Slow(of_its_row, readers=4, awaited=4), wanted(40)
    with ReadAhead(source, files) as ahead:
        assert [content(ahead.open(one)) for one in files] == [of_its_row(one) for one in files]
    assert source.opened == 40


def test_no_more_is_fetched_than_the_window_holds() -> None:
    source, files = Slow(of_its_row), wanted(50, size=100)
    with ReadAhead(source, files, window=1000) as ahead:
        content(ahead.open(files[0]))
    assert source.opened <= 11


def test_one_that_is_larger_than_the_window_is_fetched_alone() -> None:
    source, files = Slow(of_its_row), wanted(3, size=100)
    with ReadAhead(source, files, window=10) as ahead:
        assert [content(ahead.open(one)) for one in files] == [of_its_row(one) for one in files]
    assert source.opened == 3


def test_the_order_in_which_threads_ask_does_not_matter() -> None:
    source, files = Slow(of_its_row), wanted(300)
    with ReadAhead(source, files, window=20) as ahead, ThreadPoolExecutor(4) as pool:
        swapped = [files[row ^ 1] for row in range(300)]
        assert [*pool.map(lambda one: content(ahead.open(one)), swapped)] == [of_its_row(one) for one in swapped]
    assert source.opened == 300


def test_one_that_has_grown_is_not_fetched_into_the_window() -> None:
    source = Slow(lambda one: b"x" * 1000 if one.row == 1 else of_its_row(one))
    files = wanted(3)
    with ReadAhead(source, files) as ahead:
        assert [len(content(ahead.open(one))) for one in files] == [10, 1000, 10]
    assert source.opened == 4  # that one twice


@pytest.mark.parametrize("error", [FileChanged("changed"), FileVanished("gone")])
def test_what_is_wrong_with_a_file_is_told_when_it_is_asked_for(error: Exception) -> None:
    def told(one: Wanted) -> bytes:
        if one.row == 1:
            raise error
        return of_its_row(one)

    files = wanted(3)
    with ReadAhead(Slow(told), files) as ahead:
        content(ahead.open(files[0]))
        with pytest.raises(type(error)):
            ahead.open(files[1])
        content(ahead.open(files[2]))
