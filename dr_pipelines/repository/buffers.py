"""Large memory that goes round: reused buffers are what makes packing and unpacking fast."""

from __future__ import annotations

import contextlib
import mmap


def large_buffer(size: int) -> memoryview:
    """`size` bytes that cost nothing before they are touched, in huge pages where the system has them. (A bytearray
    is zeroed when it is made: for 64 MiB that takes longer than compressing a small incremental.)"""
    memory = mmap.mmap(-1, max(size, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError, AttributeError):  # only Linux knows it, and not every kernel
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(memory)[:size]
