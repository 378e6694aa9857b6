"""Which transactions a snapshot sees, and where in the WAL it stands.

A commit is in the WAL before others see it: until its WAL is on disk, and with synchronous replication until a standby
has it, it waits. So a position and a snapshot go together only when nothing that waits lies before the position, and
nothing that is seen behind it. Here is how close they are brought, and how it is known afterwards what lay between.
Source: PostgreSQL manual, "Snapshot Information Functions"; `RecordTransactionCommit`, `SyncRepWaitForLSN`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dr_pipelines.lsn import Lsn
from dr_pipelines.postgres.session import ReadSession

_LOOKED_AT_MOST = 1_000_000
"""Transactions whose state is asked of a copy."""
_NAMED = 20


@dataclass(frozen=True)
class Sight:
    """`pg_snapshot`: transactions below `xmax` that are not `running` have ended. (A standby names none as running.)"""

    xmin: int
    xmax: int
    running: frozenset[int]

    @classmethod
    def parse(cls, text: str) -> Sight:
        xmin, xmax, running = text.split(":")
        return cls(int(xmin), int(xmax), frozenset(int(xid) for xid in running.split(",") if xid))

    def __str__(self) -> str:
        return f"{self.xmin}:{self.xmax}:{','.join(map(str, sorted(self.running)))}"

    def sees_what(self, other: Sight) -> bool:
        """Whether the same transactions have ended in both. One that began in between makes no difference."""
        upto = max(self.xmax, other.xmax)
        return self._open(upto) == other._open(upto)

    def _open(self, upto: int) -> frozenset[int]:
        return self.running | frozenset(range(self.xmax, upto))


NOTHING = Sight(0, 0, frozenset())


@dataclass(frozen=True)
class Moment:
    """What a server said at one instant. Every commit that `sight` sees lies before `lsn`, unless it was one that waits
    for less than the server's `synchronous_commit`; `written` is where WAL was written to (None on a standby)."""

    sight: Sight
    lsn: Lsn
    written: Lsn | None


def look(session: ReadSession) -> Moment:
    """The snapshot comes first, then the position."""
    return _moment(session.ask(_LOOK)[0])


def begin_and_look(session: ReadSession) -> Moment:
    """As `look`, with the snapshot that the session's transaction has from now on."""
    return _moment(session.begin(_LOOK))


_LOOK = """
SELECT pg_current_snapshot()::text, CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()::text END,
       CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_insert_lsn()::text END,
       CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_flush_lsn()::text END,
       current_setting('synchronous_commit'), current_setting('synchronous_standby_names'),
       ARRAY(SELECT CASE current_setting('synchronous_commit') WHEN 'remote_write' THEN write_lsn
                    WHEN 'remote_apply' THEN replay_lsn ELSE flush_lsn END::text
             FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum'))
"""


def _moment(row: Sequence[Any]) -> Moment:
    snapshot, replayed, written, flushed, level, names, standbys = row
    sight = Sight.parse(snapshot)
    if replayed is not None:
        return Moment(sight, Lsn.parse(replayed), None)
    insert, flush = Lsn.parse(written), Lsn.parse(flushed)
    if level == "off":
        return Moment(sight, insert, insert)
    confirmed = [Lsn.parse(text) for text in standbys if text]
    if level == "local" or not names or not confirmed:
        return Moment(sight, flush, insert)
    return Moment(sight, min(flush, released(names, confirmed)), insert)


def released(names: str, confirmed: Sequence[Lsn]) -> Lsn:
    """Up to where commits do not wait any more: `FIRST` waits for all that count as synchronous, `ANY n` for n."""
    quorum = re.match(r"\s*ANY\s+(\d+)", names, re.IGNORECASE)
    wanted = min(int(quorum[1]), len(confirmed)) if quorum else len(confirmed)
    return sorted(confirmed, reverse=True)[wanted - 1]


@dataclass(frozen=True)
class Overlap:
    """Transactions that one of a snapshot and a copy sees and the other may not. `unknown`: too many to be told."""

    extra: tuple[int, ...] = ()
    missing: tuple[int, ...] = ()
    unknown: bool = False

    def __bool__(self) -> bool:
        return bool(self.extra or self.missing or self.unknown)

    def __str__(self) -> str:
        if self.unknown:
            return "more transactions than can be told"
        named = [*self.extra, *self.missing]
        more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
        return f"transaction{'s' if len(named) > 1 else ''} {', '.join(map(str, named[:_NAMED]))}{more}"


def overlap(copy: ReadSession, source: Sight) -> Overlap:
    """How a copy in recovery, which stands still, differs from a snapshot of its source."""
    here = Sight.parse(copy.ask("SELECT pg_current_snapshot()::text")[0][0])
    ahead = range(source.xmax, here.xmax)
    behind = range(min(here.xmin, source.xmax), source.xmax)
    if len(ahead) + len(behind) > _LOOKED_AT_MOST:
        return Overlap(unknown=True)
    extra = _in_state(copy, [*sorted(source.running), *ahead], here, "= 'committed'")
    # What was not running at the source had ended there, one way or the other.
    missing = _in_state(copy, [xid for xid in behind if xid not in source.running], here, "= 'in progress'")
    unseen = [xid for xid in range(here.xmax, source.xmax) if xid not in source.running]
    return Overlap(tuple(extra), tuple(sorted({*missing, *unseen})))


def _in_state(copy: ReadSession, xids: Sequence[int], here: Sight, state: str) -> list[int]:
    """Those of a copy that are in a state; it has heard of none from its `xmax` on."""
    known = [xid for xid in xids if xid < here.xmax]
    if not known:
        return []
    rows = copy.ask(
        f"SELECT xid::text FROM unnest(%s::text[]::xid8[]) AS xid WHERE pg_xact_status(xid) {state} ORDER BY xid",
        ([str(xid) for xid in known],),
    )
    return [int(xid) for (xid,) in rows]
