"""Large memory that goes round: reused buffers are what makes packing and unpacking fast."""

from __future__ import annotations

import contextlib
import ctypes
import mmap

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_LARGE, _KEPT = 5 * 1024 * 1024, 16 * 1024 * 1024
"""Bytes: a compressed frame, which comes and goes all the time, is not large."""


def large_buffer(size: int) -> memoryview:
    """`size` bytes that cost nothing before they are touched, in huge pages where the system has them. (A bytearray
    is zeroed when it is made: for 64 MiB that takes longer than compressing a small incremental.)"""
    memory = mmap.mmap(-1, max(size, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError, AttributeError):  # only Linux knows it, and not every kernel
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(memory)[:size]


def empty(buffer: memoryview) -> None:
    """Gives back the memory of a whole buffer until it is written to again. Nobody needs what was in it."""
    memory = buffer.obj
    assert isinstance(memory, mmap.mmap)
    for advice in ("MADV_REMOVE", "MADV_DONTNEED"):  # what others share, and what is this process's alone
        try:
            memory.madvise(getattr(mmap, advice))
        except (OSError, AttributeError):
            continue
        return


def give_back_freed_memory() -> None:
    """From now on what is freed in large pieces goes back to the system, and threads share what stays. GNU's allocator
    keeps up to 64 MiB for each thread otherwise, once pieces of some megabytes were freed (mallopt(3))."""
    with contextlib.suppress(OSError, AttributeError):  # others have no such settings
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_THRESHOLD, _LARGE)
        library.mallopt(_M_TRIM_THRESHOLD, _KEPT)
        library.mallopt(_M_ARENA_MAX, 2)
