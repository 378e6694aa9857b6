"""Two data directories that replayed the same WAL to the same position, compared page by page.

Both must have been shut down after recovery, so that nothing of them is in memory only. Compared are the main forks,
visibility maps and init forks of all relations, the maps of their files and the status of transactions. Left out is
what no WAL restores: free space maps (only hints), unlogged and temporary relations, statistics, configuration.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path

from dr_pipelines.postgres.pages import HEADER_SIZE, is_new, is_sequence, masked, sequence_state
from dr_pipelines.postgres.visibility import BLOCKS_A_BYTE, SEGMENT, deserved

_CHUNK = 1 << 20
_RELATION = re.compile(r"\A(\d+)(?:_(vm|fsm|init))?(?:\.(\d+))?\Z")
_DATABASES = ("base/*", "pg_tblspc/*/PG_*/*")
_STATUS = ("pg_xact", "pg_multixact/offsets", "pg_multixact/members")
_MAPS = ("PG_VERSION", "pg_filenode.map")
_NAMED_BLOCKS = 20
"""So many blocks of a difference are told."""


@dataclass(frozen=True, order=True)
class RelationFile:
    """Where a relation's files lie (`base/5`, below the data directory) and their number."""

    folder: str
    number: int

    def __str__(self) -> str:
        return f"{self.folder}/{self.number}"


@dataclass(frozen=True)
class Difference:
    """`blocks` that differ in a fork (`main`, `vm`, `init`): the first of them, of `count`. In the visibility map they
    are blocks of the table of which one copy promises what its own page denies."""

    file: RelationFile
    fork: str
    blocks: tuple[int, ...]
    count: int


@dataclass(frozen=True)
class SequencePair:
    """The pages of a sequence on both sides, which differ only in its state: whether that is allowed depends on how it
    counts."""

    file: RelationFile
    left: bytes = field(repr=False)
    right: bytes = field(repr=False)


@dataclass
class Comparison:
    """What was seen. `masked` pages differ only in what may; `unlogged` relations were left out; `files` are those
    that are no relations, and `other` those of them that differ."""

    relations: int = 0
    pages: int = 0
    masked: int = 0
    unlogged: int = 0
    files: int = 0
    differences: list[Difference] = field(default_factory=list)
    sequences: list[SequencePair] = field(default_factory=list)
    other: list[str] = field(default_factory=list)


def compare(
    left: Path, right: Path, *, block_size: int, advance: Callable[[int], None] = lambda count: None
) -> Comparison:
    """`advance` is told of bytes, of one side. Raises `OSError`."""
    seen = Comparison()
    found_left, found_right = _relations(left), _relations(right)
    unlogged = {file for file, fork in {*found_left, *found_right} if fork == "init"}
    seen.unlogged = len(unlogged)
    seen.relations = len({file for file, _ in {*found_left, *found_right}} - unlogged)
    for file, fork in sorted({*found_left, *found_right}):
        if fork == "fsm" or (file in unlogged and fork != "init"):
            continue
        with ExitStack() as stack:
            pair = _Pair(
                stack.enter_context(_Fork(found_left.get((file, fork), []), block_size)),
                stack.enter_context(_Fork(found_right.get((file, fork), []), block_size)),
            )
            blocks = list(_compare_fork(pair, file, seen, advance, is_map=fork == "vm"))
            if fork == "vm":
                blocks = sorted(_broken_promises(pair, blocks, found_left, found_right, file, block_size))
        if blocks:
            seen.differences.append(Difference(file, fork, tuple(blocks[:_NAMED_BLOCKS]), len(blocks)))
    _compare_files(left, right, block_size, seen)
    return seen


# --- relations ----------------------------------------------------------------------------------------------


def _relations(data_dir: Path) -> dict[tuple[RelationFile, str], list[Path]]:
    """The segments of each fork, in order."""
    found: dict[tuple[RelationFile, str], dict[int, Path]] = defaultdict(dict)
    for folder in [data_dir / "global", *(place for pattern in _DATABASES for place in data_dir.glob(pattern))]:
        for path in folder.iterdir():
            if match := _RELATION.match(path.name):
                file = RelationFile(folder.relative_to(data_dir).as_posix(), int(match[1]))
                found[file, match[2] or "main"][int(match[3] or 0)] = path
    return {key: [segments[number] for number in sorted(segments)] for key, segments in found.items()}


class _Fork:
    """All segments of a fork as one file."""

    def __init__(self, segments: Sequence[Path], block_size: int) -> None:
        self._stack = ExitStack()
        self._files: list[BufferedReader] = [self._stack.enter_context(path.open("rb")) for path in segments]
        self.block_size = block_size

    def __enter__(self) -> _Fork:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def chunks(self) -> Iterator[bytes]:
        """Pieces of `_CHUNK`, but for the last of a segment, which is the last."""
        for file in self._files:
            file.seek(0)
            while chunk := file.read(_CHUNK):
                yield chunk

    def block(self, number: int) -> bytes:
        """Empty where the fork ends before it."""
        segment, at = divmod(number * self.block_size, SEGMENT)
        if segment >= len(self._files):
            return b""
        self._files[segment].seek(at)
        return self._files[segment].read(self.block_size)


