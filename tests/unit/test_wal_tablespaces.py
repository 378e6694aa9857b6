"""Records that create tablespaces are found in WAL, wherever they lie and whatever lies around them."""

from __future__ import annotations

import random
import struct

import google_crc32c
import pytest

from dr_pipelines.postgres.wal_tablespaces import created_tablespaces
from tests.unit.test_wal_pages import wal

_TABLESPACE, _CREATE, _DROP = 5, 0x00, 0x10


def _record(body: bytes, *, manager: int = _TABLESPACE, info: int = _CREATE) -> bytes:
    header = struct.pack("<IIQBBH", 24 + len(body), 7, 0, info, manager, 0)
    return header + struct.pack("<I", google_crc32c.extend(google_crc32c.value(body), header)) + body


def _create(location: str, *, before: bytes = b"") -> bytes:
    data = struct.pack("<I", 16400) + location.encode() + b"\0"
    length = b"\xff" + bytes([len(data)]) if len(data) < 256 else b"\xfe" + struct.pack("<I", len(data))
    return _record(before + length + data)


def _found(records: list[bytes]) -> list[str]:
    data, _ = wal(records)
    found = list(created_tablespaces(data))
    for offset, _ in found:
        assert struct.unpack_from("<I", data, offset)[0] >= 24, "the offset is a record's"
    return [location for _, location in found]


@pytest.mark.parametrize("filler", [0, 1, 100, 8000, 8050, 8064, 8072, 8080, 8088, 8096, 8104, 8112, 20_000])
def test_a_creation_is_found_across_pages_too(filler: int) -> None:
    noise = _record(random.Random(filler).randbytes(filler), manager=10)
    assert _found([noise, _create("/data/fast"), noise, _create("/x" * 200)]) == ["/data/fast", "/x" * 200]


def test_what_goes_before_the_data_is_passed_over() -> None:
    assert _found([_create("/a", before=b"\xfd\1\0"), _create("/b", before=b"\xfc\1\0\0\0")]) == ["/a", "/b"]


def test_what_only_looks_like_one_is_not() -> None:
    inside = _record(_create("/inside/another/record"), manager=10)
    dropped = _record(b"\xff\x08" + struct.pack("<I", 16400) + b"/ab\0", info=_DROP)
    damaged = bytearray(_create("/damaged"))
    damaged[-2] ^= 1
    assert _found([dropped, bytes(damaged), _create(""), _record(b"x", manager=10)]) == []
    assert _found([inside]) in ([], ["/inside/another/record"])  # a record of WAL kept as data may look whole
