"""What a restore will do: which backups, which WAL, in which order of preference. Pure; decides, never acts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from dr_pipelines.errors import TargetUnreachable, UsageError, WalGap
from dr_pipelines.lsn import Lsn, Timeline
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.repository.manifest import BackupManifest

TargetKind = Literal["latest", "time", "lsn", "xid", "name", "immediate"]
UseIncrementals = Literal["auto", "always", "never"]

FETCH_RATE = 250e6
"""Raw bytes of backup a second, and of WAL: cautious values of a small machine, for ordering and for previews."""
REPLAY_RATE = 100e6
START_SECONDS = 2.0


@dataclass(frozen=True)
class RecoveryTarget:
    """Where recovery stops: `value` is a datetime (aware), an `Lsn`, or text for xid and name."""

    kind: TargetKind = "latest"
    value: datetime | Lsn | str | None = None
    inclusive: bool = True
    timeline: Timeline | None = None

    def __post_init__(self) -> None:
        wanted = {"time": datetime, "lsn": Lsn, "xid": str, "name": str}.get(self.kind)
        if (wanted is None) != (self.value is None) or (wanted and not isinstance(self.value, wanted)):
            raise UsageError(f"the recovery target {self.kind!r} does not go with {self.value!r}")
        if isinstance(self.value, datetime) and self.value.tzinfo is None:
            raise UsageError("a recovery target time needs a time zone", hint="Write it as 2026-11-23T10:00:00Z.")
        if self.kind == "xid" and not str(self.value).isdigit():
            raise UsageError(f"not a transaction id: {self.value!r}")

    def __str__(self) -> str:
        value = self.value.isoformat() if isinstance(self.value, datetime) else self.value
        return self.kind if value is None else f"{self.kind} {value}"


LATEST = RecoveryTarget()


@dataclass(frozen=True)
class WalSpan:
    """WAL that is there without a gap, from `start` to `end`, on one timeline."""

    timeline: Timeline
    start: Lsn
    end: Lsn


@dataclass(frozen=True)
class Switch:
    """A timeline's history: it left `parent` at `at`."""

    parent: Timeline
    at: Lsn


@dataclass(frozen=True)
class Candidate:
    """One way: unpack `chain` (oldest first) and replay `wal_bytes` from `wal_start` on."""

    chain: tuple[BackupManifest, ...]
    wal_start: Lsn
    wal_bytes: int
    estimated_seconds: float
    provisional: str | None = None

    @property
    def bytes(self) -> int:
        """Raw bytes of the archives."""
        return sum(backup.archive.size for backup in self.chain)

    @property
    def label(self) -> str:
        return self.chain[-1].label


@dataclass(frozen=True)
class RestorePlan:
    """`candidates` in order: when one proves bad, the next is taken. `reachable_end` is the newest LSN
    that the WAL gives."""

    target: RecoveryTarget
    timeline: Timeline
    candidates: tuple[Candidate, ...]
    reachable_end: Lsn
    notes: tuple[str, ...] = ()


def plan_restore(
    backups: Sequence[BackupManifest],
    spans: Sequence[WalSpan],
    histories: Mapping[Timeline, Switch],
    target: RecoveryTarget,
    *,
    label: str | None = None,
    use_incrementals: UseIncrementals = "auto",
    trust_provisional: bool = False,
) -> RestorePlan:
    """All backups of one system. `label` restricts the choice to one backup.

    Raises `TargetUnreachable` when no backup with the WAL that is there reaches the target, `WalGap` when it is a gap
    that is in the way.
    """
    by_label = {backup.label: backup for backup in backups}
    chosen = [backup for backup in backups if label is None or backup.label == label]
    if not chosen:
        raise TargetUnreachable(
            "there is no complete backup" + (f" {label}" if label else ""), hint="`dr list` shows what there is."
        )
    timeline = target.timeline or _newest_timeline(chosen, spans, histories)
    path = lineage(timeline, histories)
    on_path = [backup for backup in chosen if _is_on(backup.timeline, backup.stop_lsn, path)]
    usable = [backup for backup in on_path if _before(backup, target)]
    if not usable:
        raise TargetUnreachable(
            f"no backup on timeline {timeline.id} ends before the target {target}",
            hint=f"The oldest backup ends at {_moment(min(chosen, key=lambda b: b.stop_lsn))}; ask for a later target.",
        )
    ways = []
    for backup in usable:
        chain = chain_of(backup, by_label)
        if chain is None or (use_incrementals == "never" and len(chain) > 1):
            continue
        end = covered_until(backup, spans, path)
        if end is not None and _reaches(end, target):
            ways.append(_candidate(chain, end, target, spans, path))
    if not ways:
        _raise_unreachable(usable, spans, path, target)
    furthest = max(covered for way in ways if (covered := covered_until(way.chain[-1], spans, path)) is not None)
    if target.kind in ("latest", "time", "xid", "name"):
        # A backup whose WAL ends at a gap would end early; only those that get furthest are equal ways.
        ways = [way for way in ways if covered_until(way.chain[-1], spans, path) == furthest]
    trusted = trust_provisional or use_incrementals == "always"
    ways.sort(key=lambda way: (way.provisional is not None and not trusted, way.estimated_seconds))
    if use_incrementals == "always":
        ways.sort(key=lambda way: len(way.chain) == 1)
    if target.kind == "immediate":
        ways.sort(key=lambda way: way.chain[-1].stop_lsn, reverse=True)
    return RestorePlan(target, timeline, tuple(ways), furthest, tuple(_notes(ways[0], ways)))


