"""Bytes on their way into a bucket: in one piece, or in parts."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from dr_pipelines.errors import DrError
from dr_pipelines.storage.base import Body
from dr_pipelines.storage.reader import BodyReader
from dr_pipelines.storage.s3_bucket import S3Bucket


def send(bucket: S3Bucket, key: str, body: Body, *, digest: bool, believe: bool = True, **asked: Any) -> Any:
    """In one piece. The answer's `sent_md5` is that of what was sent; where `digest` says so, the service is given the
    SHA-256 to compare instead, and may have no use for the MD5. `believe` the MD5 that the store knows that the body
    comes from."""
    if not asked.keys() - {"IfNoneMatch"} and (
        answer := _by_wire(bucket, key, body, digest=digest, believe=believe, **asked)
    ):
        return answer
    return _by_client(bucket, key, body, digest=digest, **asked)


def _by_wire(bucket: S3Bucket, key: str, body: Body, *, digest: bool, believe: bool, **asked: str) -> Any:
    headers = {"Content-Length": str(body.size), **({"If-None-Match": "*"} if asked else {})}
    sent = _Sent(body, believe)
    if digest:
        headers["x-amz-checksum-sha256"] = in_base64(body.sha256)
    elif body.at_hand and not sent.is_said:
        headers["Content-MD5"] = _in_base64(sent.md5)
    answer = bucket.wire.put(key, body.chunks if digest or body.at_hand else sent, headers, body.sha256)
    if answer is None or (digest and ("ChecksumSHA256" in answer or not body.at_hand)):
        return answer
    return {**answer, "sent_md5": sent.md5}


def _by_client(bucket: S3Bucket, key: str, body: Body, *, digest: bool, **asked: Any) -> Any:
    body = body.held()
    md5 = _Sent(body, believe=False).md5
    if digest:
        asked["ChecksumSHA256"] = in_base64(body.sha256)
    reader: Any = BodyReader(body)
    answer = bucket.client.put_object(
        Bucket=bucket.bucket,
        Key=key,
        Body=reader,
        ContentLength=body.size,
        ContentMD5=_in_base64(md5),
        **asked,
    )
    return {**answer, "sent_md5": md5}


def send_parts(bucket: S3Bucket, key: str, body: Body, part_size: int, **condition: Any) -> dict[str, Any]:
    """Says nothing of what was stored: some give the whole another ETag at once than later."""
    client, body = bucket.client, body.held()
    with bucket.told(key):
        upload = client.create_multipart_upload(Bucket=bucket.bucket, Key=key)["UploadId"]
    where: dict[str, Any] = {"Bucket": bucket.bucket, "Key": key, "UploadId": upload}
    try:
        with bucket.told(key):
            parts: list[Any] = []
            for number, start in enumerate(range(0, body.size, part_size), 1):
                reader: Any = BodyReader(body, start, part_size)
                sent = client.upload_part(**where, PartNumber=number, Body=reader)
                parts.append({"ETag": sent["ETag"], "PartNumber": number})
            client.complete_multipart_upload(**where, MultipartUpload={"Parts": parts}, **condition)
        return {}
    except BaseException:
        with suppress(DrError), bucket.told(key):  # the first trouble is the one to tell
            client.abort_multipart_upload(**where)
        raise


class _Sent:
    """A body's chunks, and their MD5 in hex: as it was before, where they are at hand; else as they went by, or as the
    store says that they come from, which need not be hashed. The service's own MD5 of what it took is compared with
    either: from two services that were not told, it proves as much."""

    def __init__(self, body: Body, believe: bool) -> None:
        self._body, self._believe = body, believe
        self._digest: Any = None

    def __iter__(self) -> Iterator[Any]:
        self._digest = hashlib.md5(usedforsecurity=False)
        for chunk in self._body.chunks:
            if self._said is None:
                self._digest.update(chunk)
            yield chunk

    @property
    def is_said(self) -> bool:
        """By another service, as far as is known yet: then this one is not told."""
        return self._said is not None

    @property
    def _said(self) -> str | None:
        return self._body.md5 if self._believe else None

    @property
    def md5(self) -> str:
        if self._said is not None:
            return self._said
        if self._digest is None:
            for _ in self:
                pass
        return str(self._digest.hexdigest())


def in_base64(sha256: str) -> str:
    return _in_base64(sha256)


def _in_base64(digest: str) -> str:
    return b64encode(bytes.fromhex(digest)).decode()
