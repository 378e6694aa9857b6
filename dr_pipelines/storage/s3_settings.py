"""What a bucket says of itself: versions, object lock, encryption, lifecycle rules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dr_pipelines.storage.base import BucketSettings, LifecycleRule
from dr_pipelines.storage.s3_bucket import S3Bucket


def settings_of(bucket: S3Bucket) -> BucketSettings:
    """Each is None where the endpoint does not know the question. Raises `AccessDenied`."""
    lock = lock_configuration(bucket)
    return BucketSettings(
        versioning=versions_are_kept(bucket),
        object_lock=None if lock is None else _is_on(lock),
        default_lock_days=_default_days(lock or {}),
        encryption=_encryption(bucket),
        lifecycle=_lifecycle(bucket),
    )


def objects_can_be_locked(bucket: S3Bucket) -> bool:
    """Raises `AccessDenied`."""
    return _is_on(lock_configuration(bucket) or {})


def versions_are_kept(bucket: S3Bucket) -> bool | None:
    """Raises `AccessDenied`."""
    found = bucket.ask(bucket.client.get_bucket_versioning, "s3:GetBucketVersioning")
    return None if found is None else found.get("Status") == "Enabled"


def lock_configuration(bucket: S3Bucket) -> Any:
    found = bucket.ask(bucket.client.get_object_lock_configuration, "s3:GetBucketObjectLockConfiguration")
    return None if found is None else found.get("ObjectLockConfiguration", {})


def _is_on(lock: Any) -> bool:
    return bool(lock.get("ObjectLockEnabled") == "Enabled")


def _default_days(lock: Any) -> int | None:
    retention = lock.get("Rule", {}).get("DefaultRetention", {})
    days = int(retention.get("Days") or 0) + 365 * int(retention.get("Years") or 0)
    return days or None


def _encryption(bucket: S3Bucket) -> str | None:
    found = bucket.ask(bucket.client.get_bucket_encryption, "s3:GetEncryptionConfiguration") or {}
    for rule in found.get("ServerSideEncryptionConfiguration", {}).get("Rules", []):
        if algorithm := rule.get("ApplyServerSideEncryptionByDefault", {}).get("SSEAlgorithm"):
            return str(algorithm)
    return None


def _lifecycle(bucket: S3Bucket) -> tuple[LifecycleRule, ...] | None:
    found = bucket.ask(bucket.client.get_bucket_lifecycle_configuration, "s3:GetLifecycleConfiguration")
    return None if found is None else tuple(_rules(found.get("Rules", [])))


def _rules(rules: list[Any]) -> Iterator[LifecycleRule]:
    for position, rule in enumerate(rules, 1):
        expiration = rule.get("Expiration", {})
        yield LifecycleRule(
            rule.get("ID") or f"rule {position}",
            _prefix(rule),
            enabled=rule.get("Status") == "Enabled",
            expires_days=0 if "Date" in expiration else expiration.get("Days"),  # from that date on, all of them
            old_versions_expire_days=rule.get("NoncurrentVersionExpiration", {}).get("NoncurrentDays"),
            unfinished_uploads_days=rule.get("AbortIncompleteMultipartUpload", {}).get("DaysAfterInitiation"),
            moves=tuple((move.get("Days", 0), move["StorageClass"]) for move in rule.get("Transitions", [])),
        )


def _prefix(rule: Any) -> str:
    """Of rules that ask for tags or sizes too, the prefix alone: such a rule counts for more than it may touch."""
    chosen = rule.get("Filter") or {}
    return str(chosen.get("Prefix") or chosen.get("And", {}).get("Prefix") or rule.get("Prefix") or "")