def chain_of(backup: BackupManifest, by_label: Mapping[str, BackupManifest]) -> tuple[BackupManifest, ...] | None:
    """Oldest first, down to the full; None when a parent is not there."""
    chain = [backup]
    while chain[-1].parent is not None:
        parent = by_label.get(chain[-1].parent)
        if parent is None or parent in chain:
            return None
        chain.append(parent)
    return tuple(reversed(chain)) if chain[-1].kind is BackupKind.FULL else None


def lineage(timeline: Timeline, histories: Mapping[Timeline, Switch]) -> dict[Timeline, Lsn | None]:
    """Every timeline on the way to `timeline`, with where it was left (None: the last one)."""
    path: dict[Timeline, Lsn | None] = {timeline: None}
    while (switch := histories.get(timeline)) is not None and switch.parent not in path:
        path[switch.parent] = switch.at
        timeline = switch.parent
    return path


def covered_until(backup: BackupManifest, spans: Sequence[WalSpan], path: Mapping[Timeline, Lsn | None]) -> Lsn | None:
    """The newest LSN that replay from `backup` reaches along `path`; None when it cannot even become consistent."""
    at, timeline = backup.start_lsn, backup.timeline
    for step in sorted(moment for moment in path if moment >= timeline):
        span = next((s for s in spans if s.timeline == step and s.start <= at <= s.end), None)
        left_at = path[step]
        if span is None:
            break
        if left_at is not None and span.end < left_at:
            at = span.end
            break
        at = span.end if left_at is None else left_at
    return at if at >= backup.stop_lsn and at > backup.start_lsn else None


def _is_on(timeline: Timeline, lsn: Lsn, path: Mapping[Timeline, Lsn | None]) -> bool:
    if timeline not in path:
        return False
    left_at = path[timeline]
    return left_at is None or lsn <= left_at


def _before(backup: BackupManifest, target: RecoveryTarget) -> bool:
    if isinstance(target.value, Lsn):
        return backup.stop_lsn <= target.value
    if isinstance(target.value, datetime):
        return backup.finished_at <= target.value
    return True


def _reaches(end: Lsn, target: RecoveryTarget) -> bool:
    return not isinstance(target.value, Lsn) or target.value <= end


def _newest_timeline(
    backups: Sequence[BackupManifest], spans: Sequence[WalSpan], histories: Mapping[Timeline, Switch]
) -> Timeline:
    """The newest one that descends from a backup: as PostgreSQL's `latest`, but chosen with the whole archive in view,
    so that a history file that is missing cannot silently select an older one."""
    known = {s.timeline for s in spans} | {b.timeline for b in backups} | set(histories)
    for timeline in sorted(known, reverse=True):
        path = lineage(timeline, histories)
        if any(_is_on(backup.timeline, backup.stop_lsn, path) for backup in backups):
            return timeline
        if timeline.id > 1 and timeline not in histories:
            raise WalGap(
                f"the history file of timeline {timeline.id} is missing",
                hint="Name the timeline to restore to with --timeline, or restore from another tier.",
            )
    return max(backup.timeline for backup in backups)


def _candidate(
    chain: tuple[BackupManifest, ...],
    end: Lsn,
    target: RecoveryTarget,
    spans: Sequence[WalSpan],
    path: Mapping[Timeline, Lsn | None],
) -> Candidate:
    newest = chain[-1]
    stop = target.value if isinstance(target.value, Lsn) else newest.stop_lsn if target.kind == "immediate" else end
    wal = max(0, stop - newest.start_lsn)
    size = sum(backup.archive.size for backup in chain)
    provisional = next((f"{b.label}: {b.provisional}" for b in chain if b.provisional), None)
    return Candidate(chain, newest.start_lsn, wal, size / FETCH_RATE + wal / REPLAY_RATE + START_SECONDS, provisional)


def _raise_unreachable(
    usable: Sequence[BackupManifest],
    spans: Sequence[WalSpan],
    path: Mapping[Timeline, Lsn | None],
    target: RecoveryTarget,
) -> None:
    ends = [end for backup in usable if (end := covered_until(backup, spans, path)) is not None]
    if not ends:
        raise WalGap(
            "the WAL that the backups need to become consistent is not there",
            hint="Restore from another tier (--tier), or see `dr status` for the gap.",
        )
    newest = max(ends)
    later = [s.start for s in spans if s.timeline in path and s.start > newest]
    where = f"; then WAL is missing until {min(later)}" if later else ""
    raise TargetUnreachable(
        f"the target {target} lies after the newest WAL that can be replayed: {newest}{where}",
        hint=f"Ask for a target up to {newest}, for latest, or for another tier (--tier).",
    )


def _moment(backup: BackupManifest) -> str:
    return f"{backup.finished_at.isoformat()} ({backup.stop_lsn})"


def _notes(best: Candidate, ways: Sequence[Candidate]) -> list[str]:
    if best.provisional is None and any(way.provisional for way in ways):
        return ["incrementals are provisional on this PostgreSQL, so a chain without one and more WAL is taken"]
    if best.provisional is not None:
        return [f"the chain holds a provisional incremental ({best.provisional})"]
    return []
