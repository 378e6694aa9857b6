"""A store in memory, for tests and dry runs: with locks, storage classes, recall and old versions, by its clock."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from dr_pipelines.clock import Clock, SystemClock
from dr_pipelines.errors import (
    IntegrityError,
    ObjectExists,
    ObjectLocked,
    ObjectNotFound,
    ObjectOffline,
    StoreError,
)
from dr_pipelines.storage.base import (
    Availability,
    Body,
    BucketSettings,
    Capabilities,
    LockAttempt,
    ObjectInfo,
    Plain,
)
from dr_pipelines.storage.keys import checked

_PIECE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Object:
    """`recalled`: when its bytes were asked for last."""

    data: bytes
    sha256: str
    info: ObjectInfo
    recalled: datetime | None = None


class MemoryStore(Plain):
    """Keeps everything, locks included, until the process ends. `lock`: a governance lock is one that an `attack` can
    remove; None, and there are none. Of the `classes` those of `offline` must be recalled: that takes `latency`, and
    then they can be read for `kept`. `versioned`: what was replaced or deleted can be revived."""

    def __init__(
        self,
        name: str = "memory",
        clock: Clock | None = None,
        *,
        lock: Literal["compliance", "governance"] | None = "compliance",
        classes: Sequence[str] = ("COOL", "ARCHIVE"),
        offline: Sequence[str] = ("ARCHIVE",),
        latency: timedelta = timedelta(hours=12),
        kept: timedelta = timedelta(days=7),
        versioned: bool = False,
    ) -> None:
        self.name = name
        self._clock = clock or SystemClock()
        self._mode, self._versioned = lock, versioned
        self._classes, self._offline, self._latency, self._kept = tuple(classes), offline, latency, kept
        self._lock = threading.RLock()
        self._objects: dict[str, _Object] = {}
        self._old: dict[str, list[_Object]] = {}

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            conditional_put=True,
            confirms_digest=True,
            object_lock=self._mode is not None,
            versioning=self._versioned,
            storage_classes=self._classes,
        )

    def put(
        self,
        key: str,
        body: Body,
        *,
        if_absent: bool = True,
        retain_until: datetime | None = None,
        storage_class: str | None = None,
    ) -> ObjectInfo:
        self._refuse(retain_until, storage_class)
        if not body.matches():
            raise IntegrityError(f"{self.name}: the bytes for {key} do not match their SHA-256")
        data = b"".join(body.chunks)
        info = ObjectInfo(checked(key), len(data), self._clock.now(), retain_until, storage_class)
        with self._lock:
            held = self._objects.get(key)
            if held is not None and held.data == data:
                self._retained(key, retain_until)
                if storage_class is not None and held.info.storage_class not in self._offline:
                    self.set_class(key, storage_class)
                return self.stat(key)
            if held is not None and if_absent:
                raise ObjectExists(f"{self.name}: {key} is there with other content")
            self._remove(key)
            self._objects[key] = _Object(data, body.sha256, info)
            return self.stat(key)

    def open(self, key: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        held = self._held(key)
        self._require_online(held)
        end = len(held.data) if length is None else min(len(held.data), offset + length)
        return (held.data[start : min(start + _PIECE, end)] for start in range(offset, end, _PIECE))

    def stat(self, key: str) -> ObjectInfo:
        held = self._held(key)
        return replace(held.info, availability=self._availability(held))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        with self._lock:
            found = [held.info for key, held in sorted(self._objects.items()) if key.startswith(prefix)]
        return (replace(info, retain_until=None) for info in found)  # as elsewhere: only `stat` tells

    def delete(self, key: str) -> None:
        with self._lock:
            self._remove(checked(key))

    def extend_lock(self, key: str, retain_until: datetime) -> None:
        self._refuse(retain_until, None)
        with self._lock:
            held = self._held(key).info.retain_until
            if held is not None and retain_until < held:
                raise ObjectLocked(f"{self.name}: the lock of {key} cannot be shortened")
            self._retained(key, retain_until)

    def set_class(self, key: str, storage_class: str) -> None:
        self._refuse(None, storage_class)
        with self._lock:
            held = self._held(key)
            if held.info.storage_class != storage_class:
                self._require_online(held)
                self._objects[key] = replace(held, info=replace(held.info, storage_class=storage_class), recalled=None)

    def recall(self, key: str, *, urgent: bool = False) -> Availability:
        with self._lock:
            held = self._held(key)
            if self._availability(held) is Availability.OFFLINE:
                held = self._objects[key] = replace(held, recalled=self._clock.now())
            return self._availability(held)

    def revive(self, key: str, sha256: str) -> bool:
        with self._lock:
            current, old = self._objects.get(checked(key)), self._old.get(key, [])
            if current is not None and current.sha256 == sha256:
                return True
            found = next((held for held in reversed(old) if held.sha256 == sha256), None)
            if found is None:
                return False
            old.remove(found)
            self._objects[key] = found
            self._old[key] = [*old, *([current] if current is not None else [])]
            return True

    def settings(self) -> BucketSettings:
        return BucketSettings(versioning=self._versioned, object_lock=self._mode is not None)

    def attack(self, key: str) -> Sequence[LockAttempt]:
        if self._mode is None:
            raise self.cannot_lock()
        before = self._held(key)
        means: dict[str, Callable[[], object]] = {
            "shorten the lock": lambda: self.extend_lock(key, self._clock.now()),
            "remove the lock": lambda: self._unlock(key),
            "overwrite": lambda: self.put(key, Body.of(b"laid over by a canary"), if_absent=False),
            "delete": lambda: self.delete(key),
        }
        attempts = [] if self._is_locked(before) else [LockAttempt("find its lock", False, f"{key} is not locked")]
        for what, attempt in means.items():
            said = _said(attempt)
            attempts.append(LockAttempt(what, self._stands(key, before), said))
        return attempts

    def _refuse(self, retain_until: datetime | None, storage_class: str | None) -> None:
        if retain_until is not None and self._mode is None:
            raise self.cannot_lock()
        if storage_class is not None and storage_class not in self._classes:
            raise StoreError(f"{self.name} has no storage class {storage_class}", hint="mend `classes` in the plan.")

    def _availability(self, held: _Object) -> Availability:
        if held.info.storage_class not in self._offline:
            return Availability.ONLINE
        if held.recalled is None or self._clock.now() >= held.recalled + self._latency + self._kept:
            return Availability.OFFLINE
        arrived = self._clock.now() >= held.recalled + self._latency
        return Availability.ONLINE if arrived else Availability.ARRIVING

    def _require_online(self, held: _Object) -> None:
        if self._availability(held) is not Availability.ONLINE:
            raise ObjectOffline(
                f"{self.name}: {held.info.key} must be recalled first", hint="`dr store recall` asks for it."
            )

    def _retained(self, key: str, until: datetime | None) -> None:
        """Locked until then at least."""
        held = self._objects[key]
        if until is not None and (held.info.retain_until is None or held.info.retain_until < until):
            self._objects[key] = replace(held, info=replace(held.info, retain_until=until))

    def _held(self, key: str) -> _Object:
        with self._lock:
            held = self._objects.get(checked(key))
        if held is None:
            raise ObjectNotFound(f"{self.name}: there is no {key}")
        return held

    def _is_locked(self, held: _Object) -> bool:
        return held.info.retain_until is not None and held.info.retain_until > self._clock.now()

    def _remove(self, key: str) -> None:
        held = self._objects.get(key)
        if held is None:
            return
        if self._is_locked(held):
            raise ObjectLocked(f"{self.name}: {key} is locked until {held.info.retain_until:%Y-%m-%d %H:%M} UTC")
        if self._versioned:
            self._old.setdefault(key, []).append(held)
        del self._objects[key]

    def _unlock(self, key: str) -> None:
        held = self._held(key)
        if self._mode == "compliance" and self._is_locked(held):
            raise ObjectLocked(f"{self.name}: the lock of {key} cannot be removed")
        self._objects[key] = replace(held, info=replace(held.info, retain_until=None))

    def _stands(self, key: str, before: _Object) -> bool:
        held = self._objects.get(key)
        return held is not None and held.data == before.data and held.info.retain_until == before.info.retain_until


def _said(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except StoreError as error:
        return error.message
    return "done"
