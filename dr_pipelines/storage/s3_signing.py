"""The signature of a put names the SHA-256 that its body has already, instead of reading the body once more for it.

A service that checks signatures against bodies (AWS does) so compares what it received with our digest itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import botocore.auth
from botocore.auth import S3SigV4Auth

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_VERSION = "dr-s3v4"
_ORDINARY = ("s3v4", "v4")


class _KnownDigest(S3SigV4Auth):
    def payload(self, request: Any) -> Any:
        return getattr(request.body, "sha256", None) or super().payload(request)


def sign_with_known_digests(client: S3Client) -> None:
    """From now on, where the client signs as S3 is commonly signed."""
    botocore.auth.AUTH_TYPE_MAPS[_VERSION] = _KnownDigest
    events: Any = client.meta.events  # its types allow no answer
    events.register_first("choose-signer.s3.PutObject", _choose)


def _choose(signature_version: Any, **_: Any) -> str | None:
    return _VERSION if signature_version in _ORDINARY else None
