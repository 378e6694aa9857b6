"""Old versions of an object: what was laid over or deleted can be brought back."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from dr_pipelines.errors import AccessDenied, IntegrityError, ObjectLocked, ObjectNotFound, StoreError
from dr_pipelines.storage.base import Availability, sha256_of
from dr_pipelines.storage.s3_bucket import S3Bucket, is_unknown
from dr_pipelines.storage.s3_classes import availability_of, class_of, copy


def revive(bucket: S3Bucket, key: str, sha256: str) -> bool:
    """Versions are compared newest first, by their bytes or, where these are offline, by the service's checksum. Raises
    `ObjectOffline` when the right one must be recalled before it can be laid on top."""
    versions, markers = _history(bucket, key)
    for position, version in enumerate(versions):
        if _is_right(bucket, key, version, sha256):
            if not version.get("IsLatest", True):
                _bring_up(bucket, key, version, None if position else markers)
                _assert_current(bucket, key, sha256)
            return True
    return False


def _history(bucket: S3Bucket, key: str) -> tuple[list[Any], list[Any]]:
    """Versions of exactly this key, newest first, and its delete markers; without versions, the object alone."""
    try:
        with bucket.told(key):
            pages = [*bucket.client.get_paginator("list_object_versions").paginate(Bucket=bucket.bucket, Prefix=key)]
    except StoreError as error:
        if not is_unknown(error):
            raise
        return _current(bucket, key), []
    versions, markers = (
        [entry for page in pages for entry in page.get(kind, []) if entry["Key"] == key]
        for kind in ("Versions", "DeleteMarkers")
    )
    # Times are of whole seconds; among equals the service's own order stays.
    return sorted(versions, key=lambda entry: (entry["IsLatest"], entry["LastModified"]), reverse=True), markers


def _current(bucket: S3Bucket, key: str) -> list[Any]:
    try:
        return [bucket.head(key)]
    except ObjectNotFound:
        return []


def _which(entry: Any) -> dict[str, str]:
    return {"VersionId": entry["VersionId"]} if entry.get("VersionId") else {}


def _is_right(bucket: S3Bucket, key: str, entry: Any, sha256: str) -> bool:
    head = bucket.head(key, ChecksumMode="ENABLED", **_which(entry))
    if availability_of(head) is not Availability.ONLINE:
        return bool(head.get("ChecksumSHA256") == b64encode(bytes.fromhex(sha256)).decode())
    return sha256_of(bucket.read(key, **_which(entry))) == sha256


def _bring_up(bucket: S3Bucket, key: str, version: Any, markers: list[Any] | None) -> None:
    """Where nothing but markers lies above it, they are taken off, so that the very version with its lock is current
    again; what else lies there, or may not be removed, gets a copy laid over it."""
    if markers is not None:
        above = [marker for marker in markers if marker["LastModified"] >= version["LastModified"]]
        if _removed(bucket, key, above):
            return
    head = bucket.head(key, **_which(version))
    copy(bucket, key, head, **({"StorageClass": name} if (name := class_of(head)) else {}))


def _removed(bucket: S3Bucket, key: str, markers: list[Any]) -> bool:
    try:
        for marker in markers:
            with bucket.told(key):
                bucket.client.delete_object(Bucket=bucket.bucket, Key=key, **_which(marker))  # type: ignore[arg-type]
    except (AccessDenied, ObjectLocked):
        return False
    return True


def _assert_current(bucket: S3Bucket, key: str, sha256: str) -> None:
    current = _current(bucket, key)
    if not current or not _is_right(bucket, key, current[0], sha256):
        raise IntegrityError(f"{bucket.name} does not give the old version of {key} that was laid on top")
