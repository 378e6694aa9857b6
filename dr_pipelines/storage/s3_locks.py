"""Immutability by the rules of S3's object lock, read from the headers of an object. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Literal

LockMode = Literal["COMPLIANCE", "GOVERNANCE"]


def is_locked(head: Any, until: datetime, mode: LockMode) -> bool:
    """At least so long and so hard."""
    found = head.get("ObjectLockRetainUntilDate")
    return found is not None and found >= until and head.get("ObjectLockMode") in (mode, "COMPLIANCE")


def is_held(head: Any) -> bool:
    return head.get("ObjectLockLegalHoldStatus") == "ON" or is_retained(head)


def is_retained(head: Any) -> bool:
    """By the clock of the service, which is the one that counts."""
    until, date = head.get("ObjectLockRetainUntilDate"), service_time(head)
    return until is not None and (date is None or until > date)


def service_time(answer: Any) -> datetime | None:
    date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    return None if date is None else parsedate_to_datetime(date)


def lock_of(head: Any) -> dict[str, Any]:
    """What gives a copy the same lock. A retention that has ended is left out: S3 takes none of the past."""
    lock: dict[str, Any] = {}
    if is_retained(head):
        lock |= {name: head[name] for name in ("ObjectLockMode", "ObjectLockRetainUntilDate") if name in head}
    if head.get("ObjectLockLegalHoldStatus") == "ON":
        lock["ObjectLockLegalHoldStatus"] = "ON"
    return lock


def whole_second(until: datetime) -> datetime:
    """S3 keeps whole seconds; a lock is never shorter than asked for."""
    return (until + timedelta(seconds=1, microseconds=-1)).astimezone(UTC).replace(microsecond=0)
