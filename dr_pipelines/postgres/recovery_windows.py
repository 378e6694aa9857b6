"""Recovery windows: the ranges of WAL and time in which any instant can be restored from what one tier holds.

Pure: a catalog and listed WAL in, windows and the gaps between them out. It rests on the restore planner's functions,
so that nothing is shown that `plan_restore` refuses. What several tiers hold together does not belong here.

A window begins where a backup is consistent (`stop_lsn`) and ends where the WAL after it ends. In time it begins when
that backup was finished and ends when its last WAL reached a store: what was committed after that moment is not in it,
and of an idle server it lies in the past although nothing is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from dr_pipelines.lsn import Lsn, Timeline
from dr_pipelines.postgres.restore_plan import Switch, WalSpan, covered_until, is_on, lineage
from dr_pipelines.repository.catalog import Catalog
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.repository.manifest import BackupManifest

Path = Mapping[Timeline, Lsn | None]


@dataclass(frozen=True)
class SystemWal:
    """One system's WAL on one tier. `unreadable` timelines have a history that no key at hand opens, `unknown` ones
    none at all. `stored_at` tells when the WAL that ends somewhere reached the first store that has it."""

    segment_size: int
    spans: Sequence[WalSpan]
    histories: Mapping[Timeline, Switch]
    unreadable: frozenset[Timeline] = frozenset()
    unknown: frozenset[Timeline] = frozenset()
    stored_at: Callable[[Timeline, Lsn], datetime | None] = lambda timeline, end: None


@dataclass(frozen=True)
class RestorePoint:
    """Where a backup is consistent."""

    label: str
    kind: BackupKind
    lsn: Lsn
    at: datetime


@dataclass(frozen=True)
class RecoveryWindow:
    """Every LSN from `start` to `end` can be restored, with `timeline` as the target's timeline.

    `points` are its backups, oldest first; none where it is what another timeline left behind, before its first backup.
    `is_point`: its WAL goes no further than the segment in which its backup is consistent. `assumed`: timelines whose
    origin was concluded from where their WAL begins, for want of a key to their history.
    """

    timeline: Timeline
    start: Lsn
    end: Lsn
    start_at: datetime
    end_at: datetime
    points: tuple[RestorePoint, ...]
    is_point: bool = False
    assumed: tuple[Timeline, ...] = ()


@dataclass(frozen=True)
class Stretch:
    """From one LSN to another."""

    start: Lsn
    end: Lsn


@dataclass(frozen=True)
class RecoveryGap:
    """Nothing after `start` and before `end` can be restored; `end` None: not yet again, WAL goes on without a backup.
    `why` is a sentence without full stop."""

    start: Lsn
    end: Lsn | None
    start_at: datetime
    end_at: datetime | None
    missing: tuple[Stretch, ...]
    why: str


@dataclass(frozen=True)
class SystemWindows:
    """Of one system on one tier, oldest first: `windows` with `gaps` between them on the way to the newest timeline,
    and `branches`, what older timelines hold after they were left. `unusable` backups by their label, with why.
    `troubles` and `notes` are sentences: on what keeps restores from the newest WAL, and on what cannot be known here.
    `wal_end` is that of the newest timeline."""

    system_id: str
    windows: tuple[RecoveryWindow, ...]
    gaps: tuple[RecoveryGap, ...] = ()
    branches: tuple[RecoveryWindow, ...] = ()
    unusable: Mapping[str, str] = field(default_factory=dict)
    troubles: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    wal_end: Lsn | None = None
    wal_stored_at: datetime | None = None

    @property
    def points(self) -> tuple[RestorePoint, ...]:
        return tuple(point for window in (*self.windows, *self.branches) for point in window.points)


def recovery_windows(catalog: Catalog, system_id: str, wal: SystemWal) -> SystemWindows:
    """Of one system, from a tier's catalog and its WAL."""
    return _Look(catalog, system_id, wal).windows()


def assumed_switches(wal: SystemWal) -> dict[Timeline, Switch]:
    """For timelines whose history cannot be read here: where they began, as far as the listing leaves no doubt.

    When a server is promoted, the WAL of its old timeline ends in the segment with which the new one begins. So the
    parent is the one older timeline whose WAL covers that segment's beginning, and it must end within that segment;
    where two do, or it goes on (as after a restore to an earlier point), nothing is assumed. The switch is put at the
    segment's beginning, which is at or before the real one: nothing that lies on another way is taken for reachable.
    """
    found: dict[Timeline, Switch] = {}
    for timeline in wal.unreadable:
        begin = min((span.start for span in wal.spans if span.timeline == timeline), default=None)
        if begin is None:
            continue
        older = [span for span in wal.spans if span.timeline < timeline and span.start <= begin <= span.end]
        last = max((span.end for span in wal.spans if older and span.timeline == older[0].timeline), default=None)
        if len(older) == 1 and last is not None and last <= begin + wal.segment_size:
            found[timeline] = Switch(older[0].timeline, begin)
    return found


