"""An S3 server with S3's own rules of object lock: moto, and in front of it the rules that it lacks.

Run as a program, `python -m tests.support.strict_s3 PORT`. Any credentials are taken; who may bypass governance, by the
access key id, is `MAY_BYPASS` alone. Rules after AWS, "How S3 Object Lock works" and "PutObjectRetention":

- COMPLIANCE is not shortened, weakened or taken away by anybody; GOVERNANCE only by who may bypass it and says so.
- Who says so without the right is refused, whatever is locked.
- A retention of the past is refused.
- A body that does not match its SHA-256 is refused; the checksum is kept, and a copy gets one when it asks for it.
- A restore takes until `finish_restores`; one that is under way is not begun again; Deep Archive has no Expedited.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

import xmltodict
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from moto.s3.models import s3_backends
from werkzeug.serving import run_simple

MAY_BYPASS = "may-bypass-governance"
_DENIED = ("403 Forbidden", "AccessDenied")
_INVALID = ("400 Bad Request", "InvalidArgument")


class Rules:
    """A WSGI application in front of moto's."""

    def __init__(self, moto: Callable[..., Iterable[bytes]]) -> None:
        self._moto = moto

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        refused = _judge(environ, body)
        if refused is None:
            return self._answered(environ, start)
        status, code = refused
        answer = f"<Error><Code>{code}</Code><Message>by the rules</Message></Error>".encode() if code else b""
        start(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(answer)))])
        return [answer]

    def _answered(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        """moto looks at another header to keep a checksum, and makes none for copies."""
        copied = environ.get("HTTP_X_AMZ_CHECKSUM_ALGORITHM") if "HTTP_X_AMZ_COPY_SOURCE" in environ else None
        if copied or "HTTP_X_AMZ_CHECKSUM_SHA256" in environ:
            environ["HTTP_X_AMZ_SDK_CHECKSUM_ALGORITHM"] = copied or "SHA256"
        answer = self._moto(environ, start)
        if copied == "SHA256" and (found := _object(environ, {})) is not None:
            found.checksum_algorithm, found.checksum_value = "SHA256", _sha256(found.value)
        return answer


def _sha256(data: bytes) -> str:
    return b64encode(hashlib.sha256(data).digest()).decode()


def _judge(environ: dict[str, Any], body: bytes) -> tuple[str, str] | None:
    """The answer that moto would not give; None where it may answer."""
    query = parse_qs(environ["QUERY_STRING"], keep_blank_values=True)
    bypass = environ.get("HTTP_X_AMZ_BYPASS_GOVERNANCE_RETENTION", "").lower() == "true"
    if bypass and f"Credential={MAY_BYPASS}/" not in environ.get("HTTP_AUTHORIZATION", ""):
        return _DENIED
    if environ.get("HTTP_X_AMZ_CHECKSUM_SHA256", _sha256(body)) != _sha256(body):
        return "400 Bad Request", "BadDigest"
    if environ["REQUEST_METHOD"] == "PUT" and "retention" in query:
        return _judge_retention(_object(environ, query), body, bypass=bypass)
    if environ["REQUEST_METHOD"] == "POST" and "restore" in query:
        return _judge_restore(_object(environ, query), body)
    return None


def _object(environ: dict[str, Any], query: dict[str, list[str]]) -> Any:
    bucket, _, key = environ["PATH_INFO"].lstrip("/").partition("/")
    backend = s3_backends["123456789012"]["aws"]
    return backend.get_object(bucket, key, version_id=query.get("versionId", [None])[0])


def _judge_retention(found: Any, body: bytes, *, bypass: bool) -> tuple[str, str] | None:
    asked = xmltodict.parse(body)["Retention"] or {}
    mode, until = asked.get("Mode"), _time(asked.get("RetainUntilDate"))
    now = datetime.now(UTC)
    held = _time(found.lock_until)
    if held is not None and held > now:
        weaker = until is None or until < held or mode != found.lock_mode
        if weaker and not (found.lock_mode == "GOVERNANCE" and bypass):
            return _DENIED
    if mode is None and until is None:
        found.lock_mode = found.lock_until = None  # moto fails at this
        return "200 OK", ""
    return _INVALID if mode is None or until is None or until <= now else None


def _judge_restore(found: Any, body: bytes) -> tuple[str, str] | None:
    asked = xmltodict.parse(body)["RestoreRequest"]
    tier = (asked.get("GlacierJobParameters") or {}).get("Tier")
    if tier == "Expedited" and found.storage_class == "DEEP_ARCHIVE":
        return _INVALID
    if 'ongoing-request="true"' in found.response_dict.get("x-amz-restore", ""):
        return "409 Conflict", "RestoreAlreadyInProgress"
    found.status = "IN_PROGRESS"
    return None


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def hold_restores(endpoint: str) -> None:
    """Restores that are asked for from now on are under way."""
    _set(endpoint, {"progression": "manual", "times": 10**9})


def finish_restores(endpoint: str) -> None:
    _set(endpoint, {"progression": "immediate"})


def _set(endpoint: str, transition: dict[str, Any]) -> None:
    asked = json.dumps({"model_name": "s3::keyrestore", "transition": transition}).encode()
    urllib.request.urlopen(f"{endpoint}/moto-api/state-manager/set-transition", asked, timeout=10).close()


if __name__ == "__main__":
    application = Rules(DomainDispatcherApplication(create_backend_app))
    run_simple("127.0.0.1", int(sys.argv[1]), application, threaded=True, request_handler=MotoRequestHandler)
