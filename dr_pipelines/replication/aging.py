"""Packs and whole WAL segments move to colder storage classes as they grow old. Decided first (pure), done second.

Nothing moves to where its bytes would have to be recalled while a recovery within the window, or from the newest full,
reads it; nor to where it would be charged for longer than it is kept. What recovery is planned with never moves. How
long a backup is kept is retention's to say.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property

from dr_pipelines.errors import DrError, ObjectNotFound
from dr_pipelines.lsn import Lsn, Timeline, WalSegment
from dr_pipelines.progress import Progress
from dr_pipelines.repository.catalog import Catalog
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.storage.base import ObjectStore

AT_HAND = "a recovery in the window or from the newest full would have to recall it"
TOO_SHORT = "it is kept for less than {name} charges"
_ABREAST = 8
Lasts = Callable[[timedelta], bool]
"""Whether something is kept for at least so long from now on."""
_BATCH = 256


@dataclass(frozen=True)
class AgedClass:
    """Of the plan: what is as old as `after` goes there. `minimum`: what goes earlier is charged until then."""

    name: str
    after: timedelta
    offline: bool = False
    minimum: timedelta = timedelta(0)


@dataclass(frozen=True)
class AgingRules:
    """`order`: names of the store's classes, coldest last. `is_cold_by_design`: the tier is there for cold keeping, and
    other tiers serve recoveries."""

    classes: tuple[AgedClass, ...]
    order: tuple[str, ...]
    is_cold_by_design: bool = False


@dataclass(frozen=True)
class Lasting:
    """What retention says, by label. `until`: when a backup or snapshot goes, as things stand (None: never; not named:
    now). `at_hand`: the backups that recoveries in the window may begin with, and the newest full. `window` is how long
    WAL is kept for its own sake."""

    until: Mapping[str, datetime | None]
    at_hand: frozenset[str]
    window: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True)
class AgedWal:
    """A whole stored segment; `modified` is when it reached the store, or its class."""

    segment: WalSegment
    key: str
    size: int
    storage_class: str | None
    modified: datetime


@dataclass(frozen=True, slots=True)
class Move:
    """Of one object."""

    key: str
    size: int
    to: str


@dataclass(frozen=True)
class Held:
    """Objects that are old enough for a class and stay where they are."""

    reason: str
    objects: int
    bytes: int


@dataclass(frozen=True)
class AgingPlan:
    """What is to move, packs first."""

    moves: tuple[Move, ...]
    held: tuple[Held, ...] = ()

    @property
    def bytes(self) -> int:
        return sum(move.size for move in self.moves)

    def by_class(self) -> dict[str, tuple[int, int]]:
        """Objects and bytes that go to each class."""
        found: dict[str, tuple[int, int]] = {}
        for move in self.moves:
            objects, size = found.get(move.to, (0, 0))
            found[move.to] = objects + 1, size + move.size
        return found


def plan_aging(
    catalog: Catalog, wal: Mapping[str, Iterable[AgedWal]], rules: AgingRules, lasting: Lasting, *, now: datetime
) -> AgingPlan:
    """`wal` by system id. Of a system without backups nothing is known, and nothing moves."""
    return _Planning(catalog, Choosing(rules), lasting, now).run(wal)


@dataclass
class Choosing:
    """The class of each object by the rules, whatever it is of."""

    rules: AgingRules
    moves: list[Move] = field(default_factory=list)
    held: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def plan(self) -> AgingPlan:
        held = tuple(Held(reason, objects, size) for reason, (objects, size) in self.held.items())
        return AgingPlan(tuple(self.moves), held)

    def choose(
        self,
        key: str,
        size: int,
        there: str | None,
        *,
        age: timedelta,
        at_hand: bool,
        lasts: Lasts,
    ) -> None:
        """To the coldest class that nothing speaks against; never back."""
        reason: str | None = None
        for aged in self._colder(there):
            if age < aged.after:
                continue
            if aged.offline and at_hand and not self.rules.is_cold_by_design:
                reason = reason or AT_HAND
            elif not lasts(aged.minimum):
                reason = reason or TOO_SHORT.format(name=aged.name)
            else:
                self.moves.append(Move(key, size, aged.name))
                break
        if reason is not None:
            objects, held = self.held.get(reason, (0, 0))
            self.held[reason] = objects + 1, held + size

    def _colder(self, there: str | None) -> Iterator[AgedClass]:
        """The plan's classes that are colder than the one that an object is in, coldest first."""
        order = self.rules.order
        if there is not None and there not in order:
            return  # somebody put it there, and nobody knows how cold that is
        now_at = order.index(there) if there is not None else -1
        ranked = ((order.index(aged.name), aged) for aged in self.rules.classes if aged.name in order)
        for rank, aged in sorted(ranked, key=lambda found: found[0], reverse=True):
            if rank > now_at:
                yield aged


