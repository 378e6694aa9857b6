"""The recovery window: with which fulls it begins, what lies in it, and which WAL any instant of it needs. Pure.

Histories of timelines are encrypted and retention has no key, so where a timeline was left is known only to the segment
in which it begins, and its parent not at all: every older timeline is taken for a possible one. That keeps too much for
a window's length after a promotion, and never too little.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TypeVar

from dr_pipelines.lsn import Lsn, Timeline
from dr_pipelines.repository.labels import Labelled
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.retention.wal import SystemWal, WalNeed

M = TypeVar("M", bound=Labelled)
EVERYTHING = WalNeed(Timeline(1), Lsn(0))


@dataclass(frozen=True)
class Window:
    """`bases`: labels of the fulls that it begins with; `inside`: of what was finished in it or builds on a base;
    `needs` by system."""

    bases: frozenset[str]
    inside: frozenset[str]
    needs: Mapping[str, tuple[WalNeed, ...]]


def window_of(
    backups: Sequence[BackupManifest],
    restorable: Collection[str],
    wal: Mapping[str, SystemWal],
    start: datetime,
) -> Window:
    """From `start` until now."""
    by_system: dict[str, list[BackupManifest]] = defaultdict(list)
    for backup in backups:
        by_system[backup.system_id].append(backup)
    current = max(backups, key=lambda backup: backup.finished_at).system_id if backups else None
    nothing = not any(backup.kind is BackupKind.FULL and backup.label in restorable for backup in backups)
    bases: set[str] = set()
    inside: set[str] = set()
    needs: dict[str, tuple[WalNeed, ...]] = {}
    for system_id in {*by_system, *wal}:
        system = _System(by_system[system_id], restorable, wal.get(system_id), start, system_id == current)
        bases |= system.bases
        inside |= system.inside
        needs[system_id] = (EVERYTHING,) if nothing else system.needs
    return Window(frozenset(bases), frozenset(inside), needs)


class _System:
    def __init__(
        self,
        backups: Sequence[BackupManifest],
        restorable: Collection[str],
        wal: SystemWal | None,
        start: datetime,
        current: bool,
    ) -> None:
        self._backups, self._restorable, self._wal = backups, restorable, wal
        self._start, self._current = start, current
        self._by_label = {backup.label: backup for backup in backups}
        self._fulls = [b for b in backups if b.kind is BackupKind.FULL and b.label in restorable]
        self._timelines = {b.timeline for b in backups} | set(wal.timelines if wal else ())
        self._branch_bases: dict[Timeline, set[str]] = {}

    @cached_property
    def bases(self) -> set[str]:
        return {label for timeline in self._in_use() for label in self._bases_of(timeline)}

    @cached_property
    def inside(self) -> set[str]:
        return {b.label for b in self._backups if b.finished_at > self._start or self._root(b).label in self.bases}

    @property
    def needs(self) -> tuple[WalNeed, ...]:
        """Open-ended: from the oldest start of each timeline. Where a window, or a timeline that went back, has nothing
        to begin with, all of its WAL stays: what it began with may be repaired, on another tier, or being taken."""
        starts: dict[Timeline, Lsn] = {}
        for label in (self.bases | self.inside) & set(self._restorable):
            root = self._root(self._by_label[label])
            starts[root.timeline] = min(starts.get(root.timeline, root.start_lsn), root.start_lsn)
        if not starts and self._in_use():
            return (EVERYTHING,)
        baseless = (timeline for timeline in self._in_use() if not self._bases_of(timeline))
        starts |= {timeline: Lsn(0) for timeline in baseless if timeline not in starts}
        return tuple(WalNeed(timeline, start) for timeline, start in sorted(starts.items()))

    def _in_use(self) -> set[Timeline]:
        """Timelines that the server was on within the window."""
        used = {backup.timeline for backup in self._backups if backup.finished_at > self._start}
        if self._wal is not None:
            since = self._start.timestamp()
            used |= {timeline for timeline, wal in self._wal.timelines.items() if wal.newest >= since}
        if self._current and self._timelines:
            used.add(max(self._timelines))
        return used

    def _bases_of(self, timeline: Timeline) -> set[str]:
        before = [full for full in self._fulls if full.timeline == timeline and full.finished_at <= self._start]
        if not before:
            return self._bases_before(timeline)
        # These are one, but for a full that was taken while a clock was behind.
        return {_furthest(before), max(before, key=lambda full: full.finished_at).label}

    def _bases_before(self, timeline: Timeline) -> set[str]:
        """With which a timeline can be reached that has no full of its own in time: the newest that each older one had
        where this one begins, or with which that one can be reached; and each of the segment within which it was left,
        for that may have been behind it."""
        if timeline not in self._branch_bases:
            found: set[str] = set()
            begin = self._begin(timeline)
            for older in self._timelines:
                if older < timeline and begin is not None:
                    of_it = [full for full in self._fulls if full.timeline == older]
                    there = [full for full in of_it if full.stop_lsn <= begin]
                    found |= {_furthest(there)} if there else self._bases_before(older)
                    end = begin + of_it[0].segment_size if of_it else begin
                    found |= {full.label for full in of_it if begin < full.stop_lsn <= end}
            self._branch_bases[timeline] = found
        return self._branch_bases[timeline]

    def _begin(self, timeline: Timeline) -> Lsn | None:
        """The oldest of it that is here; it was left its parent there, or up to a segment later."""
        starts = [backup.start_lsn for backup in self._backups if backup.timeline == timeline]
        if self._wal is not None and timeline in self._wal.timelines:
            starts.append(Lsn(self._wal.timelines[timeline].numbers[0] * self._wal.segment_size))
        return min(starts, default=None)

    def _root(self, backup: BackupManifest) -> BackupManifest:
        return root_of(backup, self._by_label)


def root_of(backup: M, by_label: Mapping[str, M]) -> M:
    """The oldest that it builds on, as far as they are there."""
    seen = {backup.label}
    while (parent := by_label.get(backup.builds_on or "")) is not None and parent.label not in seen:
        backup = parent
        seen.add(backup.label)
    return backup


def _furthest(fulls: Iterable[BackupManifest]) -> str:
    return max(fulls, key=lambda full: full.stop_lsn).label
