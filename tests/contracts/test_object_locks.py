"""Immutability: an object is locked when a put of it returns, and nothing of ours removes it; a lock that cannot be
had is said."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dr_pipelines.clock import SystemClock
from dr_pipelines.errors import AccessDenied, IntegrityError, ObjectLocked, StoreError
from dr_pipelines.storage.base import Body, ObjectStore, read_all
from dr_pipelines.storage.check import check_store
from dr_pipelines.storage.memory import MemoryStore
from dr_pipelines.storage.s3 import S3Store
from dr_pipelines.storage.wrappers import Retrying
from tests.support.faulty_server import replying, response, serving
from tests.support.stores import PART, moto_bucket, moto_client

UNTIL = datetime.now(UTC).replace(microsecond=1) + timedelta(days=30)
"""S3 keeps whole seconds: rounded down this would be too short a lock."""


class ObjectLockContract:
    def test_a_locked_object_cannot_be_deleted(self, store: ObjectStore) -> None:
        info = store.put("locked", Body.of(b"x"), retain_until=UNTIL)
        assert info.retain_until is not None
        assert timedelta(0) <= info.retain_until - UNTIL < timedelta(seconds=1)
        with pytest.raises(ObjectLocked, match="locked"):
            store.delete("locked")
        assert read_all(store, "locked") == b"x"

    def test_other_objects_can_be_deleted(self, store: ObjectStore) -> None:
        assert store.put("free", Body.of(b"x")).retain_until is None
        store.delete("free")
        store.delete("free")
        assert [*store.list("free")] == []

    def test_what_is_there_already_is_locked_too(self, store: ObjectStore) -> None:
        store.put("again", Body.of(b"x"))
        assert store.put("again", Body.of(b"x"), retain_until=UNTIL).retain_until is not None
        later = UNTIL + timedelta(days=1)
        store.put("again", Body.of(b"x"), retain_until=later)
        store.put("again", Body.of(b"x"), retain_until=UNTIL)  # shorter: the longer one stays
        held = store.stat("again").retain_until
        assert held is not None and held >= later

    def test_a_lock_is_lengthened_and_never_shortened(self, store: ObjectStore) -> None:
        store.put("longer", Body.of(b"x"), retain_until=UNTIL)
        store.extend_lock("longer", UNTIL + timedelta(days=7))
        held = store.stat("longer").retain_until
        assert held is not None and held >= UNTIL + timedelta(days=7)
        with pytest.raises(ObjectLocked):
            store.extend_lock("longer", UNTIL)
        assert store.stat("longer").retain_until == held


class TestMemoryStore(ObjectLockContract):
    @pytest.fixture
    def store(self) -> ObjectStore:
        return MemoryStore()


class TestS3Store(ObjectLockContract):
    @pytest.fixture
    def store(self, moto_port: int) -> S3Store:
        self.client, self.bucket = moto_bucket(moto_port, ObjectLockEnabledForBucket=True)
        return S3Store(self.client, self.bucket, "locking", profile="aws", part_size=PART)

    def test_the_bucket_says_that_it_locks(self, store: S3Store) -> None:
        assert store.capabilities.object_lock
        assert store.capabilities.versioning

    def test_the_service_itself_holds_the_lock(self, store: S3Store) -> None:
        store.put("locked", Body.of(b"x"), retain_until=UNTIL)
        self._assert_retained("locked")

    def test_parts_are_locked(self, store: S3Store) -> None:
        assert store.put("parts", Body.of(bytes(PART + 1)), retain_until=UNTIL).retain_until is not None
        self._assert_retained("parts")
        with pytest.raises(ObjectLocked):
            store.delete("parts")

    def test_wrong_bytes_under_a_lock_are_named_and_stay(self, store: S3Store) -> None:
        wrong = Body([b"wrong"], sha256=Body.of(b"right").sha256, size=5)
        with pytest.raises(IntegrityError, match=r"damaged .* locked until .* stays"):
            store.put("damaged", wrong, retain_until=UNTIL)
        assert read_all(store, "damaged") == b"wrong"

    def test_a_legal_hold_is_a_lock(self, store: S3Store) -> None:
        store.put("held", Body.of(b"x"))
        self.client.put_object_legal_hold(Bucket=self.bucket, Key="held", LegalHold={"Status": "ON"})
        with pytest.raises(ObjectLocked):
            store.delete("held")

    def test_the_check_for_operators_says_what_stays(self, store: S3Store) -> None:
        results = {result.name: result for result in check_store(store)}
        assert all(result.passed for result in results.values())
        assert "object_lock" in results["capabilities"].summary
        assert "old versions" in results["scratch_is_removed"].summary
        assert [*store.list()] == []

    def _assert_retained(self, key: str) -> None:
        held: Any = self.client.head_object(Bucket=self.bucket, Key=key)
        assert held["ObjectLockMode"] == "COMPLIANCE"
        assert held["ObjectLockRetainUntilDate"] >= UNTIL


def _store(endpoint: str) -> S3Store:
    return S3Store(moto_client(endpoint), "bucket", "tier", profile="aws")


_ENABLED = b"<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled></ObjectLockConfiguration>"
_UNKNOWN = b"<Error><Code>NotImplemented</Code><Message>A header you provided is not implemented</Message></Error>"


def test_a_key_that_may_not_ask_for_the_lock_is_told_which_right_it_needs() -> None:
    denied = response("403 Forbidden")
    with serving(replying(denied, denied, response("200 OK", _ENABLED))) as endpoint:
        store = _store(endpoint)
        with pytest.raises(AccessDenied, match="bucket") as caught:
            store.put("a", Body.of(b"x"), retain_until=UNTIL)
        assert "s3:GetBucketObjectLockConfiguration" in (caught.value.hint or "")
        assert not _may_lock(store)
        assert _may_lock(store)  # the right was given meanwhile


def test_a_busy_bucket_is_asked_again() -> None:
    with serving(replying(response("503 SlowDown"), response("200 OK", _ENABLED))) as endpoint:
        assert Retrying(_store(endpoint), SystemClock(), longest_wait=0.01).capabilities.object_lock


def test_wrong_bytes_that_may_not_be_removed_are_told_first(moto_port: int) -> None:
    client, bucket = moto_bucket(moto_port)
    deny = {"Effect": "Deny", "Principal": "*", "Action": "s3:DeleteObject", "Resource": f"arn:aws:s3:::{bucket}/*"}
    client.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [deny]}))
    wrong = Body([b"wrong"], sha256=Body.of(b"right").sha256, size=5)
    with pytest.raises(IntegrityError, match="it stays, for"):
        S3Store(client, bucket, "tier", profile="aws").put("damaged", wrong)


def _may_lock(store: S3Store) -> bool:
    return store.capabilities.object_lock


@pytest.mark.parametrize("status", ["501 Not Implemented", "400 Bad Request"])
def test_an_endpoint_that_knows_no_locks_has_none(status: str) -> None:
    with serving(replying(response(status, _UNKNOWN))) as endpoint:
        store = _store(endpoint)
        assert not store.capabilities.object_lock
        assert not store.capabilities.versioning
        with pytest.raises(StoreError, match="cannot lock") as caught:
            store.put("a", Body.of(b"x"), retain_until=UNTIL)
        assert not caught.value.transient