@dataclass
class _Planning:
    catalog: Catalog
    choosing: Choosing
    lasting: Lasting
    now: datetime

    def run(self, wal: Mapping[str, Iterable[AgedWal]]) -> AgingPlan:
        for backup in self.catalog.backups:
            self._backup(backup)
        by_system: dict[str, list[BackupManifest]] = defaultdict(list)
        for backup in self.catalog.backups:
            by_system[backup.system_id].append(backup)
        for system_id, segments in wal.items():
            if by_system[system_id]:
                self._wal(_System(by_system[system_id], self.needed, self.lasting, self.now), segments)
        return self.choosing.plan

    @cached_property
    def needed(self) -> frozenset[str]:
        """Labels that must be at hand, with what they build on."""
        by_label = {backup.label: backup for backup in self.catalog.backups}
        found: set[str] = set()
        for label in self.lasting.at_hand & by_label.keys():
            link: BackupManifest | None = by_label[label]
            while link is not None and link.label not in found:
                found.add(link.label)
                link = by_label.get(link.parent or "")
        return frozenset(found)

    def _backup(self, backup: BackupManifest) -> None:
        until = self.lasting.until.get(backup.label, self.now)

        def lasts(minimum: timedelta) -> bool:
            return until is None or until >= self.now + minimum

        for pack in backup.archive.packs:
            self.choosing.choose(
                pack.key,
                pack.size,
                self.catalog.class_of(backup, pack.key),
                age=self.now - backup.finished_at,
                at_hand=backup.label in self.needed,
                lasts=lasts,
            )

    def _wal(self, system: _System, segments: Iterable[AgedWal]) -> None:
        for found in segments:
            written = system.written(found)

            def lasts(minimum: timedelta, found: AgedWal = found, written: datetime = written) -> bool:
                return written + self.lasting.window >= self.now + minimum or system.keeps(found.segment, minimum)

            self.choosing.choose(
                found.key,
                found.size,
                found.storage_class,
                age=self.now - written,
                at_hand=system.is_at_hand(found.segment),
                lasts=lasts,
            )


