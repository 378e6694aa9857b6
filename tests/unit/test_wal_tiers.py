"""WAL over several tiers, while the stream replaces heads of the open segment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dr_pipelines.errors import IntegrityError, ObjectNotFound, StoreUnavailable
from dr_pipelines.lsn import Lsn, Timeline, WalSegment
from dr_pipelines.postgres.restore_plan import WalSpan
from dr_pipelines.postgres.wal_spool import Spool
from dr_pipelines.postgres.wal_spool_source import SpoolWal
from dr_pipelines.postgres.wal_tiers import FoundWal, WalTiers
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.wal import WalArchive
from dr_pipelines.storage.base import ObjectInfo
from dr_pipelines.storage.memory import MemoryStore
from tests.support.faulty_store import FaultyStore
from tests.unit.test_wal_spool import head

SIZE = 1 << 20
ONE = Timeline(1)


def _segment(number: int) -> WalSegment:
    return WalSegment(ONE, number, SIZE)


def _head(archive: WalArchive, number: int, count: int) -> None:
    archive.put_partial(_segment(number), _segment(number).start + count, b"h" * count)


def _found(number: int, count: int) -> FoundWal:
    return FoundWal(b"h" * count + bytes(SIZE - count), _segment(number).start + count)


class _Meanwhile(FaultyStore):
    """What the stream does after a list, or before an object is read."""

    after_list: Callable[[], None] | None = None
    before_open: Callable[[], None] | None = None

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        there = list(super().list(prefix))
        do, self.after_list = self.after_list, None
        if do is not None:
            do()
        return iter(there)

    def open(self, key: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        do, self.before_open = self.before_open, None
        if do is not None:
            do()
        return super().open(key, offset=offset, length=length)


@pytest.fixture
def store() -> _Meanwhile:
    return _Meanwhile(MemoryStore())


@pytest.fixture
def archive(store: _Meanwhile) -> WalArchive:
    """Segment 1 and the head of 2."""
    made = WalArchive(store, Codec(1), "shop", "7")
    made.put_segment(_segment(1), b"1" * SIZE)
    _head(made, 2, 100)
    return made


def test_a_head_that_is_replaced_before_it_is_read_is_listed_anew(store: _Meanwhile, archive: WalArchive) -> None:
    store.before_open = lambda: _head(archive, 2, 200)
    assert WalTiers({"primary": archive}).read(_segment(2)) == _found(2, 200)


def test_a_segment_that_is_closed_between_two_looks_is_no_end_of_wal(store: _Meanwhile, archive: WalArchive) -> None:
    def close() -> None:
        archive.put_segment(_segment(2), b"2" * SIZE)
        archive.drop_partials(_segment(2))

    for moment in ("after_list", "before_open"):
        setattr(store, moment, close)
        assert WalTiers({"primary": archive}).read(_segment(2)) == FoundWal(b"2" * SIZE, _segment(2).end)


def test_what_is_listed_for_ever_and_never_there_is_no_absence(store: _Meanwhile, archive: WalArchive) -> None:
    class Stale(FaultyStore):
        def open(self, key: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
            if ".partial" in key:
                raise ObjectNotFound(key)
            return super().open(key, offset=offset, length=length)

    stale = WalArchive(Stale(store), Codec(1), "shop", "7")
    with pytest.raises(ObjectNotFound):
        WalTiers({"primary": stale}).read(_segment(2))
    assert WalTiers({"primary": archive}).read(_segment(3)) is None


def test_of_several_tiers_the_longest_head_and_every_segment(archive: WalArchive) -> None:
    other = WalArchive(MemoryStore(), Codec(1), "shop", "7")
    other.put_segment(_segment(3), b"3" * SIZE)
    both = WalTiers({"primary": archive, "secondary": other})
    assert both.spans() == [
        WalSpan(ONE, _segment(1).start, _segment(2).start + 100),
        WalSpan(ONE, _segment(3).start, _segment(3).end),
    ]
    assert both.first_after(_segment(2)) == _segment(3)
    assert both.first_after(_segment(3)) is None
    _head(other, 2, 300)
    assert both.read(_segment(2)) == _found(2, 300)
    other.put_segment(_segment(2), b"2" * SIZE)
    assert both.spans() == [WalSpan(ONE, _segment(1).start, _segment(3).end)]
    assert both.preferring("secondary").end(ONE) == _segment(3).end


def test_a_damaged_head_gives_way_to_one_of_the_same_length_only() -> None:
    stores = [MemoryStore(), MemoryStore()]
    archives = [WalArchive(inner, Codec(1), "shop", "7") for inner in stores]
    for archive in archives:
        _head(archive, 2, 100)
    damaged = WalArchive(FaultyStore(stores[0], flip_at=3), Codec(1), "shop", "7", SIZE)
    both = WalTiers({"primary": damaged, "secondary": archives[1]})
    assert both.read(_segment(2)) == _found(2, 100)
    _head(archives[0], 2, 101)
    with pytest.raises(IntegrityError):
        both.read(_segment(2))
    assert both.end(ONE) == Lsn(_segment(2).start.value + 101)


def test_a_segment_that_is_closed_between_the_two_questions_is_read_whole(archive: WalArchive, tmp_path: Path) -> None:
    """The receiver renames the head after the whole was asked for; a tier has a shorter one still."""
    spool = Spool(tmp_path).system("1")
    head(spool, 2)
    _head(archive, 2, 100)

    class Closing(SpoolWal):
        def read_segment(self, segment: WalSegment) -> bytes:
            try:
                return super().read_segment(segment)
            finally:
                for path in spool.directory.glob("*.partial"):
                    path.rename(path.with_suffix(""))

    found = WalTiers({"primary": archive, "spool": Closing(tmp_path, "1")}).read(_segment(2))
    assert found is not None and found.end == _segment(2).end


def test_what_is_damaged_here_may_be_whole_where_nobody_answers() -> None:
    store = MemoryStore()
    WalArchive(store, Codec(1), "shop", "1", SIZE).put_segment(_segment(2), b"2" * SIZE)
    damaged = WalArchive(FaultyStore(store, flip_at=3), Codec(1), "shop", "1", SIZE)
    silent = WalArchive(FaultyStore(store, fail_at=1, stays_down=True), Codec(1), "shop", "1", SIZE)
    with pytest.raises(StoreUnavailable):
        WalTiers({"primary": damaged, "secondary": silent}).whole(_segment(2))
    with pytest.raises(IntegrityError):
        WalTiers({"primary": damaged}).whole(_segment(2))
