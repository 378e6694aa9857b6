"""What a restore will do: which backups, which WAL, in which order of preference. Pure; decides, never acts."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NoReturn

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
            raise UsageError("a recovery target time needs a time zone", hint="write it as 2026-11-23T10:00:00Z.")
        if self.kind == "xid" and not str(self.value).isdigit():
            raise UsageError(f"not a transaction id: {self.value!r}")
        if self.value == "":
            raise UsageError(f"the recovery target {self.kind} is empty")
        if not self.inclusive and self.kind not in ("time", "lsn", "xid"):
            raise UsageError(
                f"{self.kind} has nothing before it to stop at", hint="--exclusive goes with --time, --lsn and --xid."
            )

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
    proven: Collection[str] = (),
) -> RestorePlan:
    """All backups of one system. `label` restricts the choice to one backup; xid and name must have become an LSN.
    `proven` incrementals were compared with their full and its WAL: with all that they build on they are provisional no
    more.

    Raises `TargetUnreachable` when no backup with the WAL that is there reaches the target, `WalGap` when it is a gap
    that is in the way.
    """
    chosen = [backup for backup in backups if label is None or backup.label == label]
    if not chosen:
        raise TargetUnreachable(
            "there is no complete backup" + (f" {label}" if label else ""), hint="`dr list` shows what there is."
        )
    timeline = timeline_to(target, chosen, spans, histories)
    path = lineage(timeline, histories)
    on_path = [backup for backup in chosen if is_on(backup.timeline, backup.stop_lsn, path)]
    chains = _chains(on_path, backups, timeline, use_incrementals)
    ends = {backup.label: covered_until(backup, spans, path) for backup in on_path}
    _refuse_too_early(chains, ends, target)
    ways = [
        _candidate(chain, end, target, proven)
        for chain in chains
        if _before(chain[-1], target) and (end := ends[chain[-1].label]) is not None and _reaches(end, target)
    ]
    if not ways:
        _raise_unreachable(chains, ends, spans, path, target)
    furthest = max(end for way in ways if (end := ends[way.label]) is not None)
    if target.kind == "latest":
        # A backup whose WAL ends at a gap would end early; only those that get furthest are equal ways.
        ways = [way for way in ways if ends[way.label] == furthest]
    resumes = _resumes(furthest, spans, path)
    if target.kind == "latest" and resumes is not None:
        raise WalGap(
            f"WAL is missing between {furthest} and {resumes}, and "
            + (f"{label} was taken before that" if label else "no backup was taken after it"),
            hint=f"restore what lies before the gap with --lsn {furthest}, or restore from another tier (--tier).",
        )
    ways = _in_order(ways, target, use_incrementals)
    if target.kind == "time":  # nobody knows where it is: those that get furthest first
        ways.sort(key=lambda way: ends[way.label] != furthest)
    return RestorePlan(target, timeline, tuple(ways), furthest, tuple(_notes(ways, furthest, resumes, target)))


def chain_of(backup: BackupManifest, by_label: Mapping[str, BackupManifest]) -> tuple[BackupManifest, ...] | None:
    """Oldest first, down to the full; None when a parent is not there."""
    chain = [backup]
    while chain[-1].parent is not None:
        parent = by_label.get(chain[-1].parent)
        if parent is None or parent in chain:
            return None
        chain.append(parent)
    return tuple(reversed(chain)) if chain[-1].kind is BackupKind.FULL else None


def timeline_to(
    target: RecoveryTarget,
    backups: Sequence[BackupManifest],
    spans: Sequence[WalSpan],
    histories: Mapping[Timeline, Switch],
) -> Timeline:
    """The one that was asked for, or the newest that descends from a backup. Raises `WalGap` when a missing history
    file leaves that open."""
    return target.timeline or _newest_timeline(backups, spans, histories)


def lineage(timeline: Timeline, histories: Mapping[Timeline, Switch]) -> dict[Timeline, Lsn | None]:
    """Every timeline on the way to `timeline`, with where it was left (None: the last one)."""
    path: dict[Timeline, Lsn | None] = {timeline: None}
    while (switch := histories.get(timeline)) is not None and switch.parent not in path:
        path[switch.parent] = switch.at
        timeline = switch.parent
    return path


def covered_until(backup: BackupManifest, spans: Sequence[WalSpan], path: Mapping[Timeline, Lsn | None]) -> Lsn | None:
    """The newest LSN that replay from `backup` reaches along `path`; None when it cannot even become consistent.

    The segment in which a timeline was left begins the next one too, so the end of the old one may be missing.
    """
    at = backup.start_lsn
    for step in sorted(timeline for timeline in path if timeline >= backup.timeline):
        left_at = path[step]
        for span in spans:
            if span.timeline == step and span.start <= at <= span.end:
                at = span.end if left_at is None else min(span.end, left_at)
                break
    return at if at >= backup.stop_lsn and at > backup.start_lsn else None


def _chains(
    on_path: Sequence[BackupManifest],
    backups: Sequence[BackupManifest],
    timeline: Timeline,
    use_incrementals: UseIncrementals,
) -> list[tuple[BackupManifest, ...]]:
    """The whole chains that may be used. Raises `TargetUnreachable` when there is none."""
    if not on_path:
        raise TargetUnreachable(
            f"no backup leads to timeline {timeline.id}", hint="`dr list` shows each backup's timeline; see --timeline."
        )
    by_label = {backup.label: backup for backup in backups}
    whole = [chain for backup in on_path if (chain := chain_of(backup, by_label)) is not None]
    if not whole:
        raise TargetUnreachable(
            f"{on_path[-1].label} builds on {on_path[-1].parent}, and its chain is not whole",
            hint="restore from another tier (--tier); `dr list` shows what there is.",
        )
    allowed = [chain for chain in whole if use_incrementals != "never" or len(chain) == 1]
    if not allowed:
        raise TargetUnreachable(
            "there are only incremental backups to restore from, and they are not to be used",
            hint="leave out --use-incrementals never, or --label.",
        )
    return allowed


def _refuse_too_early(
    chains: Sequence[tuple[BackupManifest, ...]], ends: Mapping[str, Lsn | None], target: RecoveryTarget
) -> None:
    newest = [chain[-1] for chain in chains]
    if any(_before(backup, target) for backup in newest):
        return
    consistent = [backup for backup in newest if ends[backup.label] is not None]
    oldest = min(consistent or newest, key=lambda backup: backup.stop_lsn)
    raise TargetUnreachable(
        f"the target {target} lies before the oldest point that can be restored: {_moment(oldest)}",
        hint=f"ask for {_moment(oldest)} or later, or for an older backup on another tier (--tier).",
    )


def is_on(timeline: Timeline, lsn: Lsn, path: Mapping[Timeline, Lsn | None]) -> bool:
    """Whether a position of a timeline lies on the way that `lineage` gave."""
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
        if any(is_on(backup.timeline, backup.stop_lsn, path) for backup in backups):
            return timeline
        if timeline.id > 1 and timeline not in histories:
            raise WalGap(
                f"the history file of timeline {timeline.id} is missing",
                hint="name the timeline to restore to with --timeline, or restore from another tier.",
            )
    return max(backup.timeline for backup in backups)


def _candidate(
    chain: tuple[BackupManifest, ...], end: Lsn, target: RecoveryTarget, proven: Collection[str]
) -> Candidate:
    newest = chain[-1]
    stop = target.value if isinstance(target.value, Lsn) else newest.stop_lsn if target.kind == "immediate" else end
    wal = max(0, stop - newest.start_lsn)
    size = sum(backup.archive.size for backup in chain)
    unproven = chain[max((at for at, b in enumerate(chain, start=1) if b.label in proven), default=0) :]
    provisional = next((f"{b.label}: {b.provisional}" for b in unproven if b.provisional), None)
    return Candidate(chain, newest.start_lsn, wal, size / FETCH_RATE + wal / REPLAY_RATE + START_SECONDS, provisional)


def _in_order(ways: Sequence[Candidate], target: RecoveryTarget, use_incrementals: UseIncrementals) -> list[Candidate]:
    """What is proven before what is faster, unless a person wants otherwise."""
    if target.kind == "immediate":
        return sorted(ways, key=lambda way: way.chain[-1].stop_lsn, reverse=True)
    if use_incrementals == "always":
        return sorted(ways, key=lambda way: (len(way.chain) == 1, way.estimated_seconds))
    return sorted(ways, key=lambda way: (way.provisional is not None, way.estimated_seconds))


def _resumes(end: Lsn, spans: Sequence[WalSpan], path: Mapping[Timeline, Lsn | None]) -> Lsn | None:
    """Where WAL of `path` goes on after a gap at `end`."""
    later = [span.start for span in spans if span.start > end and is_on(span.timeline, span.start, path)]
    return min(later, default=None)


def _raise_unreachable(
    chains: Sequence[tuple[BackupManifest, ...]],
    ends: Mapping[str, Lsn | None],
    spans: Sequence[WalSpan],
    path: Mapping[Timeline, Lsn | None],
    target: RecoveryTarget,
) -> NoReturn:
    """The target lies after all that can be replayed: in a gap, or beyond the end."""
    reached = [ends[chain[-1].label] for chain in chains if _before(chain[-1], target)]
    newest = max((end for end in reached if end is not None), default=None)
    if newest is None:
        raise WalGap(
            f"the WAL that the backups need to become consistent is not there: {chains[-1][-1].label} needs it from "
            f"{chains[-1][-1].start_lsn} on",
            hint="`dr status` says how far the WAL goes and whether the stream runs; --tier names another tier.",
        )
    resumes = _resumes(newest, spans, path)
    if resumes is None:
        raise TargetUnreachable(
            f"the target {target} lies after the newest WAL that can be replayed: {newest}",
            hint=f"ask for a target up to {newest}, for latest, or for another tier (--tier).",
        )
    after = [chain[-1] for chain in chains if chain[-1].stop_lsn > newest and ends[chain[-1].label] is not None]
    later = f" or from {_moment(min(after, key=lambda backup: backup.stop_lsn))} on" if after else ""
    raise WalGap(
        f"the target {target} cannot be reached: WAL is missing between {newest} and {resumes}",
        hint=f"ask for a target up to {newest}{later}, or for another tier (--tier).",
    )


def _moment(backup: BackupManifest) -> str:
    return f"{backup.stop_lsn} ({backup.finished_at:%Y-%m-%dT%H:%M:%SZ})"


def _notes(ways: Sequence[Candidate], furthest: Lsn, resumes: Lsn | None, target: RecoveryTarget) -> Iterator[str]:
    best = ways[0]
    if best.provisional is not None:
        yield f"the chain holds a provisional incremental ({best.provisional})"
    elif any(way.provisional for way in ways):
        yield "incrementals are provisional on this PostgreSQL, so a chain without one and more WAL is taken"
    if resumes is not None and target.kind == "time":
        yield f"WAL is missing between {furthest} and {resumes}: a target that lies after {furthest} is not reached"
