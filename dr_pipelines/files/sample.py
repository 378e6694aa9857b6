"""Whether a content compresses, from its beginning: a cheap sign that it was encrypted by somebody else. Those who
encrypt other people's files begin at their beginning."""

from __future__ import annotations

import threading

import zstandard

SAMPLE = 2048
"""Bytes that are looked at."""
_FEWEST = 1024
_of_thread = threading.local()


def compresses_to(beginning: memoryview | bytes) -> int | None:
    """How much of it is left, in percent, 100 at most; None where there is too little to say."""
    if len(beginning) < _FEWEST:
        return None
    compressor = getattr(_of_thread, "compressor", None)
    if compressor is None:
        compressor = _of_thread.compressor = zstandard.ZstdCompressor(level=1, write_content_size=False)
    return min(100, -(-100 * len(compressor.compress(beginning)) // len(beginning)))
