"""From which segment the stream goes on after a timeline switch. Positions are in segments."""

from __future__ import annotations

import pytest

from dr_pipelines.lsn import Lsn, Timeline
from dr_pipelines.postgres.wal_resume import lost_spool_segment, parse_history, resume_segment

SIZE = 1 << 20
ONE, TWO, THREE = Timeline(1), Timeline(2), Timeline(3)


def at(segments: float) -> Lsn:
    return Lsn(int(segments * SIZE))


@pytest.mark.parametrize(
    ("ours", "received", "theirs", "current", "wanted"),
    [
        ([], (ONE, at(5.5)), [], ONE, None),
        ([], (ONE, at(3.5)), [(ONE, at(5.5))], TWO, None),
        ([], (ONE, at(5.1)), [(ONE, at(5.5))], TWO, (TWO, 5)),
        ([], (ONE, at(9.1)), [(ONE, at(5.5))], TWO, (TWO, 5)),
        ([], (ONE, at(9.1)), [(ONE, at(5.5)), (TWO, at(7.5))], THREE, (TWO, 5)),
        ([(ONE, at(5.5))], (TWO, at(7.5)), [(ONE, at(8.5))], THREE, (ONE, 5)),
        ([(ONE, at(5.5))], (TWO, at(7.5)), [(ONE, at(4.5))], THREE, (THREE, 4)),
    ],
    ids=[
        "no switch",
        "the receiver finds its way",
        "within the switch's segment",
        "ahead of the switch",
        "over two switches",
        "another branch, left later",
        "another branch, left earlier",
    ],
)
def test_the_stream_goes_on_where_nothing_is_missing(
    ours: list[tuple[Timeline, Lsn | None]],
    received: tuple[Timeline, Lsn],
    theirs: list[tuple[Timeline, Lsn | None]],
    current: Timeline,
    wanted: tuple[Timeline, int] | None,
) -> None:
    found = resume_segment(ours, received, theirs, current, SIZE)
    assert (None if found is None else (found.timeline, found.number)) == wanted


def test_a_history_is_a_list_of_switches() -> None:
    text = b"# comment\n\n1\t0/3000148\tno recovery target specified\n2\t0/5000000\tbefore 2026\n"
    assert parse_history(text) == [(ONE, Lsn.parse("0/3000148")), (TWO, Lsn.parse("0/5000000"))]


@pytest.mark.parametrize(
    ("known", "held", "theirs", "current", "wanted"),
    [
        (None, None, [], ONE, None),
        ((ONE, at(5.5)), None, [], ONE, (ONE, 5)),
        ((ONE, at(5.5)), at(3.5), [], ONE, (ONE, 3)),
        ((ONE, at(3.5)), at(5.5), [], ONE, (ONE, 3)),
        ((ONE, at(3.5)), None, [(ONE, at(5.5))], TWO, (ONE, 3)),
        ((ONE, at(9.5)), None, [(ONE, at(5.5))], TWO, (TWO, 5)),
        (None, at(3.5), [(ONE, at(5.5)), (TWO, at(7.5))], THREE, (ONE, 3)),
        (None, at(6.5), [(ONE, at(5.5)), (TWO, at(7.5))], THREE, (TWO, 6)),
        (None, at(8.5), [(ONE, at(5.5)), (TWO, at(7.5))], THREE, (THREE, 8)),
    ],
    ids=[
        "nothing is known",
        "only what was shipped is known",
        "the slot is behind",
        "the slot is ahead",
        "before the switch",
        "the server went back to before what was shipped",
        "a slot two timelines back",
        "a slot one timeline back",
        "a slot on the current timeline",
    ],
)
def test_without_a_spool_the_stream_starts_where_nothing_is_missing(
    known: tuple[Timeline, Lsn] | None,
    held: Lsn | None,
    theirs: list[tuple[Timeline, Lsn | None]],
    current: Timeline,
    wanted: tuple[Timeline, int] | None,
) -> None:
    found = lost_spool_segment(known, held, theirs, current, SIZE)
    assert (None if found is None else (found.timeline, found.number)) == wanted