class _Look:
    """One computation."""

    def __init__(self, catalog: Catalog, system_id: str, wal: SystemWal) -> None:
        self._system_id, self._wal = system_id, wal
        own = [(backup, catalog.trouble(backup)) for backup in catalog.backups if backup.system_id == system_id]
        self._backups = [backup for backup, trouble in own if trouble is None]
        self._spoilt = [(backup, trouble) for backup, trouble in own if trouble is not None]
        self._assumed = assumed_switches(wal)
        self._histories = {**wal.histories, **self._assumed}

    def windows(self) -> SystemWindows:
        known = {span.timeline for span in self._wal.spans} | {backup.timeline for backup in self._backups}
        timelines = sorted(known | set(self._histories), reverse=True)
        main = next((timeline for timeline in timelines if self._leads(timeline)), None)
        windows = [] if main is None else self.along(main)
        branches = [] if main is None else self._branches(main, windows, timelines)
        useless = self._useless([*windows, *branches])
        newest = main or max(timelines, default=None)
        end = max((span.end for span in self._wal.spans if span.timeline == newest), default=None)
        return SystemWindows(
            self._system_id,
            tuple(windows),
            () if main is None else tuple(self._gaps(windows, useless, lineage(main, self._histories))),
            tuple(branches),
            {backup.label: why for backup, why in useless},
            tuple(self._troubles(main, timelines)),
            tuple(self._notes()),
            end,
            None if newest is None or end is None else self._wal.stored_at(newest, end),
        )

    def along(self, timeline: Timeline) -> list[RecoveryWindow]:
        """Every window on the way to a timeline. An LSN lies in one of them if and only if `plan_restore` has a way."""
        path = lineage(timeline, self._histories)
        assumed = tuple(sorted(step for step in path if step in self._assumed))
        found: list[tuple[Lsn, Lsn, list[BackupManifest]]] = []
        for backup in sorted(self._backups, key=lambda backup: backup.stop_lsn):
            end = (
                covered_until(backup, self._wal.spans, path) if is_on(backup.timeline, backup.stop_lsn, path) else None
            )
            if end is None:
                continue
            if found and backup.stop_lsn <= found[-1][1]:
                start, last, inside = found.pop()
                found.append((start, max(last, end), [*inside, backup]))
            else:
                found.append((backup.stop_lsn, end, [backup]))
        return [
            self._window(timeline, start, end, inside, path, assumed, is_last=index == len(found) - 1)
            for index, (start, end, inside) in enumerate(found)
        ]

    def _window(
        self,
        timeline: Timeline,
        start: Lsn,
        end: Lsn,
        inside: Sequence[BackupManifest],
        path: Path,
        assumed: tuple[Timeline, ...],
        *,
        is_last: bool,
    ) -> RecoveryWindow:
        points = tuple(RestorePoint(made.label, made.kind, made.stop_lsn, made.finished_at) for made in inside)
        start_at = min(point.at for point in points if point.lsn == start)
        stored_at = self._stored_at(end, path)
        end_at = max(filter(None, (stored_at, *(point.at for point in points))))
        size = self._wal.segment_size
        is_point = not is_last and end.value <= -(-start.value // size) * size
        used = tuple(step for step in assumed if step > inside[0].timeline)
        return RecoveryWindow(timeline, start, end, start_at, end_at, points, is_point, used)

    def _leads(self, timeline: Timeline) -> bool:
        path = lineage(timeline, self._histories)
        return any(is_on(backup.timeline, backup.stop_lsn, path) for backup in self._backups)

    def _branches(
        self, main: Timeline, windows: Sequence[RecoveryWindow], timelines: Sequence[Timeline]
    ) -> list[RecoveryWindow]:
        """What can be reached only with another timeline as the target's."""
        shown = [(lineage(main, self._histories), windows)]
        found: list[RecoveryWindow] = []
        for timeline in timelines:
            if timeline != main:
                path, windows = lineage(timeline, self._histories), self.along(timeline)
                found += (part for window in windows for part in self._rest(window, _known(path, shown)))
                shown.append((path, windows))
        return sorted(found, key=lambda window: (window.timeline, window.start))

    def _rest(self, window: RecoveryWindow, known: Sequence[Stretch]) -> Iterator[RecoveryWindow]:
        """What another timeline's windows do not show of it."""
        for part in _holes(known, window.start, window.end + 1):
            start, end = part.start, Lsn(part.end.value - 1)
            points = tuple(point for point in window.points if start <= point.lsn <= end)
            if (start, end) == (window.start, window.end):
                yield window
                continue
            since = self._wal.stored_at(window.timeline, start) or window.start_at
            until = self._wal.stored_at(window.timeline, end) or window.end_at
            start_at = min(window.end_at, max(window.start_at, since))
            yield replace(
                window,
                start=start,
                end=end,
                start_at=start_at,
                end_at=max(start_at, until),
                points=points,
                is_point=False,
            )

    def _gaps(
        self, windows: Sequence[RecoveryWindow], useless: Sequence[tuple[BackupManifest, str]], path: Path
    ) -> Iterator[RecoveryGap]:
        covered = _covered(self._wal.spans, path)
        spoilt = [(backup, why) for backup, why in useless if is_on(backup.timeline, backup.stop_lsn, path)]
        for before, after in zip(windows, [*windows[1:], None], strict=False):
            if after is not None:
                first = next(backup for backup in self._backups if backup.label == after.points[0].label)
                until, then = first.start_lsn, f"; {first.label} is the first usable backup after it"
            else:
                until, then = covered[-1].end, ", and no usable backup was taken after it"
            missing = tuple(_holes(covered, before.end, until))
            if after is None and not missing:
                continue
            why = _told(missing, self._wal.segment_size) + then
            for backup, trouble in spoilt:  # they would have begun a window earlier
                if before.end < backup.stop_lsn and (after is None or backup.stop_lsn < after.start):
                    why += f"; {backup.label} {trouble}"
            resumes, at = (after.start, after.start_at) if after else (None, None)
            yield RecoveryGap(before.end, resumes, before.end_at, at, missing, why)

    def _useless(self, windows: Sequence[RecoveryWindow]) -> list[tuple[BackupManifest, str]]:
        """Backups that can be restored to no point, with why."""
        used = {point.label for window in windows for point in window.points}
        found = list(self._spoilt)
        for backup in self._backups:
            if backup.label not in used:
                covered = _covered(self._wal.spans, lineage(backup.timeline, self._histories))
                hole = next(_holes(covered, backup.start_lsn, backup.stop_lsn), None)
                since = backup.start_lsn if hole is None else hole.start
                needs = f"lacks the WAL from {since} on, without which it is not consistent at {backup.stop_lsn}"
                found.append((backup, needs))
        return sorted(found, key=lambda pair: (pair[0].stop_lsn, pair[0].label))

    def _troubles(self, main: Timeline | None, timelines: Sequence[Timeline]) -> Iterator[str]:
        for timeline in sorted(self._wal.unknown):
            yield f"the history file of timeline {timeline.id} is not here, so this tier alone cannot restore it"
        for timeline in sorted(timelines):
            if main is not None and timeline > main and timeline not in self._wal.unreadable:
                yield f"timeline {timeline.id} is newer than what can be restored: no usable backup here leads to it"

    def _notes(self) -> Iterator[str]:
        for timeline in sorted(self._wal.unreadable - set(self._assumed)):
            yield f"the history of timeline {timeline.id} cannot be read without a key: where it began is not known"

    def _stored_at(self, end: Lsn, path: Path) -> datetime | None:
        """When the WAL up to `end` was in a store first, on whichever timeline of the way holds it."""
        lines = [line for line, left in path.items() if left is None or end <= left]
        return min(filter(None, (self._wal.stored_at(line, end) for line in lines)), default=None)


def _shared(one: Path, other: Path) -> Lsn | None:
    """Until where two ways are the same; None when they have nothing in common."""
    common = max((line for line in one if line in other), default=None)
    if common is None:
        return None
    left = [at for at in (one[common], other[common]) if at is not None]
    return min(left, key=lambda lsn: lsn.value) if left else None


def _known(path: Path, shown: Sequence[tuple[Path, Sequence[RecoveryWindow]]]) -> list[Stretch]:
    """What windows of other ways show of this one: up to where they part."""
    parts: list[Stretch] = []
    for other, windows in shown:
        fork = _shared(path, other)
        if fork is not None:
            parts += (Stretch(w.start, min(w.end, fork) + 1) for w in windows if w.start <= fork)
    return _joined(parts)


def _covered(spans: Iterable[WalSpan], path: Path) -> list[Stretch]:
    """What there is of a way, joined."""
    ours = [Stretch(span.start, _clipped(span.end, path[span.timeline])) for span in spans if span.timeline in path]
    return _joined(part for part in ours if part.start < part.end)


def _joined(parts: Iterable[Stretch]) -> list[Stretch]:
    found: list[Stretch] = []
    for part in sorted(parts, key=lambda part: part.start):
        if found and part.start <= found[-1].end:
            found[-1] = Stretch(found[-1].start, max(part.end, found[-1].end))
        else:
            found.append(part)
    return found


def _clipped(end: Lsn, left_at: Lsn | None) -> Lsn:
    return end if left_at is None else min(end, left_at)


def _holes(covered: Sequence[Stretch], start: Lsn, end: Lsn) -> Iterator[Stretch]:
    at = start
    for part in covered:
        if part.end <= at:
            continue
        if part.start >= end:
            break
        if part.start > at:
            yield Stretch(at, part.start)
        at = part.end
    if at < end:
        yield Stretch(at, end)


def _told(missing: Sequence[Stretch], size: int) -> str:
    if not missing:
        return "the WAL does not lead on"
    first = missing[0]
    segments = -(-first.end.value // size) - first.start.value // size
    more = f" and in {len(missing) - 1} more places up to {missing[-1].end}" if len(missing) > 1 else ""
    return f"WAL is missing from {first.start} to {first.end} ({segments} segments){more}"
