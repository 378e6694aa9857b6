"""Stored objects read whole against size and SHA-256, in parallel, a piece at a time: nothing is held in memory.

A share of them may be read each time; consecutive runs read consecutive shares, so that `100 / share` runs read all.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from dr_pipelines.errors import DrError, ObjectNotFound, StoreUnavailable
from dr_pipelines.progress import Progress
from dr_pipelines.replication.inventory import Fault, Named
from dr_pipelines.repository import layout
from dr_pipelines.repository.manifest import StoredObject
from dr_pipelines.storage.base import Availability, ObjectInfo, ObjectStore

_THREADS = 8
_PATIENCE = 5
"""So many objects may be out of reach, each after all retries, before the store counts as down."""


@dataclass(frozen=True)
class Sample:
    """The objects whose place on a circle of 100 lies within `share` percent from `start` on: every one has its place
    by its key."""

    share: int = 100
    start: float = 0.0

    def holds(self, key: str) -> bool:
        place = int(hashlib.sha256(key.encode()).hexdigest()[:12], 16) / (1 << 48) * 100
        return self.share >= 100 or (place - self.start) % 100 < self.share

    @property
    def following(self) -> Sample:
        return Sample(self.share, (self.start + self.share) % 100)


ALL = Sample()


@dataclass
class Seen:
    """`whole` keys were read and match; `offline` cannot be read without a recall; `unread` could not be read, and why.
    The others were not in the sample."""

    whole: set[str] = field(default_factory=set)
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
    named: Iterable[Named],
    there: Mapping[str, ObjectInfo],
    sample: Sample,
    progress: Progress,
    *,
    always: Iterable[str] = (),
) -> Seen:
    """Existence and size are looked at for all; `always` are read whatever the sample is. Raises `StoreUnavailable`
    when the store does not answer."""
    seen, lock, wanted = Seen(), threading.Lock(), set(always)
    to_read: list[Named] = []
    for each in named:
        key, info = each.stored.key, there.get(each.stored.key)
        if info is None:
            seen.faults.append(Fault(key, "missing", each.label, each.stored))
        elif info.size != each.stored.size:
            seen.faults.append(Fault(key, "damaged", each.label, each.stored))
        elif key in wanted or sample.holds(key):
            to_read.append(each)

    def read(each: Named) -> None:
        key = each.stored.key
        if len(seen.unread) > _PATIENCE:
            raise StoreUnavailable(next(iter(seen.unread.values())))
        try:
            if is_offline(store, there[key]):
                with lock:
                    seen.offline.append(key)
                return
            whole = matches(store, each.stored, progress)
        except ObjectNotFound:
            whole = None
        except DrError as error:
            with lock:
                seen.unread[key] = error.message
            return
        with lock:
            if whole is None:
                if each.label is not None:  # WAL that is gone since it was listed was pruned
                    seen.faults.append(Fault(key, "missing", each.label, each.stored))
                return
            seen.read += 1
            seen.bytes += each.stored.size
            if whole:
                seen.whole.add(key)
            else:
                seen.faults.append(Fault(key, "damaged", each.label, each.stored))

    progress.phase("read", sum(each.stored.size for each in to_read))
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="scrub") as pool:
        for _ in pool.map(read, to_read):
            pass
    return seen
