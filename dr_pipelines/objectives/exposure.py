"""RPO exposure of a server: what would be lost if it were gone now and one place alone were left.

Of a tier it is the time since the newest commit that can be restored from it. A tier that has reached the position at
which the server was a moment ago holds everything that was committed by then, however long ago the last commit was.
Losing nothing is not measured but claimed, of the WAL stream, and only while commits wait for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from dr_pipelines.checks import Verdict
from dr_pipelines.lsn import Lsn, Timeline
from dr_pipelines.postgres.recovery_windows import RecoveryWindow, SystemWindows
from dr_pipelines.repository.layout import parse_label

STREAM = "stream"
"""The place beside the tiers: the host of the WAL stream, together with what the tiers hold."""


@dataclass(frozen=True)
class ServerPosition:
    """Where the server was when it was asked. `asked_at` is by this host's clock, before the question; `sync_state` and
    `state` are what pg_stat_replication says of the WAL stream (None where it is not there or may not be seen)."""

    asked_at: datetime
    system_id: str
    timeline: Timeline
    lsn: Lsn
    in_recovery: bool = False
    connected: bool = False
    state: str | None = None
    sync_state: str | None = None
    synchronous_commit: str = "on"


@dataclass(frozen=True)
class NewestCommit:
    """What the stored WAL itself says. `at` is by the server's clock; None: it holds no commit. `searched` is False
    where the WAL could not be read, for the reason `why`."""

    searched: bool
    at: datetime | None = None
    why: str = ""


NOT_SEARCHED = NewestCommit(False)


@dataclass(frozen=True)
class FilesSeen:
    """What a tier has of a file set is as it was at `until`, if nothing was written since; `how` that is known."""

    until: datetime
    how: str


@dataclass(frozen=True)
class Exposure:
    """Seconds, between `at_least` and `seconds`. `seconds` is None where no end can be told: nothing can be restored
    (`at_least` is None too), or it could not be seen (`seen` is False). `recoverable_until`: everything committed by
    then is there. `how` says how that is known, or why not."""

    place: str
    seconds: float | None
    at_least: float | None
    how: str
    seen: bool = True
    recoverable_until: datetime | None = None

    def within(self, promised: timedelta) -> Verdict:
        """Whether a loss of no more than `promised` is proven."""
        if not self.seen:
            return Verdict.NOT_PROVEN
        if self.at_least is None or self.at_least > promised.total_seconds():
            return Verdict.FAIL
        if self.seconds is None or self.seconds > promised.total_seconds():
            return Verdict.NOT_PROVEN
        return Verdict.PASS


def unseen(place: str, why: str) -> Exposure:
    return Exposure(place, None, None, why, seen=False)


def leads_to(system: SystemWindows | None, position: ServerPosition) -> bool:
    """Whether what a tier holds can be restored up to its newest WAL, and that is of the server's own timeline."""
    window = _last_window(system)
    if system is None or window is None or system.system_id != position.system_id:
        return False
    return window.timeline == position.timeline and window.end == system.wal_end


def has_caught_up(system: SystemWindows | None, position: ServerPosition) -> bool:
    """Whether a tier alone brings back everything up to where the server was."""
    window = _last_window(system)
    return leads_to(system, position) and window is not None and window.end >= position.lsn


def tier_exposure(
    tier: str,
    system: SystemWindows | None,
    position: ServerPosition | None,
    *,
    seen_at: datetime,
    commit: NewestCommit = NOT_SEARCHED,
) -> Exposure:
    """Of what a tier held of the newest `system` at `seen_at`. Without a `position` (the server did not answer) the
    stores alone speak: the time grows though an idle server loses nothing."""
    window = _last_window(system)
    if system is None or window is None:
        return Exposure(tier, None, None, "no backup there can be restored")
    if position is not None and system.system_id != position.system_id:
        return Exposure(tier, None, None, f"it holds system {system.system_id}, the server is {position.system_id}")
    if position is not None and has_caught_up(system, position):
        seconds = _since(position.asked_at, seen_at)
        how = f"holds {window.end}; the server was at {position.lsn}"
        return Exposure(tier, seconds, 0.0, how, recoverable_until=position.asked_at)
    return _behind(tier, window, commit, seen_at)


