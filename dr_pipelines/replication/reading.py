"""Stored objects read whole against size and SHA-256, in parallel, a piece at a time: nothing is held in memory.

A share of them may be read each time; consecutive runs read consecutive shares, so that `100 / share` runs read all.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

from dr_pipelines.errors import DrError, ObjectNotFound, StoreUnavailable
from dr_pipelines.progress import Progress
from dr_pipelines.replication.inventory import Fault, Named
from dr_pipelines.repository import layout
from dr_pipelines.repository.manifest import StoredObject
from dr_pipelines.storage.base import Availability, ObjectInfo, ObjectStore

_THREADS = 8
_BATCH = 4096
_PATIENCE = 5
"""So many objects may be out of reach, each after all retries, before the store counts as down."""


@dataclass(frozen=True)
class Sample:
    """The objects whose place on a circle of 100 lies within `share` percent from `start` on: every one has its place
    by its key."""

    share: int = 100
    start: float = 0.0

    def holds(self, key: str) -> bool:
        if self.share >= 100:
            return True
        place = int(hashlib.sha256(key.encode()).hexdigest()[:12], 16) / (1 << 48) * 100
        return (place - self.start) % 100 < self.share

    @property
    def following(self) -> Sample:
        return Sample(self.share, (self.start + self.share) % 100)


ALL = Sample()


@dataclass
class Seen:
    """Of `objects` that were looked for, `read` were read. `whole`: those of backups, or that were to be read in any
    case, that match; `offline` cannot be read without a recall; `unread` could not be read, and why. The others were
    not in the sample."""

    whole: set[str] = field(default_factory=set)
    objects: int = 0
    read: int = 0
    bytes: int = 0
    offline: list[str] = field(default_factory=list)
    unread: dict[str, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)


def matches(store: ObjectStore, stored: StoredObject, progress: Progress | None = None) -> bool:
    """Raises `ObjectNotFound`."""
    digest, size = hashlib.sha256(), 0
    for piece in store.open(stored.key):
        digest.update(piece)
        size += len(piece)
        if progress is not None:
            progress.advance(len(piece))
        if size > stored.size:
            return False
    return size == stored.size and digest.hexdigest() == stored.sha256


def as_on(store: ObjectStore, stored: StoredObject) -> StoredObject:
    """WAL with the size that it has there: nothing but its SHA-256 says what is right. Raises `ObjectNotFound`."""
    if layout.parse_wal_key(stored.key) is None:
        return stored
    return stored.model_copy(update={"size": store.stat(stored.key).size})


def is_offline(store: ObjectStore, info: ObjectInfo) -> bool:
    """Only an object of another class than the store's ordinary one can be."""
    return info.storage_class is not None and store.stat(info.key).availability is not Availability.ONLINE


def read_objects(
    store: ObjectStore,
    named: Callable[[], Iterable[Named]],
    there: Mapping[str, ObjectInfo],
    sample: Sample,
    progress: Progress,
    *,
    always: Collection[str] = (),
) -> Seen:
    """Existence and size are looked at for all that `named` gives, which is asked twice: of a million objects a batch
    is in memory. `always` are read whatever the sample is. Raises `StoreUnavailable` when the store does not answer."""

    def is_wanted(each: Named) -> bool:
        key = each.stored.key
        return key in always or sample.holds(key)

    progress.phase("read", sum(each.stored.size for each in named() if is_wanted(each)))
    reading, batch = _Reading(store, there, progress, always), list[Named]()
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="scrub") as pool:
        for each in named():
            if reading.is_there(each) and is_wanted(each):
                batch.append(each)
            if len(batch) == _BATCH:
                _exhaust(pool.map(reading.read, batch))
                batch = []
        _exhaust(pool.map(reading.read, batch))
    return reading.seen


def _exhaust(results: Iterator[None]) -> None:
    """So that what a thread raised is raised here."""
    for _ in results:
        pass


class _Reading:
    """Fills `seen`, from several threads."""

    def __init__(
        self, store: ObjectStore, there: Mapping[str, ObjectInfo], progress: Progress, always: Collection[str]
    ) -> None:
        self._store, self._there, self._progress, self._always = store, there, progress, always
        self._lock = threading.Lock()
        self.seen = Seen()

    def is_there(self, each: Named) -> bool:
        """With its size."""
        with self._lock:
            self.seen.objects += 1
        info = self._there.get(each.stored.key)
        if info is not None and info.size == each.stored.size:
            return True
        self._found(each, "missing" if info is None else "damaged")
        return False

    def read(self, each: Named) -> None:
        key = each.stored.key
        if len(self.seen.unread) > _PATIENCE:
            raise StoreUnavailable(next(iter(self.seen.unread.values())))
        try:
            if is_offline(self._store, self._there[key]):
                self.seen.offline.append(key)
                return
            whole = matches(self._store, each.stored, self._progress)
        except ObjectNotFound:
            if each.label is not None:
                self._found(each, "missing")
            else:  # WAL that is gone since it was listed was pruned, or was a head and has grown
                with self._lock:
                    self.seen.objects -= 1
            return
        except DrError as error:
            self.seen.unread[key] = error.message
            return
        self._count(each, whole=whole)

    def _count(self, each: Named, *, whole: bool) -> None:
        with self._lock:
            self.seen.read += 1
            self.seen.bytes += each.stored.size
            if whole and (each.label is not None or each.stored.key in self._always):
                self.seen.whole.add(each.stored.key)
        if not whole:
            self._found(each, "damaged")

    def _found(self, each: Named, what: Literal["damaged", "missing"]) -> None:
        self.seen.faults.append(Fault(each.stored.key, what, each.label, each.stored))
