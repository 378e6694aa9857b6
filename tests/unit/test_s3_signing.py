"""What the signature of a put says of its body."""

from __future__ import annotations

import hashlib

from botocore.awsrequest import AWSRequest

from dr_pipelines.storage.base import Body
from dr_pipelines.storage.reader import BodyReader
from dr_pipelines.storage.s3_signing import _KnownDigest


def _named(reader: BodyReader) -> object:
    signer = _KnownDigest(None, "s3", "us-east-1")
    return signer.payload(AWSRequest("PUT", "http://127.0.0.1/bucket/key", data=reader))


def test_a_whole_body_is_named_by_the_digest_that_it_has_and_a_part_by_its_own() -> None:
    body = Body([b"abc", b"def"], sha256="0" * 64, size=6)
    assert _named(BodyReader(body)) == "0" * 64
    assert _named(BodyReader(body, 3, 3)) == hashlib.sha256(b"def").hexdigest()
    assert _named(BodyReader(body, 0, 3)) == hashlib.sha256(b"abc").hexdigest()
