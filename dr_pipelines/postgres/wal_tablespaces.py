"""Where WAL would make tablespaces. Replay makes them at the location that CREATE TABLESPACE named, and there, on the
host of the live server, are the live server's files. Pure.

Source: `xlogrecord.h` (records), `xl_tblspc_create_rec` in `commands/tablespace.h`.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

import google_crc32c

from dr_pipelines.postgres.wal_pages import PAGE_SIZE

_LONG_HEADER, _SHORT_HEADER = 40, 24
_RECORD_HEADER, _MANAGER_AT, _CRC_AT = 24, 17, 20
# Resource manager 5 (Tablespace), padding, CRC; perhaps origin and top-level transaction; the data's length, then the
# record's data: an oid and the path. In-place tablespaces have no path.
_CREATE = re.compile(rb"\x05\0\0.{4}(?:\xfd..)?(?:\xfc.{4})?(?:\xff.|\xfe.{4}).{4}(/[^\0]+)\0", re.DOTALL)


def created_tablespaces(segment: bytes) -> Iterator[tuple[int, str]]:
    """The offset and the location of each tablespace that a record of the segment creates. A record that goes on in the
    next segment is not seen."""
    stream = _without_page_headers(segment)
    for match in _CREATE.finditer(stream):
        start = match.start() - _MANAGER_AT
        if start >= 0 and start % 8 == 0 and stream[start + _MANAGER_AT - 1] < 0x10 and _is_record(stream, start):
            yield _offset(start), match[1].decode(errors="surrogateescape")


def _without_page_headers(segment: bytes) -> bytes:
    view = memoryview(segment)
    pages = [view[_LONG_HEADER:PAGE_SIZE]]
    pages += [view[page + _SHORT_HEADER : page + PAGE_SIZE] for page in range(PAGE_SIZE, len(view), PAGE_SIZE)]
    return b"".join(pages)


def _offset(position: int) -> int:
    """Where in the segment a position in the stream without headers is."""
    page, within = divmod(position - (PAGE_SIZE - _LONG_HEADER), PAGE_SIZE - _SHORT_HEADER)
    return position + _LONG_HEADER if page < 0 else (page + 1) * PAGE_SIZE + _SHORT_HEADER + within


def _is_record(stream: bytes, start: int) -> bool:
    (total,) = struct.unpack_from("<I", stream, start)
    (stated,) = struct.unpack_from("<I", stream, start + _CRC_AT)
    body, header = stream[start + _RECORD_HEADER : start + total], stream[start : start + _CRC_AT]
    return bool(google_crc32c.extend(google_crc32c.value(body), header) == stated)
