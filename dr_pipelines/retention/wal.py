"""A tier's WAL as retention sees it: which objects lie where, in arrays, for a tier may hold a million of them; and
which stretches of it are needed.

Pure but for `list_wal`. What makes WAL needed is decided in `planner.py`.
"""

from __future__ import annotations

import json
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from dr_pipelines.errors import ObjectNotFound, RepositoryError
from dr_pipelines.lsn import DEFAULT_SEGMENT_SIZE, Lsn, Timeline
from dr_pipelines.repository.layout import WalLayout, damaged_wal, system_id_of, wal_position, wal_prefix
from dr_pipelines.repository.manifest import BackupManifest, WalRange
from dr_pipelines.storage.base import ObjectInfo, ObjectStore, read_all

Run = tuple[int, int]
"""Segment numbers from one up to, and without, another."""

_FOREVER = 1 << 64


@dataclass(frozen=True)
class WalNeed:
    """WAL of `timeline`, and of those that may have branched off it, from `start` to `end` (None: whatever comes)."""

    timeline: Timeline
    start: Lsn
    end: Lsn | None = None

    def run(self, size: int) -> Run:
        """The segments that hold any of it."""
        return self.start.value // size, _FOREVER if self.end is None else -(-self.end.value // size)


class WalObject(NamedTuple):
    """One stored segment, or head of one. `modified` in seconds since the epoch."""

    key: str
    size: int
    modified: float
    storage_class: str | None = None


class TimelineWal:
    """Of one timeline, in order of position. `modified` in seconds since the epoch."""

    def __init__(self) -> None:
        self.numbers, self.sizes, self.modified = array("Q"), array("Q"), array("d")
        self.keys: list[str] = []
        self.classes: list[str | None] = []
        self.runs: list[Run] = []
        """Whole segments that are not marked as damaged."""
        self.heads: list[tuple[int, int]] = []
        """Segment number and end of the open segments' heads that are not marked as damaged."""
        self.newest = 0.0
        """When the newest of it reached the store."""

    def add(self, number: int, info: ObjectInfo, head_end: int, *, damaged: bool) -> None:
        """Objects come in the order of their keys, which is that of positions. `head_end` 0: the whole segment."""
        modified = info.modified.timestamp()
        self.numbers.append(number)
        self.sizes.append(info.size)
        self.modified.append(modified)
        self.keys.append(info.key)
        self.classes.append(info.storage_class)
        if modified > self.newest:
            self.newest = modified
        if damaged:
            return
        if head_end:
            self.heads.append((number, head_end))
        elif self.runs and number <= self.runs[-1][1]:
            self.runs[-1] = (self.runs[-1][0], number + 1)
        else:
            self.runs.append((number, number + 1))

    def covers(self, start: int, end: int, size: int) -> bool:
        """Whether the bytes between two positions are there."""
        first, last = start // size, -(-end // size)
        if any(low <= first and last <= high for low, high in self.runs):
            return True
        head = any(number == last - 1 and upto >= end for number, upto in self.heads)
        return head and (first == last - 1 or any(low <= first and last - 1 <= high for low, high in self.runs))

    def outside(self, runs: Sequence[Run]) -> Iterator[WalObject]:
        """Objects that lie in none of these runs (joined, ascending), oldest first."""
        at = 0
        for low, high in [*runs, (_FOREVER, _FOREVER)]:
            upto = bisect_left(self.numbers, low) if low < _FOREVER else len(self.numbers)
            for index in range(at, upto):
                yield self._object(index)
            if low == _FOREVER or high >= _FOREVER:
                return
            at = bisect_left(self.numbers, high)

    def inside(self, run: Run) -> Iterator[WalObject]:
        for index in range(bisect_left(self.numbers, run[0]), bisect_left(self.numbers, min(run[1], _FOREVER - 1))):
            yield self._object(index)

    def _object(self, index: int) -> WalObject:
        return WalObject(self.keys[index], self.sizes[index], self.modified[index], self.classes[index])


