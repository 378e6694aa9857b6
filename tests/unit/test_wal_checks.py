"""Where WAL is missing along a path of timelines."""

from __future__ import annotations

from dr_pipelines.checks import Verdict
from dr_pipelines.lsn import Lsn, Timeline, WalSegment
from dr_pipelines.postgres.wal_checks import TimelineWal, missing_segments, wal_has_no_gap
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.repository import Repository
from dr_pipelines.storage.memory import MemoryStore
from tests.support.archives import manifest

SIZE = 1 << 20
ONE, TWO = Timeline(1), Timeline(2)


def at(segments: float) -> Lsn:
    return Lsn(int(segments * SIZE))


def names(result: tuple[list[object], Lsn | None]) -> list[str]:
    return [str(segment)[-2:] for segment in result[0]]


def test_nothing_is_missing_up_to_the_open_segment() -> None:
    held = {ONE: TimelineWal(frozenset({2, 3, 4}), 5, at(5.5))}
    assert missing_segments(at(2.3), ONE, [(ONE, None)], held, SIZE) == ([], at(5.5))


def test_a_hole_is_named() -> None:
    held = {ONE: TimelineWal(frozenset({2, 5}), 6, at(6.5))}
    assert names(missing_segments(at(2.3), ONE, [(ONE, None)], held, SIZE)) == ["03", "04"]


def test_a_hole_before_the_open_segment_is_named() -> None:
    held = {ONE: TimelineWal(frozenset({2}), 4, at(4.1))}
    assert names(missing_segments(at(2.3), ONE, [(ONE, None)], held, SIZE)) == ["03"]


def test_the_segment_of_the_switch_may_lie_on_either_timeline() -> None:
    path = [(ONE, at(4.5)), (TWO, None)]
    held = {ONE: TimelineWal(frozenset({2, 3})), TWO: TimelineWal(frozenset({4}), 5, at(5.2))}
    assert missing_segments(at(2.3), ONE, path, held, SIZE) == ([], at(5.2))
    held = {ONE: TimelineWal(frozenset({2, 3}), 4, at(4.5)), TWO: TimelineWal(frozenset({5}))}
    assert names(missing_segments(at(2.3), ONE, path, held, SIZE)) == ["04"]


def test_the_last_whole_segment_before_a_switch_is_needed() -> None:
    path = [(ONE, at(4.5)), (TWO, None)]
    held = {ONE: TimelineWal(frozenset({2})), TWO: TimelineWal(frozenset({4}), 5, at(5.2))}
    assert names(missing_segments(at(2.3), ONE, path, held, SIZE)) == ["03"]


def test_a_backup_on_a_timeline_without_wal_is_no_pass() -> None:
    """A recovered server goes on, on a new timeline, and nothing streams it."""
    repository = Repository(MemoryStore("memory"), Codec(1), "primary")
    first = manifest(start_lsn=at(2.2), stop_lsn=at(2.5), segment_size=SIZE)
    repository.wal("shop", first.system_id).put_segment(WalSegment(ONE, 2, SIZE), bytes(SIZE))
    assert wal_has_no_gap(repository, "shop", [first]).passed
    second = manifest("20260102T040000Z-full", timeline=TWO, start_lsn=at(4), stop_lsn=at(4.1), segment_size=SIZE)
    check = wal_has_no_gap(repository, "shop", [first, second])
    assert check.verdict is Verdict.FAIL
    assert f"{second.label} is on timeline 2" in check.summary
