"""Bytes on their way into a bucket: in one piece, or in parts."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from contextlib import suppress
from typing import Any

from dr_pipelines.errors import DrError
from dr_pipelines.storage.base import Body
from dr_pipelines.storage.reader import BodyReader
from dr_pipelines.storage.s3_bucket import S3Bucket


def send(bucket: S3Bucket, key: str, body: Body, *, digest: bool, **asked: Any) -> Any:
    """In one piece, with its MD5 and, where `digest` says so, its SHA-256 for the service to compare. The answer's
    `sent_md5` is that of what was sent."""
    md5 = hashlib.md5(usedforsecurity=False)
    for chunk in body.chunks:
        md5.update(chunk)
    if digest:
        asked["ChecksumSHA256"] = in_base64(body.sha256)
    reader: Any = BodyReader(body)
    answer = bucket.client.put_object(
        Bucket=bucket.bucket,
        Key=key,
        Body=reader,
        ContentLength=body.size,
        ContentMD5=b64encode(md5.digest()).decode(),
        **asked,
    )
    return {**answer, "sent_md5": md5.hexdigest()}


def send_parts(bucket: S3Bucket, key: str, body: Body, part_size: int, **condition: Any) -> dict[str, Any]:
    """Says nothing of what was stored: some give the whole another ETag at once than later."""
    client = bucket.client
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


def in_base64(sha256: str) -> str:
    return b64encode(bytes.fromhex(sha256)).decode()
