"""A body as a file, for SDKs that want one."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

from dr_pipelines.storage.base import Body


class BodyReader(io.RawIOBase):
    """A body, or `size` bytes of it from `offset` on, as a file that can be read again from its start; nothing is
    copied before it is asked for."""

    def __init__(self, body: Body, offset: int = 0, size: int | None = None) -> None:
        self.sha256 = body.sha256 if offset == 0 and (size is None or size >= body.size) else None
        """Of what there is to read, where that is known."""
        self._size = min(body.size - offset, body.size if size is None else size)
        self._chunks = [*_window(body, offset, self._size)]
        self.seek(0)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: getattr(self, "_position", 0), io.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        self._index, self._within = 0, self._position
        while self._index < len(self._chunks) and self._within >= len(self._chunks[self._index]):
            self._within -= len(self._chunks[self._index])
            self._index += 1
        return self._position

    def readinto(self, buffer: Any) -> int:
        target, filled = memoryview(buffer), 0
        while filled < len(target) and self._index < len(self._chunks):
            piece = self._chunks[self._index][self._within : self._within + len(target) - filled]
            target[filled : filled + len(piece)] = piece
            filled += len(piece)
            self._within += len(piece)
            if self._within == len(self._chunks[self._index]):
                self._index, self._within = self._index + 1, 0
        self._position += filled
        return filled


def _window(body: Body, offset: int, size: int) -> Iterator[memoryview]:
    """Views of the bytes from `offset` to `offset + size`."""
    start, end = offset, offset + size
    for chunk in body.chunks:
        view = memoryview(chunk)
        piece = view[max(start, 0) : max(end, 0)]
        if len(piece):
            yield piece
        start, end = start - len(view), end - len(view)
