"""A store that fails on order: at the nth call, in the middle of a stream, with a flipped bit, or with a lie."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import TypeVar

from dr_pipelines.errors import StoreUnavailable
from dr_pipelines.storage.base import Body, ObjectInfo, ObjectStore
from dr_pipelines.storage.wrappers import Forwarding

T = TypeVar("T")


class FaultyStore(Forwarding):
    """`fail_at` is the number (from 1) of the call that raises `StoreUnavailable`, as does every later one with
    `stays_down`; `cut_after` ends every stream after so many bytes; `flip_at` flips a bit of the byte there. It lies
    with `loses_puts` (what was put is not there), `replaces` (other content is taken under any key), `keeps_deleted`
    (a deletion does nothing), `takes_damage` (no digest is looked at) and `lists_at_most` so many objects."""

    def __init__(
        self,
        inner: ObjectStore,
        *,
        fail_at: int | None = None,
        stays_down: bool = False,
        cut_after: int | None = None,
        flip_at: int | None = None,
        loses_puts: bool = False,
        replaces: bool = False,
        keeps_deleted: bool = False,
        takes_damage: bool = False,
        lists_at_most: int | None = None,
    ) -> None:
        super().__init__(inner)
        self.fail_at, self.stays_down = fail_at, stays_down
        self.cut_after, self.flip_at = cut_after, flip_at
        self._loses_puts, self._replaces, self._keeps_deleted = loses_puts, replaces, keeps_deleted
        self._takes_damage, self._lists_at_most = takes_damage, lists_at_most
        self.calls = 0
        self._lock = threading.Lock()

    def put(
        self,
        key: str,
        body: Body,
        *,
        if_absent: bool = True,
        retain_until: datetime | None = None,
        storage_class: str | None = None,
    ) -> ObjectInfo:
        if self._loses_puts:
            self._count()
            return ObjectInfo(key, body.size, datetime.now(UTC), retain_until)
        if self._takes_damage:
            body = Body.of(b"".join(body.chunks))
        absent = if_absent and not self._replaces
        return super().put(key, body, if_absent=absent, retain_until=retain_until, storage_class=storage_class)

    def open(self, key: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        return self._spoiled(super().open(key, offset=offset, length=length), offset)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return islice(super().list(prefix), self._lists_at_most)

    def delete(self, key: str) -> None:
        if self._keeps_deleted:
            self._count()
        else:
            super().delete(key)

    def _do(self, what: str, call: Callable[[], T], *, writes: bool = False) -> T:
        if not what.startswith("ask"):
            self._count()
        return call()

    def _count(self) -> None:
        with self._lock:
            self.calls += 1
            calls = self.calls
        if self.fail_at is not None and (calls == self.fail_at or (self.stays_down and calls > self.fail_at)):
            raise StoreUnavailable(f"{self.name} fails at call {calls}, as told")

    def _spoiled(self, pieces: Iterator[bytes], offset: int) -> Iterator[bytes]:
        position, sent = offset, 0
        for piece in pieces:
            out = bytearray(piece)
            if self.flip_at is not None and position <= self.flip_at < position + len(out):
                out[self.flip_at - position] ^= 1
            if self.cut_after is not None and sent + len(out) > self.cut_after:
                if self.cut_after > sent:
                    yield bytes(out[: self.cut_after - sent])
                raise StoreUnavailable(f"{self.name} cut the stream after {self.cut_after} bytes, as told")
            position += len(out)
            sent += len(out)
            yield bytes(out)
