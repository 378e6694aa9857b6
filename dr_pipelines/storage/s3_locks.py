"""Immutability by the rules of S3's object lock. Pure; what asks the service is in `s3.py`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from dr_pipelines.storage.base import ObjectInfo


def is_locked(info: ObjectInfo, until: datetime) -> bool:
    return info.retain_until is not None and info.retain_until >= until


def is_held(head: Any) -> bool:
    """By the clock of the service, which is the one that counts."""
    until, date = head.get("ObjectLockRetainUntilDate"), head["ResponseMetadata"]["HTTPHeaders"].get("date")
    if head.get("ObjectLockLegalHoldStatus") == "ON":
        return True
    return until is not None and (date is None or until > parsedate_to_datetime(date))


def whole_second(until: datetime) -> datetime:
    """S3 keeps whole seconds; a lock is never shorter than asked for."""
    return (until + timedelta(seconds=1, microseconds=-1)).astimezone(UTC).replace(microsecond=0)