@dataclass(frozen=True)
class _Pair:
    left: _Fork
    right: _Fork


def _compare_fork(
    pair: _Pair, file: RelationFile, seen: Comparison, advance: Callable[[int], None], *, is_map: bool
) -> Iterator[int]:
    """The blocks that differ."""
    size = pair.left.block_size
    first = 0
    for one, other in _side_by_side(pair.left.chunks(), pair.right.chunks()):
        count = -(-max(len(one), len(other)) // size)
        seen.pages += count
        if one != other:
            for index in range(count):
                at = slice(index * size, (index + 1) * size)
                if one[at] != other[at] and _differs(one[at], other[at], first + index, file, seen, is_map=is_map):
                    yield first + index
        first += count
        advance(count * size)


def _side_by_side(one: Iterator[bytes], other: Iterator[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Until both have ended."""
    while True:
        left, right = next(one, b""), next(other, b"")
        if not left and not right:
            return
        yield left, right


def _differs(one: bytes, other: bytes, block: int, file: RelationFile, seen: Comparison, *, is_map: bool) -> bool:
    """Of two pages that are not the same to the byte."""
    seen.masked += 1
    if not one or not other or is_new(one) or is_new(other):
        return not (_is_nothing(one, is_map) and _is_nothing(other, is_map))
    if is_map:
        return one[HEADER_SIZE:] != other[HEADER_SIZE:]
    if masked(one, block) == masked(other, block):
        return False
    if is_sequence(one, block) and is_sequence(other, block):
        states = sequence_state(one), sequence_state(other)
        if states[0] is not None and states[1] is not None and states[0][1] == states[1][1]:
            seen.sequences.append(SequencePair(file, one, other))
            return False
    return True


def _is_nothing(page: bytes, is_map: bool) -> bool:
    return not page or is_new(page) or (is_map and not any(page[HEADER_SIZE:]))


# --- visibility maps ----------------------------------------------------------------------------------------


def _broken_promises(
    pair: _Pair,
    map_blocks: Sequence[int],
    found_left: dict[tuple[RelationFile, str], list[Path]],
    found_right: dict[tuple[RelationFile, str], list[Path]],
    file: RelationFile,
    block_size: int,
) -> Iterator[int]:
    """Blocks of the table of which one side's map says more than the other's, and more than its own page.

    A bit that is missing costs time only, and replay may lose one: it does not set a bit again on a map's page that is
    newer than the record. A bit too many hides changes from index-only scans and from freezing.
    """
    with (
        _Fork(found_left.get((file, "main"), []), block_size) as left,
        _Fork(found_right.get((file, "main"), []), block_size) as right,
    ):
        for number in map_blocks:
            one, other = pair.left.block(number), pair.right.block(number)
            for block, bits, others in _unequal_bits(one, other, number, block_size):
                if _promises_too_much(left, block, bits & ~others) or _promises_too_much(right, block, others & ~bits):
                    yield block


def _unequal_bits(one: bytes, other: bytes, number: int, block_size: int) -> Iterator[tuple[int, int, int]]:
    """A block of the table, and its bits on both sides."""
    one, other = one.ljust(block_size, b"\0"), other.ljust(block_size, b"\0")
    first = number * (block_size - HEADER_SIZE) * BLOCKS_A_BYTE
    for index in range(HEADER_SIZE, block_size):
        if one[index] != other[index]:
            for within in range(BLOCKS_A_BYTE):
                bits, others = one[index] >> 2 * within & 3, other[index] >> 2 * within & 3
                if bits != others:
                    yield first + (index - HEADER_SIZE) * BLOCKS_A_BYTE + within, bits, others


def _promises_too_much(table: _Fork, block: int, bits: int) -> bool:
    """Where the table ends, it would be for whatever is put there later."""
    return bool(bits) and deserved(table.block(block), bits) != bits


# --- what is no relation ------------------------------------------------------------------------------------


def _compare_files(left: Path, right: Path, block_size: int, seen: Comparison) -> None:
    for folder in ["global", *sorted({*_folders(left), *_folders(right)})]:
        for name in _MAPS:
            one, other = _content(left / folder / name), _content(right / folder / name)
            if one or other:
                seen.files += 1
                if one != other:
                    seen.other.append(f"{folder}/{name}")
    for folder in _STATUS:
        for name in sorted({*_names(left / folder), *_names(right / folder)}):
            seen.files += 1
            # Pages that were not used yet may not be there yet.
            one, other = (_content(side / folder / name).rstrip(b"\0") for side in (left, right))
            if one != other:
                seen.other.append(f"{folder}/{name}")


def _folders(data_dir: Path) -> Iterator[str]:
    return (path.relative_to(data_dir).as_posix() for pattern in _DATABASES for path in data_dir.glob(pattern))


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()] if folder.is_dir() else []


def _content(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""
