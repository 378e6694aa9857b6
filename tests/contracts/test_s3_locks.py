"""S3's object lock against a server with S3's own rules: the mode is the plan's, and a canary passes only where the
lock holds. Each promise has a server or a right that breaks it beside it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dr_pipelines.clock import SystemClock
from dr_pipelines.embedded.stores import EmbeddedS3
from dr_pipelines.errors import AccessDenied, StoreError
from dr_pipelines.storage.base import Body, LockAttempt, read_all
from dr_pipelines.storage.check import check_store
from dr_pipelines.storage.s3 import S3Store
from dr_pipelines.storage.s3_locks import LockMode
from dr_pipelines.storage.wrappers import Retrying
from tests.contracts.test_object_locks import ObjectLockContract
from tests.support.stores import PART, moto_bucket, moto_client, rclone_bucket
from tests.support.strict_s3 import MAY_BYPASS

UNTIL = datetime.now(UTC).replace(microsecond=0) + timedelta(days=30)


@pytest.fixture
def bucket(strict_s3: str) -> str:
    return moto_bucket(strict_s3, ObjectLockEnabledForBucket=True)[1]


def _store(endpoint: str, bucket: str, mode: LockMode = "COMPLIANCE", *, key: str = "backup") -> S3Store:
    return S3Store(moto_client(endpoint, key), bucket, "locking", profile="aws", lock_mode=mode, part_size=PART)


@pytest.fixture(params=["COMPLIANCE", "GOVERNANCE"])
def mode(request: pytest.FixtureRequest) -> LockMode:
    found: LockMode = request.param
    return found


class TestStrictS3(ObjectLockContract):
    @pytest.fixture
    def store(self, strict_s3: str, bucket: str, mode: LockMode) -> S3Store:
        self.client, self.bucket = moto_client(strict_s3), bucket
        return _store(strict_s3, bucket, mode)

    def test_the_mode_is_the_plan_s(self, store: S3Store, mode: LockMode) -> None:
        for key, body in (("whole", b"x"), ("parts", bytes(PART + 1))):
            store.put(key, Body.of(body), retain_until=UNTIL)
            head = self.client.head_object(Bucket=self.bucket, Key=key)
            assert (head["ObjectLockMode"], head["ObjectLockRetainUntilDate"]) == (mode, UNTIL)

    def test_a_canary_holds_and_stays_as_it_was(self, store: S3Store, mode: LockMode) -> None:
        store.put("canary", Body.of(b"alive"), retain_until=UNTIL)
        attempts = store.attack("canary")
        assert [attempt for attempt in attempts if not attempt.held] == []
        refused = [attempt for attempt in attempts if "denied" in attempt.said]
        assert len(refused) == (10 if mode == "COMPLIANCE" else 8)
        assert {attempt.what for attempt in attempts} - {attempt.what for attempt in refused} == {
            "delete the object",
            "overwrite the object",
        }
        assert read_all(store, "canary") == b"alive"
        assert store.stat("canary").retain_until == UNTIL
        versions = self.client.list_object_versions(Bucket=self.bucket)
        assert len(versions["Versions"]) == 1
        assert "DeleteMarkers" not in versions

    def test_a_longer_lock_keeps_its_mode(self, store: S3Store, strict_s3: str, mode: LockMode) -> None:
        store.put("longer", Body.of(b"x"), retain_until=UNTIL)
        other = _store(strict_s3, self.bucket, "GOVERNANCE" if mode == "COMPLIANCE" else "COMPLIANCE")
        other.extend_lock("longer", UNTIL + timedelta(days=1))
        assert self.client.head_object(Bucket=self.bucket, Key="longer")["ObjectLockMode"] == mode


def test_a_weaker_lock_than_the_plan_s_is_not_taken_for_it(strict_s3: str, bucket: str) -> None:
    _store(strict_s3, bucket, "GOVERNANCE").put("weak", Body.of(b"x"), retain_until=UNTIL)
    with pytest.raises(AccessDenied):
        _store(strict_s3, bucket).put("weak", Body.of(b"x"), retain_until=UNTIL)


def _broken(attempts: Sequence[LockAttempt]) -> list[str]:
    return [attempt.what for attempt in attempts if not attempt.held]


def test_the_canary_dies_of_a_key_that_may_bypass_governance(strict_s3: str, bucket: str) -> None:
    store = _store(strict_s3, bucket, "GOVERNANCE", key=MAY_BYPASS)
    store.put("canary", Body.of(b"alive"), retain_until=UNTIL)
    broken = _broken(store.attack("canary"))
    assert broken[0] == "shorten the lock, bypassing governance"
    assert "take the lock away, bypassing governance" in broken
    assert broken[-1].startswith("delete the version")


def test_compliance_holds_against_a_key_that_may_bypass_governance(strict_s3: str, bucket: str) -> None:
    store = _store(strict_s3, bucket, key=MAY_BYPASS)
    store.put("canary", Body.of(b"alive"), retain_until=UNTIL)
    assert _broken(store.attack("canary")) == []


def test_the_canary_dies_where_nothing_was_locked(strict_s3: str, bucket: str) -> None:
    store = _store(strict_s3, bucket)
    store.put("canary", Body.of(b"alive"))
    assert _broken(store.attack("canary")) == ["find its lock", "delete the version"]


def test_the_canary_dies_of_a_service_that_shortens_locks(moto_port: int) -> None:
    """moto takes any retention, of COMPLIANCE too."""
    client, bucket = moto_bucket(moto_port, ObjectLockEnabledForBucket=True)
    store = S3Store(client, bucket, "lax", profile="aws")
    store.put("canary", Body.of(b"alive"), retain_until=UNTIL)
    assert _broken(store.attack("canary"))[:2] == ["shorten the lock", "weaken the lock"]


@pytest.mark.parametrize("profile", ["generic", "supabase", "aws"])
def test_a_service_that_ignores_locks_is_told(shared_s3: EmbeddedS3, profile: Any) -> None:
    client, bucket = rclone_bucket(shared_s3)
    store = S3Store(client, bucket, "tier", profile=profile, part_size=PART)
    assert not store.capabilities.object_lock
    for attempt in (
        lambda: store.put("a", Body.of(b"x"), retain_until=UNTIL),
        lambda: store.extend_lock("a", UNTIL),
        lambda: store.attack("a"),
    ):
        with pytest.raises(StoreError, match="cannot lock objects"):
            attempt()
    results = check_store(Retrying(store, SystemClock(), longest_wait=0.01))
    summary = {result.name: result.summary for result in results}["capabilities"]
    assert "cannot lock objects" in summary, summary
    assert ("no storage classes" if profile == "supabase" else "not kept") in summary


def test_a_generic_service_that_locks_is_believed_when_it_says_so(strict_s3: str, bucket: str) -> None:
    store = S3Store(moto_client(strict_s3), bucket, "tier", profile="generic")
    assert store.capabilities.object_lock
    store.put("canary", Body.of(b"alive"), retain_until=UNTIL)
    assert _broken(store.attack("canary")) == []
