"""A server's WAL on one tier: whole segments, heads of the open one, timeline histories.

Each object's name carries the SHA-256 of its stored bytes, so nothing is ever overwritten and everything that is
read is proven. Where the WAL comes from and what recovery makes of it does not belong here.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from dr_pipelines.errors import (
    IntegrityError,
    KeyUnusable,
    ObjectExists,
    ObjectLocked,
    ObjectNotFound,
    RepositoryError,
)
from dr_pipelines.lsn import DEFAULT_SEGMENT_SIZE, Lsn, Timeline, WalSegment
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.layout import WalKey, WalLayout, damaged_wal, parse_wal_key, wal_damage
from dr_pipelines.repository.manifest import StoredObject
from dr_pipelines.repository.placement import ORDINARY, Placement
from dr_pipelines.repository.wal_listing import WalCoverage as WalCoverage
from dr_pipelines.repository.wal_listing import WalListing, list_wal
from dr_pipelines.storage.base import Body, ObjectInfo, ObjectStore, read_all


@dataclass(frozen=True)
class StoredSegment:
    """A whole segment; `modified` is when it reached the store."""

    segment: WalSegment
    stored: StoredObject
    modified: datetime


@dataclass(frozen=True)
class StoredPartial:
    """The head of a segment, up to `end`."""

    segment: WalSegment
    end: Lsn
    stored: StoredObject
    modified: datetime


def description(segment_size: int) -> bytes:
    """What lies in `wal.json`."""
    return json.dumps({"segment_size": segment_size}).encode() + b"\n"


class WalArchive:
    """Safe to use from several threads, and by several writers at once."""

    def __init__(
        self,
        store: ObjectStore,
        codec: Codec,
        server: str,
        system_id: str,
        segment_size: int | None = None,
        *,
        placement: Placement = ORDINARY,
    ) -> None:
        self._store, self._codec, self._placement = store, codec, placement
        self.server, self.system_id = server, system_id
        self._layout = WalLayout(server, system_id)
        self._segment_size = segment_size

    @property
    def segment_size(self) -> int:
        """In bytes, as the first writer put it down."""
        if self._segment_size is None:
            try:
                described = json.loads(read_all(self._store, self._layout.description))
                self._segment_size = int(described["segment_size"])
            except ObjectNotFound:
                return DEFAULT_SEGMENT_SIZE
            except (ValueError, KeyError, TypeError) as error:
                raise RepositoryError(f"{self._layout.description} on {self._store.name} is unreadable") from error
        return self._segment_size

    # --- writing ---

    def put_segment(self, segment: WalSegment, data: bytes) -> None:
        """Durable when it returns. The same content again is success and makes no second object; other content
        under the same name raises `RepositoryError` (where it can be read, else when it is read)."""
        if len(data) != segment.size:
            raise ValueError(f"segment {segment} has {segment.size} bytes, not {len(data)}")
        self._describe(segment.size)
        if not self._has_whole(self._of_segment(segment), data, segment.name):
            encoded = Body.of(self._codec.encode(data))
            self._put_whole(self._layout.segment(segment, encoded.sha256, self._codec.suffix), encoded)

    def put_partial(self, segment: WalSegment, end: Lsn, data: bytes) -> None:
        """The open segment's bytes up to `end` (`data` may be longer: what lies behind is not put). Shorter heads of
        the segment are removed afterwards."""
        size = end - segment.start
        if not 0 < size <= min(segment.size, len(data)):
            raise ValueError(f"the head of {segment} up to {end} is not in {len(data)} bytes")
        self._describe(segment.size)
        there = self._of_segment(segment)
        if any(key.partial_end is None or key.partial_end == end for _, key in there):
            return
        encoded = Body.of(self._codec.encode(memoryview(data)[:size]))
        self._placement.put(
            self._store, self._layout.partial(segment, end, encoded.sha256, self._codec.suffix), encoded
        )
        self._remove(info for info, key in there if key.partial_end is not None and key.partial_end < end)

    def put_history(self, timeline: Timeline, data: bytes) -> None:
        if not self._has_whole(self._objects(self._layout.history_prefix(timeline)), data, timeline.history_file):
            encoded = Body.of(self._codec.encode(data))
            self._put_whole(self._layout.history(timeline, encoded.sha256, self._codec.suffix), encoded)

    def drop_partials(self, segment: WalSegment) -> None:
        """Removes the heads of a segment, once the whole is there; before that it does nothing."""
        there = self._of_segment(segment)
        if any(key.partial_end is None for _, key in there):
            self._remove(info for info, key in there if key.partial_end is not None)

    # --- reading ---

    def listing(self) -> WalListing:
        """All that is there, in one pass."""
        return list_wal(self._store.list(self._layout.prefix), self.segment_size)

    def timelines(self) -> list[Timeline]:
        """Every timeline of which there is WAL or a history."""
        return self.listing().known

    def is_empty(self) -> bool:
        """Whether nothing of this system is there: its description is put before the first segment."""
        try:
            self._store.stat(self._layout.description)
        except ObjectNotFound:
            return True
        return False

    def segments(self, timeline: Timeline) -> list[StoredSegment]:
        """Whole segments in order, one for each position."""
        return _whole(self._objects(self._layout.timeline_prefix(timeline)), self.segment_size)

    def newest_partial(self, timeline: Timeline) -> StoredPartial | None:
        """The longest head of the newest segment, when the whole of it is not there."""
        return _newest_partial(self._objects(self._layout.timeline_prefix(timeline)), self.segment_size)

    def head(self, segment: WalSegment) -> StoredPartial | None:
        """The longest head of a segment, whether or not the whole is there too."""
        partials = _partials(self._of_segment(segment), segment.size)
        return max(partials, key=lambda partial: partial.end, default=None)

    def history(self, timeline: Timeline) -> bytes | None:
        """None is proven absence: the store listed, and it is not there. (Timeline 1 has none.)"""
        there = self._objects(self._layout.history_prefix(timeline))
        return self._read_one(there, timeline.history_file) if there else None

    def read_segment(self, segment: WalSegment) -> bytes:
        """The whole segment, proven by the SHA-256 of its name.

        Raises `ObjectNotFound` for proven absence, `IntegrityError` when no copy is whole, `RepositoryError` when two
        differ.
        """
        there = [(info, key) for info, key in self._of_segment(segment) if key.partial_end is None]
        if not there:
            raise ObjectNotFound(f"WAL segment {segment} of server {self.server} is not on {self._store.name}")
        data = self._read_one(there, segment.name)
        if len(data) != segment.size:
            raise IntegrityError(f"WAL segment {segment} on {self._store.name} has {len(data)} bytes")
        return data

    def read_partial(self, stored: StoredPartial) -> bytes:
        """The head of a segment, padded with zeros to the segment's size, as recovery wants it."""
        return self._read(stored.stored.key, stored.stored.sha256).ljust(stored.segment.size, b"\0")

    def ranges(self) -> list[WalCoverage]:
        """What is there, by timeline and position; a gap is where one range of a timeline ends and the next begins."""
        return self.listing().ranges()

    # --- inside ---

    def _put(self, key: str, body: Body) -> None:
        self._placement.put(self._store, key, body)

    def _put_whole(self, key: str, body: Body) -> None:
        try:
            self._put(key, body)
        except ObjectExists:  # its name says what it was: it is damaged, and here is what heals it
            self._placement.put(self._store, key, body, if_absent=False)
            self._store.delete(wal_damage(key))

    def _describe(self, segment_size: int) -> None:
        if self._segment_size is None:
            data = description(segment_size)
            try:
                there = read_all(self._store, self._layout.description)
            except ObjectNotFound:
                self._put(self._layout.description, Body.of(data))
            else:
                if there != data:
                    raise RepositoryError(
                        f"{self._layout.description} on {self._store.name} names another segment size"
                    )
            self._segment_size = segment_size
        elif self._segment_size != segment_size:
            raise RepositoryError(f"the WAL of {self.system_id} has segments of {self._segment_size} bytes")

    def _objects(self, prefix: str) -> list[tuple[ObjectInfo, WalKey]]:
        """What is marked as damaged is not there: recovery must see the gap that it is."""
        listed = [*self._store.list(prefix)]
        damaged = {marked for info in listed if (marked := damaged_wal(info.key)) is not None}
        return [
            (info, key) for info in listed if info.key not in damaged and (key := parse_wal_key(info.key)) is not None
        ]

    def _of_segment(self, segment: WalSegment) -> list[tuple[ObjectInfo, WalKey]]:
        return self._objects(self._layout.segment_prefix(segment))

    def _has_whole(self, there: Iterable[tuple[ObjectInfo, WalKey]], data: bytes, name: str) -> bool:
        """A damaged copy is none: who brings good bytes must not be refused for it."""
        for info, key in there:
            if key.partial_end is None:
                with contextlib.suppress(IntegrityError):
                    self._require_same(info, data, name)
                    return True
        return False

    def _require_same(self, info: ObjectInfo, data: bytes, name: str) -> None:
        """Another writer (or we, before a crash) put it already. Without an identity only the name can be compared."""
        key = parse_wal_key(info.key)
        if key is None or not self._codec.can_decrypt:
            return
        try:
            there = self._read(info.key, key.sha256)
        except KeyUnusable:
            return
        if there != data:
            raise _contradiction(name, self._store.name)

    def _read_one(self, there: Sequence[tuple[ObjectInfo, WalKey]], name: str) -> bytes:
        """One content out of one or more objects; a damaged copy is passed over when another is whole."""
        contents: set[bytes] = set()
        damage: IntegrityError | None = None
        for info, key in there:
            try:
                contents.add(self._read(info.key, key.sha256))
            except IntegrityError as error:
                damage = error
        if len(contents) > 1:
            raise _contradiction(name, self._store.name)
        if not contents and damage is not None:
            raise damage
        return contents.pop()

    def _read(self, key: str, sha256: str) -> bytes:
        data = read_all(self._store, key)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise IntegrityError(
                f"{key} on {self._store.name} does not match the SHA-256 in its name",
                hint="restore with WAL of another tier (`dr restore --tier …`).",
            )
        return self._codec.decode(data)

    def _remove(self, objects: Iterable[ObjectInfo]) -> None:
        for info in objects:
            try:
                self._store.delete(info.key)
            except ObjectLocked:
                continue  # it goes when its lock ends; recovery takes the longest head anyway


