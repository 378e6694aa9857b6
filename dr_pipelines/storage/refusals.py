"""What a store's refusal means, by the code that it gives, or else by its HTTP status: one table for S3 and Azure.

Some endpoints send no codes, and an answer to HEAD has none, so the status alone has to do.
"""

from __future__ import annotations

from typing import NamedTuple

from dr_pipelines.errors import (
    AccessDenied,
    DrError,
    IntegrityError,
    ObjectExists,
    ObjectLocked,
    ObjectNotFound,
    ObjectOffline,
    StoreError,
    StoreUnavailable,
)


class Meaning(NamedTuple):
    """`message` and `hint` may name `{key}`, `{why}` (the service's words), `{store}` and `{endpoint}`."""

    error: type[DrError]
    message: str
    hint: str | None = None


_MEND = "check this store's endpoint, region and bucket in the plan; `dr store check {store}` tries it."
_UNKNOWN = Meaning(StoreError, "{endpoint} refuses: {key}: {why}", _MEND)
_ELSEWHERE = Meaning(
    StoreError,
    "{endpoint} says that it is elsewhere: {key}: {why}",
    "mend this store's region or endpoint in the plan (https for http, the bucket's own region).",
)
_TOO_LARGE = Meaning(
    StoreError,
    "{key} is larger than {endpoint} takes: {why}",
    "raise the service's limit on the size of an upload above 72 MiB: a pack is one upload.",
)
_ABSENT = Meaning(ObjectNotFound, "there is no {key}")
_THERE = Meaning(ObjectExists, "{key} is there already")
_LOCKED = Meaning(ObjectLocked, "{key} is locked")
_DENIED = Meaning(AccessDenied, "access to {key} denied: {why}", "check the keys and rights of this store in the plan.")
_BUSY = Meaning(
    StoreUnavailable,
    "{endpoint} is busy or in trouble: {key}: {why}",
    "wait, or look at the service's status; `dr store check {store}` tries it.",
)
_CANNOT = Meaning(StoreError, "{endpoint} cannot do this: {key}: {why}")
_NO_BUCKET = Meaning(StoreError, "there is no such bucket at {endpoint}", "create it, or mend its name in the plan.")
_COLD = Meaning(
    ObjectOffline,
    "{key} is in the archive tier of {store}: its bytes must be recalled first, which takes hours",
    "`dr restore --wait` and `dr files restore --wait` ask for it; `dr store recall` too.",
)
_HELD = Meaning(StoreUnavailable, "{key} is held for now: {why}", "end the lease, or wait.")
_DAMAGED = Meaning(IntegrityError, "what came of {key} does not match its digest: {why}", "put it again.")
_CLOCK = Meaning(AccessDenied, "access to {key} denied: {why}", "set the clock of this machine.")

_CODES = {
    "NoSuchBucket": _NO_BUCKET,
    "ContainerNotFound": _NO_BUCKET,
    "AuthorizationHeaderMalformed": _ELSEWHERE,
    "EntityTooLarge": _TOO_LARGE,
    "InvalidObjectState": _COLD,
    "BlobArchived": _COLD,
    "BlobImmutableDueToPolicy": _LOCKED,
    "BlobImmutableDueToLegalHold": _LOCKED,
    "BlobBeingRehydrated": _HELD,
    "ContainerBeingDeleted": _HELD,
    "LeaseIdMissing": _HELD,
    "LeaseLost": _HELD,
    "LeaseIdMismatchWithBlobOperation": _HELD,
    "BlobAlreadyExists": _THERE,
    "ConditionNotMet": _THERE,
    "BadDigest": _DAMAGED,
    "XAmzContentSHA256Mismatch": _DAMAGED,
    "Md5Mismatch": _DAMAGED,
    "RequestTimeTooSkewed": _CLOCK,
    "ExpiredToken": _DENIED,
    "RequestTimeout": _BUSY,
    "NotImplemented": _CANNOT,
}
_STATUSES = {
    301: _ELSEWHERE,
    302: _ELSEWHERE,
    307: _ELSEWHERE,
    308: _ELSEWHERE,
    401: _DENIED,
    403: _DENIED,
    404: _ABSENT,
    405: _CANNOT,
    408: _BUSY,
    409: _BUSY,
    412: _THERE,
    413: _TOO_LARGE,
    429: _BUSY,
    501: _CANNOT,
}


def refusal(store: str, endpoint: str, key: str, *, status: int, code: str, message: str = "") -> DrError:
    """The error to raise for an answer of the service."""
    by_status = _STATUSES.get(status, _BUSY if status >= 500 else _UNKNOWN)
    meaning = _CODES.get(code, by_status)
    why = message or code or f"HTTP {status}"
    words = {"key": key or "the listing", "why": why, "store": store, "endpoint": endpoint}
    hint = meaning.hint and meaning.hint.format(**words)
    return meaning.error(f"{store}: {meaning.message.format(**words)}", hint=hint)


def no_such_service(store: str, endpoint: str, service: str) -> StoreError:
    """An answer that is none of the service's: a web page, say. It proves nothing, absence least of all."""
    return StoreError(
        f"{store}: {endpoint} does not answer as {service} does",
        hint=f"is the endpoint right, with its path? `dr store check {store}` tries it.",
    )


def redirected(store: str, endpoint: str, key: str) -> DrError:
    return refusal(store, endpoint, key, status=301, code="", message="it redirects without end")


def unreachable(store: str, endpoint: str, why: str) -> StoreUnavailable:
    """No answer at all: unknown name, refused connection, silence, a connection that broke."""
    return StoreUnavailable(
        f"{store}: {endpoint} does not answer: {why}",
        hint=f"is the endpoint right and up? `dr store check {store}` tries it.",
    )