class _System:
    """What the backups of one system say of its WAL."""

    def __init__(
        self, backups: Sequence[BackupManifest], needed: frozenset[str], lasting: Lasting, now: datetime
    ) -> None:
        self._backups, self._lasting, self._now = backups, lasting, now
        self._by_label = {backup.label: backup for backup in backups}
        self._first_needed: dict[Timeline, Lsn] = {}
        for backup in backups:
            if backup.label in needed:
                start = self._first_needed.get(backup.timeline, backup.start_lsn)
                self._first_needed[backup.timeline] = min(start, backup.start_lsn)
        self._kept: dict[timedelta, dict[Timeline, list[tuple[Lsn, Lsn]]]] = {}
        self._seen = _seen(backups)

    def is_at_hand(self, segment: WalSegment) -> bool:
        """Whether it comes after the beginning of a backup that must be at hand, on its timeline or a later one."""
        return any(
            timeline <= segment.timeline and segment.end > start for timeline, start in self._first_needed.items()
        )

    def written(self, found: AgedWal) -> datetime:
        """When it was, at the latest. A copy on another tier, and one in another class, is newer than what it holds:
        the first backup that ended in it or after it tells."""
        ends, times = self._seen.get(found.segment.timeline, ([], []))
        at = bisect_left(ends, found.segment.start)
        return min(found.modified, times[at]) if at < len(ends) else found.modified

    def keeps(self, segment: WalSegment, minimum: timedelta) -> bool:
        """Whether a backup needs it that is kept for so long."""
        if minimum not in self._kept:
            self._kept[minimum] = self._needs_of(self._now + minimum)
        return any(segment.end > start and segment.start < end for start, end in self._kept[minimum][segment.timeline])

    def _needs_of(self, until: datetime) -> dict[Timeline, list[tuple[Lsn, Lsn]]]:
        """What the backups that are kept until then need to become consistent, from their full on; joined."""
        found: dict[Timeline, list[tuple[Lsn, Lsn]]] = defaultdict(list)
        for backup in self._backups:
            lasts = self._lasting.until.get(backup.label, self._now)
            if lasts is None or lasts >= until:
                root = self._root(backup)
                start = root.start_lsn if root.timeline == backup.timeline else backup.start_lsn
                found[backup.timeline].append((start, backup.stop_lsn))
                for part in backup.wal_ranges:
                    found[part.timeline].append((part.start, part.end))
        return defaultdict(list, {timeline: _joined(parts) for timeline, parts in found.items()})

    def _root(self, backup: BackupManifest) -> BackupManifest:
        seen: set[str] = set()
        while backup.parent in self._by_label and backup.label not in seen:
            seen.add(backup.label)
            backup = self._by_label[backup.parent]
        return backup


def _seen(backups: Sequence[BackupManifest]) -> dict[Timeline, tuple[list[Lsn], list[datetime]]]:
    """For each timeline the positions at which backups ended, ascending, and when the first did that got so far."""
    found: dict[Timeline, tuple[list[Lsn], list[datetime]]] = {}
    earliest: dict[Timeline, datetime] = {}
    for backup in sorted(backups, key=lambda backup: backup.stop_lsn, reverse=True):
        first = min(backup.finished_at, earliest.get(backup.timeline, backup.finished_at))
        earliest[backup.timeline] = first
        ends, times = found.setdefault(backup.timeline, ([], []))
        ends.append(backup.stop_lsn)
        times.append(first)
    return {timeline: (ends[::-1], times[::-1]) for timeline, (ends, times) in found.items()}


def _joined(parts: Iterable[tuple[Lsn, Lsn]]) -> list[tuple[Lsn, Lsn]]:
    found: list[tuple[Lsn, Lsn]] = []
    for start, end in sorted(parts):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((start, end))
    return found


# --- doing it -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Aged:
    """What was moved; `refused` are objects that could not be, with why."""

    objects: int
    bytes: int
    refused: Mapping[str, str] = field(default_factory=dict)


def apply_aging(plan: AgingPlan, store: ObjectStore, progress: Progress) -> Aged:
    """Move what the plan says. What was moved stays moved: after a crash the next plan goes on. What is gone meanwhile
    is passed over, and what one object has against it stops no other.

    Raises what is transient: then the store is in trouble, and the rest must wait.
    """
    progress.phase("age", plan.bytes)
    moved, size = 0, 0
    refused: dict[str, str] = {}
    with ThreadPoolExecutor(_ABREAST, thread_name_prefix="age") as pool:
        for first in range(0, len(plan.moves), _BATCH):
            batch = plan.moves[first : first + _BATCH]
            for move, error in zip(batch, pool.map(lambda move: _moved(store, move), batch), strict=True):
                if error is None:
                    moved, size = moved + 1, size + move.size
                    progress.advance(move.size)
                elif error.transient:
                    raise error
                elif not isinstance(error, ObjectNotFound):
                    refused[move.key] = error.message
    return Aged(moved, size, refused)


def _moved(store: ObjectStore, move: Move) -> DrError | None:
    try:
        store.set_class(move.key, move.to)
    except DrError as error:
        return error
    return None
