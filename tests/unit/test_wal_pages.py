"""The end of WAL in a padded file, on pages built here byte by byte."""

from __future__ import annotations

import struct

import google_crc32c
import pytest

from dr_pipelines.postgres.wal_pages import PAGE_SIZE, end_of_wal, has_whole_record, is_of_another_place


def record(body: bytes) -> bytes:
    header = struct.pack("<IIQBBH", 24 + len(body), 7, 0, 0, 10, 0)
    return header + struct.pack("<I", google_crc32c.extend(google_crc32c.value(body), header)) + body


def wal(records: list[bytes], pages: int = 8) -> tuple[bytes, int]:
    """A file of `pages` pages with the records laid out as PostgreSQL does, and where the last one ends."""
    out, position = bytearray(pages * PAGE_SIZE), 0

    def header(remaining: int) -> int:
        size = 40 if position == 0 else 24
        info = (2 if position == 0 else 0) | (1 if remaining else 0)
        struct.pack_into("<HHIQI", out, position, 0xD118, info, 1, position, remaining)
        return size

    for data in records:
        position = (position + 7) & ~7
        left = data
        while left:
            if position % PAGE_SIZE == 0:
                position += header(len(left) if left is not data else 0)
            take = min(len(left), PAGE_SIZE - position % PAGE_SIZE)
            out[position : position + take] = left[:take]
            position, left = position + take, left[take:]
    return bytes(out), (position + 7) & ~7


def test_an_empty_file_has_no_wal() -> None:
    assert end_of_wal(bytes(4 * PAGE_SIZE)) == 0


@pytest.mark.parametrize(
    "records",
    [
        [record(b"x" * 50)],
        [record(b"x" * 50), record(b"y" * 10 + bytes(30))],
        [record(b"z" * 30_000)],
        [record(b"a"), record(b"z" * 9_000 + bytes(9_000)), record(b"b" * 3)],
        [record(b"x" * 100) for _ in range(300)],
        [record(b"x" * (PAGE_SIZE - 40 - 24))],
    ],
    ids=["one", "ends with zeros", "over pages", "zero page tail", "many", "to the page's end"],
)
def test_the_end_is_the_last_records_end(records: list[bytes]) -> None:
    data, end = wal(records)
    assert end_of_wal(data) == end


def test_a_cut_record_counts_as_far_as_it_is_there() -> None:
    _, first = wal([record(b"x" * 50)])
    whole, end = wal([record(b"x" * 50), record(b"y" * 5_000)])
    cut = first + 1_000
    found = end_of_wal(whole[:cut] + bytes(len(whole) - cut))
    assert first < found <= cut < end


def test_a_record_whose_zeros_are_not_there_yet_is_still_valid_when_its_sum_is() -> None:
    data, end = wal([record(b"x" + bytes(2_000))])
    assert len(data.rstrip(b"\0")) < end - 1_900
    assert end_of_wal(data) == end


@pytest.mark.parametrize("length", [10, 5_000, 30_000], ids=["short", "long", "over pages"])
def test_a_record_is_whole_up_to_its_last_byte_valid_or_damaged(length: int) -> None:
    first, second = record(b"x" * 50), record(b"y" * length)
    _, start = wal([first])
    data, _ = wal([first, second])
    end = len(data.rstrip(b"\0"))  # before the padding
    damaged = data[: end - 5] + bytes(5)
    for view in (data[:end], damaged):
        assert has_whole_record(view, start)
        assert not has_whole_record(view[: end - 1], start)
    assert not has_whole_record(data, (end + 7) & ~7)  # nothing comes after it


def test_a_page_says_where_it_belongs() -> None:
    def page(address: int) -> bytes:
        return struct.pack("<HHIQI", 0xD118, 0, 1, address, 0).ljust(PAGE_SIZE, b"\1")

    base = 16 << 20
    data = page(base) + page(base + PAGE_SIZE)
    assert not is_of_another_place(data, 0, base)
    assert not is_of_another_place(data, 100, base)
    assert is_of_another_place(data, 0, base + (16 << 20))
    assert is_of_another_place(page(base) + page(base), 100, base)
    assert not is_of_another_place(bytes(2 * PAGE_SIZE), 0, base), "never written"
    assert not is_of_another_place(data, PAGE_SIZE + 1, base), "there is no page behind it"
