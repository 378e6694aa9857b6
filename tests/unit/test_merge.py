"""Incrementals over what the chain left: compared with a model file, and everything that is no valid member."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dr_pipelines.errors import IntegrityError
from dr_pipelines.postgres.merge import MAGIC, IncrementalMember, full_label, needed_members, plain_name
from dr_pipelines.postgres.unpack import PG_CONTROL, unpack_chain
from tests.support.archives import SMALL_BLOCK, incremental, link

_PATH, _INCREMENTAL = "base/5/1259", "base/5/INCREMENTAL.1259"


@dataclass(frozen=True)
class Change:
    """To one file: `count` blocks from `start` are written, or it is cut to `start` blocks when `count` is 0."""

    start: int
    count: int
    fill: int


_CHANGES = st.builds(Change, st.integers(0, 8), st.integers(0, 3), st.integers(1, 255))


class ModelFile:
    """A relation as its server sees it, and what the server's next incremental holds of it."""

    def __init__(self) -> None:
        self.blocks: list[bytes] = []
        self.next_backup()

    def next_backup(self) -> None:
        self._changed: set[int] = set()
        self._shortest = len(self.blocks)

    def apply(self, change: Change) -> None:
        start = min(change.start, len(self.blocks))
        if not change.count:
            del self.blocks[start:]
            self._shortest = min(self._shortest, start)
        for number in range(start, start + change.count):
            self.blocks[number : number + 1] = [bytes([change.fill, number]) * (SMALL_BLOCK // 2)]
            self._changed.add(number)

    def incremental(self) -> bytes:
        blocks = {number: self.blocks[number] for number in self._changed if number < len(self.blocks)}
        return incremental(blocks, min(self._shortest, len(self.blocks)))


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.lists(_CHANGES, max_size=4), st.booleans()), min_size=1, max_size=5),
    st.sampled_from((200, 1024)),
)
def test_a_merged_chain_is_the_file_as_it_was(periods: Sequence[tuple[list[Change], bool]], pack_size: int) -> None:
    """Any changes, truncations and growth between the backups; some backups send the file whole."""
    file, chain = ModelFile(), []
    for number, (changes, whole) in enumerate(periods):
        for change in changes:
            file.apply(change)
        content = {_PATH: b"".join(file.blocks)} if whole or not number else {_INCREMENTAL: file.incremental()}
        chain.append(link({**content, PG_CONTROL: b"control"}, pack_size=pack_size))
        file.next_backup()
    with tempfile.TemporaryDirectory() as folder:
        assert unpack_chain(chain, Path(folder), advance=lambda _: None) == b"control"
        assert Path(folder, _PATH).read_bytes() == b"".join(file.blocks)


def test_what_was_truncated_does_not_come_back(tmp_path: Path) -> None:
    """Cut to one block; or cut and then longer again with a hole: the hole is zeros, not the full's blocks."""
    full = b"".join(bytes([65 + number]) * SMALL_BLOCK for number in range(4))
    cut, hole = incremental({}, 1), incremental({3: b"z" * SMALL_BLOCK}, 1)
    grown = b"A" * SMALL_BLOCK + bytes(2 * SMALL_BLOCK) + b"z" * SMALL_BLOCK
    for number, (later, expected) in enumerate(
        [([cut], b"A" * SMALL_BLOCK), ([hole], grown), ([cut, hole], grown), ([hole, cut], b"A" * SMALL_BLOCK)]
    ):
        target = tmp_path / str(number)
        target.mkdir()
        chain = [link({_PATH: full, PG_CONTROL: b"c"})]
        chain += [link({_INCREMENTAL: content, PG_CONTROL: b"c"}) for content in later]
        unpack_chain(chain, target, advance=lambda _: None)
        assert (target / _PATH).read_bytes() == expected


# --- one member ---


def _feed(data: bytes, piece: int) -> tuple[IncrementalMember, list[tuple[int, bytes]]]:
    member = IncrementalMember("base/5/INCREMENTAL.1", SMALL_BLOCK)
    writes = [
        (offset, bytes(view))
        for start in range(0, len(data), piece)
        for offset, view in member.feed(memoryview(data)[start : start + piece])
    ]
    return member, writes


