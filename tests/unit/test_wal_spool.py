"""The spool as files: order, what may be freed, what is put aside."""

from __future__ import annotations

from pathlib import Path

import pytest

from dr_pipelines.lsn import Lsn, Timeline, WalSegment
from dr_pipelines.postgres.wal_spool import Spool, SystemSpool
from tests.unit.test_wal_pages import record, wal

SIZE = 1024 * 1024


@pytest.fixture
def spool(tmp_path: Path) -> SystemSpool:
    return Spool(tmp_path).system("7000000000000000001")


def whole(spool: SystemSpool, number: int, timeline: int = 1) -> WalSegment:
    segment = WalSegment(Timeline(timeline), number, SIZE)
    (spool.directory / segment.name).write_bytes(b"\1" * SIZE)
    return segment


def head(spool: SystemSpool, number: int, timeline: int = 1) -> tuple[WalSegment, Lsn]:
    segment = WalSegment(Timeline(timeline), number, SIZE)
    data, end = wal([record(b"x" * 500)], pages=SIZE // 8192)
    (spool.directory / f"{segment.name}.partial").write_bytes(data)
    return segment, segment.start + end


def test_an_empty_spool_has_received_nothing(spool: SystemSpool) -> None:
    assert spool.is_empty() and spool.files() == [] and spool.received() is None and spool.segment_size() is None


def test_files_come_in_order_with_their_ends(spool: SystemSpool) -> None:
    whole(spool, 5)
    whole(spool, 4)
    _, end = head(spool, 6)
    assert [(file.segment.number, file.whole) for file in spool.files()] == [(4, True), (5, True), (6, False)]
    assert spool.received() == (Timeline(1), end)
    assert len(spool.files()[-1].read()) == end - WalSegment(Timeline(1), 6, SIZE).start


def test_only_what_is_held_goes_and_the_newest_whole_stays(spool: SystemSpool) -> None:
    for number in (3, 4, 5):
        whole(spool, number)
    head(spool, 6)
    files = spool.files()
    spool.free({files[1].name})
    assert [file.segment.number for file in spool.files()] == [3, 5, 6]
    spool.free({file.name for file in files})
    assert [file.segment.number for file in spool.files()] == [5, 6]


def test_the_old_timelines_head_is_sealed_before_it_is_written_anew(spool: SystemSpool) -> None:
    segment, end = head(spool, 6)
    before = spool.files()[0].read()
    assert len(spool.seal(before=Timeline(2))) == 1
    (spool.directory / f"{segment.name}.partial").write_bytes(bytes(SIZE))
    (sealed,) = spool.files()
    assert (sealed.end, sealed.read(), sealed.whole) == (end, before, False)
    assert spool.seal(before=Timeline(2)) == []
    spool.free({sealed.name})
    assert spool.files() == []


def test_the_current_timelines_head_is_not_sealed(spool: SystemSpool) -> None:
    head(spool, 6)
    assert spool.seal(before=Timeline(1)) == []


def test_what_is_set_aside_is_still_there_to_ship(spool: SystemSpool) -> None:
    whole(spool, 5)
    head(spool, 6)
    content = [file.read() for file in spool.files()]
    spool.set_aside()
    assert spool.is_empty() and spool.received() is None
    assert [file.read() for file in spool.files()] == content


def test_a_seed_is_no_wal_and_no_empty_spool(spool: SystemSpool) -> None:
    spool.seed(WalSegment(Timeline(1), 4, SIZE))
    assert spool.files() == [] and not spool.is_empty()


def test_histories_are_read(spool: SystemSpool) -> None:
    (spool.directory / "00000002.history").write_text("1\t0/3000000\tno recovery target specified\n")
    assert spool.histories() == [Timeline(2)] and spool.read_history(Timeline(2)).startswith(b"1\t")
