"""Where the WAL in a file that is still being written ends: pages and records, read as bytes.

A receiver pads an open segment with zeros, and a record may itself end with zeros, so the last byte that is not
zero is only a lower bound: the records of the last page are walked and the last one's CRC decides.
What does not belong here: files and servers.

Source: `xlog_internal.h` (page headers), `xlogrecord.h` (records), `ValidXLogRecord` in `xlogreader.c` (CRC-32C).
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Callable

import google_crc32c

PAGE_SIZE = 8192
_PAGE_HEADER = struct.Struct("<HHIQI")  # magic, info, timeline, address, bytes that remain of a record from before
_SHORT_HEADER, _LONG_HEADER = 24, 40
_CONTINUES, _IS_LONG = 0x0001, 0x0002
_RECORD_HEADER = 24
_CRC_AT = 20


def end_of_wal(data: bytes | memoryview, *, page_size: int = PAGE_SIZE) -> int:
    """The offset after the last byte of WAL in `data`, which starts at a page and is padded with zeros: the end of the
    last whole record, or, when the last record is cut, of what is there of it. 0 when there is none."""
    view = memoryview(data)
    pages = _filled_pages(view, page_size)
    if pages == 0:
        return 0
    last = (pages - 1) * page_size
    seen = last + len(bytes(view[last : last + page_size]).rstrip(b"\0"))
    position = _last_page_with_a_record(view, pages, page_size)
    if position is None:
        return min(_align(seen), len(view))
    while (after := _record_end(view, position, pages * page_size, page_size)) is not None:
        position = after
    return min(max(position, _align(seen)), len(view))


def has_whole_record(data: bytes | memoryview, start: int, *, page_size: int = PAGE_SIZE) -> bool:
    """Whether the whole of a record lies in `data` at the offset `start`, valid or damaged: not the end of WAL."""
    view, at = memoryview(data), _skip_page_header(memoryview(data), start, len(data), page_size)
    if at + 4 > len(view):
        return False
    (total,) = struct.unpack_from("<I", view, at)
    if total < _RECORD_HEADER:
        return False
    while total:
        if at % page_size == 0 and at + _SHORT_HEADER > len(view):
            return False  # the page's header itself is cut off
        at = _skip_page_header(view, at, len(view), page_size)
        take = min(total, page_size - at % page_size)
        total, at = total - take, at + take
    return at <= len(view)


def is_of_another_place(data: bytes | memoryview, start: int, address: int, *, page_size: int = PAGE_SIZE) -> bool:
    """Whether the first page at or after the offset `start` says that it belongs elsewhere; the first byte of `data` is
    at `address`. So is a recycled segment, or one put in another's place.
    A page that was never written says nothing."""
    view, page = memoryview(data), -(-start // page_size) * page_size
    if page + _SHORT_HEADER > len(view):
        return False
    magic, _, _, stated, _ = _PAGE_HEADER.unpack_from(view, page)
    return bool(magic) and stated != address + page


def count_filled_pages(magic: Callable[[int], bytes], count: int) -> int:
    """How many of `count` pages hold WAL. They are filled in order, so halving finds it; `magic(number)` gives a page's
    first two bytes, never both zero in a page that was written."""
    return bisect_left(range(count), True, key=lambda number: not any(magic(number)))


def _filled_pages(view: memoryview, page_size: int) -> int:
    return count_filled_pages(
        lambda number: bytes(view[number * page_size : number * page_size + 2]), -(-len(view) // page_size)
    )


def _last_page_with_a_record(view: memoryview, pages: int, page_size: int) -> int | None:
    """Where the first record that starts in the last page that has one starts; None when no page has one."""
    for number in range(pages - 1, -1, -1):
        page = number * page_size
        if len(view) - page < _LONG_HEADER:
            continue
        _, info, _, _, remaining = _PAGE_HEADER.unpack_from(view, page)
        start = page + _header_size(info) + (_align(remaining) if info & _CONTINUES else 0)
        if start + 4 <= min(page + page_size, len(view)) and any(view[start : start + 4]):
            return start
    return None


def _record_end(view: memoryview, start: int, limit: int, page_size: int) -> int | None:
    """The aligned end of the whole, valid record at `start`; None when there is none."""
    start = _skip_page_header(view, start, limit, page_size)
    if start + 4 > min(limit, len(view)):
        return None
    (total,) = struct.unpack_from("<I", view, start)
    if total < _RECORD_HEADER:
        return None
    record, position = bytearray(), start
    while len(record) < total:
        position = _skip_page_header(view, position, limit, page_size)
        if position >= min(limit, len(view)):
            return None
        take = min(total - len(record), page_size - position % page_size)
        record += view[position : position + take]
        position += take
    header, body = bytes(record[:_CRC_AT]), bytes(record[_RECORD_HEADER:])
    (stated,) = struct.unpack_from("<I", record, _CRC_AT)
    if google_crc32c.extend(google_crc32c.value(body), header) != stated:
        return None
    return _align(position)


def _skip_page_header(view: memoryview, position: int, limit: int, page_size: int) -> int:
    if position % page_size or position + _SHORT_HEADER > min(limit, len(view)):
        return position
    return position + _header_size(struct.unpack_from("<H", view, position + 2)[0])


def _header_size(info: int) -> int:
    return _LONG_HEADER if info & _IS_LONG else _SHORT_HEADER


def _align(count: int) -> int:
    return (count + 7) & ~7
