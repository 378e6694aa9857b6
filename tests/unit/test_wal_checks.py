"""Where WAL is missing along a path of timelines."""

from __future__ import annotations

from dr_pipelines.lsn import Lsn, Timeline
from dr_pipelines.postgres.wal_checks import TimelineWal, missing_segments

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
