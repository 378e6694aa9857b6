"""Visibility maps of a merged chain: bits that no page of the table bears out are cleared.

When a server changes a row it clears bits of the map and names only the table's page in its WAL, so what incrementals
are made from does not see that the map changed (PostgreSQL 17 and 18, and the same of a table that was cut off): the
merged map says of changed pages that all can see all of them, and index-only scans return rows that were deleted. But
each page whose bits were cleared comes with the incremental, and says itself whether it is visible to all. A map that
comes whole is the server's own: only what later incrementals bring can be stale in it.

A bit too few only costs time, until the next vacuum. Source: `visibilitymap.c`, `walsummarizer.c`.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from dr_pipelines.postgres.pages import HEADER_SIZE, is_all_frozen, is_all_visible, with_checksum

ALL_VISIBLE, ALL_FROZEN = 1, 2
BLOCKS_A_BYTE = 4
SEGMENT = 1 << 30
"""Bytes; PostgreSQL's default, and the only one that is packaged."""
MAP = "_vm"
_TABLE = re.compile(r"\A(.*/\d+)(?:\.(\d+))?\Z")

Changed = Mapping[str, Iterable[int] | None]
"""Files that an incremental brought: the blocks of each, of its own numbering; None for all of them."""


def deserved(page: bytes, bits: int) -> int:
    """Those of a block's bits in the map that its page bears out. `page` is empty where the table ends before it."""
    if not page or not is_all_visible(page):
        return 0
    return bits if not bits & ALL_FROZEN or is_all_frozen(page) else bits & ~ALL_FROZEN


def place_of(block: int, block_size: int) -> tuple[int, int]:
    """Where a block's bits lie in the map: offset in the file, and how far to shift."""
    index, within = divmod(block, BLOCKS_A_BYTE)
    page, at = divmod(index, block_size - HEADER_SIZE)
    return page * block_size + HEADER_SIZE + at, 2 * within


def forget_settled(changed: dict[str, Any], sent: Iterable[str]) -> None:
    """Of `changed`, which an incremental ends that `sent` these paths: tables whose map is among them whole. The server
    wrote every bit that it had cleared to it before the backup began; what it cleared since is in the WAL of the next
    incremental, or of the restore, with the table's page."""
    whole = {path.removesuffix(MAP) for path in sent if path.endswith(MAP)}
    for path in [path for path in changed if (match := _TABLE.match(path)) and match[1] in whole]:
        del changed[path]


def mend_maps(data_dir: Path, changed: Changed, block_size: int, *, checksums: bool) -> int:
    """Returns how many blocks lost bits. Raises `OSError`."""
    tables: dict[str, dict[int, Iterable[int] | None]] = defaultdict(dict)
    for path, blocks in changed.items():
        if match := _TABLE.match(path):
            tables[match[1]][int(match[2] or 0)] = blocks
    return sum(
        _mend(data_dir / table, segments, block_size, checksums=checksums)
        for table, segments in tables.items()
        if (data_dir / f"{table}{MAP}").exists()
    )


def _mend(table: Path, changed: Mapping[int, Iterable[int] | None], block_size: int, *, checksums: bool) -> int:
    path = table.with_name(f"{table.name}{MAP}")
    bits = bytearray(path.read_bytes())
    stale: set[int] = set()
    cleared = 0
    with ExitStack() as stack:
        pages = _Table(table, block_size, stack)
        for block in (*_brought(changed, pages), *_beyond(bits, pages.length, block_size)):
            at, shift = place_of(block, block_size)
            if at >= len(bits) or not (told := bits[at] >> shift & 3):
                continue
            right = deserved(pages.read(block), told)
            if right != told:
                bits[at] ^= (told ^ right) << shift
                stale.add(at // block_size)
                cleared += 1
    if stale:
        with path.open("r+b") as file:
            for number in sorted(stale):
                page = bits[number * block_size : (number + 1) * block_size]
                file.seek(number * block_size)
                file.write(with_checksum(page, number) if checksums else page)
    return cleared


def _brought(changed: Mapping[int, Iterable[int] | None], pages: _Table) -> Iterator[int]:
    """Blocks that came with an incremental."""
    for segment, blocks in changed.items():
        first = segment * pages.blocks_a_segment
        for block in range(pages.blocks_a_segment) if blocks is None else blocks:
            if first + block < pages.length:
                yield first + block
            elif blocks is None:
                break


def _beyond(bits: bytearray, length: int, block_size: int) -> Iterator[int]:
    """Blocks for which a map has bits, and the table, of this length, has ended before."""
    first, _ = place_of(length, block_size)
    for page in range(first // block_size, len(bits) // block_size):
        start = max(first, page * block_size + HEADER_SIZE)
        if bits[start : (page + 1) * block_size].strip(b"\0"):
            at = page * (block_size - HEADER_SIZE) + start % block_size - HEADER_SIZE
            count = (page + 1) * (block_size - HEADER_SIZE) - at
            yield from range(max(length, at * BLOCKS_A_BYTE), (at + count) * BLOCKS_A_BYTE)


class _Table:
    """The main fork of a table, all segments."""

    def __init__(self, path: Path, block_size: int, stack: ExitStack) -> None:
        self.blocks_a_segment = SEGMENT // block_size
        self._block_size = block_size
        self._segments: list[int] = []
        self.length = 0
        while (segment := self._next(path)).exists():
            descriptor = os.open(segment, os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, descriptor)
            self.length = len(self._segments) * self.blocks_a_segment + os.fstat(descriptor).st_size // block_size
            self._segments.append(descriptor)

    def _next(self, path: Path) -> Path:
        return path.with_name(f"{path.name}.{len(self._segments)}") if self._segments else path

    def read(self, block: int) -> bytes:
        """Empty beyond the end."""
        segment, at = divmod(block, self.blocks_a_segment)
        if segment >= len(self._segments):
            return b""
        page = os.pread(self._segments[segment], self._block_size, at * self._block_size)
        return page if len(page) == self._block_size else b""