@dataclass
class SystemWal:
    """Of one system. `marks`: keys that say that an object is damaged."""

    segment_size: int
    timelines: Mapping[Timeline, TimelineWal] = field(default_factory=dict)
    marks: Sequence[str] = ()

    @property
    def newest(self) -> datetime | None:
        """When the newest of it reached the store."""
        times = [wal.newest for wal in self.timelines.values()]
        return datetime.fromtimestamp(max(times), UTC) if times else None

    @property
    def classes(self) -> set[str | None]:
        return {name for wal in self.timelines.values() for name in set(wal.classes)}

    def holds(self, needed: WalRange) -> bool:
        wal = self.timelines.get(needed.timeline)
        return wal is not None and wal.covers(needed.start.value, needed.end.value, self.segment_size)

    def within(self, need: WalNeed) -> Iterator[WalObject]:
        for timeline, wal in self.timelines.items():
            if timeline >= need.timeline:
                yield from wal.inside(need.run(self.segment_size))

    def unneeded(self, needs: Sequence[WalNeed]) -> Iterator[WalObject]:
        """Oldest first, so that what a crash leaves is the end of each timeline."""
        for timeline, wal in sorted(self.timelines.items()):
            yield from wal.outside(runs_on(timeline, needs, self.segment_size))

    def lacking(self, needs: Sequence[WalNeed], other: SystemWal | None) -> list[WalNeed]:
        """What of these needs is here and not, whole, in another place."""
        found = []
        for timeline, wal in self.timelines.items():
            wanted = _common(runs_on(timeline, needs, self.segment_size), wal.runs)
            there = other.timelines[timeline].runs if other and timeline in other.timelines else []
            found += [
                WalNeed(timeline, Lsn(low * self.segment_size), Lsn(high * self.segment_size))
                for low, high in _without(wanted, there)
            ]
        return found


def runs_on(timeline: Timeline, needs: Iterable[WalNeed], size: int) -> list[Run]:
    """Joined and ascending."""
    joined: list[Run] = []
    for low, high in sorted(need.run(size) for need in needs if need.timeline <= timeline):
        if joined and low <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], high))
        else:
            joined.append((low, high))
    return joined


def own_wal(backup: BackupManifest) -> tuple[WalRange, ...]:
    """WAL without which it is not consistent."""
    return backup.wal_ranges or (WalRange(timeline=backup.timeline, start=backup.start_lsn, end=backup.stop_lsn),)


def list_wal(store: ObjectStore, server: str, segment_sizes: Mapping[str, int]) -> dict[str, SystemWal]:
    """Every system's, in one listing. `segment_sizes`: of the systems whose backups say it; others are asked.

    Raises what the store raises, and `RepositoryError` for a system whose description is unreadable.
    """

    def size_of(system_id: str) -> int:
        return segment_sizes.get(system_id) or _described_size(store, WalLayout(server, system_id))

    return wal_among(store.list(wal_prefix(server)), server, size_of)


def wal_among(listed: Iterable[ObjectInfo], server: str, size_of: Callable[[str], int | None]) -> dict[str, SystemWal]:
    """Of what lies under `layout.wal_prefix`. A system of which `size_of` knows no segment size is left out."""
    systems: dict[str, SystemWal] = {}
    segments: dict[str, list[ObjectInfo]] = {}
    prefix, current = "/", list[ObjectInfo]()
    for info in listed:
        if not info.key.startswith(prefix):
            layout = WalLayout(server, system_id_of(server, info.key))
            prefix, current = layout.prefix, segments.setdefault(layout.system_id, [])
        current.append(info)
    for system_id, infos in segments.items():
        if (size := size_of(system_id)) is not None:
            systems[system_id] = _placed(infos, size)
    return systems


def _placed(infos: Sequence[ObjectInfo], segment_size: int) -> SystemWal:
    marks = [info.key for info in infos if damaged_wal(info.key) is not None]
    damaged = {damaged_wal(mark) for mark in marks}
    per_log = (1 << 32) // segment_size
    found: dict[int, TimelineWal] = {}
    for info in infos:
        place = wal_position(info.key)
        if place is None:
            continue
        name, head_end = place
        timeline = found.get(name >> 64)
        if timeline is None:
            timeline = found[name >> 64] = TimelineWal()
        number = (name >> 32 & 0xFFFFFFFF) * per_log + (name & 0xFFFFFFFF)
        timeline.add(number, info, head_end, damaged=bool(damaged) and info.key in damaged)
    return SystemWal(segment_size, {Timeline(number): found[number] for number in sorted(found)}, marks)


def _described_size(store: ObjectStore, layout: WalLayout) -> int:
    try:
        return int(json.loads(read_all(store, layout.description))["segment_size"])
    except ObjectNotFound:
        return DEFAULT_SEGMENT_SIZE  # as who else reads it: of a system without backups all of its WAL stays, or none
    except (ValueError, KeyError, TypeError) as error:
        raise RepositoryError(f"{layout.description} on {store.name} is unreadable") from error


def _common(left: Sequence[Run], right: Sequence[Run]) -> list[Run]:
    pairs = ((max(a, c), min(b, d)) for a, b in left for c, d in right)
    return sorted((low, high) for low, high in pairs if low < high)


def _without(runs: Sequence[Run], taken: Sequence[Run]) -> list[Run]:
    found = []
    for low, high in runs:
        for begin, end in taken:
            if begin < high and low < end:
                if low < begin:
                    found.append((low, begin))
                low = max(low, end)
        if low < high:
            found.append((low, high))
    return found
