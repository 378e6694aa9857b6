"""WAL of the spool for a recovery, while a stream may be shipping and freeing it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dr_pipelines.errors import ObjectNotFound
from dr_pipelines.lsn import Timeline
from dr_pipelines.postgres.restore_plan import WalSpan
from dr_pipelines.postgres.wal_spool import Spool
from dr_pipelines.postgres.wal_spool_source import SpoolWal
from dr_pipelines.postgres.wal_tiers import joined
from tests.unit.test_wal_spool import SIZE, head, whole

SYSTEM = "7000000000000000001"


def test_what_was_received_is_there_up_to_the_last_record(tmp_path: Path) -> None:
    spool, source = Spool(tmp_path).system(SYSTEM), SpoolWal(tmp_path, SYSTEM)
    first = whole(spool, 4)
    second, end = head(spool, 5)
    spool.write_history(Timeline(2), b"1\t0/600000\tpromoted\n")
    assert joined(source.listing().ranges()) == [WalSpan(Timeline(1), first.start, end)]
    assert source.timelines() == [Timeline(1), Timeline(2)]
    assert source.history(Timeline(2)) and source.history(Timeline(3)) is None
    assert source.read_segment(first) == b"\1" * SIZE
    there = source.head(second)
    assert there is not None and there.end == end
    data = source.read_partial(there)
    assert len(data) == SIZE and not any(data[end - second.start :])


def test_what_was_freed_meanwhile_is_absence_and_not_data(tmp_path: Path) -> None:
    spool, source = Spool(tmp_path).system(SYSTEM), SpoolWal(tmp_path, SYSTEM)
    segment, _ = head(spool, 5)
    there = source.head(segment)
    assert there is not None
    there.path.unlink()
    with pytest.raises(ObjectNotFound):
        source.read_partial(there)
    with pytest.raises(ObjectNotFound):
        source.read_segment(segment)
    assert source.head(segment) is None and source.listing().ranges() == []


def test_a_host_that_never_streamed_has_none(tmp_path: Path) -> None:
    source = SpoolWal(tmp_path / "nowhere", SYSTEM)
    assert source.listing().ranges() == [] and source.timelines() == [] and source.history(Timeline(2)) is None
    assert not (tmp_path / "nowhere").exists()