@pytest.mark.parametrize("piece", [1, 7, SMALL_BLOCK, 1000])
def test_a_member_in_pieces_of_any_size(piece: int) -> None:
    blocks = {2: b"c" * SMALL_BLOCK, 3: b"d" * SMALL_BLOCK, 9: b"j" * SMALL_BLOCK}
    member, writes = _feed(incremental(blocks, 5), piece)
    header = member.finish()
    assert (list(header.blocks), header.truncation_length, header.length) == ([2, 3, 9], 5, 10)
    found = bytearray(10 * SMALL_BLOCK)
    for offset, data in writes:
        found[offset : offset + len(data)] = data
    assert all(found[n * SMALL_BLOCK : (n + 1) * SMALL_BLOCK] == data for n, data in blocks.items())
    assert sum(len(data) for _, data in writes) == 3 * SMALL_BLOCK
    if piece == 1000:
        assert [(offset // SMALL_BLOCK, len(data) // SMALL_BLOCK) for offset, data in writes] == [(2, 2), (9, 1)]


def test_a_member_without_blocks_keeps_what_is_below_its_length() -> None:
    member, writes = _feed(incremental({}, 3), 5)
    assert (member.finish().length, writes) == (3, [])


@pytest.mark.parametrize(
    "head",
    [
        struct.pack("=III", MAGIC ^ 1, 0, 0),
        struct.pack(">III", MAGIC, 0, 0),
        struct.pack("=III", MAGIC, 1 << 31, 0),
        struct.pack("=III", MAGIC, 0, 1 << 31),
        struct.pack("=IIII", MAGIC, 1, 4, 1 << 31) + bytes(SMALL_BLOCK),
    ],
    ids=["magic", "other byte order", "too many blocks", "too long", "block that cannot be"],
)
def test_garbage_for_a_header_is_refused_before_anything_is_written(head: bytes) -> None:
    with pytest.raises(IntegrityError, match=r"INCREMENTAL\.1 (has no valid header|names impossible blocks)"):
        _feed(head, 1000)


def test_a_member_that_is_cut_off_anywhere_is_refused() -> None:
    whole = incremental({1: b"b" * SMALL_BLOCK, 4: b"e" * SMALL_BLOCK}, 5)
    for size in range(len(whole)):
        member, _ = _feed(whole[:size], 1000)
        with pytest.raises(IntegrityError, match="cut off"):
            member.finish()


@pytest.mark.parametrize("blocks", [{}, {1: b"b" * SMALL_BLOCK}])
def test_a_member_that_is_too_long_is_refused(blocks: dict[int, bytes]) -> None:
    with pytest.raises(IntegrityError, match="longer than its header says"):
        _feed(incremental(blocks, 5) + b"x", 1000)


# --- a chain ---


def test_only_what_ends_up_in_the_server_is_written() -> None:
    full = ["base/1", "base/2", "base/3", "base/dropped", "label"]
    first = ["base/INCREMENTAL.1", "base/2", "base/INCREMENTAL.3", "label"]
    last = ["base/INCREMENTAL.1", "base/INCREMENTAL.2", "base/3", "base/created", "label"]
    assert needed_members([full, first, last]) == [
        {"base/1"},
        {"base/INCREMENTAL.1", "base/2"},
        set(last),
    ]


def test_an_incremental_member_needs_something_to_build_on() -> None:
    with pytest.raises(IntegrityError, match="lacks base/1, which a later incremental builds on"):
        needed_members([["base/2"], ["base/INCREMENTAL.1"]])
    with pytest.raises(IntegrityError, match="first backup has base/1 only as an incremental"):
        needed_members([["base/INCREMENTAL.1"]])


def test_names() -> None:
    assert plain_name("pg_tblspc/1/PG_18/5/INCREMENTAL.7") == "pg_tblspc/1/PG_18/5/7"
    assert plain_name("base/5/7") == "base/5/7"


def test_the_label_of_a_merged_chain_is_that_of_a_full() -> None:
    full = b"START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\nCHECKPOINT LOCATION: 0/2000080\nLABEL: x\n"
    assert full_label(full + b"INCREMENTAL FROM LSN: 0/1000028\nINCREMENTAL FROM TLI: 1\n") == full
    assert full_label(full) == full
