"""S3-compatible endpoints through boto3: AWS, Supabase Storage, and whatever else speaks the protocol.

The only module that imports boto3; what its calls raise is told in `s3_bucket.py`. Retries are the wrapper's;
botocore's own are off. Source of the quirks: measured against real servers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from dr_pipelines import __version__
from dr_pipelines.errors import AccessDenied, IntegrityError, ObjectExists, ObjectLocked, ObjectNotFound, StoreError
from dr_pipelines.storage import s3_attack, s3_classes, s3_settings, s3_versions
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
from dr_pipelines.storage.s3_bucket import S3Bucket, status_of
from dr_pipelines.storage.s3_locks import LockMode, is_held, is_locked, is_retained, whole_second
from dr_pipelines.storage.s3_signing import sign_with_known_digests
from dr_pipelines.storage.s3_uploads import in_base64, send, send_parts

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

Profile = Literal["aws", "supabase", "generic"]
_PART = 72 * 1024 * 1024
"""A whole pack is one put: encryption can make it a little larger than 64 MiB."""


def make_client(
    *,
    endpoint: str | None,
    region: str,
    access_key_id: str | None = None,
    secret_access_key: str | None = None,
    connect_timeout: float = 10,
    read_timeout: float = 120,
) -> S3Client:
    """A client with the settings that every S3-compatible endpoint understands. Timeouts in seconds. Raises
    `StoreError` for an endpoint or region that is none."""
    config = Config(
        s3={"addressing_style": "path" if endpoint else "auto", "payload_signing_enabled": True},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        retries={"total_max_attempts": 1},
        user_agent=f"dr-pipelines/{__version__}",  # botocore's own is put together anew for every request
        max_pool_connections=32,
        connect_timeout=connect_timeout,
        read_timeout=read_timeout,
    )
    try:
        client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name=region,
            aws_access_key_id=access_key_id,
            aws_secret_access_key=secret_access_key,
            config=config,
        )
        sign_with_known_digests(client)
        return client
    except (ValueError, BotoCoreError) as error:
        raise StoreError(f"no S3 store: {error}", hint="mend this store's endpoint or region in the plan.") from error


class S3Store(Plain):
    """One bucket. Profile `aws` trusts conditional puts; with the others a key is looked at before a put. `supabase`
    has no locks, classes, versions or settings; of the others the bucket is asked.

    A put is confirmed by the SHA-256 that the service itself compared; or else by its MD5 of what it took (where
    another writer may have come between, of what is under the key then), when it is that of what was sent (not with
    `supabase`, where it proves nothing); or else the object is read back.

    What is larger than `part_size` bytes is put in parts, straight from the body's chunks. An upload that fails is
    aborted; where even that fails, because the network is gone, its parts stay until the bucket's rule for incomplete
    uploads removes them."""

    def __init__(
        self,
        client: S3Client,
        bucket: str,
        name: str | None = None,
        *,
        profile: Profile = "generic",
        lock_mode: LockMode = "COMPLIANCE",
        part_size: int = _PART,
        page_size: int = 1000,
    ) -> None:
        self.name = name or bucket
        self._bucket = S3Bucket(client, bucket, self.name)
        self._profile, self._lock_mode = profile, lock_mode
        self._part_size, self._page_size = part_size, page_size
        self._believes = True

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            conditional_put=self._aws,
            confirms_digest=self._aws,
            object_lock=_may_be_asked(lambda: self._locks),
            versioning=_may_be_asked(lambda: self._versions),
            largest_put=self._part_size,
            storage_classes=self._classes,
        )

    @property
    def _aws(self) -> bool:
        return self._profile == "aws"

    @property
    def _plain(self) -> bool:
        return self._profile == "supabase"

    @property
    def _classes(self) -> tuple[str, ...]:
        return () if self._plain else s3_classes.NAMES

    @cached_property
    def _locks(self) -> bool:
        """The bucket is asked: a promise of immutability must not rest on the profile's name. Raises `AccessDenied`."""
        return not self._plain and s3_settings.objects_can_be_locked(self._bucket)

    @cached_property
    def _versions(self) -> bool:
        """Raises `AccessDenied`."""
        return not self._plain and bool(s3_settings.versions_are_kept(self._bucket))

    def put(
        self,
        key: str,
        body: Body,
        *,
        if_absent: bool = True,
        retain_until: datetime | None = None,
        storage_class: str | None = None,
    ) -> ObjectInfo:
        checked(key)
        if storage_class is not None:
            self._require_class(storage_class)
        until = None if retain_until is None else whole_second(retain_until)
        if until is not None:
            self._require_lock()
        head = self._put(key, body, if_absent=if_absent, until=until, storage_class=storage_class)
        return self._info(key, head if until is None else self._locked(key, head, until))

    def open(self, key: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        if length == 0:
            return iter(())
        end = "" if length is None else str(offset + length - 1)
        wanted = {"Range": f"bytes={offset}-{end}"} if offset or length is not None else {}
        try:
            return self._bucket.read(checked(key), **wanted)
        except StoreError as error:
            if status_of(error) == 416:  # nothing is left from there: an empty stream, as in a file
                return iter(())
            raise

    def stat(self, key: str) -> ObjectInfo:
        return self._info(key, self._bucket.head(checked(key)))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        token: str | None = None
        while True:
            entries, token = self._bucket.page(prefix, self._page_size, token)
            for entry in entries:
                kind = s3_classes.class_of(entry)
                yield ObjectInfo(entry["Key"], entry["Size"], entry["LastModified"], storage_class=kind)
            if token is None:
                return

    def delete(self, key: str) -> None:
        checked(key)
        try:
            # With versions, S3 would hide even what is locked.
            if (self._aws or _may_be_asked(lambda: self._locks)) and is_held(self._bucket.head(key)):
                raise ObjectLocked(f"{self.name}: {key} is locked", hint="wait until its retention ends.")
            with self._bucket.told(key):
                self._bucket.client.delete_object(Bucket=self._bucket.bucket, Key=key)
        except ObjectNotFound:
            return

    def extend_lock(self, key: str, retain_until: datetime) -> None:
        """Its mode stays what it is."""
        self._require_lock()
        head = self._bucket.head(checked(key))
        held = head.get("ObjectLockRetainUntilDate")
        if held is not None and held > retain_until:  # some services shorten what they should not
            raise ObjectLocked(f"{self.name}: {key} is locked until {held:%Y-%m-%d %H:%M} UTC: no lock is shortened")
        mode = head.get("ObjectLockMode") if is_retained(head) else None
        self._retain(key, whole_second(retain_until), mode or self._lock_mode)

    def set_class(self, key: str, storage_class: str) -> None:
        self._require_class(storage_class)
        self._move(checked(key), storage_class)

    def recall(self, key: str, *, urgent: bool = False) -> Availability:
        return s3_classes.recall(self._bucket, checked(key), urgent=urgent)

    def revive(self, key: str, sha256: str) -> bool:
        return not self._plain and s3_versions.revive(self._bucket, checked(key), sha256)

    def settings(self) -> BucketSettings:
        return BucketSettings() if self._plain else s3_settings.settings_of(self._bucket)

    def attack(self, key: str) -> Sequence[LockAttempt]:
        self._require_lock()
        return s3_attack.attack(self._bucket, checked(key))

    def _info(self, key: str, head: Any) -> ObjectInfo:
        return ObjectInfo(
            key,
            head["ContentLength"],
            head["LastModified"],
            head.get("ObjectLockRetainUntilDate"),
            s3_classes.class_of(head),
            s3_classes.availability_of(head),
        )

    def _require_class(self, name: str) -> None:
        if name not in self._classes:
            raise (
                self.no_classes()
                if not self._classes
                else StoreError(
                    f"{self.name} has no storage class {name}", hint=f"there is: {', '.join(self._classes)}."
                )
            )

    def _require_lock(self) -> None:
        if not self._locks:
            raise self.cannot_lock()

    def _put(self, key: str, body: Body, *, if_absent: bool, until: datetime | None, storage_class: str | None) -> Any:
        if if_absent and not self._aws and (there := self._there(key, body)):
            return there
        asked: dict[str, Any] = {"IfNoneMatch": "*"} if if_absent and self._aws else {}
        whole = body.size <= self._part_size
        # What might have to be read back is moved to a class that cannot be read when it is known to be right, and
        # locked when it is where it belongs: a locked version would be kept, and paid for, in both classes.
        direct = whole and (self._aws or not s3_classes.is_offline(storage_class))
        try:
            with self._bucket.told(key):
                if whole:
                    sent = self._send(key, body, asked, until if direct else None, storage_class if direct else None)
                else:
                    sent = send_parts(self._bucket, key, body, self._part_size, **asked)
        except ObjectExists:
            if there := self._there(key, body):
                return there
            raise
        ordinary = until is None and storage_class is None
        # Where the condition was ours to keep, another writer may have come between: what is there now is looked at.
        told = ordinary and "LastModified" in sent and (self._aws or not if_absent)
        head = self._confirmed(key, body, sent, {**sent, "ContentLength": body.size} if told else None)
        if storage_class is None:
            return head
        return self._move(key, storage_class, checksum=in_base64(body.sha256))

    def _send(
        self, key: str, body: Body, asked: dict[str, Any], until: datetime | None, storage_class: str | None
    ) -> Any:
        if until is not None:
            asked = {**asked, "ObjectLockMode": self._lock_mode, "ObjectLockRetainUntilDate": until}
        if storage_class is not None:
            asked = {**asked, "StorageClass": storage_class}
        return send(self._bucket, key, body, digest=self._aws, believe=self._believes, **asked)

    def _move(self, key: str, storage_class: str, *, checksum: str | None = None) -> Any:
        """Some take a class for a word that they give back and do not list: it is nothing to plan with."""
        head = s3_classes.move(self._bucket, key, storage_class, checksum=checksum)
        if not self._aws and next(self.list(key)).storage_class != s3_classes.class_of(head):
            raise s3_classes.not_kept(self.name, key, storage_class)
        return head

    def _locked(self, key: str, head: Any, until: datetime) -> Any:
        """The object's head once it is locked so long. Parts are locked here, after they were found to be right, and so
        is what was there before."""
        if is_locked(head, until, self._lock_mode):
            return head
        held = head.get("ObjectLockRetainUntilDate")
        self._retain(key, until if held is None else max(held, until), self._lock_mode)
        head = self._bucket.head(key)
        if not is_locked(head, until, self._lock_mode):
            raise StoreError(
                f"{self.name} took {key} without the lock it was put with",
                hint="give this key the rights s3:PutObjectRetention and s3:GetObjectRetention.",
            )
        return head

    def _retain(self, key: str, until: datetime, mode: LockMode) -> None:
        with self._bucket.told(key):
            self._bucket.client.put_object_retention(
                Bucket=self._bucket.bucket, Key=key, Retention={"Mode": mode, "RetainUntilDate": until}
            )

    def _there(self, key: str, body: Body) -> Any:
        """The head of what is under the key already, when it has the same content. Raises `ObjectExists` when it has
        not."""
        try:
            head = self._bucket.head(key, **({} if self._plain else {"ChecksumMode": "ENABLED"}))
        except ObjectNotFound:
            return None
        if head["ContentLength"] == body.size and self._holds(key, head, body):
            return head
        raise ObjectExists(f"{self.name}: {key} is there with other content")

    def _holds(self, key: str, head: Any, body: Body) -> bool:
        """By its bytes; by the service's checksum where they are offline. Raises `ObjectOffline` where it has none."""
        if s3_classes.availability_of(head) is not Availability.ONLINE and "ChecksumSHA256" in head:
            return bool(head["ChecksumSHA256"] == in_base64(body.sha256))
        return sha256_of(self.open(key)) == body.sha256

    def _confirmed(self, key: str, body: Body, sent: Any, head: Any | None) -> Any:
        """The object's head once it is proven to be what the body's digest says. `head` is what the answer to the put
        says of it, where that is enough."""
        # Some take the header and do not look: the digest counts as compared only when the service says so.
        if sent.get("ChecksumSHA256") == in_base64(body.sha256):
            return head or self._bucket.head(key)
        head = head or self._bucket.head(key)
        if self._is_md5_of_sent(head, sent) and body.matches():
            return head
        found = sha256_of(self.open(key))
        if found == body.sha256:
            if body.md5 is not None:  # what other stores say of their objects is no MD5, or none of this one's
                self._believes = False
            return self._bucket.head(key)
        if sent.get("ETag") is not None and self._bucket.head(key).get("ETag") != sent["ETag"]:  # not ours to remove
            raise ObjectExists(f"{self.name}: {key} holds what another writer put there at the same time")
        raise IntegrityError(
            f"{self.name} holds {key} with SHA-256 {found} after {body.sha256} was sent; {self._removed(key)}",
            hint=f"run `dr store check {self.name}`.",
        )

    def _is_md5_of_sent(self, head: Any, sent: Any) -> bool:
        """Of what is there now: another writer may have replaced it meanwhile."""
        return not self._plain and "sent_md5" in sent and head.get("ETag", "").strip('"') == sent["sent_md5"]

    def _removed(self, key: str) -> str:
        try:
            self.delete(key)
        except ObjectLocked:
            return f"it is locked until {self.stat(key).retain_until} and stays"
        except StoreError as error:  # must not hide what is worse
            return f"it stays, for {error.message}"
        return "it was removed"


def _may_be_asked(question: Callable[[], bool]) -> bool:
    """What may not be asked is not promised; nor is it remembered, for rights are given later."""
    try:
        return question()
    except AccessDenied:
        return False
