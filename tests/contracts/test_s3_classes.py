"""S3's storage classes: objects are put into them, moved and recalled with their bytes and locks; what cannot be read
now is said, with what to do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dr_pipelines.embedded.stores import EmbeddedS3
from dr_pipelines.errors import ObjectOffline, StoreError
from dr_pipelines.storage.base import Availability, Body, ObjectInfo, read_all
from dr_pipelines.storage.s3 import Profile, S3Store
from tests.support.faulty_server import replying, response, serving
from tests.support.stores import PART, moto_bucket, moto_client, rclone_bucket
from tests.support.strict_s3 import finish_restores, hold_restores

UNTIL = datetime.now(UTC).replace(microsecond=0) + timedelta(days=30)
_LARGE = Body.of(bytes(range(256)) * (PART // 256 + 1))


class _Classes:
    """`client` and `bucket` are of the service itself."""

    client: Any
    bucket: str

    def versions(self, key: str) -> list[Any]:
        found: list[Any] = self.client.list_object_versions(Bucket=self.bucket, Prefix=key).get("Versions", [])
        return found


class TestWithLocks(_Classes):
    profile: Profile = "aws"

    @pytest.fixture
    def store(self, strict_s3: str) -> S3Store:
        hold_restores(strict_s3)
        self.endpoint = strict_s3
        self.client, self.bucket = moto_bucket(strict_s3, ObjectLockEnabledForBucket=True)
        return S3Store(self.client, self.bucket, "cold", profile=self.profile, part_size=PART)

    @pytest.mark.parametrize("body", [Body.of(b"cold"), _LARGE], ids=["whole", "parts"])
    @pytest.mark.parametrize("name", ["STANDARD_IA", "GLACIER_IR", "DEEP_ARCHIVE"])
    def test_a_put_is_in_its_class_and_locked_once(self, store: S3Store, name: str, body: Body) -> None:
        info = store.put("a", body, retain_until=UNTIL, storage_class=name)
        offline = name == "DEEP_ARCHIVE"
        assert info == store.stat("a")
        assert (info.storage_class, info.retain_until) == (name, UNTIL)
        assert info.availability is (Availability.OFFLINE if offline else Availability.ONLINE)
        assert [listed.storage_class for listed in store.list()] == [name]
        assert len(self.versions("a")) == 1, "a locked version stays in another class, and is paid for"
        if not offline:
            assert b"".join(store.open("a")) == b"".join(body.chunks)

    def test_the_ordinary_class_has_no_name(self, store: S3Store) -> None:
        assert store.put("a", Body.of(b"x"), storage_class="STANDARD").storage_class is None
        assert store.put("b", Body.of(b"x")).storage_class is None
        assert [listed.storage_class for listed in store.list()] == [None, None]

    def test_a_moved_object_leaves_no_old_version(self, store: S3Store) -> None:
        store.put("a", Body.of(b"x"))
        store.set_class("a", "STANDARD_IA")
        store.set_class("a", "STANDARD_IA")
        store.set_class("a", "GLACIER_IR")
        assert store.stat("a").storage_class == "GLACIER_IR"
        assert read_all(store, "a") == b"x"
        assert len(self.versions("a")) == 1

    def test_a_moved_object_keeps_its_lock_and_the_locked_version_stays(self, store: S3Store) -> None:
        store.put("a", Body.of(b"x"), retain_until=UNTIL)
        self.client.put_object_legal_hold(Bucket=self.bucket, Key="a", LegalHold={"Status": "ON"})
        store.set_class("a", "GLACIER_IR")
        info = store.stat("a")
        assert (info.storage_class, info.retain_until) == ("GLACIER_IR", UNTIL)
        assert self.client.head_object(Bucket=self.bucket, Key="a")["ObjectLockLegalHoldStatus"] == "ON"
        assert len(self.versions("a")) == 2

    @pytest.mark.parametrize(("name", "urgent"), [("GLACIER", False), ("GLACIER", True), ("DEEP_ARCHIVE", True)])
    def test_an_offline_object_is_recalled(self, store: S3Store, name: str, urgent: bool) -> None:
        store.put("a", Body.of(b"x"), storage_class=name)
        with pytest.raises(ObjectOffline, match="recalled") as caught:
            read_all(store, "a")
        assert "dr store recall" in (caught.value.hint or "")
        assert not caught.value.transient
        assert store.recall("a", urgent=urgent) is Availability.ARRIVING
        assert store.recall("a", urgent=urgent) is Availability.ARRIVING
        with pytest.raises(ObjectOffline):
            read_all(store, "a")
        finish_restores(self.endpoint)
        assert store.stat("a").availability is Availability.ONLINE
        assert store.recall("a") is Availability.ONLINE
        assert read_all(store, "a") == b"x"

    def test_what_is_at_hand_needs_no_recall(self, store: S3Store) -> None:
        for key, name in (("a", None), ("b", "GLACIER_IR")):
            store.put(key, Body.of(b"x"), storage_class=name)
            assert store.recall(key, urgent=True) is Availability.ONLINE

    def test_a_class_that_s3_does_not_have_is_refused(self, store: S3Store) -> None:
        for attempt in (
            lambda: store.put("a", Body.of(b"x"), storage_class="Archive"),
            lambda: store.set_class("a", "Archive"),
        ):
            with pytest.raises(StoreError, match="no storage class Archive") as caught:
                attempt()
            assert "DEEP_ARCHIVE" in (caught.value.hint or "")
        assert [*store.list()] == []


class TestWithLocksGeneric(TestWithLocks):
    """A service that confirms no SHA-256: what cannot be read back is moved when it is known to be right."""

    profile = "generic"


def test_the_same_again_is_success_while_it_is_offline(strict_s3: str) -> None:
    """By the checksum that the service kept."""
    client, bucket = moto_bucket(strict_s3)
    store = S3Store(client, bucket, "cold", profile="aws")
    store.put("a", Body.of(b"x"), storage_class="GLACIER")
    assert _put(store, b"x").availability is Availability.OFFLINE
    with pytest.raises(StoreError, match="other content"):
        _put(store, b"y")
    client.put_object(Bucket=bucket, Key="a", Body=b"x", StorageClass="GLACIER")
    with pytest.raises(ObjectOffline):
        _put(store, b"x")


def _put(store: S3Store, data: bytes) -> ObjectInfo:
    return store.put("a", Body.of(data))


def test_a_service_that_does_not_keep_classes_is_told(shared_s3: EmbeddedS3) -> None:
    client, bucket = rclone_bucket(shared_s3)
    store = S3Store(client, bucket, "tier", profile="supabase")
    for attempt in (
        lambda: store.put("a", Body.of(b"x"), storage_class="GLACIER"),
        lambda: store.set_class("a", "GLACIER"),
    ):
        with pytest.raises(StoreError, match="no storage classes"):
            attempt()
    assert store.capabilities.storage_classes == ()


def test_a_service_that_takes_a_class_and_does_not_list_it_is_told(shared_s3: EmbeddedS3) -> None:
    client, bucket = rclone_bucket(shared_s3)
    store = S3Store(client, bucket, "tier")
    store.put("a", Body.of(b"x"))
    for attempt in (
        lambda: store.put("b", Body.of(b"x"), storage_class="GLACIER_IR"),
        lambda: store.set_class("a", "GLACIER"),
    ):
        with pytest.raises(StoreError, match="does not keep") as caught:
            attempt()
        assert "classes" in (caught.value.hint or "")


def test_where_there_is_no_room_to_hurry_it_comes_as_usual() -> None:
    head = {"x_amz_storage_class": "GLACIER", "Last_Modified": "Thu, 26 Nov 2026 02:00:00 GMT"}
    busy = b"<Error><Code>GlacierExpeditedRetrievalNotAvailable</Code></Error>"
    answers = (
        response("200 OK", **head),
        response("503 Service Unavailable", busy),
        response("202 Accepted"),
        response("200 OK", **head, x_amz_restore='ongoing-request="true"'),
    )
    with serving(replying(*answers)) as endpoint:
        assert S3Store(moto_client(endpoint), "bucket").recall("a", urgent=True) is Availability.ARRIVING
