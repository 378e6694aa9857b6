"""Old versions in Azure: bringing one back, and trying to break the lock of one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from azure.core.exceptions import HttpResponseError
from azure.storage.blob import ImmutabilityPolicy, RehydratePriority, StandardBlobTier

from dr_pipelines.errors import ObjectNotFound, ObjectOffline, StoreError, StoreUnavailable
from dr_pipelines.storage.azure_container import AzureContainer, Head, code_of, status_of
from dr_pipelines.storage.azure_locks import LOCKED, UNLOCKED, AzureLocks, mode_of, until_of
from dr_pipelines.storage.base import LockAttempt

_NOTHING_TO_UNDELETE = (400, 404, 409, 501)
_LEFT = b"a canary of dr-pipelines was here"


class AzureVersions:
    """The versions of one container's blobs."""

    def __init__(self, container: AzureContainer, locks: AzureLocks) -> None:
        self._container, self._locks = container, locks

    def revive(self, key: str, sha256: str) -> bool:
        """An old version is found by its bytes, or in the archive by the note of its digest: then the current one
        arrives in hours. Raises `ObjectOffline` when all that is left is archived and has no such note."""
        if self._is_current(key, sha256):
            return True
        self._undelete(key)  # brings back deleted versions too, where the account keeps them
        if self._is_current(key, sha256):
            return True
        unseen: ObjectOffline | None = None
        for version in self._old(key):
            try:
                head = self._container.head(key, version)
                if self._container.holds(key, head, sha256):
                    self.promote(key, head)
                    return True
            except ObjectOffline as error:
                unseen = error
        if unseen is not None:
            raise unseen
        return False

    def promote(self, key: str, head: Head) -> None:
        """Lay an old version over the current one, as firmly locked as it is itself. Raises `StoreUnavailable` while
        the service is still at it."""
        options: dict[str, Any] = {}
        if head.is_archived:
            options = {"standard_blob_tier": StandardBlobTier.HOT, "rehydrate_priority": RehydratePriority.HIGH}
        source = self._container.source(key, head.properties.version_id)
        with self._container.told(key):
            self._container.blob(key).start_copy_from_url(source, **options)
        until = until_of(head)
        if until is not None and head.is_before(until):
            self._locks.ensure(key, until, mode=mode_of(head))
        current = self._container.head(key)
        if current.properties.copy.status == "pending" and not head.is_archived:
            raise StoreUnavailable(f"{self._container.name} is still copying an old version of {key}", hint="wait.")

    def _is_current(self, key: str, sha256: str) -> bool:
        try:
            return self._container.holds(key, self._container.head(key), sha256)
        except (ObjectNotFound, ObjectOffline):
            return False

    def _undelete(self, key: str) -> None:
        try:
            with self._container.told(key):
                self._container.blob(key).undelete_blob()
        except StoreError as error:
            if status_of(error) not in _NOTHING_TO_UNDELETE:
                raise

    def _old(self, key: str) -> Iterator[str]:
        """The newest first."""
        with self._container.told(key):
            found = [*self._container.client.list_blobs(name_starts_with=key, include=["versions"])]
        old = {str(blob.version_id) for blob in found if blob.name == key and blob.version_id}
        return iter(sorted(old, reverse=True))  # a version is named by the time at which it was made


def attack(container: AzureContainer, locks: AzureLocks, key: str) -> list[LockAttempt]:
    """By every means of the data plane. What was laid over the locked bytes meanwhile is covered by them again."""
    return _Attack(container, locks, key).run()


@dataclass(frozen=True)
class _Attack:
    container: AzureContainer
    locks: AzureLocks
    key: str

    def run(self) -> list[LockAttempt]:
        prize = self.container.head(self.key)
        attempts: list[LockAttempt] = []
        if not prize.is_before(until_of(prize)):
            attempts.append(LockAttempt("find its lock", False, f"{self.key} is not locked"))
        for what, means in self._means(prize).items():
            said = self._said(means)
            attempts.append(LockAttempt(what, self._is_held(prize), said))
            if not self._is_there(prize):  # nothing is left to try it on
                break
        self._clean(prize)
        return attempts

    def _clean(self, prize: Head) -> None:
        current = self._head()
        if current is not None and current.properties.etag == prize.properties.etag:
            return
        if self._is_there(prize):
            AzureVersions(self.container, self.locks).promote(self.key, prize)
        elif current is not None:
            with self.container.told(self.key):
                self.container.blob(self.key).delete_blob()

    def _means(self, prize: Head) -> dict[str, Callable[[], object]]:
        blob, version = self.container.blob(self.key), prize.properties.version_id
        means: dict[str, Callable[[], object]] = {
            "delete": blob.delete_blob,
            "delete with its snapshots": lambda: blob.delete_blob(delete_snapshots="include"),
            "overwrite": lambda: blob.upload_blob(_LEFT, overwrite=True),
        }
        if version is not None:  # by now it may be an old one, which is removed for good
            means["delete its version"] = lambda: blob.delete_blob(version_id=version)
        if (until := until_of(prize)) is not None:
            sooner = ImmutabilityPolicy(expiry_time=_sooner(prize, until), policy_mode=UNLOCKED)
            same = ImmutabilityPolicy(expiry_time=until, policy_mode=UNLOCKED)
            means["shorten the lock"] = lambda: blob.set_immutability_policy(sooner, version_id=version)
            means["unlock the policy"] = lambda: blob.set_immutability_policy(same, version_id=version)
            means["remove the policy"] = lambda: blob.delete_immutability_policy(version_id=version)
        return means

    def _said(self, means: Callable[[], object]) -> str:
        """What is no answer, or only that the service is busy, is no refusal: raises `StoreUnavailable`."""
        try:
            with self.container.told(self.key):
                means()
        except StoreError as error:
            cause = error.__cause__
            if not isinstance(cause, HttpResponseError) or status_of(error) >= 500 or status_of(error) in (0, 408, 429):
                raise
            return f"{status_of(error)} {code_of(cause)}".strip()
        return "done"

    def _is_held(self, prize: Head) -> bool:
        found = self._head(prize.properties.version_id)
        if found is None or found.properties.etag != prize.properties.etag:
            return False
        until, held = until_of(prize), until_of(found)
        firm = mode_of(found) in (LOCKED, mode_of(prize))
        return until is None or (held is not None and held >= until and firm)

    def _is_there(self, prize: Head) -> bool:
        found = self._head(prize.properties.version_id)
        return found is not None and found.properties.etag == prize.properties.etag

    def _head(self, version: str | None = None) -> Head | None:
        try:
            return self.container.head(self.key, version)
        except ObjectNotFound:
            return None


def _sooner(prize: Head, until: datetime) -> datetime:
    """A policy must not end in the past."""
    sooner = until - timedelta(seconds=1)
    return sooner if prize.now is None else min(prize.now + timedelta(minutes=1), sooner)
