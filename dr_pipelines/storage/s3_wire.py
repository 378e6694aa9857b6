"""Objects in and out of a bucket at a third of the time that botocore takes to build a request and to take its answer
apart, by the same client's endpoint, credentials, connections and TLS settings.

Only what goes well is dealt with here: whatever else happens, the caller asks again through the client, which says
why. So nothing about errors, redirects or retries belongs here.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote, urlsplit

from botocore.awsrequest import AWSPreparedRequest, AWSRequest
from botocore.exceptions import BotoCoreError, HTTPClientError
from botocore.response import StreamingBody

from dr_pipelines.errors import DrError
from dr_pipelines.storage.s3_signing import NO_BODY, sign

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_REFUSED = (301, 307, 308, 400, 403)
_TOO_MANY = 3
_METADATA = "x-amz-meta-"
_AS_IT_IS = {
    "ETag": "ETag",
    "ContentType": "Content-Type",
    "CacheControl": "Cache-Control",
    "ContentDisposition": "Content-Disposition",
    "ContentEncoding": "Content-Encoding",
    "ContentLanguage": "Content-Language",
}


class Wire:
    """One bucket by way of `client`. Where the client is answered and the wire is refused, again and again, it falls
    silent: there is something about this endpoint that only botocore knows. Thread-safe."""

    def __init__(self, client: S3Client, bucket: str) -> None:
        self._client: Any = client
        self._bucket = bucket
        self._refusals = 0
        self._lock = threading.Lock()

    def get(self, key: str, headers: dict[str, str]) -> dict[str, Any] | None:
        """As `get_object` answers, as far as it is needed to read; None where it did not go well."""
        answer = self._ask("GET", key, headers, NO_BODY, None)
        if answer is None:
            return None
        length = answer.headers.get("Content-Length")
        size: Any = None if length is None else int(length)
        found = {
            "ContentLength": size,
            "ContentRange": answer.headers.get("Content-Range"),
            "ServerSideEncryption": answer.headers.get("x-amz-server-side-encryption"),
            "LastModified": _time(answer.headers.get("Last-Modified")),
            "VersionId": answer.headers.get("x-amz-version-id"),
            **{name: answer.headers.get(header) for name, header in _AS_IT_IS.items()},
            "Metadata": _metadata(answer.headers),
        }
        return {"Body": StreamingBody(answer.raw, size), **_known(found)}

    def put(self, key: str, chunks: Iterable[Any], headers: dict[str, str], sha256: str) -> dict[str, Any] | None:
        """As `put_object` answers, with the service's time as `LastModified`; None where it did not go well. Raises
        what of ours `chunks` raise: then the request broke off before its end, and no object was made."""
        answer = self._ask("PUT", key, headers, sha256, iter(chunks))
        if answer is None:
            return None
        answer.raw.read()
        found = {
            "ETag": answer.headers.get("ETag"),
            "ChecksumSHA256": answer.headers.get("x-amz-checksum-sha256"),
            "LastModified": _time(answer.headers.get("Date")),
        }
        return _known(found)

    def _ask(self, method: str, key: str, headers: dict[str, str], sha256: str, body: Iterator[Any] | None) -> Any:
        if self._refusals >= _TOO_MANY:
            return None
        try:
            headers = {**headers, "User-Agent": self._client.meta.config.user_agent}
            url = f"{self._base}{quote(key)}"
            request = AWSRequest(method, url, headers)
            sign(self._client, request, sha256)
            signed: Any = dict(request.headers.items())
            prepared = AWSPreparedRequest(method, url, signed, cast(Any, body), stream_output=True)
            answer = self._client._endpoint.http_session.send(prepared)
        except (BotoCoreError, OSError) as error:
            _raise_ours(error)
            return None
        if answer.status_code in (200, 206):
            self._refusals = 0
            return answer
        answer.raw.close()
        if answer.status_code in _REFUSED:
            with self._lock:
                self._refusals += 1
        return None

    @cached_property
    def _base(self) -> str:
        """Where botocore's rules say that this bucket is."""
        signed = self._client.generate_presigned_url("get_object", Params={"Bucket": self._bucket, "Key": "-"})
        where = urlsplit(signed)
        return f"{where.scheme}://{where.netloc}{where.path.removesuffix('-')}"


def _known(found: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if value is not None}


def _raise_ours(error: BaseException) -> None:
    """botocore packs what a body raises into an error of its own."""
    packed = error.kwargs.get("error") if isinstance(error, HTTPClientError) else None
    if isinstance(packed, DrError):
        raise packed


def _metadata(headers: Any) -> dict[str, str]:
    return {name[len(_METADATA) :]: value for name, value in headers.items() if name.lower().startswith(_METADATA)}


def _time(date: str | None) -> Any:
    return None if date is None else parsedate_to_datetime(date)
