"""From where the receiver goes on after the server changed its timeline: a promotion, or a restore in place.

A pure function over timeline histories. What does not belong here: files, servers.
Source: PostgreSQL manual, "Timelines"; `FindStreamingStart` in pg_receivewal.c goes by position before timeline, so a
spool that is ahead of the switch has to be put aside first.
"""

from __future__ import annotations

from collections.abc import Sequence

from dr_pipelines.lsn import Lsn, Timeline, WalSegment

History = Sequence[tuple[Timeline, Lsn | None]]
"""Timelines, oldest first, each with the position where it was left."""


Position = tuple[Timeline, Lsn]


def parse_history(history: bytes) -> list[tuple[Timeline, Lsn | None]]:
    """Lines of `<timeline> TAB <position where it was left> TAB <reason>`; comments and empty lines are skipped."""
    rows = [line.split(None, 2) for line in history.decode(errors="replace").splitlines()]
    return [(Timeline(int(row[0])), Lsn.parse(row[1])) for row in rows if len(row) >= 2 and row[0].isdigit()]


def resume_segment(
    ours: History, received: Position, theirs: History, current: Timeline, segment_size: int
) -> WalSegment | None:
    """The segment to go on with so that nothing before it is missing. `ours` and `theirs` are the histories of the
    received timeline and of the server's `current` one. None: the receiver finds its way along from `received`."""
    if received[0] == current:
        return None
    path = [*theirs, (current, None)]
    left_by_us = dict([*ours, received])
    common = [index for index, (timeline, _) in enumerate(path) if timeline in left_by_us]
    if not common:
        return WalSegment.containing(received[1], current, segment_size)
    timeline, left = path[common[-1]]
    reached = left_by_us[timeline] or received[1]
    if left is None or (reached < left and timeline != received[0]):
        return WalSegment.containing(min(reached, left or reached), timeline, segment_size)
    switch = WalSegment.containing(left, path[common[-1] + 1][0], segment_size)
    # The switch's segment begins on the new timeline with a copy of the old one's head.
    return switch if reached >= switch.start else None


def lost_spool_segment(
    known: Position | None, held: Lsn | None, theirs: History, current: Timeline, segment_size: int
) -> WalSegment | None:
    """The segment to start with where the spool is empty: the older of where the tiers are by our own account (`known`)
    and by the server's slot (`held`). None: nothing is known of a stream before."""
    found = []
    if known is not None:
        resume = resume_segment([], known, theirs, current, segment_size)
        found.append(resume or WalSegment.containing(known[1], known[0], segment_size))
    if held is not None:
        found.append(WalSegment.containing(held, _timeline_at(held, theirs, current), segment_size))
    return min(found, key=lambda segment: segment.number, default=None)


def _timeline_at(lsn: Lsn, history: History, current: Timeline) -> Timeline:
    return next((timeline for timeline, left in history if left is not None and lsn < left), current)
