"""A body as a file, for SDKs that want one."""

from __future__ import annotations

import io
from typing import Any

from dr_pipelines.storage.base import Body


class BodyReader(io.RawIOBase):
    """A body as a file that can be read again from the start, without joining its chunks."""

    def __init__(self, body: Body) -> None:
        self._chunks = [memoryview(chunk) for chunk in body.chunks]
        self._size = body.size
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
