"""What may differ between two copies of a page that replayed the same WAL, and what may not."""

from __future__ import annotations

import struct

import pytest

from dr_pipelines.postgres.pages import is_all_frozen, is_all_visible, is_new, masked, sequence_state, with_checksum

SIZE = 8192
HEADER = struct.Struct("=IIHHHHHHI")
# xmin, xmax, command, block (2), offset, infomask2, infomask, size of the header, a byte of data
TUPLE = struct.Struct("=IIIHHHHHBxB")
XMIN_COMMITTED, XMIN_FROZEN, XMAX_INVALID = 0x0100, 0x0300, 0x0800


def heap(
    *values: int, lsn: int = 9, flags: int = 0, prune: int = 0, infomask: int = 0, xmin: int = 700, xmax: int = 0,
    command: int = 0, unused: bytes = b"", padding: int = 0,
) -> bytes:  # fmt: skip
    """A page of a table with a row for each value."""
    page = bytearray(SIZE)
    at, lines = SIZE, []
    for number, value in enumerate(values, start=1):
        at -= 32
        TUPLE.pack_into(page, at, xmin, xmax, command, 0, 0, number, 1, infomask, 24, value)
        page[at + TUPLE.size : at + 32] = bytes([padding]) * (32 - TUPLE.size)
        lines.append(at | 1 << 15 | TUPLE.size << 17)
    lower = 24 + 4 * len(lines)
    HEADER.pack_into(page, 0, 0, lsn, 0, flags, lower, at, SIZE, SIZE | 4, prune)
    struct.pack_into(f"={len(lines)}I", page, 24, *lines)
    page[lower : lower + len(unused)] = unused
    return bytes(page)


def index(special: bytes, *, line_flags: int = 1, key: int = 5, lower: int = 28) -> bytes:
    page = bytearray(SIZE)
    start = SIZE - len(special)
    HEADER.pack_into(page, 0, 0, 9, 0, 0, lower, start - 16, start, SIZE | 4, 0)
    struct.pack_into("=I", page, 24, (start - 16) | line_flags << 15 | 16 << 17)
    page[start - 16] = key
    page[start:] = special
    return bytes(page)


def btree(flags: int, cycle: int = 0) -> bytes:
    return struct.pack("=IIIHH", 0, 0, 0, flags, cycle)


def marked(flags: int, mark: int, nsn: int = 0) -> bytes:
    return struct.pack("=QIHH", nsn, 0, flags, mark)


HASH, GIST = 0xFF80, 0xFF81


@pytest.mark.parametrize(
    "other",
    [
        heap(1, 2, lsn=99),
        heap(1, 2, flags=0x0007, prune=701),
        heap(1, 2, infomask=XMIN_COMMITTED),
        heap(1, 2, infomask=XMAX_INVALID),
        heap(1, 2, command=3),
        heap(1, 2, unused=b"what was there before"),
        heap(1, 2, padding=7),
    ],
)
def test_what_a_server_does_without_wal_is_no_difference(other: bytes) -> None:
    page = heap(1, 2)
    assert page != other
    assert masked(page, 0) == masked(other, 0)


FROZEN = heap(1, 2, infomask=XMIN_FROZEN)


@pytest.mark.parametrize(
    ("page", "other"),
    [
        (heap(1, 2), heap(1, 3)),
        (heap(1, 2), heap(2, 1)),
        (heap(1, 2), heap(1)),
        (heap(1, 2), heap(1, 2, xmin=701)),
        (heap(1, 2), heap(1, 2, xmax=701)),
        (FROZEN, heap(1, 2, infomask=XMIN_COMMITTED)),
        (FROZEN, heap(1, 2, infomask=XMIN_FROZEN | 0x0010)),  # no hint
    ],
)
def test_rows_that_differ_are_a_difference(page: bytes, other: bytes) -> None:
    assert masked(page, 0) != masked(other, 0)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (index(btree(1)), index(btree(1), line_flags=3)),  # dead entries of a leaf
        (index(btree(1)), index(btree(1 | 0x60, cycle=9))),
        (index(marked(2, HASH)), index(marked(2 | 0x80, HASH), line_flags=3)),
        (index(marked(0, HASH)), index(marked(0, HASH), key=8)),  # unused
        (index(marked(1, GIST)), index(marked(1 | 0x18, GIST, nsn=77), line_flags=3)),
        (index(struct.pack("=IHH", 0, 0, 4)), index(struct.pack("=IHH", 0, 0, 4), key=8)),  # GIN, deleted
    ],
)
def test_hints_of_indexes_are_no_difference(one: bytes, other: bytes) -> None:
    assert one != other
    assert masked(one, 3) == masked(other, 3)


@pytest.mark.parametrize(
    "special",
    [btree(1), btree(0), marked(2, HASH), marked(1, GIST), marked(0, GIST), struct.pack("=IHH", 0, 0, 2), bytes(24)],
)
def test_entries_of_indexes_are_a_difference(special: bytes) -> None:
    assert masked(index(special), 3) != masked(index(special, key=6), 3)


def test_an_inner_page_of_a_tree_has_no_dead_entries() -> None:
    assert masked(index(btree(0)), 3) != masked(index(btree(0), line_flags=3), 3)


def test_a_page_that_was_never_logged_is_new() -> None:
    assert is_new(bytes(SIZE))
    assert is_new(heap(lsn=0))
    assert not is_new(heap(lsn=5))
    assert not is_new(heap(1, lsn=0))


def test_what_a_page_says_of_its_rows() -> None:
    assert is_all_visible(heap(1, flags=4)) and not is_all_visible(heap(1, flags=3))
    assert is_all_frozen(heap(1, 2, infomask=XMIN_FROZEN))
    assert not is_all_frozen(heap(1, 2, infomask=XMIN_COMMITTED))
    assert not is_all_frozen(heap(1, infomask=XMIN_FROZEN, xmax=900))


def test_a_sequence_is_told_apart_from_what_it_counted() -> None:
    def page(last: int, ahead: int) -> bytes:
        made = bytearray(heap(0, infomask=XMIN_FROZEN))
        row = SIZE - 32
        HEADER.pack_into(made, 0, 0, 9, 0, 0, 28, row - 24, SIZE - 8, SIZE | 4, 0)
        made[row - 24 : row] = made[row : row + 24]
        struct.pack_into("=qq?", made, row, last, ahead, True)
        struct.pack_into("=I", made, 24, (row - 24) | 1 << 15 | 41 << 17)
        made[-8:] = struct.pack("=II", 0x1717, 0)
        return bytes(made)

    one, other = sequence_state(page(5, 28)), sequence_state(page(33, 0))
    assert one is not None and other is not None
    assert (one[0].last_value, one[0].logged_ahead, other[0].last_value) == (5, 28, 33)
    assert one[1] == other[1]
    assert sequence_state(heap()) is None


def test_a_checksum_is_of_the_page_and_its_place() -> None:
    # That it is PostgreSQL's, pg_checksums says in test_visibility_maps.
    page = with_checksum(bytes(range(256)) * 32, 7)
    assert with_checksum(page, 7) == page
    assert with_checksum(page, 8) != page
