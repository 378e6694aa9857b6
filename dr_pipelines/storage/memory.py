"""A store in memory, for tests and dry runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

from dr_pipelines.clock import Clock, SystemClock
from dr_pipelines.errors import IntegrityError, ObjectExists, ObjectLocked, ObjectNotFound
from dr_pipelines.storage.base import Body, Capabilities, ObjectInfo, Plain
from dr_pipelines.storage.keys import checked

_PIECE = 1024 * 1024


class MemoryStore(Plain):
    """Keeps everything, locks included, until the process ends."""

    def __init__(self, name: str = "memory", clock: Clock | None = None) -> None:
        self.name = name
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._objects: dict[str, tuple[bytes, ObjectInfo]] = {}

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(conditional_put=True, confirms_digest=True, object_lock=True)

    def put(
        self,
        key: str,
        body: Body,
        *,
        if_absent: bool = True,
        retain_until: datetime | None = None,
        storage_class: str | None = None,
    ) -> ObjectInfo:
        self.refuse(None, storage_class)
        if not body.matches():
            raise IntegrityError(f"{self.name}: the bytes for {key} do not match their SHA-256")
        data = b"".join(body.chunks)
        info = ObjectInfo(checked(key), len(data), self._clock.now(), retain_until)
        with self._lock:
            held = self._objects.get(key)
            if held is not None and held[0] == data:
                return self._retained(key, retain_until)
            if held is not None and if_absent:
                raise ObjectExists(f"{self.name}: {key} is there with other content")
            self._refuse_if_locked(key)
            self._objects[key] = (data, info)
        return info

    def open(self, key: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        data = self._held(key)[0]
        end = len(data) if length is None else min(len(data), offset + length)
        return (data[start : min(start + _PIECE, end)] for start in range(offset, end, _PIECE))

    def stat(self, key: str) -> ObjectInfo:
        return self._held(key)[1]

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        with self._lock:
            found = [info for key, (_, info) in sorted(self._objects.items()) if key.startswith(prefix)]
        return iter(found)

    def delete(self, key: str) -> None:
        with self._lock:
            self._refuse_if_locked(checked(key))
            self._objects.pop(key, None)

    def extend_lock(self, key: str, retain_until: datetime) -> None:
        info = self._held(key)[1]
        if info.retain_until is not None and retain_until < info.retain_until:
            raise ObjectLocked(f"{self.name}: the lock of {key} cannot be shortened")
        with self._lock:
            self._retained(key, retain_until)

    def _retained(self, key: str, until: datetime | None) -> ObjectInfo:
        """The object, locked until then at least."""
        data, info = self._objects[key]
        if until is not None and (info.retain_until is None or info.retain_until < until):
            info = replace(info, retain_until=until)
            self._objects[key] = (data, info)
        return info

    def _held(self, key: str) -> tuple[bytes, ObjectInfo]:
        with self._lock:
            held = self._objects.get(checked(key))
        if held is None:
            raise ObjectNotFound(f"{self.name}: there is no {key}")
        return held

    def _refuse_if_locked(self, key: str) -> None:
        held = self._objects.get(key)
        until = held[1].retain_until if held else None
        if until is not None and until > self._clock.now():
            raise ObjectLocked(f"{self.name}: {key} is locked until {until:%Y-%m-%d %H:%M} UTC")
