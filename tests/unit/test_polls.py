"""Whether rows are looked at as often as planned: what counts as late, and what excuses it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from dr_pipelines.objectives.polls import Polls, rows_are_polled

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def ago(minutes: float) -> datetime:
    return NOW - timedelta(minutes=minutes)


@pytest.mark.parametrize(
    ("polls", "well", "says"),
    [
        (Polls(), False, "not looked at at all"),
        (Polls(ago(14), ago(14)), True, "11:46:00"),
        (Polls(ago(16), ago(16)), False, "since 2026-11-26 11:44:00 UTC; the plan says every 5 minutes"),
        (Polls(ago(16), ago(1), trouble="no server answers"), False, "no server answers"),
        (Polls(ago(16), ago(1), waits=True), True, "waits for a snapshot"),
        (Polls(ago(30), ago(16), waits=True), False, "since 2026-11-26 11:30:00 UTC"),  # nobody tries any more
        (Polls(ago(76), ago(1), waits=True), False, "does not come to its end"),
        (Polls(None, ago(1), waits=True), False, "at all"),
        (Polls(ago(-60), ago(-60)), False, "since 2026-11-26 13:00:00 UTC"),  # a clock was ahead
    ],
)
def test_several_intervals_without_a_poll_fail_unless_a_snapshot_is_taken(polls: Polls, well: bool, says: str) -> None:
    found = rows_are_polled("docs", polls, timedelta(minutes=5), longest=HOUR, now=NOW)
    assert (found.passed, says in found.summary) == (well, True), found


def test_runs_need_their_time_however_short_the_interval() -> None:
    found = rows_are_polled("docs", Polls(ago(0.9), ago(0.9)), timedelta(seconds=5), longest=HOUR, now=NOW)
    assert found.passed
