"""What cuts across stores: a prefix, no writing, trying again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

from dr_pipelines.clock import Clock
from dr_pipelines.errors import AccessDenied
from dr_pipelines.storage.attempts import Attempts
from dr_pipelines.storage.base import (
    Availability,
    Body,
    BucketSettings,
    Capabilities,
    LockAttempt,
    ObjectInfo,
    ObjectStore,
    Pieces,
)

T = TypeVar("T")


class Forwarding:
    """A store in front of another. `_do` is how each call of a verb is made: a subclass may try it again, or not at
    all; `writes` says whether it would change the store."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self.name = store.name

    def _do(self, what: str, call: Callable[[], T], *, writes: bool = False) -> T:
        return call()

    @property
    def capabilities(self) -> Capabilities:
        return self._do("ask what it can", lambda: self._store.capabilities)  # a bucket may have to be asked

    def put(
        self,
        key: str,
        body: Body,
        *,
        if_absent: bool = True,
        retain_until: datetime | None = None,
        storage_class: str | None = None,
    ) -> ObjectInfo:
        def call() -> ObjectInfo:
            return self._store.put(
                key, body, if_absent=if_absent, retain_until=retain_until, storage_class=storage_class
            )

        return self._do(f"put {key}", call, writes=True)

    def open(self, key: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        return self._do(f"open {key}", lambda: self._store.open(key, offset=offset, length=length))

    def stat(self, key: str) -> ObjectInfo:
        return self._do(f"stat {key}", lambda: self._store.stat(key))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return self._do(f"list {prefix}", lambda: self._store.list(prefix))

    def delete(self, key: str) -> None:
        self._do(f"delete {key}", lambda: self._store.delete(key), writes=True)

    def extend_lock(self, key: str, retain_until: datetime) -> None:
        self._do(f"lock {key}", lambda: self._store.extend_lock(key, retain_until), writes=True)

    def set_class(self, key: str, storage_class: str) -> None:
        self._do(f"move {key}", lambda: self._store.set_class(key, storage_class), writes=True)

    def recall(self, key: str, *, urgent: bool = False) -> Availability:
        # Not a write: a restore, which must change nothing, has to ask for what it reads.
        return self._do(f"recall {key}", lambda: self._store.recall(key, urgent=urgent))

    def revive(self, key: str, sha256: str) -> bool:
        return self._do(f"revive {key}", lambda: self._store.revive(key, sha256), writes=True)

    def settings(self) -> BucketSettings:
        return self._do("ask for its settings", lambda: self._store.settings())

    def attack(self, key: str) -> Sequence[LockAttempt]:
        return self._do(f"attack {key}", lambda: self._store.attack(key), writes=True)


class Prefixed(Forwarding):
    """A folder of a store as a store."""

    def __init__(self, store: ObjectStore, prefix: str) -> None:
        super().__init__(store)
        self._prefix = prefix.strip("/") + "/"

    def put(
        self,
        key: str,
        body: Body,
        *,
        if_absent: bool = True,
        retain_until: datetime | None = None,
        storage_class: str | None = None,
    ) -> ObjectInfo:
        inside = self._prefix + key
        return self._outside(
            super().put(inside, body, if_absent=if_absent, retain_until=retain_until, storage_class=storage_class)
        )

    def open(self, key: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        return super().open(self._prefix + key, offset=offset, length=length)

    def stat(self, key: str) -> ObjectInfo:
        return self._outside(super().stat(self._prefix + key))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return (self._outside(info) for info in super().list(self._prefix + prefix))

    def delete(self, key: str) -> None:
        super().delete(self._prefix + key)

    def extend_lock(self, key: str, retain_until: datetime) -> None:
        super().extend_lock(self._prefix + key, retain_until)

    def set_class(self, key: str, storage_class: str) -> None:
        super().set_class(self._prefix + key, storage_class)

    def recall(self, key: str, *, urgent: bool = False) -> Availability:
        return super().recall(self._prefix + key, urgent=urgent)

    def revive(self, key: str, sha256: str) -> bool:
        return super().revive(self._prefix + key, sha256)

    def attack(self, key: str) -> Sequence[LockAttempt]:
        return super().attack(self._prefix + key)

    def _outside(self, info: ObjectInfo) -> ObjectInfo:
        return replace(info, key=info.key.removeprefix(self._prefix))


class ReadOnly(Forwarding):
    """A store that refuses to change: what a drill or a dry run is given."""

    def _do(self, what: str, call: Callable[[], T], *, writes: bool = False) -> T:
        if writes:
            raise AccessDenied(f"{self.name} is open for reading only: will not {what}")
        return call()


class Retrying(Forwarding):
    """Tries again what is transient; a cut download goes on where it was cut."""

    def __init__(self, store: ObjectStore, clock: Clock, *, attempts: int = 6, longest_wait: float = 20.0) -> None:
        super().__init__(store)
        self._attempts = Attempts(clock, attempts=attempts, longest_wait=longest_wait)

    def open(self, key: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        def reopen(seen: int) -> Iterator[bytes]:
            left = None if length is None else length - seen
            return self._store.open(key, offset=offset + seen, length=left)

        first = super().open(key, offset=offset, length=length)
        return Pieces(self._attempts.resumed(first, reopen), getattr(first, "md5", None))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        # A listing is whole or not at all: it is collected before any of it is handed on.
        return iter(self._do(f"list {prefix}", lambda: [*self._store.list(prefix)]))

    def _do(self, what: str, call: Callable[[], T], *, writes: bool = False) -> T:
        return self._attempts(call)