def files_exposure(tier: str, newest: FilesSeen | None, *, seen_at: datetime) -> Exposure:
    """Of a file set on a tier: everything since its newest snapshot."""
    if newest is None:
        return Exposure(tier, None, None, "no snapshot there can be restored")
    seconds = _since(newest.until, seen_at)
    return Exposure(tier, seconds, seconds, f"{newest.how} of {newest.until:%Y-%m-%d %H:%M:%S} UTC", True, newest.until)


def stream_exposure(
    position: ServerPosition | None, tiers: Sequence[SystemWindows | None], *, slot: str, gap: str | None, why: str = ""
) -> Exposure:
    """0 where the server says that commits wait for the stream, and a tier holds what its WAL goes on from. `gap`: WAL
    that the stream lost and no full has made good since. `why` there is no position."""
    if position is None:
        return unseen(STREAM, f"the server could not be asked: {why}")
    if (reason := _not_synchronous(position, slot)) is not None:
        return Exposure(STREAM, None, 0.0, f"not claimed: {reason}")
    if gap is not None:
        return Exposure(STREAM, None, 0.0, f"not claimed: WAL was lost and no full was taken since: {gap}")
    if not any(leads_to(system, position) for system in tiers):
        return Exposure(STREAM, None, 0.0, "not claimed: no tier can be restored up to the newest WAL that it holds")
    return Exposure(STREAM, 0.0, 0.0, f"commits wait for {slot} ({position.sync_state})")


def _not_synchronous(position: ServerPosition, slot: str) -> str | None:
    if position.in_recovery:
        return "the server is a standby, and commits on its primary do not wait for this stream"
    if not position.connected:
        return f"no stream {slot} is connected"
    if position.state is None or position.sync_state is None:
        return "the role may not see how the stream stands; run: GRANT pg_monitor TO the plan's connection.user"
    if position.state != "streaming" or position.sync_state not in ("sync", "quorum"):
        return f"the server says that {slot} is {position.sync_state} and {position.state}"
    if position.synchronous_commit not in ("on", "remote_apply"):
        return f"synchronous_commit is {position.synchronous_commit}: commits do not wait for the stream's disk"
    return None


def _behind(tier: str, window: RecoveryWindow, commit: NewestCommit, seen_at: datetime) -> Exposure:
    """The commit's time is the server's, and never later than when its WAL was stored. A backup holds everything that
    was committed before it began."""
    backups = [parse_label(point.label)[0] for point in window.points]
    known = [*backups, *([min(commit.at, window.end_at)] if commit.at is not None else [])]
    until = max(known, default=None)
    at_most = None if until is None else _since(until, seen_at)
    if commit.searched and at_most is not None:
        said = "its newest commit" if commit.at is not None and until != max(backups, default=None) else "its backup"
        return Exposure(tier, at_most, at_most, f"{said} is of {until:%Y-%m-%d %H:%M:%S} UTC", True, until)
    stored = min(window.end_at, seen_at)
    how = f"WAL up to {window.end} was stored at {stored:%Y-%m-%d %H:%M:%S} UTC"
    at_least = _since(stored, seen_at) if at_most is None else min(at_most, _since(stored, seen_at))
    return Exposure(tier, at_most, at_least, f"{how}{'; ' if commit.why else ''}{commit.why}", True, until)


def _last_window(system: SystemWindows | None) -> RecoveryWindow | None:
    return system.windows[-1] if system is not None and system.windows else None


def _since(then: datetime, now: datetime) -> float:
    return max(0.0, (now - then).total_seconds())