def _contradiction(name: str, where: str) -> RepositoryError:
    return RepositoryError(
        f"{where} holds two different contents of {name}",
        hint="two servers write under one name, or one was restored without a new timeline: give each its own name in "
        "the plan (databases), take a full backup, and restore with a target before this segment.",
    )


def _stored(info: ObjectInfo, key: WalKey) -> StoredObject:
    return StoredObject(key=info.key, size=info.size, sha256=key.sha256)


def _whole(objects: Iterable[tuple[ObjectInfo, WalKey]], size: int) -> list[StoredSegment]:
    found: dict[WalSegment, StoredSegment] = {}
    for info, key in objects:
        if key.partial_end is None:
            segment = WalSegment.parse(key.file, size)
            found.setdefault(segment, StoredSegment(segment, _stored(info, key), info.modified))
    return [found[segment] for segment in sorted(found)]


def _partials(objects: Iterable[tuple[ObjectInfo, WalKey]], size: int) -> list[StoredPartial]:
    return [
        StoredPartial(WalSegment.parse(key.file, size), key.partial_end, _stored(info, key), info.modified)
        for info, key in objects
        if key.partial_end is not None
    ]


def _newest_partial(objects: Sequence[tuple[ObjectInfo, WalKey]], size: int) -> StoredPartial | None:
    newest = max(_partials(objects, size), key=lambda partial: (partial.segment, partial.end), default=None)
    whole = _whole(objects, size)
    return None if newest is None or (whole and whole[-1].segment >= newest.segment) else newest
