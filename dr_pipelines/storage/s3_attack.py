"""Tries to break an object's lock as a thief of the store's own credentials would.

After each try the locked version is read back: what the service answers is told, what is still there is the verdict. A
new version laid over it, or a delete marker, breaks nothing while the locked bytes can still be read; both are taken
off again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from dr_pipelines.errors import DrError, ObjectNotFound, StoreUnavailable
from dr_pipelines.storage.base import LockAttempt, sha256_of
from dr_pipelines.storage.s3_bucket import S3Bucket
from dr_pipelines.storage.s3_locks import is_retained, service_time

_WAYS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("", {}),
    (", bypassing governance", {"BypassGovernanceRetention": True}),
)
"""S3 refuses whoever asks to bypass without the right to it, so each is tried without that too."""
_OVER = b"laid over by a canary"


@dataclass(frozen=True)
class _Held:
    """The locked version as it is now."""

    sha256: str
    mode: str | None
    until: datetime | None

    def is_no_weaker_than(self, other: _Held) -> bool:
        if self.sha256 != other.sha256 or (other.until and (self.until is None or self.until < other.until)):
            return False
        return self.mode == other.mode or self.mode == "COMPLIANCE"


def attack(bucket: S3Bucket, key: str) -> list[LockAttempt]:
    """Stops when the version is gone. Raises `StoreUnavailable` when a try got no answer: then nothing is known."""
    return list(_Attack(bucket, key).run())


class _Attack:
    def __init__(self, bucket: S3Bucket, key: str) -> None:
        self._bucket, self._key = bucket, key
        self._head = bucket.head(key)
        self._version: dict[str, Any] = {"VersionId": self._head["VersionId"]} if self._head.get("VersionId") else {}
        self._where: dict[str, Any] = {"Bucket": bucket.bucket, "Key": key}

    def run(self) -> Iterator[LockAttempt]:
        """The gentlest first, so that each is tried on a version that is still there."""
        if not is_retained(self._head):
            yield LockAttempt("find its lock", False, f"{self._key} is not locked")
        before = self._held()
        for what, attempt in self._attempts():
            said = self._said(attempt)
            now = self._held()
            yield LockAttempt(what, now is not None and before is not None and now.is_no_weaker_than(before), said)
            if now is None:
                return
            before = now

    def _attempts(self) -> Iterator[tuple[str, Callable[[], Any]]]:
        client, where, version = self._bucket.client, self._where, self._version
        if is_retained(self._head):
            yield from self._attempts_on_retention()
        yield "delete the object", lambda: self._undone(client.delete_object(**where))
        yield "overwrite the object", lambda: self._undone(client.put_object(**where, Body=_OVER))
        for how, bypass in _WAYS:
            yield f"delete the version{how}", partial(client.delete_object, **where, **version, **bypass)
            yield f"delete the version in a batch{how}", partial(self._batch, **bypass)

    def _attempts_on_retention(self) -> Iterator[tuple[str, Callable[[], Any]]]:
        for how, bypass in _WAYS:
            yield f"shorten the lock{how}", partial(self._retain, {"RetainUntilDate": self._sooner()}, **bypass)
            if self._head.get("ObjectLockMode") == "COMPLIANCE":
                yield f"weaken the lock{how}", partial(self._retain, {"Mode": "GOVERNANCE"}, **bypass)
            yield f"take the lock away{how}", partial(self._retain, None, **bypass)

    def _held(self) -> _Held | None:
        """None when the version is gone."""
        try:
            head = self._bucket.head(self._key, **self._version)
            sha256 = sha256_of(self._bucket.read(self._key, **self._version))
        except ObjectNotFound:
            return None
        return _Held(sha256, head.get("ObjectLockMode"), head.get("ObjectLockRetainUntilDate"))

    def _said(self, attempt: Callable[[], Any]) -> str:
        try:
            with self._bucket.told(self._key):
                refused = attempt()
        except StoreUnavailable:
            raise
        except DrError as error:
            return error.message
        return refused if isinstance(refused, str) else f"{self._bucket.name} accepted it"

    def _sooner(self) -> datetime:
        """Half of what is left: S3 takes no date of the past, whatever is locked."""
        until: datetime = self._head["ObjectLockRetainUntilDate"]
        now = service_time(self._head) or until
        return now + (until - now) / 2

    def _retain(self, changed: dict[str, Any] | None, **bypass: Any) -> None:
        names = {"Mode": "ObjectLockMode", "RetainUntilDate": "ObjectLockRetainUntilDate"}
        now = {name: self._head[header] for name, header in names.items() if header in self._head}
        asked: Any = {} if changed is None else {**now, **changed}
        self._bucket.client.put_object_retention(**self._where, **self._version, Retention=asked, **bypass)

    def _batch(self, **bypass: Any) -> str | None:
        one: Any = {"Key": self._key, **self._version}
        told = self._bucket.client.delete_objects(Bucket=self._bucket.bucket, Delete={"Objects": [one]}, **bypass)
        refused = [error.get("Message") or error.get("Code", "") for error in told.get("Errors", [])]
        return f"access to {self._key} denied: {refused[0]}" if refused else None

    def _undone(self, done: Any) -> None:
        """Takes off what was laid over the locked version, where it may be."""
        if version := done.get("VersionId"):
            with suppress(DrError), self._bucket.told(self._key):
                self._bucket.client.delete_object(**self._where, VersionId=version)
