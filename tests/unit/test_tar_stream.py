"""Walking a tar in pieces: compared with Python's own tarfile."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dr_pipelines.errors import IntegrityError
from dr_pipelines.postgres.tar_stream import Content, Header, Padding, TarWalk, Zeros, checksum, parse_header, renamed


def _tar(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


@given(
    st.lists(st.binary(max_size=3000), min_size=1, max_size=6),
    st.integers(1, 2000),
)
def test_any_cut_gives_the_same_members(contents: list[bytes], piece: int) -> None:
    files = {f"base/{number}": data for number, data in enumerate(contents)}
    tar = _tar(files)
    walk, found, seen, zeros = TarWalk(), {}, [], 0
    for start in range(0, len(tar), piece):
        for event in walk.feed(tar[start : start + piece]):
            if isinstance(event, Header):
                seen.append(event.member)
                found[event.member.name] = b""
            elif isinstance(event, Content):
                assert event.offset == len(found[event.member.name])
                found[event.member.name] += bytes(event.data)
            else:
                assert isinstance(event, Padding | Zeros)
                zeros += isinstance(event, Zeros)
    walk.finish()
    assert zeros >= 2  # the end, as tarfile writes it
    assert found.pop("folder") == b""
    assert found == files
    for member in seen:
        assert parse_header(tar[member.offset : member.offset + 512], member.offset) == member


def test_a_renamed_header_is_read_by_tarfile() -> None:
    tar = _tar({"PG_18/5/1": b"x" * 10})
    member = [event.member for event in TarWalk().feed(tar) if isinstance(event, Header)][-1]
    for name in ("pg_tblspc/16384/PG_18/5/1", "a" * 90 + "/" + "b" * 90, "a" * 90 + "/" + "b" * 20 + "/"):
        head = renamed(tar[member.offset : member.offset + 512], name)
        assert tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape").name == name
        assert parse_header(head, 0).name == name.rstrip("/")
    for name in ("a" * 120, "a" * 160 + "/b", "a/" + "b" * 101):
        with pytest.raises(ValueError, match="too long for a tar"):
            renamed(tar[member.offset : member.offset + 512], name)


def test_a_size_that_cannot_be_is_refused() -> None:
    head = bytearray(_tar({"a": b"x"})[512:1024])
    head[124:136] = b"-0000000001\0"
    head[148:156] = b"%06o\0 " % checksum(head)
    with pytest.raises(IntegrityError, match="no valid header"):
        parse_header(bytes(head), 0)


def test_damage_is_noticed() -> None:
    tar = bytearray(_tar({"a": b"x"}))
    tar[3] ^= 1
    with pytest.raises(IntegrityError, match="no valid header at offset 0"):
        list(TarWalk().feed(tar))
    walk = TarWalk()
    list(walk.feed(_tar({"a": b"x" * 600})[:1100]))
    with pytest.raises(IntegrityError, match="cut short"):
        walk.finish()
