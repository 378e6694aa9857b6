"""Files of a source that takes long to answer, fetched before they are asked for: many requests in flight, and never
more than a window of bytes in memory. What is large does not belong here: it is streamed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial

from dr_pipelines.files.source import FileChanged, FileSource, OpenFile, Seen, Wanted
from dr_pipelines.repository.buffers import large_buffer

WINDOW = 32 * 1024 * 1024
"""Of bytes that were fetched, or are being fetched, and were not packed yet."""
_SMALL = 1024 * 1024
"""What is larger is given back to the system when it is free: some megabytes here and there in a heap stay."""
_FILES = 8
"""For each reader, at most."""


class ReadAhead:
    """`files` of `source`, which are asked for about in this order, each once. A context manager: at its end what was
    not asked for is dropped. Safe to use from threads."""

    def __init__(self, source: FileSource, files: Iterable[Wanted], *, window: int = WINDOW) -> None:
        self._source, self._window = source, window
        self._files = iter(files)
        self._following = next(self._files, None)
        self._fetches: dict[int, Future[tuple[memoryview, Seen] | None]] = {}
        self._passed: set[int] = set()
        self._bytes = 0
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(source.readers, thread_name_prefix="fetch-files")

    def __enter__(self) -> ReadAhead:
        with self._lock:
            self._go_on()
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def open(self, wanted: Wanted) -> OpenFile:
        """Raises what the source raises, when it is opened or read."""
        with self._lock:
            fetch = self._fetches.pop(wanted.row, None)
            if fetch is None:
                self._passed.add(wanted.row)  # asked for before its turn came
        fetched = None
        try:
            fetched = fetch.result() if fetch is not None else None
        finally:
            if fetch is not None and fetched is None:
                self._release(wanted.size)
        if fetched is None:
            return self._source.open(wanted)
        return _Fetched(*fetched, partial(self._release, wanted.size))

    def _release(self, size: int) -> None:
        with self._lock:
            self._bytes -= size
            self._go_on()

    def _go_on(self) -> None:
        while (following := self._following) is not None and len(self._fetches) < _FILES * self._source.readers:
            if following.row not in self._passed:
                if self._fetches and self._bytes + following.size > self._window:
                    return
                self._bytes += following.size
                self._fetches[following.row] = self._pool.submit(self._fetch, following)
            self._following = next(self._files, None)

    def _fetch(self, wanted: Wanted) -> tuple[memoryview, Seen] | None:
        """None where it has grown: the window has no room for that."""
        with closing(self._source.open(wanted)) as file:
            if file.size > wanted.size:
                return None
            content = large_buffer(file.size) if file.size > _SMALL else memoryview(bytearray(file.size))
            if file.read_into(content) != file.size:
                raise FileChanged("it became shorter while it was read")
            return content, file.finish()


class _Fetched:
    def __init__(self, content: memoryview, seen: Seen, release: Callable[[], None]) -> None:
        self.size = len(content)
        self._left, self._seen, self._release = content, seen, release

    def read_into(self, target: memoryview) -> int:
        count = min(len(target), len(self._left))
        target[:count], self._left = self._left[:count], self._left[count:]
        return count

    def finish(self) -> Seen:
        return self._seen

    def close(self) -> None:
        self._left = memoryview(b"")
        self._release()
