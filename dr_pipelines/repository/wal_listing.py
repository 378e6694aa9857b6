"""What one listing of a system's WAL shows, in arrays: a tier may hold a million segments.

Ranges, recovery windows and retention share it. What the objects contain does not belong here.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from dr_pipelines.errors import RepositoryError
from dr_pipelines.lsn import Lsn, Timeline, WalSegment, is_history_name
from dr_pipelines.repository.layout import damaged_wal, parse_wal_key, wal_position
from dr_pipelines.storage.base import ObjectInfo


@dataclass(frozen=True)
class WalCoverage:
    """WAL without a gap from `start` up to `end` on one timeline: `segments` whole ones, and the head of one more
    where `ends_in_partial`. Two ranges of one timeline have a gap between them."""

    timeline: Timeline
    start: Lsn
    end: Lsn
    segments: int
    ends_in_partial: bool = False


@dataclass(frozen=True, slots=True)
class ListedHead:
    """The head of segment `number` up to `end`; `modified` is when it reached the store, `size` in stored bytes."""

    number: int
    end: int
    modified: float
    size: int


@dataclass(frozen=True, slots=True)
class ColdSegment:
    """A stored segment that is not in the store's ordinary storage class."""

    segment: WalSegment
    key: str
    size: int
    storage_class: str


class TimelineListing:
    """Of one timeline: `numbers` of its whole segments, ascending and each once; of each, in the same order, `modified`
    (when its first copy reached the store, in seconds since the epoch) and `sizes` (the stored bytes of all copies)."""

    def __init__(self, timeline: Timeline, segment_size: int) -> None:
        self.timeline, self.segment_size = timeline, segment_size
        self.numbers, self.modified, self.sizes = array("Q"), array("d"), array("Q")
        self.heads: list[ListedHead] = []

    def add(self, number: int, modified: float, size: int) -> None:
        """A whole segment. Quick where they come in order."""
        numbers = self.numbers
        if not numbers or number > numbers[-1]:
            numbers.append(number)
            self.modified.append(modified)
            self.sizes.append(size)
            return
        at = bisect_left(numbers, number)
        if numbers[at] == number:
            self.modified[at] = min(self.modified[at], modified)
            self.sizes[at] += size
        else:
            numbers.insert(at, number)
            self.modified.insert(at, modified)
            self.sizes.insert(at, size)

    @property
    def open_head(self) -> ListedHead | None:
        """The longest head of the newest segment, when the whole of it is not there."""
        newest = max(self.heads, key=lambda head: (head.number, head.end), default=None)
        return None if newest is None or (self.numbers and self.numbers[-1] >= newest.number) else newest

    @property
    def first(self) -> Lsn | None:
        """Where the first of it begins."""
        numbers = [*self.numbers[:1], *(head.number for head in self.heads)]
        return Lsn(min(numbers) * self.segment_size) if numbers else None

    def ranges(self) -> list[WalCoverage]:
        """What is there without a gap, by position."""
        size, found = self.segment_size, []
        for first, last in self._runs():
            found.append(WalCoverage(self.timeline, Lsn(first * size), Lsn((last + 1) * size), last - first + 1))
        if (head := self.open_head) is None:
            return found
        start, end, segments = Lsn(head.number * size), Lsn(head.end), 0
        if found and found[-1].end == start:
            whole = found.pop()
            start, segments = whole.start, whole.segments
        return [*found, WalCoverage(self.timeline, start, end, segments, ends_in_partial=True)]

    def stored_at(self, end: Lsn) -> datetime | None:
        """When what ends at `end` reached the store, at the latest. None when it is not there."""
        number = (end.value - 1) // self.segment_size
        times = [head.modified for head in self.heads if head.number == number and head.end >= end.value]
        at = bisect_left(self.numbers, number)
        if at < len(self.numbers) and self.numbers[at] == number:
            times.append(self.modified[at])
        return datetime.fromtimestamp(min(times), UTC) if times else None

    def _runs(self) -> Iterator[tuple[int, int]]:
        """First and last number of each row of segments."""
        numbers = self.numbers
        if not numbers:
            return
        first = last = numbers[0]
        for number in numbers:
            if number > last + 1:
                yield first, last
                first = number
            last = number
        yield first, last


@dataclass(frozen=True)
class WalListing:
    """A system's WAL by timeline, oldest first, the timelines that have a history file, and which of the segments are
    in cold storage."""

    segment_size: int
    timelines: Mapping[Timeline, TimelineListing]
    histories: frozenset[Timeline]
    cold: Sequence[ColdSegment] = ()

    @property
    def known(self) -> list[Timeline]:
        """Every timeline of which there is WAL or a history."""
        return sorted({*self.timelines, *self.histories})

    def ranges(self) -> list[WalCoverage]:
        """What is there, by timeline and position; a gap is where one range of a timeline ends and the next begins."""
        return [found for listing in self.timelines.values() for found in listing.ranges()]

    def stored_at(self, timeline: Timeline, end: Lsn) -> datetime | None:
        """See `TimelineListing.stored_at`."""
        listing = self.timelines.get(timeline)
        return None if listing is None else listing.stored_at(end)


def list_wal(listed: Iterable[ObjectInfo], segment_size: int) -> WalListing:
    """What a store lists. What is marked as damaged is not there: recovery must see the gap that it is.

    Raises `RepositoryError` for a segment that cannot be of this size.
    """
    listed = [*listed]
    found = _Placing(segment_size)
    found.place(listed)
    damaged = frozenset(marked for info in found.others if (marked := damaged_wal(info.key)) is not None)
    if damaged:  # rare, so that most listings are gone through once
        found = _Placing(segment_size)
        found.place(info for info in listed if info.key not in damaged)
    by_timeline = {Timeline(line): found.timelines[line] for line in sorted(found.timelines)}
    histories = frozenset(line for info in found.others if (line := _history_of(info)) is not None)
    return WalListing(segment_size, by_timeline, histories, found.cold)


class _Placing:
    """Puts each object where it belongs. `others` are those that are no segments."""

    def __init__(self, segment_size: int) -> None:
        self._size = segment_size
        self.timelines: dict[int, TimelineListing] = {}
        self.others: list[ObjectInfo] = []
        self.cold: list[ColdSegment] = []

    def place(self, listed: Iterable[ObjectInfo]) -> None:
        per_log, timelines = (1 << 32) // self._size, self.timelines
        for info in listed:
            position = wal_position(info.key)
            if position is None:
                self.others.append(info)
                continue
            name, head_end = position
            line, log, segment = name >> 64, name >> 32 & 0xFFFFFFFF, name & 0xFFFFFFFF
            if segment >= per_log:
                raise RepositoryError(f"{info.key} is no segment of {self._size} bytes, as others of its system are")
            if line not in timelines:
                timelines[line] = TimelineListing(Timeline(line), self._size)
            number, modified = log * per_log + segment, info.modified.timestamp()
            if head_end:
                timelines[line].heads.append(ListedHead(number, head_end, modified, info.size))
                continue
            timelines[line].add(number, modified, info.size)
            if info.storage_class is not None:
                whole = WalSegment(Timeline(line), number, self._size)
                self.cold.append(ColdSegment(whole, info.key, info.size, info.storage_class))


def _history_of(info: ObjectInfo) -> Timeline | None:
    key = parse_wal_key(info.key)
    return Timeline.of_history_file(key.file) if key is not None and is_history_name(key.file) else None
