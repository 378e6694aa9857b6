"""What has to be right before a receiver starts: that the server went not back, and where it goes on without a hole.

A receiver takes its start from the newest file in the spool, else from its slot; so the spool is put in order first.
What does not belong here: processes, stores, and what is lost when the server has not what comes next.

Source: `FindStreamingStart` in pg_receivewal.c.
"""

from __future__ import annotations

from dr_pipelines.errors import ServerError, ServerMisconfigured, ServerUnavailable
from dr_pipelines.lsn import Lsn, Timeline
from dr_pipelines.postgres.wal_pages import PAGE_SIZE
from dr_pipelines.postgres.wal_resume import History, Position, lost_spool_segment, parse_history, resume_segment
from dr_pipelines.postgres.wal_slots import Facts, StreamedServer
from dr_pipelines.postgres.wal_spool import SystemSpool


def require_not_behind(
    server: StreamedServer, facts: Facts, name: str, timeline: Timeline, received: Position | None
) -> None:
    """A server that went back on its own timeline (a copy of its disk was put back) would write other WAL under the
    same names. A standby may well be behind. Raises `ServerMisconfigured`."""
    if received is None or received[0] != timeline or facts.in_recovery:
        return
    flushed = server.flush_lsn()
    if received[1] > flushed + PAGE_SIZE:
        raise ServerMisconfigured(
            f"{name} is at {flushed} on timeline {timeline.id} and {received[1]} was received before: "
            "it went back without a new timeline",
            hint="recover it with a recovery target, so that it starts a new timeline, and take a full.",
        )


def arrange_start(
    server: StreamedServer,
    system: SystemSpool,
    current: Timeline,
    segment_size: int,
    *,
    slot_at: Lsn | None,
    held: Lsn | None,
    known: Position | None,
) -> None:
    """Put the spool in order for a receiver on the server's `current` timeline.

    After a promotion or a restore in place, histories are fetched, open heads of old timelines are copied aside before
    the receiver writes them anew, and a spool that is ahead of the switch is put aside whole. An empty spool would make
    it start where its slot is (`slot_at`), which is where a lost spool was: `held` and `known` say what is safe.
    """
    theirs = _follow(server, system, current)
    received = system.received()
    if received is not None:
        _go_on(system, received, theirs, current, segment_size)
    elif system.is_empty():
        start = lost_spool_segment(known, held, theirs, current, segment_size)
        if start is not None and slot_at is not None and start.start < slot_at:
            system.seed(start)


def _follow(server: StreamedServer, system: SystemSpool, current: Timeline) -> History:
    """The server's history, and all older ones fetched: recovery looks for them one after the other and takes a missing
    one for the end."""
    if current.id == 1:
        return []
    theirs = parse_history(server.timeline_history(current))
    for timeline in [*(timeline for timeline, _ in theirs), current]:
        if timeline.id > 1 and timeline not in system.histories():
            try:
                system.write_history(timeline, server.timeline_history(timeline))
            except ServerUnavailable:
                raise
            except ServerError:
                continue  # an old one that the server itself has no more
    system.seal(before=current)
    return theirs


def _go_on(system: SystemSpool, received: Position, theirs: History, current: Timeline, segment_size: int) -> None:
    ours = parse_history(system.read_history(received[0])) if received[0] in system.histories() else []
    resume = resume_segment(ours, received, theirs, current, segment_size)
    if resume is not None:
        system.set_aside()
        system.seed(resume)
