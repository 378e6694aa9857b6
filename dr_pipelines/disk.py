"""Files on Linux's disks, beyond what Python's standard library has a call for."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_WRITE = 2  # SYNC_FILE_RANGE_WRITE
_sync_file_range = getattr(ctypes.CDLL(None), "sync_file_range", None)
if _sync_file_range is not None:
    _sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


def start_writeback(descriptor: int, offset: int, size: int) -> None:
    """Let the system begin to write this range of a file to its disk, and return at once. Only a hint, which makes a
    later fsync short: whether it succeeds is what that fsync says. Source: Linux manual, sync_file_range(2)."""
    if _sync_file_range is not None:
        _sync_file_range(descriptor, offset, size, _WRITE)


def sync(path: Path) -> None:
    """A file's content, or the names in a directory, are on disk when this returns. Raises `OSError`."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
