"""The objects of a bucket of any S3-compatible endpoint, as they are: any key, headers, metadata.

Quirks: AWS and some others keep `If-Match` and `If-None-Match`; Supabase and rclone take them without a word, so what
comes is compared with what was asked for. Supabase answers HEAD from the object's row, also when the object is lost:
only a GET proves it. Metadata is ASCII on the wire, and its names are in lower case.
"""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from dr_pipelines.errors import AccessDenied, ObjectChanged, ObjectExists, ObjectNotFound
from dr_pipelines.storage.bucket import BucketObject, ObjectHeaders
from dr_pipelines.storage.bucket_service import Page, Sent
from dr_pipelines.storage.header_text import TEXTS, from_header, raw, to_header, unfit
from dr_pipelines.storage.s3_bucket import S3Bucket

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from dr_pipelines.storage.s3 import Profile

_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")
_PARAMETERS = {text: "".join(word.capitalize() for word in text.split("_")) for text in TEXTS}


class S3Objects:
    """A `BucketService`. Profile `aws` keeps conditions, and an answer is of one version."""

    most_parts = 10_000

    def __init__(
        self,
        client: S3Client,
        bucket: str,
        name: str | None = None,
        *,
        profile: Profile = "generic",
        page_size: int = 1000,
    ) -> None:
        self.name = name or bucket
        self.conditional = self.reads_one_version = profile == "aws"
        self._bucket, self._page_size = S3Bucket(client, bucket, self.name), page_size
        self._client: Any = client
        self._etags_prove = self._heads_prove = profile != "supabase"

    def page(self, prefix: str, token: str | None) -> Page:
        try:
            entries, following = self._bucket.page(prefix, self._page_size, token)
        except AccessDenied as error:
            hint = f"give this key the right s3:ListBucket on {self._bucket.bucket}, or mend it in the plan."
            raise AccessDenied(error.message, hint=hint) from error
        return Page([self._object(entry["Key"], entry["Size"], entry) for entry in entries], following)

    def open(self, found: BucketObject, offset: int) -> tuple[ObjectHeaders, Iterator[bytes]]:
        asked = {"IfMatch": f'"{found.etag}"'} if found.etag else {}
        asked |= {"VersionId": found.version} if found.version else {}
        asked |= {"Range": f"bytes={offset}-"} if offset else {}
        try:
            answer = self._bucket.get(found.key, **asked)
        except ObjectExists as error:  # what 412 means of a put
            raise self._changed(found.key) from error
        size = answer.get("ContentLength")
        came = self._object(found.key, found.size if size is None else offset + size, answer)
        if not found.is_still(came):
            answer["Body"].close()
            raise self._changed(found.key)
        return _headers(answer), self._bucket.pieces(found.key, answer)

    def stat(self, key: str) -> tuple[BucketObject, ObjectHeaders]:
        head = self._bucket.head(key) if self._heads_prove else self._bucket.head_by_get(key)
        return self._object(key, head["ContentLength"], head), _headers(head)

    def put(
        self, key: str, data: bytes, headers: ObjectHeaders, *, if_absent: bool = False, if_match: str = ""
    ) -> Sent:
        md5 = hashlib.md5(data, usedforsecurity=False)
        with self._bucket.told(key):
            answer = self._client.put_object(
                **self._at(key), Body=data, ContentMD5=_base64(md5), **_asked(headers), **_only(if_absent, if_match)
            )
        return self._sent(answer, md5.hexdigest())

    def begin(self, key: str, headers: ObjectHeaders) -> str:
        with self._bucket.told(key):
            return str(self._client.create_multipart_upload(**self._at(key), **_asked(headers))["UploadId"])

    def send(self, key: str, upload: str, number: int, data: bytes) -> str:
        """The part's ETag, and its MD5 as we know it."""
        md5 = hashlib.md5(data, usedforsecurity=False)
        with self._bucket.told(key):
            answer = self._client.upload_part(
                **self._at(key), UploadId=upload, PartNumber=number, Body=data, ContentMD5=_base64(md5)
            )
        return f"{md5.hexdigest()} {answer['ETag']}"

    def finish(
        self,
        key: str,
        upload: str,
        parts: Sequence[str],
        headers: ObjectHeaders,
        *,
        if_absent: bool = False,
        if_match: str = "",
    ) -> Sent:
        digests, etags = zip(*(part.split(" ", 1) for part in parts), strict=True)
        told = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]
        with self._bucket.told(key):
            answer = self._client.complete_multipart_upload(
                **self._at(key), UploadId=upload, MultipartUpload={"Parts": told}, **_only(if_absent, if_match)
            )
        whole = hashlib.md5(bytes.fromhex("".join(digests)), usedforsecurity=False).hexdigest()
        return self._sent(answer, f"{whole}-{len(parts)}")

    def abort(self, key: str, upload: str) -> None:
        with self._bucket.told(key):
            self._client.abort_multipart_upload(**self._at(key), UploadId=upload)

    def delete(self, found: BucketObject) -> None:
        version = {"VersionId": found.version} if found.version else {}
        try:
            with self._bucket.told(found.key):
                self._client.delete_object(**self._at(found.key), **version)
        except ObjectNotFound:
            return

    def cannot_hold(self, headers: ObjectHeaders) -> tuple[str, ...]:
        return unfit(headers, _NAME)

    def _at(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket.bucket, "Key": key}

    def _sent(self, answer: Any, proof: str) -> Sent:
        """An ETag of what was put in parts is the MD5 of their MD5s. Source: the S3 API reference, Object."""
        etag = _etag(answer)
        return Sent(etag, self._etags_prove and etag == proof)

    def _object(self, key: str, size: int, told: Any) -> BucketObject:
        modified: datetime | None = told.get("LastModified")
        if modified is None:  # a web page is no object
            raise self._bucket.no_s3()
        version = None if told.get("VersionId") in ("", "null") else told.get("VersionId")
        return BucketObject(key, size, modified.replace(microsecond=0), _etag(told), version)

    def _changed(self, key: str) -> ObjectChanged:
        return ObjectChanged(f"{self.name}: {key} was replaced since it was listed", hint="look at it again.")


def _etag(told: Any) -> str:
    return str(told.get("ETag", "")).removeprefix("W/").strip('"')


def _headers(told: Any) -> ObjectHeaders:
    texts = {text: raw(told[name]) for text, name in _PARAMETERS.items() if told.get(name)}
    metadata = {name.lower(): from_header(value) for name, value in told.get("Metadata", {}).items()}
    return ObjectHeaders(**texts, metadata=metadata)


def _asked(headers: ObjectHeaders) -> dict[str, Any]:
    texts = {name: value for text, name in _PARAMETERS.items() if (value := getattr(headers, text)) is not None}
    return {**texts, "Metadata": {name: to_header(value) for name, value in headers.metadata.items()}}


def _only(if_absent: bool, if_match: str) -> dict[str, str]:
    return {"IfNoneMatch": "*"} if if_absent else {"IfMatch": f'"{if_match}"'} if if_match else {}


def _base64(digest: Any) -> str:
    return b64encode(digest.digest()).decode()
