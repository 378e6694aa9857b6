"""S3's storage classes: which one an object is in, whether its bytes are at hand, moving and recalling it."""

from __future__ import annotations

from typing import Any

from dr_pipelines.errors import AccessDenied, ObjectLocked, StoreError
from dr_pipelines.plan.classes import ORDINARY, classes_of, storage_class
from dr_pipelines.storage.base import Availability
from dr_pipelines.storage.s3_bucket import S3Bucket, code_of
from dr_pipelines.storage.s3_locks import is_held, lock_of

NAMES = tuple(found.name for found in classes_of("s3"))
RECALLED_DAYS = 7
"""How long recalled bytes stay readable beside the archived ones; time enough for a restore that is resumed."""
_NO_HURRY = "GlacierExpeditedRetrievalNotAvailable"


def class_of(answer: Any) -> str | None:
    """Of a head, or of an entry in a listing; None for the ordinary one."""
    name = answer.get("StorageClass")
    return None if name in (None, "", ORDINARY["s3"]) else str(name)


def is_offline(name: str | None) -> bool:
    facts = storage_class("s3", name)
    return facts is not None and facts.offline


def availability_of(head: Any) -> Availability:
    restore = head.get("Restore", "")
    if not is_offline(class_of(head)) or 'ongoing-request="false"' in restore:
        return Availability.ONLINE
    return Availability.ARRIVING if 'ongoing-request="true"' in restore else Availability.OFFLINE


def move(bucket: S3Bucket, key: str, name: str, *, checksum: str | None = None) -> Any:
    """Copies the object onto itself; the copy has its lock. `checksum` is its SHA-256 in base64, where it was seen to
    be right just now. Returns the copy's head.

    With versions the former one stays where it is locked, and is paid for until its lock ends: where objects are
    locked, a lifecycle rule of the bucket moves them cheaper. It stays too where nothing says that both are the same.
    """
    head = bucket.head(key, ChecksumMode="ENABLED")
    if (class_of(head) or ORDINARY["s3"]) == name:
        return head
    copy(bucket, key, head, StorageClass=name)
    moved = bucket.head(key, ChecksumMode="ENABLED")
    if (class_of(moved) or ORDINARY["s3"]) != name:
        raise not_kept(bucket.name, key, name)
    if not is_held(head) and _same_content({"ChecksumSHA256": checksum, **head}, moved):
        _drop_former(bucket, key, head, moved)
    return moved


def not_kept(store: str, key: str, name: str) -> StoreError:
    return StoreError(f"{store} does not keep {key} in {name}", hint="take `classes` out of this store in the plan.")


def copy(bucket: S3Bucket, key: str, head: Any, **asked: Any) -> None:
    """Makes the version with this head the current one, with its lock."""
    source = {"Bucket": bucket.bucket, "Key": key}
    if version := head.get("VersionId"):
        source["VersionId"] = version
    with bucket.told(key):
        bucket.client.copy_object(
            Bucket=bucket.bucket,
            Key=key,
            CopySource=source,  # type: ignore[arg-type]
            CopySourceIfMatch=head["ETag"],
            ChecksumAlgorithm="SHA256",  # of the whole, whatever the source was put in
            **lock_of(head),
            **asked,
        )


def recall(bucket: S3Bucket, key: str, *, urgent: bool) -> Availability:
    """In a hurry it is asked for as Expedited, unless the class has none or the service has no room for it now."""
    head = bucket.head(key)
    found = availability_of(head)
    if found is not Availability.OFFLINE:
        return found
    facts = storage_class("s3", class_of(head))
    tiers = ["Standard"]
    if urgent and facts is not None and facts.urgent_hours < facts.hours:
        tiers.insert(0, "Expedited")
    for tier in tiers:
        try:
            _ask_back(bucket, key, tier)
            break
        except StoreError as error:
            if code_of(error) == "RestoreAlreadyInProgress":
                break
            if tier == tiers[-1] or code_of(error) != _NO_HURRY:
                raise
    return availability_of(bucket.head(key))


def _ask_back(bucket: S3Bucket, key: str, tier: Any) -> None:
    with bucket.told(key):
        bucket.client.restore_object(
            Bucket=bucket.bucket,
            Key=key,
            RestoreRequest={"Days": RECALLED_DAYS, "GlacierJobParameters": {"Tier": tier}},
        )


def _same_content(head: Any, other: Any) -> bool:
    """By what the service says of both: enough to remove one of them, for it made the other from it."""
    if head["ContentLength"] != other["ContentLength"]:
        return False
    return any(head.get(name) and head[name] == other.get(name) for name in ("ChecksumSHA256", "ETag"))


def _drop_former(bucket: S3Bucket, key: str, head: Any, moved: Any) -> None:
    version = head.get("VersionId")
    if version is None or version == moved.get("VersionId"):
        return
    try:
        with bucket.told(key):
            bucket.client.delete_object(Bucket=bucket.bucket, Key=key, VersionId=version)
    except (AccessDenied, ObjectLocked):
        return  # a key that may not remove versions is a safe one; the bucket's own rules remove it
