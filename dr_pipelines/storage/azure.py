"""Azure Blob Storage: the verbs. The SDK is imported only here and in the modules beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from azure.storage.blob import ContainerClient, ContentSettings, StandardBlobTier

from dr_pipelines.errors import (
    IntegrityError,
    ObjectExists,
    ObjectLocked,
    ObjectNotFound,
    StoreError,
    UsageError,
)
from dr_pipelines.storage.azure_archive import FOLDER, AzureArchive
from dr_pipelines.storage.azure_container import BLOCK, DIGEST, AzureContainer, Head
from dr_pipelines.storage.azure_locks import AzureLocks, LockMode, refuse_if_held, until_of, whole_second
from dr_pipelines.storage.azure_versions import AzureVersions, attack
from dr_pipelines.storage.base import (
    Availability,
    Body,
    BucketSettings,
    Capabilities,
    LockAttempt,
    ObjectInfo,
    Plain,
    sha256_of,
)
from dr_pipelines.storage.keys import checked
from dr_pipelines.storage.reader import BodyReader

_TIERS = {
    tier.value: tier
    for tier in (StandardBlobTier.HOT, StandardBlobTier.COOL, StandardBlobTier.COLD, StandardBlobTier.ARCHIVE)
}


class AzureStore(Plain):
    """One container. A put up to `block_size`, which is the client's, is one request whose MD5 the service confirms;
    a larger one is read back, and so is one without that confirmation. The blocks of an upload that fails are no
    object: no listing shows them, and the service drops them after a week. `lock` is how firmly the plan wants objects
    locked."""

    def __init__(
        self,
        container: ContainerClient,
        name: str | None = None,
        *,
        lock: LockMode | None = None,
        block_size: int = BLOCK,
        page_size: int = 5000,
    ) -> None:
        self._block_size, self._page_size = block_size, page_size
        self.name = name or str(container.container_name)
        self._container = AzureContainer(container, self.name)
        self._locks = AzureLocks(self._container, lock)
        self._archive = AzureArchive(self._container)

    @property
    def capabilities(self) -> Capabilities:
        locks = self._locks.may_lock()
        return Capabilities(
            conditional_put=True,
            confirms_digest=True,
            object_lock=locks,
            versioning=locks,  # such locks need versions; of other containers the data plane does not tell
            largest_put=self._block_size,
            storage_classes=tuple(_TIERS),
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
        key, until = _own(key), self._until(retain_until)
        tier = None if storage_class is None else self._tier(storage_class)
        if not body.matches():  # the service checks MD5, which the SDK takes from the bytes it sends
            raise IntegrityError(f"{self.name}: the bytes for {key} do not match their SHA-256")
        if not if_absent:
            self._refuse_replacing(key)
        try:
            with self._container.told(key):
                confirmed = self._send(key, body, if_absent, until, tier)
        except ObjectExists:
            if not self._container.holds(key, self._container.head(key), body.sha256):
                raise
            confirmed = True
        if not confirmed and sha256_of(self.open(key)) != body.sha256:
            raise self._damaged(key)
        if until is not None:
            self._locks.ensure(key, until)
        return self._moved(key, storage_class)

    def open(self, key: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        head = self._container.head(_own(key))
        size = int(head.properties.size)
        count = size - offset if length is None else min(length, size - offset)
        name = self._archive.readable(key, head)
        pieces = self._container.pieces(name, offset, count)
        return pieces if name == key else self._of_copy(key, pieces)

    def stat(self, key: str) -> ObjectInfo:
        return self._info(key, self._container.head(_own(key)))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        with self._container.told(prefix):
            blobs = self._container.client.list_blobs(name_starts_with=prefix or None, results_per_page=self._page_size)
            for blob in blobs:
                if not blob.name.startswith(FOLDER):
                    yield ObjectInfo(blob.name, int(blob.size), blob.last_modified, storage_class=_class(blob))

    def delete(self, key: str) -> None:
        try:
            head = self._container.head(_own(key))
            refuse_if_held(self.name, key, head)  # with versions, Azure may hide even what is locked
            if head.is_archived:
                self._archive.drop(key)
            with self._container.told(key):
                self._container.blob(key).delete_blob()
        except ObjectNotFound:
            return

    def extend_lock(self, key: str, retain_until: datetime) -> None:
        until = self._until(retain_until)
        held = until_of(self._container.head(_own(key)))
        if until is None or (held is not None and held > until):
            raise ObjectLocked(f"{self.name}: {key} is locked until {held:%Y-%m-%d %H:%M} UTC: no lock is shortened")
        self._locks.ensure(key, until)

    def set_class(self, key: str, storage_class: str) -> None:
        tier = self._tier(storage_class)
        with self._container.told(key):
            self._container.blob(_own(key)).set_standard_blob_tier(tier)

    def recall(self, key: str, *, urgent: bool = False) -> Availability:
        return self._archive.recall(key, self._container.head(_own(key)), urgent=urgent)

    def revive(self, key: str, sha256: str) -> bool:
        return AzureVersions(self._container, self._locks).revive(_own(key), sha256)

    def settings(self) -> BucketSettings:
        """Rules for lifecycle and default locks are of Azure's control plane, which a credential for data cannot ask;
        neither can it whether there are versions, except where locks need them."""
        found = self._container.properties
        locks = bool(found.immutable_storage_with_versioning_enabled)
        scope = found.encryption_scope.default_encryption_scope if found.encryption_scope else None
        return BucketSettings(versioning=True if locks else None, object_lock=locks, encryption=scope)

    def attack(self, key: str) -> Sequence[LockAttempt]:
        if not self._locks.able():
            raise self.cannot_lock()
        return attack(self._container, self._locks, _own(key))

    def _send(
        self, key: str, body: Body, if_absent: bool, until: datetime | None, tier: StandardBlobTier | None
    ) -> bool:
        """True when the service says the MD5 of what it stored, which the SDK compares with that of what it sent. Only
        then is it locked and archived at once: what has to be read back must first be found right."""
        extra: dict[str, Any] = {}
        if until is not None and body.size <= self._block_size:
            extra["immutability_policy"] = self._locks.policy(until)
        if tier is not None and (tier is not StandardBlobTier.ARCHIVE or body.size <= self._block_size):
            extra["standard_blob_tier"] = tier
        told: dict[str, Any] = self._container.blob(key).upload_blob(
            BodyReader(body),
            length=body.size,
            overwrite=not if_absent,
            validate_content=True,
            content_settings=ContentSettings(content_type="application/octet-stream"),
            metadata={DIGEST: body.sha256},
            **extra,
        )
        return body.size <= self._block_size and bool(told.get("content_md5"))

    def _moved(self, key: str, storage_class: str | None) -> ObjectInfo:
        """What was there before, or had to be read back, is moved now; nothing is taken out of the archive."""
        head = self._container.head(key)
        if storage_class is None or head.is_archived or head.properties.blob_tier == storage_class:
            return self._info(key, head)
        self.set_class(key, storage_class)
        return self.stat(key)

    def _info(self, key: str, head: Head) -> ObjectInfo:
        found = head.properties
        return ObjectInfo(
            key, int(found.size), found.last_modified, until_of(head), _class(found), self._archive.state(key, head)
        )

    def _of_copy(self, key: str, pieces: Iterator[bytes]) -> Iterator[bytes]:
        try:
            yield from pieces
        except ObjectNotFound as error:  # the copy's absence is not the object's
            raise self._archive.offline(key) from error

    def _damaged(self, key: str) -> IntegrityError:
        try:
            self.delete(key)
            end = "it was removed"
        except StoreError as error:  # must not hide what is worse
            end = f"it stays, for {error.message}"
        return IntegrityError(
            f"{self.name} does not hold under {key} what was sent; {end}", hint=f"run `dr store check {self.name}`."
        )

    def _refuse_replacing(self, key: str) -> None:
        """With versions, Azure lays a new one over what is locked: this store does not."""
        try:
            refuse_if_held(self.name, key, self._container.head(key))
        except ObjectNotFound:
            return

    def _until(self, retain_until: datetime | None) -> datetime | None:
        if retain_until is None:
            return None
        if not self._locks.able():
            raise self.cannot_lock()
        return whole_second(retain_until)

    def _tier(self, storage_class: str) -> StandardBlobTier:
        tier = _TIERS.get(storage_class)
        if tier is None:
            raise StoreError(
                f"{self.name} has no storage class {storage_class}", hint=f"it has {', '.join(_TIERS)}: mend the plan."
            )
        return tier


def _own(key: str) -> str:
    if key.startswith(FOLDER):
        raise UsageError(
            f"the key {key} is in {FOLDER}, where rehydrated copies lie", hint="take another prefix for this store."
        )
    return checked(key)


def _class(blob: Any) -> str | None:
    """None where the account's default says it, or where it is Azure's own ordinary one."""
    if blob.blob_tier_inferred or not blob.blob_tier or blob.blob_tier == StandardBlobTier.HOT.value:
        return None
    return str(blob.blob_tier)
