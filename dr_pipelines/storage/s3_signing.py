"""The signature of a put names the SHA-256 that its body has already, instead of reading the body once more for it.

A service that checks signatures against bodies (AWS does) so compares what it received with our digest itself.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import botocore.auth
from botocore.auth import S3SigV4Auth

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_VERSION = "dr-s3v4"
NO_BODY = hashlib.sha256().hexdigest()
_ORDINARY = ("s3v4", "v4")


class _KnownDigest(S3SigV4Auth):
    def payload(self, request: Any) -> Any:
        return getattr(request.body, "sha256", None) or super().payload(request)


def sign_with_known_digests(client: S3Client) -> None:
    """From now on, where the client signs as S3 is commonly signed."""
    botocore.auth.AUTH_TYPE_MAPS[_VERSION] = _KnownDigest
    events: Any = client.meta.events  # its types allow no answer
    events.register_first("choose-signer.s3.PutObject", _choose)


class _GivenDigest(S3SigV4Auth):
    def __init__(self, credentials: Any, region: str, sha256: str) -> None:
        super().__init__(credentials, "s3", region)
        self._sha256 = sha256

    def payload(self, request: Any) -> str:
        return self._sha256


def sign(client: Any, request: Any, sha256: str) -> None:
    """A request whose body has this SHA-256, with the credentials that the client has now. botocore gives them out in
    no public way. Raises `NoCredentialsError`."""
    credentials = client._request_signer._credentials
    frozen = None if credentials is None else credentials.get_frozen_credentials()
    _GivenDigest(frozen, client.meta.region_name, sha256).add_auth(request)


def _choose(signature_version: Any, **_: Any) -> str | None:
    return _VERSION if signature_version in _ORDINARY else None
