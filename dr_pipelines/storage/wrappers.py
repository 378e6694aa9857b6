"""What cuts across stores: a prefix, no writing, trying again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

from tenacity import Retrying as Tenacity
from tenacity import retry_if_exception, stop_after_attempt, wait_random_exponential

from dr_pipelines.clock import Clock
from dr_pipelines.errors import AccessDenied, DrError
from dr_pipelines.storage.base import Body, Capabilities, ObjectInfo, ObjectStore

T = TypeVar("T")


class Prefixed:
    """A folder of a store as a store."""

    def __init__(self, store: ObjectStore, prefix: str) -> None:
        self._store = store
        self._prefix = prefix.strip("/") + "/"
        self.name = store.name

    @property
    def capabilities(self) -> Capabilities:
        return self._store.capabilities

    def put(self, key: str, body: Body, *, if_absent: bool = True, retain_until: datetime | None = None) -> ObjectInfo:
        return self._outside(self._store.put(self._prefix + key, body, if_absent=if_absent, retain_until=retain_until))

    def open(self, key: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        return self._store.open(self._prefix + key, offset=offset, length=length)

    def stat(self, key: str) -> ObjectInfo:
        return self._outside(self._store.stat(self._prefix + key))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return (self._outside(info) for info in self._store.list(self._prefix + prefix))

    def delete(self, key: str) -> None:
        self._store.delete(self._prefix + key)

    def extend_lock(self, key: str, retain_until: datetime) -> None:
        self._store.extend_lock(self._prefix + key, retain_until)

    def _outside(self, info: ObjectInfo) -> ObjectInfo:
        return replace(info, key=info.key.removeprefix(self._prefix))


class ReadOnly:
    """A store that refuses to change: what a drill or a dry run is given."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self.name = store.name

    @property
    def capabilities(self) -> Capabilities:
        return self._store.capabilities

    def put(self, key: str, body: Body, *, if_absent: bool = True, retain_until: datetime | None = None) -> ObjectInfo:
        raise self._refusal(f"put {key}")

    def open(self, key: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        return self._store.open(key, offset=offset, length=length)

    def stat(self, key: str) -> ObjectInfo:
        return self._store.stat(key)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return self._store.list(prefix)

    def delete(self, key: str) -> None:
        raise self._refusal(f"delete {key}")

    def extend_lock(self, key: str, retain_until: datetime) -> None:
        raise self._refusal(f"lock {key}")

    def _refusal(self, what: str) -> AccessDenied:
        return AccessDenied(f"{self.name} is open for reading only: will not {what}")


class Retrying:
    """Tries again what is transient, with backoff and jitter; a cut download goes on where it was cut."""

    def __init__(self, store: ObjectStore, clock: Clock, *, attempts: int = 6, longest_wait: float = 20.0) -> None:
        self._store = store
        self._clock = clock
        self._attempts = attempts
        self._longest_wait = longest_wait
        self.name = store.name

    @property
    def capabilities(self) -> Capabilities:
        return self._again(lambda: self._store.capabilities)  # a bucket may have to be asked

    def put(self, key: str, body: Body, *, if_absent: bool = True, retain_until: datetime | None = None) -> ObjectInfo:
        return self._again(lambda: self._store.put(key, body, if_absent=if_absent, retain_until=retain_until))

    def open(self, key: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        first = self._again(lambda: self._store.open(key, offset=offset, length=length))
        return self._resumed(first, key, offset, length)

    def stat(self, key: str) -> ObjectInfo:
        return self._again(lambda: self._store.stat(key))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        # A listing is whole or not at all: it is collected before any of it is handed on.
        return iter(self._again(lambda: [*self._store.list(prefix)]))

    def delete(self, key: str) -> None:
        self._again(lambda: self._store.delete(key))

    def extend_lock(self, key: str, retain_until: datetime) -> None:
        self._again(lambda: self._store.extend_lock(key, retain_until))

    def _resumed(self, first: Iterator[bytes], key: str, offset: int, length: int | None) -> Iterator[bytes]:
        pieces: Iterator[bytes] | None = first
        position, end = offset, None if length is None else offset + length

        def following() -> bytes | None:
            nonlocal pieces
            if pieces is None:
                pieces = self._store.open(key, offset=position, length=None if end is None else end - position)
            try:
                return next(pieces, None)
            except DrError:
                pieces = None  # a stream that broke has ended: the next attempt opens another
                raise

        while (piece := self._again(following)) is not None:
            position += len(piece)
            yield piece

    def _sleep(self, seconds: float) -> None:
        self._clock.wait(seconds)

    def _again(self, call: Callable[[], T]) -> T:
        return Tenacity(
            retry=retry_if_exception(lambda error: isinstance(error, DrError) and error.transient),
            stop=stop_after_attempt(self._attempts),
            wait=wait_random_exponential(multiplier=0.2, max=self._longest_wait),
            sleep=self._sleep,
            reraise=True,
        )(call)
