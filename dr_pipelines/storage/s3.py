"""S3-compatible endpoints through boto3: AWS, Supabase Storage, and whatever else speaks the protocol.

The only module that imports boto3. Errors are told apart by HTTP status, because some endpoints send no codes.
Retries are the wrapper's; botocore's own are off. Source of the quirks: measured against real servers.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

from dr_pipelines.errors import (
    AccessDenied,
    IntegrityError,
    ObjectExists,
    ObjectLocked,
    ObjectNotFound,
    StoreError,
    StoreUnavailable,
)
from dr_pipelines.storage.base import Body, Capabilities, ObjectInfo
from dr_pipelines.storage.keys import checked
from dr_pipelines.storage.reader import BodyReader

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

Profile = Literal["aws", "supabase", "generic"]
_PIECE = 4 * 1024 * 1024
_PART = 64 * 1024 * 1024
# What boto3 raises while it reads a body that ends early or a connection that breaks.
_BROKEN = (HTTPClientError, OSError, EOFError)


def make_client(
    *,
    endpoint: str | None,
    region: str,
    access_key_id: str | None = None,
    secret_access_key: str | None = None,
    connect_timeout: float = 10,
    read_timeout: float = 120,
) -> S3Client:
    """A client with the settings that every S3-compatible endpoint understands. Timeouts in seconds."""
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name=region,
        aws_access_key_id=access_key_id,
        aws_secret_access_key=secret_access_key,
        config=Config(
            s3={"addressing_style": "path" if endpoint else "auto", "payload_signing_enabled": True},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            retries={"total_max_attempts": 1},
            max_pool_connections=16,
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
        ),
    )


class S3Store:
    """One bucket. Profile `aws` trusts the service's check of SHA-256 and its conditional puts; the others are read
    back after a put, and looked at before one."""

    def __init__(
        self,
        client: S3Client,
        bucket: str,
        name: str | None = None,
        *,
        profile: Profile = "generic",
        part_size: int = _PART,
    ) -> None:
        self._client = client
        self._bucket = bucket
        self._profile = profile
        self._part_size = part_size
        self.name = name or bucket

    @property
    def capabilities(self) -> Capabilities:
        aws = self._profile == "aws"
        return Capabilities(
            conditional_put=aws,
            confirms_digest=aws,
            object_lock=aws and self._locks,
            versioning=aws and self._versions,
        )

    @cached_property
    def _locks(self) -> bool:
        """The bucket is asked: a promise of immutability must not rest on the profile's name."""
        try:
            with self._told(self._bucket):
                found = self._client.get_object_lock_configuration(Bucket=self._bucket)
        except (ObjectNotFound, AccessDenied):  # without a configuration the answer is 404
            return False
        return found.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled") == "Enabled"

    @cached_property
    def _versions(self) -> bool:
        try:
            with self._told(self._bucket):
                return self._client.get_bucket_versioning(Bucket=self._bucket).get("Status") == "Enabled"
        except AccessDenied:
            return False

    def put(self, key: str, body: Body, *, if_absent: bool = True, retain_until: datetime | None = None) -> ObjectInfo:
        if retain_until is not None and not self.capabilities.object_lock:
            raise StoreError(f"{self.name} cannot lock objects", hint="use a bucket with object lock for this tier.")
        if if_absent and not self.capabilities.conditional_put and (there := self._there(checked(key), body)):
            return there
        try:
            with self._told(key):
                self._send(checked(key), body, if_absent=if_absent, lock=_lock(retain_until))
        except ObjectExists:
            if there := self._there(key, body):
                return there
            raise
        if not self.capabilities.confirms_digest or body.size > self._part_size:
            self._confirm(key, body)
        info = self.stat(key)
        if retain_until is not None and (info.retain_until is None or info.retain_until < retain_until):
            raise StoreError(f"{self.name} took {key} without the lock it was put with")
        return info

    def open(self, key: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        if length == 0:
            return iter(())
        end = "" if length is None else str(offset + length - 1)
        wanted: dict[str, Any] = {"Range": f"bytes={offset}-{end}"} if offset or length is not None else {}
        try:
            with self._told(key):
                answer = self._client.get_object(Bucket=self._bucket, Key=checked(key), **wanted)
        except StoreError as error:
            if _status(error.__cause__) == 416:  # nothing is left from there: an empty stream, as in a file
                return iter(())
            raise
        return self._pieces(key, answer)

    def stat(self, key: str) -> ObjectInfo:
        with self._told(key):
            head = self._client.head_object(Bucket=self._bucket, Key=checked(key))
        until = head.get("ObjectLockRetainUntilDate")
        return ObjectInfo(key, head["ContentLength"], head["LastModified"], until)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        with self._told(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
            for page in pages:
                for entry in page.get("Contents", []):
                    yield ObjectInfo(entry["Key"], entry["Size"], entry["LastModified"])

    def delete(self, key: str) -> None:
        try:
            with self._told(key):
                self._client.delete_object(Bucket=self._bucket, Key=checked(key))
        except ObjectNotFound:
            return
        except AccessDenied as error:
            if self.capabilities.object_lock and self.stat(key).retain_until is not None:
                raise ObjectLocked(f"{self.name}: {key} is locked") from error
            raise

    def extend_lock(self, key: str, retain_until: datetime) -> None:
        if not self.capabilities.object_lock:
            raise StoreError(f"{self.name} cannot lock objects", hint="use a bucket with object lock for this tier.")
        with self._told(key):
            self._client.put_object_retention(
                Bucket=self._bucket, Key=checked(key), Retention={"Mode": "COMPLIANCE", "RetainUntilDate": retain_until}
            )

    def _send(self, key: str, body: Body, *, if_absent: bool, lock: dict[str, Any]) -> None:
        condition: dict[str, Any] = {"IfNoneMatch": "*"} if if_absent and self.capabilities.conditional_put else {}
        if body.size > self._part_size:
            self._send_parts(key, body, condition, lock)
            return
        digests: dict[str, Any] = {"ContentMD5": _md5(body)}
        if self._profile == "aws":
            digests["ChecksumSHA256"] = b64encode(bytes.fromhex(body.sha256)).decode()
        reader: Any = BodyReader(body)
        self._client.put_object(
            Bucket=self._bucket, Key=key, Body=reader, ContentLength=body.size, **digests, **condition, **lock
        )

    def _send_parts(self, key: str, body: Body, condition: dict[str, Any], lock: dict[str, Any]) -> None:
        upload = self._client.create_multipart_upload(Bucket=self._bucket, Key=key, **lock)["UploadId"]
        try:
            parts: list[Any] = []
            reader = BodyReader(body)
            while piece := reader.read(self._part_size):
                number = len(parts) + 1
                sent = self._client.upload_part(
                    Bucket=self._bucket, Key=key, UploadId=upload, PartNumber=number, Body=piece
                )
                parts.append({"ETag": sent["ETag"], "PartNumber": number})
            self._client.complete_multipart_upload(
                Bucket=self._bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": parts}, **condition
            )
        except BaseException:
            with suppress(ClientError, BotoCoreError, *_BROKEN):  # the first trouble is the one to tell
                self._client.abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=upload)
            raise

    def _there(self, key: str, body: Body) -> ObjectInfo | None:
        """What is under the key already, when it has the same content. Raises `ObjectExists` when it has not."""
        try:
            info = self.stat(key)
        except ObjectNotFound:
            return None
        if info.size == body.size and self._digest(key) == body.sha256:
            return info
        raise ObjectExists(f"{self.name}: {key} is there with other content")

    def _confirm(self, key: str, body: Body) -> None:
        found = self._digest(key)
        if found != body.sha256:
            self.delete(key)
            raise IntegrityError(
                f"{self.name} holds {key} with SHA-256 {found} after {body.sha256} was sent; it was removed",
                hint="run `dr store check` on this tier.",
            )

    def _digest(self, key: str) -> str:
        digest = hashlib.sha256()
        for piece in self.open(key):
            digest.update(piece)
        return digest.hexdigest()

    def _pieces(self, key: str, answer: Any) -> Iterator[bytes]:
        expected, seen = answer.get("ContentLength"), 0
        with self._told(key), answer["Body"] as stream:
            while piece := stream.read(_PIECE):
                seen += len(piece)
                yield piece
        if expected is not None and seen != expected:
            raise StoreUnavailable(f"{self.name}: {key} ended after {seen} of {expected} bytes")

    @contextmanager
    def _told(self, key: str) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            raise self._error(error, key) from error
        except _BROKEN as error:
            raise StoreUnavailable(
                f"{self.name} does not answer: {error}", hint="is the endpoint right and up?"
            ) from error
        except BotoCoreError as error:
            if "Credentials" in type(error).__name__:
                raise AccessDenied(f"{self.name}: {error}", hint="check the keys of this store in the plan.") from error
            raise StoreUnavailable(f"{self.name}: {error}", hint="is the endpoint right and up?") from error

    def _bucket_is_there(self) -> bool:
        try:
            self._client.head_bucket(Bucket=self._bucket)
        except ClientError as error:
            return bool(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") != 404)
        except (BotoCoreError, *_BROKEN):
            return False
        return True

    def _error(self, error: ClientError, key: str) -> StoreError:
        status = _status(error)
        details = error.response.get("Error", {})
        code, message = details.get("Code", ""), details.get("Message", "")
        if code == "NoSuchBucket":
            return StoreError(f"{self.name}: there is no bucket {self._bucket}", hint="create it, or mend the plan.")
        if status == 404 and not self._bucket_is_there():
            # A HEAD has no body, and some endpoints send no codes: a missing bucket must not pass for proven absence.
            return StoreError(f"{self.name}: there is no bucket {self._bucket}", hint="create it, or mend the plan.")
        if status == 404:
            return ObjectNotFound(f"{self.name}: there is no {key}")
        if status in (401, 403):
            return AccessDenied(
                f"{self.name}: access to {key} denied: {message or code or status}",
                hint="check the keys of this store in the plan.",
            )
        if status == 412:
            return ObjectExists(f"{self.name}: {key} is there already")
        if status in (408, 409, 429) or status >= 500:
            return StoreUnavailable(f"{self.name}: {key}: {message or code or status}")
        return StoreError(f"{self.name}: {key}: {message or code or status}")


def _status(error: BaseException | None) -> int:
    if not isinstance(error, ClientError):
        return 0
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _md5(body: Body) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    for chunk in body.chunks:
        digest.update(chunk)
    return b64encode(digest.digest()).decode()


def _lock(until: datetime | None) -> dict[str, Any]:
    if until is None:
        return {}
    return {"ObjectLockMode": "COMPLIANCE", "ObjectLockRetainUntilDate": until.astimezone(UTC)}
