"""Files on Linux's disks, beyond what Python's standard library has a call for."""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_WRITE = 2  # SYNC_FILE_RANGE_WRITE
_NO_REPLACE = 1  # RENAME_NOREPLACE
_BETWEEN = 0.5
"""Seconds: what is written in that time takes a disk about as long."""
_C = ctypes.CDLL(None, use_errno=True)
_sync_file_range = getattr(_C, "sync_file_range", None)
_syncfs = getattr(_C, "syncfs", None)
_renameat2 = getattr(_C, "renameat2", None)
if _sync_file_range is not None:
    _sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
if _renameat2 is not None:
    _renameat2.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)


def start_writeback(descriptor: int, offset: int, size: int) -> None:
    """Let the system begin to write this range of a file to its disk, and return at once. Only a hint, which makes a
    later fsync short: whether it succeeds is what that fsync says. Source: Linux manual, sync_file_range(2)."""
    if _sync_file_range is not None:
        _sync_file_range(descriptor, offset, size, _WRITE)


def sync_disk(path: Path) -> None:
    """All that was written to the file system of `path` is on its disk when this returns. Raises `OSError`.
    Source: Linux manual, syncfs(2)."""
    if _syncfs is None:
        os.sync()
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _called(_syncfs(descriptor), path)
    finally:
        os.close(descriptor)


@contextmanager
def syncing(path: Path) -> Iterator[None]:
    """What is written to the file system of `path` meanwhile goes to its disk all along, so that little is left to the
    `sync_disk` that must follow. What goes wrong is for that one to tell."""
    done = threading.Event()

    def sync_now_and_then() -> None:
        with suppress(OSError):
            while not done.wait(_BETWEEN):
                sync_disk(path)

    thread = threading.Thread(target=sync_now_and_then, name="sync", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def move_new(source: bytes, target: bytes, *, source_dir: int, target_dir: int) -> None:
    """Rename from one directory to another; what is there already stays. Both are names in directories that are open.
    Raises `FileExistsError`, `OSError`. Source: Linux manual, renameat2(2)."""
    if _renameat2 is not None:
        try:
            _called(_renameat2(source_dir, source, target_dir, target, _NO_REPLACE), os.fsdecode(target))
            return
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOSYS):  # a file system that knows no such rename
                raise
    try:
        os.stat(target, dir_fd=target_dir, follow_symlinks=False)
    except FileNotFoundError:
        os.rename(source, target, src_dir_fd=source_dir, dst_dir_fd=target_dir)
        return
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fsdecode(target))


def _called(result: int, what: object) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(what))


def sync(path: Path) -> None:
    """A file's content, or the names in a directory, are on disk when this returns. Raises `OSError`."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
