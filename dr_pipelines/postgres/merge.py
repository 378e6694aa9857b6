"""Incremental members applied in place over what the chain's earlier members left. Pure: bytes in, writes out.

Source of the format: PostgreSQL's `basebackup_incremental.h`; of the semantics: `pg_combinebackup`'s `reconstruct.c`.
What does not belong here: files, threads, tars.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from dr_pipelines.errors import IntegrityError

MAGIC = 0xD3AE1F0D
PREFIX = "INCREMENTAL."
_FIXED = struct.Struct("=III")
_SEGMENT_BLOCKS = 1 << 24
"""More blocks than any relation segment can have: a number beyond it is garbage, not a block."""


def plain_name(path: str) -> str:
    """`base/5/INCREMENTAL.1259` → `base/5/1259`; another path as it is."""
    folder, slash, name = path.rpartition("/")
    return folder + slash + name.removeprefix(PREFIX)


def is_incremental(path: str) -> bool:
    return path.rpartition("/")[2].startswith(PREFIX)


@dataclass(frozen=True)
class IncrementalHeader:
    """Which blocks follow. `truncation_length` (blocks): what earlier members hold from there on is void."""

    blocks: Sequence[int]
    truncation_length: int

    @property
    def length(self) -> int:
        """The file's length in blocks once the member is applied; what no member holds is zeros."""
        return max(self.truncation_length, max(self.blocks, default=-1) + 1)


class IncrementalMember:
    """One `INCREMENTAL.` member, given in pieces. `header` is None until it was seen whole."""

    def __init__(self, name: str, block_size: int) -> None:
        self._name = name
        self._block_size = block_size
        self._head = bytearray()
        self._head_size = 0
        self._taken = 0
        self.header: IncrementalHeader | None = None

    def feed(self, piece: memoryview) -> Iterator[tuple[int, memoryview]]:
        """The writes that `piece` holds, as (offset in the file, bytes). The header must be acted on
        (truncate, extend) when it becomes known and before the first write; runs of blocks come as one write."""
        if self.header is None:
            piece = self._feed_header(piece)
        if len(piece):
            yield from self._writes(piece)

    def finish(self) -> IncrementalHeader:
        """Raises `IntegrityError` when the member ended early."""
        if self.header is None or self._taken != len(self.header.blocks) * self._block_size:
            raise IntegrityError(f"the incremental file {self._name} is cut off")
        return self.header

    def _feed_header(self, piece: memoryview) -> memoryview:
        while self.header is None and len(piece):
            wanted = (self._head_size or _FIXED.size) - len(self._head)
            self._head += piece[:wanted]
            piece = piece[wanted:]
            if len(self._head) == (self._head_size or _FIXED.size):
                self._parse()
        return piece

    def _parse(self) -> None:
        magic, count, truncation = _FIXED.unpack_from(self._head)
        if magic != MAGIC or count > _SEGMENT_BLOCKS or truncation > _SEGMENT_BLOCKS:
            raise IntegrityError(f"the incremental file {self._name} has no valid header")
        if not self._head_size and count:
            size = _FIXED.size + 4 * count
            self._head_size = -(-size // self._block_size) * self._block_size
            return
        blocks = array("I", bytes(self._head[_FIXED.size : _FIXED.size + 4 * count]))
        if any(block >= _SEGMENT_BLOCKS for block in blocks):
            raise IntegrityError(f"the incremental file {self._name} names impossible blocks")
        self.header = IncrementalHeader(blocks, truncation)
        self._head = bytearray()

    def _writes(self, piece: memoryview) -> Iterator[tuple[int, memoryview]]:
        assert self.header is not None
        blocks, size = self.header.blocks, self._block_size
        if self._taken + len(piece) > len(blocks) * size:
            raise IntegrityError(f"the incremental file {self._name} is longer than its header says")
        at = 0
        while at < len(piece):
            index, within = divmod(self._taken, size)
            count, last = size - within, index
            while at + count < len(piece) and blocks[last + 1] == blocks[last] + 1:
                last, count = last + 1, count + size
            run = piece[at : at + count]
            yield blocks[index] * size + within, run
            at += len(run)
            self._taken += len(run)


def needed_members(chain: Sequence[Iterable[str]]) -> list[frozenset[str]]:
    """For each backup of a chain (oldest first; each the paths of its backup_manifest) the paths whose bytes end up in
    the restored server: a member is needed when every later backup has its file as an incremental member. So files
    that later backups replace or no longer have are never written, and nothing needs removing after.

    Raises `IntegrityError` when an incremental member has nothing to be applied to.
    """
    needed: list[frozenset[str]] = []
    wanted: set[str] | None = None
    for paths in reversed([list(paths) for paths in chain]):
        here = frozenset(path for path in paths if wanted is None or plain_name(path) in wanted)
        if wanted is not None and (missing := wanted - {plain_name(path) for path in here}):
            raise IntegrityError(f"the chain lacks {min(missing)}, which a later incremental builds on")
        wanted = {plain_name(path) for path in here if is_incremental(path)}
        needed.append(here)
    if wanted:
        raise IntegrityError(f"the chain's first backup has {min(wanted)} only as an incremental file")
    return needed[::-1]


def full_label(backup_label: bytes) -> bytes:
    """The newest incremental's backup_label as that of a full backup, as `pg_combinebackup` writes it."""
    lines = backup_label.splitlines(keepends=True)
    return b"".join(
        line for line in lines if not line.startswith((b"INCREMENTAL FROM LSN: ", b"INCREMENTAL FROM TLI: "))
    )
