"""S3-compatible endpoints through boto3: AWS, Supabase Storage, and whatever else speaks the protocol.

The only module that imports boto3. Retries are the wrapper's; botocore's own are off. Source of the quirks: measured
against real servers.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, ParamValidationError

from dr_pipelines.errors import (
    AccessDenied,
    DrError,
    IntegrityError,
    ObjectExists,
    ObjectLocked,
    ObjectNotFound,
    StoreError,
    StoreUnavailable,
)
from dr_pipelines.storage.base import Body, Capabilities, ObjectInfo, Plain, sha256_of
from dr_pipelines.storage.keys import checked
from dr_pipelines.storage.reader import BodyReader
from dr_pipelines.storage.refusals import no_such_service, redirected, refusal, unreachable
from dr_pipelines.storage.s3_locks import is_held, is_locked, whole_second

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

Profile = Literal["aws", "supabase", "generic"]
_PIECE = 4 * 1024 * 1024
_PART = 72 * 1024 * 1024
"""A whole pack is one put: encryption can make it a little larger than 64 MiB."""
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
    """A client with the settings that every S3-compatible endpoint understands. Timeouts in seconds. Raises
    `StoreError` for an endpoint or region that is none."""
    config = Config(
        s3={"addressing_style": "path" if endpoint else "auto", "payload_signing_enabled": True},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        retries={"total_max_attempts": 1},
        max_pool_connections=16,
        connect_timeout=connect_timeout,
        read_timeout=read_timeout,
    )
    try:
        return boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name=region,
            aws_access_key_id=access_key_id,
            aws_secret_access_key=secret_access_key,
            config=config,
        )
    except (ValueError, BotoCoreError) as error:
        raise StoreError(f"no S3 store: {error}", hint="mend this store's endpoint or region in the plan.") from error


class S3Store(Plain):
    """One bucket. Profile `aws` trusts conditional puts; with the others a key is looked at before a put. An object is
    read back after a put unless the service itself says that it checked the SHA-256.

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
        part_size: int = _PART,
        page_size: int = 1000,
    ) -> None:
        self._client = client
        self._bucket = bucket
        self._profile = profile
        self._part_size, self._page_size = part_size, page_size
        self.name = name or bucket

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            conditional_put=self._aws,
            confirms_digest=self._aws,
            object_lock=self._aws and _may_be_asked(lambda: self._locks),
            versioning=self._aws and _may_be_asked(lambda: self._versions),
            largest_put=self._part_size,
        )

    @property
    def _aws(self) -> bool:
        return self._profile == "aws"

    @cached_property
    def _locks(self) -> bool:
        """The bucket is asked: a promise of immutability must not rest on the profile's name. Raises `AccessDenied`."""
        found = self._asked(self._client.get_object_lock_configuration)
        return bool(found.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled") == "Enabled")

    @cached_property
    def _versions(self) -> bool:
        """Raises `AccessDenied`."""
        return bool(self._asked(self._client.get_bucket_versioning).get("Status") == "Enabled")

    def _asked(self, question: Callable[..., Any]) -> Any:
        """The bucket's answer; none where it has no such setting or the endpoint does not know the question."""
        try:
            with self._told(self._bucket):
                return question(Bucket=self._bucket)
        except ObjectNotFound:
            return {}
        except StoreError as error:
            if _status(error.__cause__) in (405, 501) or _code(error.__cause__) == "NotImplemented":
                return {}
            raise

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
        until = None if retain_until is None else whole_second(retain_until)
        if until is not None:
            self._require_lock()
        info = self._put(checked(key), body, if_absent=if_absent, until=until)
        return info if until is None else self._locked(info, until)

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
        if wanted and not answer.get("ContentRange", "").startswith(f"bytes {offset}-"):
            raise self._no_s3()
        return self._pieces(key, answer)

    def stat(self, key: str) -> ObjectInfo:
        head = self._head(key)
        if not {"ContentLength", "LastModified"} <= set(head):
            raise self._no_s3()
        return ObjectInfo(key, head["ContentLength"], head["LastModified"], head.get("ObjectLockRetainUntilDate"))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        with self._told(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=prefix, PaginationConfig={"PageSize": self._page_size}
            )
            for page in pages:
                if "IsTruncated" not in page:  # a web page is no listing, and no proof of an empty one
                    raise self._no_s3()
                for entry in page.get("Contents", []):
                    yield ObjectInfo(entry["Key"], entry["Size"], entry["LastModified"])

    def delete(self, key: str) -> None:
        try:
            if self._aws and is_held(self._head(key)):  # with versions, S3 would hide even what is locked
                raise ObjectLocked(f"{self.name}: {key} is locked", hint="wait until its retention ends.")
            with self._told(key):
                self._client.delete_object(Bucket=self._bucket, Key=checked(key))
        except ObjectNotFound:
            return

    def extend_lock(self, key: str, retain_until: datetime) -> None:
        self._require_lock()
        held = self.stat(key).retain_until
        if held is not None and held > retain_until:  # some services shorten what they should not
            raise ObjectLocked(f"{self.name}: {key} is locked until {held:%Y-%m-%d %H:%M} UTC: no lock is shortened")
        self._retain(key, whole_second(retain_until))

    def _require_lock(self) -> None:
        try:
            able = self._aws and self._locks
        except AccessDenied as error:
            raise AccessDenied(
                f"{self.name}: may not ask whether {self._bucket} can lock objects",
                hint="give this key the right s3:GetBucketObjectLockConfiguration.",
            ) from error
        if not able:
            raise self.cannot_lock()

    def _put(self, key: str, body: Body, *, if_absent: bool, until: datetime | None) -> ObjectInfo:
        if if_absent and not self._aws and (there := self._there(key, body)):
            return there
        condition: dict[str, Any] = {"IfNoneMatch": "*"} if if_absent and self._aws else {}
        try:
            with self._told(key):
                if body.size > self._part_size:
                    sent = self._send_parts(key, body, condition)
                else:
                    sent = self._send(key, body, condition, until)
        except ObjectExists:
            if there := self._there(key, body):
                return there
            raise
        # Some take the header and do not look: the digest counts as compared only when the service says so.
        if sent.get("ChecksumSHA256") != _in_base64(body.sha256):
            self._confirm(key, body, sent.get("ETag"))
        return self.stat(key)

    def _locked(self, info: ObjectInfo, until: datetime) -> ObjectInfo:
        """The object once it is locked so long. Parts are locked here, after they were found to be right, and so is
        what was there before."""
        if is_locked(info, until):
            return info
        self._retain(info.key, until)
        info = self.stat(info.key)
        if not is_locked(info, until):
            raise StoreError(
                f"{self.name} took {info.key} without the lock it was put with",
                hint="give this key the rights s3:PutObjectRetention and s3:GetObjectRetention.",
            )
        return info

    def _retain(self, key: str, until: datetime) -> None:
        with self._told(key):
            self._client.put_object_retention(
                Bucket=self._bucket, Key=checked(key), Retention={"Mode": "COMPLIANCE", "RetainUntilDate": until}
            )

    def _send(self, key: str, body: Body, condition: dict[str, Any], until: datetime | None) -> Any:
        extra: dict[str, Any] = {"ContentMD5": _md5(body), **condition}
        if self._aws:
            extra["ChecksumSHA256"] = _in_base64(body.sha256)
        if until is not None:
            extra |= {"ObjectLockMode": "COMPLIANCE", "ObjectLockRetainUntilDate": until}
        reader: Any = BodyReader(body)
        return self._client.put_object(Bucket=self._bucket, Key=key, Body=reader, ContentLength=body.size, **extra)

    def _send_parts(self, key: str, body: Body, condition: dict[str, Any]) -> dict[str, Any]:
        """Says nothing of what was stored: some give the whole another ETag at once than later."""
        upload = self._client.create_multipart_upload(Bucket=self._bucket, Key=key)["UploadId"]
        try:
            starts = enumerate(range(0, body.size, self._part_size), 1)
            parts: Any = [self._send_part(key, upload, number, body, start) for number, start in starts]
            self._client.complete_multipart_upload(
                Bucket=self._bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": parts}, **condition
            )
            return {}
        except BaseException:
            with suppress(ClientError, BotoCoreError, *_BROKEN):  # the first trouble is the one to tell
                self._client.abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=upload)
            raise

    def _send_part(self, key: str, upload: str, number: int, body: Body, start: int) -> dict[str, Any]:
        reader: Any = BodyReader(body, start, self._part_size)
        sent = self._client.upload_part(Bucket=self._bucket, Key=key, UploadId=upload, PartNumber=number, Body=reader)
        return {"ETag": sent["ETag"], "PartNumber": number}

    def _there(self, key: str, body: Body) -> ObjectInfo | None:
        """What is under the key already, when it has the same content. Raises `ObjectExists` when it has not."""
        try:
            info = self.stat(key)
        except ObjectNotFound:
            return None
        if info.size == body.size and sha256_of(self.open(key)) == body.sha256:
            return info
        raise ObjectExists(f"{self.name}: {key} is there with other content")

    def _confirm(self, key: str, body: Body, etag: str | None) -> None:
        found = sha256_of(self.open(key))
        if found == body.sha256:
            return
        if etag is not None and self._head(key).get("ETag") != etag:  # not ours to remove
            raise ObjectExists(f"{self.name}: {key} holds what another writer put there at the same time")
        try:
            self.delete(key)
            end = "it was removed"
        except ObjectLocked:
            end = f"it is locked until {self.stat(key).retain_until} and stays"
        except StoreError as error:  # must not hide what is worse
            end = f"it stays, for {error.message}"
        raise IntegrityError(
            f"{self.name} holds {key} with SHA-256 {found} after {body.sha256} was sent; {end}",
            hint=f"run `dr store check {self.name}`.",
        )

    def _head(self, key: str) -> Any:
        with self._told(key):
            return self._client.head_object(Bucket=self._bucket, Key=checked(key))

    def _pieces(self, key: str, answer: Any) -> Iterator[bytes]:
        expected, seen = answer.get("ContentLength"), 0
        with self._told(key), answer["Body"] as stream:
            while piece := stream.read(_PIECE):
                seen += len(piece)
                yield piece
        if expected is not None and seen != expected:
            raise StoreUnavailable(
                f"{self.name}: {key} ended after {seen} of {expected} bytes", hint="run the command again."
            )

    @contextmanager
    def _told(self, key: str) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            raise self._refusal(error, key) from error
        except RecursionError as error:  # boto3 asks a redirect's target for the bucket's region, again and again
            raise redirected(self.name, self._endpoint, key) from error
        except ParamValidationError as error:
            raise StoreError(f"{self.name}: {error}", hint="mend the store in the plan.") from error
        except (BotoCoreError, *_BROKEN) as error:
            if isinstance(error, HTTPClientError) and isinstance(error.kwargs.get("error"), RecursionError):
                raise redirected(self.name, self._endpoint, key) from error
            if "Credentials" in type(error).__name__ or "Token" in type(error).__name__:
                raise AccessDenied(f"{self.name}: {error}", hint="check the keys of this store in the plan.") from error
            raise unreachable(self.name, self._endpoint, str(error)) from error

    def _no_s3(self) -> StoreError:
        return no_such_service(self.name, self._endpoint, "S3")

    @property
    def _endpoint(self) -> str:
        return str(self._client.meta.endpoint_url)

    def _bucket_is_there(self) -> bool:
        try:
            self._client.head_bucket(Bucket=self._bucket)
        except ClientError as error:
            return _status(error) != 404
        except (BotoCoreError, *_BROKEN):
            return False
        return True

    def _refusal(self, error: ClientError, key: str) -> DrError:
        status, code = _status(error), _code(error)
        if status == 404 and not self._bucket_is_there():
            # A HEAD has no body, and some endpoints send no codes: a missing bucket must not pass for proven absence.
            code = "NoSuchBucket"
        message = error.response.get("Error", {}).get("Message", "")
        where = f"{self._endpoint}/{self._bucket}"
        return refusal(self.name, where, key, status=status, code=code, message=message)


def _status(error: BaseException | None) -> int:
    if not isinstance(error, ClientError):
        return 0
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _code(error: BaseException | None) -> str:
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""


def _may_be_asked(question: Callable[[], bool]) -> bool:
    """What may not be asked is not promised; nor is it remembered, for rights are given later."""
    try:
        return question()
    except AccessDenied:
        return False


def _in_base64(sha256: str) -> str:
    return b64encode(bytes.fromhex(sha256)).decode()


def _md5(body: Body) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    for chunk in body.chunks:
        digest.update(chunk)
    return b64encode(digest.digest()).decode()
