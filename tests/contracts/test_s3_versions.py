"""Old versions of an object come back, whatever was laid over it or deleted, and a bucket tells how it is set up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dr_pipelines.embedded.stores import EmbeddedS3
from dr_pipelines.errors import AccessDenied, ObjectNotFound
from dr_pipelines.storage.base import Availability, Body, BucketSettings, LifecycleRule, read_all
from dr_pipelines.storage.s3 import S3Store
from tests.support.faulty_server import replying, response, serving
from tests.support.stores import moto_bucket, moto_client, rclone_bucket
from tests.support.strict_s3 import finish_restores

UNTIL = datetime.now(UTC).replace(microsecond=0) + timedelta(days=30)
RIGHT = Body.of(b"right")


class TestRevive:
    client: Any
    bucket: str

    @pytest.fixture
    def store(self, strict_s3: str) -> S3Store:
        self.endpoint = strict_s3
        self.client, self.bucket = moto_bucket(strict_s3, ObjectLockEnabledForBucket=True)
        store = S3Store(self.client, self.bucket, "versions", profile="aws")
        store.put("a", RIGHT, retain_until=UNTIL)
        store.put("ab", Body.of(b"another"))
        return store

    def _lay_over(self, data: bytes = b"wrong") -> None:
        self.client.put_object(Bucket=self.bucket, Key="a", Body=data)

    def _delete(self) -> None:
        self.client.delete_object(Bucket=self.bucket, Key="a")

    def _versions(self) -> int:
        return len(self.client.list_object_versions(Bucket=self.bucket, Prefix="a")["Versions"]) - 1

    @pytest.mark.parametrize(
        ("done", "versions"),
        [
            ("", 1),
            ("delete", 1),
            ("delete delete", 1),
            ("lay_over", 3),
            ("delete lay_over", 3),
            ("lay_over delete", 3),
        ],
    )
    def test_whatever_was_done_to_it(self, store: S3Store, done: str, versions: int) -> None:
        for what in done.split():
            getattr(self, f"_{what}")()
        assert store.revive("a", RIGHT.sha256)
        assert read_all(store, "a") == b"right"
        assert store.stat("a").retain_until == UNTIL
        assert self._versions() == versions
        assert [info.key for info in store.list()] == ["a", "ab"]

    def test_no_version_has_the_content(self, store: S3Store) -> None:
        self._lay_over()
        assert not store.revive("a", Body.of(b"another").sha256)
        assert not store.revive("absent", RIGHT.sha256)
        assert read_all(store, "a") == b"wrong"

    def test_a_key_that_may_not_remove_markers_lays_a_copy_on_top(self, store: S3Store) -> None:
        deny = {"Effect": "Deny", "Principal": "*", "Action": "s3:DeleteObject*", "Resource": "*"}
        self._delete()
        self.client.put_bucket_policy(Bucket=self.bucket, Policy=_policy(deny))
        assert store.revive("a", RIGHT.sha256)
        assert read_all(store, "a") == b"right"
        assert store.stat("a").retain_until == UNTIL
        assert self._versions() == 2

    def test_it_stays_in_its_class(self, store: S3Store) -> None:
        store.set_class("a", "GLACIER_IR")
        self._lay_over()
        assert store.revive("a", RIGHT.sha256)
        assert store.stat("a").storage_class == "GLACIER_IR"

    def test_an_offline_version_is_known_by_its_checksum(self, store: S3Store) -> None:
        finish_restores(self.endpoint)
        self.client.put_object(
            Bucket=self.bucket, Key="a", Body=b"cold", StorageClass="GLACIER",
            ChecksumSHA256=_in_base64(b"cold"),
        )  # fmt: skip
        self._delete()
        assert store.revive("a", Body.of(b"cold").sha256)
        assert store.stat("a").availability is Availability.OFFLINE


def _in_base64(data: bytes) -> str:
    from dr_pipelines.storage.s3_uploads import in_base64

    return in_base64(Body.of(data).sha256)


def _policy(statement: dict[str, str]) -> str:
    import json

    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


@pytest.mark.parametrize("profile", ["generic", "aws"])
def test_without_versions_only_what_is_there_counts(shared_s3: EmbeddedS3, profile: Any) -> None:
    client, bucket = rclone_bucket(shared_s3)
    store = S3Store(client, bucket, "tier", profile=profile)
    store.put("a", RIGHT)
    assert store.revive("a", RIGHT.sha256)
    assert not store.revive("a", Body.of(b"wrong").sha256)
    store.delete("a")
    assert not store.revive("a", RIGHT.sha256)
    with pytest.raises(ObjectNotFound):
        store.stat("a")


_RULES = [
    {
        "ID": "old", "Status": "Enabled", "Filter": {"Prefix": "servers/"}, "Expiration": {"Days": 400},
        "NoncurrentVersionExpiration": {"NoncurrentDays": 30},
        "Transitions": [{"Days": 30, "StorageClass": "GLACIER"}],
    },
    {
        "ID": "uploads", "Status": "Disabled", "Filter": {"Prefix": ""},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
    },
]  # fmt: skip


def test_a_bucket_tells_how_it_is_set_up(strict_s3: str) -> None:
    client, bucket = moto_bucket(strict_s3, ObjectLockEnabledForBucket=True)
    store = S3Store(client, bucket, "tier", profile="aws")
    assert store.settings() == BucketSettings(versioning=True, object_lock=True, lifecycle=())
    client.put_object_lock_configuration(
        Bucket=bucket,
        ObjectLockConfiguration={
            "ObjectLockEnabled": "Enabled",
            "Rule": {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 7}},
        },
    )
    client.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": _RULES})
    encryption = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"}}
    client.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": [encryption]})
    assert store.settings() == BucketSettings(
        versioning=True,
        object_lock=True,
        default_lock_days=7,
        encryption="aws:kms",
        lifecycle=(
            LifecycleRule("old", "servers/", True, 400, 30, None, ((30, "GLACIER"),)),
            LifecycleRule("uploads", enabled=False, unfinished_uploads_days=7),
        ),
    )


def test_a_plain_bucket_says_that_it_is_one(strict_s3: str) -> None:
    client, bucket = moto_bucket(strict_s3)
    found = S3Store(client, bucket, "tier", profile="aws").settings()
    assert (found.versioning, found.object_lock, found.lifecycle) == (False, False, ())


def test_what_an_endpoint_does_not_know_is_not_told(shared_s3: EmbeddedS3) -> None:
    client, bucket = rclone_bucket(shared_s3)
    found = S3Store(client, bucket, "tier", profile="generic").settings()
    assert not found.object_lock
    assert not found.versioning
    assert found.default_lock_days is None
    assert found.encryption is None
    assert S3Store(client, bucket, "tier", profile="supabase").settings() == BucketSettings()


def test_a_key_that_may_not_ask_is_told_which_right_it_needs() -> None:
    with serving(replying(response("403 Forbidden"))) as endpoint:
        store = S3Store(moto_client(endpoint), "bucket", "tier", profile="aws")
        with pytest.raises(AccessDenied, match="how bucket is set up") as caught:
            store.settings()
        assert "s3:Get" in (caught.value.hint or "")
