"""Positions in the WAL: names round-trip and order as PostgreSQL orders them, for every segment size."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dr_pipelines.lsn import Lsn, Timeline, WalSegment, is_history_name, is_segment_name

sizes = st.sampled_from([1 << shift for shift in range(20, 31)])
positions = st.integers(0, (1 << 63) - 1).map(Lsn)
timelines = st.integers(1, (1 << 32) - 1).map(Timeline)


@given(positions)
def test_lsn_round_trips(lsn: Lsn) -> None:
    assert Lsn.parse(str(lsn)) == lsn


@given(positions, timelines, sizes)
def test_segment_names_round_trip_and_cover_their_lsn(lsn: Lsn, timeline: Timeline, size: int) -> None:
    segment = WalSegment.containing(lsn, timeline, size)
    assert segment.start <= lsn < segment.end
    if segment.log < 1 << 32:
        assert is_segment_name(segment.name)
        assert WalSegment.parse(segment.name, size) == segment


@given(positions, positions, timelines)
def test_names_sort_as_positions_do(one: Lsn, other: Lsn, timeline: Timeline) -> None:
    first, second = (WalSegment.containing(lsn, timeline, 1 << 24) for lsn in (one, other))
    if first.log < 1 << 32 and second.log < 1 << 32:
        assert (first.name < second.name) == (first < second)


def test_known_names() -> None:
    segment = WalSegment.parse("000000010000000A000000FF", 1 << 24)
    assert str(segment.start) == "A/FF000000"
    assert segment.next().name == "000000010000000B00000000"
    assert Timeline(2).history_file == "00000002.history"
    assert is_history_name("00000002.history")
    assert Timeline.of_history_file("0000000B.history") == Timeline(11)


@pytest.mark.parametrize("text", ["", "0", "0/", "G/0", "0/123456789", "1/2/3", " 0/0"])
def test_what_is_no_lsn_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an LSN"):
        Lsn.parse(text)


def test_a_name_of_another_segment_size_is_refused() -> None:
    with pytest.raises(ValueError, match="not a WAL segment"):
        WalSegment.parse("0000000100000000000000FF", 1 << 30)
