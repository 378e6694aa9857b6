"""A system's WAL as recovery sees it: what all tiers that can be read hold together. One may hold what another lacks.

Heads of the open segment come and go while the stream runs: a longer one, then the whole, is put before the shorter
one is removed. So what was listed and is gone is looked for anew, and absence is what two looks in a row prove.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from dr_pipelines.errors import DrError, IntegrityError, ObjectNotFound, RepositoryError
from dr_pipelines.lsn import Lsn, Timeline, WalSegment
from dr_pipelines.postgres.restore_plan import WalSpan
from dr_pipelines.repository.wal_listing import ColdSegment

_ATTEMPTS = 5


@dataclass(frozen=True)
class FoundWal:
    """A segment's bytes, padded with zeros behind `end`."""

    data: bytes
    end: Lsn


class Span(Protocol):
    """WAL without a gap."""

    @property
    def timeline(self) -> Timeline: ...

    @property
    def start(self) -> Lsn: ...

    @property
    def end(self) -> Lsn: ...


class Listing(Protocol):
    """What there is: spans, and those of their segments that are in a storage class of their own."""

    def ranges(self) -> Sequence[Span]: ...

    @property
    def cold(self) -> Sequence[ColdSegment]: ...


class Head(Protocol):
    """The beginning of a segment, up to `end`."""

    @property
    def end(self) -> Lsn: ...


class WalSource(Protocol):
    """One place with WAL of a system: a tier's archive, or this host's spool."""

    def listing(self) -> Listing: ...

    def timelines(self) -> list[Timeline]: ...

    def history(self, timeline: Timeline) -> bytes | None:
        """None is proven absence."""
        ...

    def read_segment(self, segment: WalSegment) -> bytes:
        """A closed segment. Raises `ObjectNotFound`."""
        ...

    def head(self, segment: WalSegment) -> Head | None: ...

    def read_partial(self, head: Any, /) -> bytes:
        """What `head` gave, padded with zeros. Raises `ObjectNotFound` when it is gone since."""
        ...


class WalTiers:
    """`archives` are of one system, by tier, in order of preference. Safe to use from several threads."""

    def __init__(self, archives: Mapping[str, WalSource]) -> None:
        self._archives = dict(archives)

    def preferring(self, tier: str) -> WalTiers:
        """The same, asking this tier first."""
        first = {tier: self._archives[tier]} if tier in self._archives else {}
        return WalTiers(first | self._archives)

    def spans(self) -> list[WalSpan]:
        """What is there without a gap, by timeline and position. The spool, which is last, is listed first: WAL moves
        from there to the tiers, and must not be missed in both."""
        found = [part for archive in reversed(self._archives.values()) for part in archive.listing().ranges()]
        return joined(WalSpan(part.timeline, part.start, part.end) for part in found)

    def end(self, timeline: Timeline) -> Lsn | None:
        return max((span.end for span in self.spans() if span.timeline == timeline), default=None)

    def timelines(self) -> list[Timeline]:
        return sorted({timeline for archive in self._archives.values() for timeline in archive.timelines()})

    def history(self, timeline: Timeline) -> bytes | None:
        """None is proven absence."""
        return self._first(lambda archive: archive.history(timeline))

    def whole(self, segment: WalSegment) -> FoundWal | None:
        """A segment that is closed. None when no tier has it; raises when one could not be asked and none has it."""

        def read(archive: WalSource) -> bytes | None:
            try:
                return archive.read_segment(segment)
            except ObjectNotFound:
                return None

        data = self._first(read)
        return None if data is None else FoundWal(data, segment.end)

    def read(self, segment: WalSegment) -> FoundWal | None:
        """The segment, or the longest head of it. None is proven absence."""
        looks = 0
        for attempt in range(_ATTEMPTS):
            try:
                found = self._look(segment)
            except ObjectNotFound:
                if attempt == _ATTEMPTS - 1:
                    raise
                continue
            looks += 1
            if found is not None or looks == 2:
                return found
        return None

    def _look(self, segment: WalSegment) -> FoundWal | None:
        whole = self.whole(segment)
        head = self._head(segment) if whole is None else None
        # It may have been closed between the two questions; then a head that is left somewhere is shorter.
        return whole or (head and (self.whole(segment) or head))

    def first_after(self, segment: WalSegment) -> WalSegment | None:
        """The first segment of the timeline after this one of which there is any WAL."""
        spans = [span for span in self.spans() if span.timeline == segment.timeline and span.end > segment.end]
        starts = [max(span.start, segment.end) for span in spans]
        return WalSegment.containing(min(starts), segment.timeline, segment.size) if starts else None

    def _head(self, segment: WalSegment) -> FoundWal | None:
        """Only the longest counts: a shorter one would pass for the end of WAL."""
        heads = [(head, archive) for archive in self._archives.values() if (head := archive.head(segment)) is not None]
        longest = max((head.end for head, _ in heads), default=None)
        trouble: DrError | None = None
        for head, archive in heads:
            if head.end == longest:
                try:
                    return FoundWal(archive.read_partial(head), head.end)
                except DrError as error:
                    trouble = trouble or error
        if trouble is not None:
            raise trouble
        return None

    def _first(self, read: Callable[[WalSource], bytes | None]) -> bytes | None:
        """What the first tier gives. An error of one counts only when no other has the file; but where one holds two
        contents, nobody knows which is right."""
        troubles: list[DrError] = []
        for archive in self._archives.values():
            try:
                data = read(archive)
            except RepositoryError:
                raise
            except DrError as error:
                troubles.append(error)
                continue
            if data is not None:
                return data
        # Damaged on every tier it is only when every tier was asked.
        troubles.sort(key=lambda trouble: isinstance(trouble, IntegrityError))
        if troubles:
            raise troubles[0]
        return None


def joined(spans: Iterable[WalSpan]) -> list[WalSpan]:
    """Those of one timeline that overlap or touch, as one."""
    found: list[WalSpan] = []
    for span in sorted(spans, key=lambda span: (span.timeline, span.start)):
        last = found[-1] if found else None
        if last is not None and last.timeline == span.timeline and span.start <= last.end:
            found[-1] = WalSpan(last.timeline, last.start, max(last.end, span.end))
        else:
            found.append(span)
    return found
