"""Locks are read back and attacked, a bucket's settings are held against the plan; what was not seen has not passed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from dr_pipelines import operations
from dr_pipelines.checks import Verdict
from dr_pipelines.clock import FixedClock
from dr_pipelines.errors import AccessDenied
from dr_pipelines.plan import Plan
from dr_pipelines.plan.stores import BucketExpectations
from dr_pipelines.replication.bucket import Wanted, drift
from dr_pipelines.replication.immutability import SAMPLE
from dr_pipelines.repository import layout
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.repository import Repository
from dr_pipelines.site import Site
from dr_pipelines.storage.base import Body, BucketSettings, LifecycleRule, LockAttempt, ObjectStore, read_all
from dr_pipelines.storage.memory import MemoryStore
from tests.support.faulty_store import FaultyStore
from tests.support.tiers import BACKUPS, CLOCK, content, tier

DAY = timedelta(days=1)


def site(store: ObjectStore, clock: FixedClock, *, lock: bool = True) -> Site:
    """Locked for a window of 7 days and an interval of a day."""
    where: dict[str, Any] = {"type": "s3", "profile": "aws", "bucket": "bucket"}
    plan = {
        "version": 1, "name": "test", "encryption": "none",
        "storage": {"bucket": {**where, **({"lock": {}} if lock else {})}},
        "databases": {"shop": {
            "connection": {"host": "db"}, "schedule": {"full": "daily"}, "storage": {"primary": "bucket"},
        }},
    }  # fmt: skip
    return Site(Plan.model_validate(plan), clock=clock, stores={"bucket": store})


def clock() -> FixedClock:
    return FixedClock(CLOCK.now())


def filled(at: FixedClock, lock_for: timedelta | None) -> MemoryStore:
    store = MemoryStore("bucket", at)
    for key, data in content(tier("primary")).items():
        locked = lock_for is not None and layout.role_of(key) is not layout.Role.NOTE
        store.put(key, Body.of(data), retain_until=at.now() + lock_for if locked and lock_for else None)
    return store


# --- locks that are there ---


def test_locks_are_read_back_for_as_long_as_they_were_promised() -> None:
    at = clock()
    store = filled(at, 8 * DAY)
    check = operations.lock_is_in_force(site(store, at), "shop", "primary")
    assert check.passed and check.details["objects"] == len(content(Repository(store, Codec(1), "primary"))) - 1
    at.advance(4 * DAY)
    assert operations.lock_is_in_force(site(store, at), "shop", "primary").passed
    at.advance(5 * DAY)  # what was promised is over: nothing is seen, so nothing has passed
    assert operations.lock_is_in_force(site(store, at), "shop", "primary").verdict is Verdict.NOT_PROVEN


@pytest.mark.parametrize("lock_for", [None, 7 * DAY])
def test_a_lock_that_is_missing_or_too_short_fails(lock_for: timedelta | None) -> None:
    at = clock()
    check = operations.lock_is_in_force(site(filled(at, lock_for), at), "shop", "primary")
    assert check.verdict is Verdict.FAIL
    assert "not locked" in check.summary or "locked until" in check.summary


def test_one_loose_object_of_the_newest_backup_is_found() -> None:
    at = clock()
    store = MemoryStore("bucket", at)
    loose = BACKUPS[-1].index.key
    for key, data in content(tier("primary")).items():
        store.put(key, Body.of(data), retain_until=None if key == loose else at.now() + 8 * DAY)
    check = operations.lock_is_in_force(site(store, at), "shop", "primary")
    assert check.details["loose"] == [loose]


def test_of_one_backup_every_object_is_asked_about_as_long_as_its_lock_is_promised() -> None:
    at = clock()
    store = MemoryStore("bucket", at)
    first, second = BACKUPS[0], BACKUPS[-1]
    for key, data in content(tier("primary")).items():
        store.put(key, Body.of(data), retain_until=None if key == first.index.key else at.now() + 8 * DAY)
    loose = operations.lock_is_in_force(site(store, at), "shop", "primary", first.label)
    assert loose.verdict is Verdict.FAIL and loose.details["loose"] == [first.index.key]
    held = operations.lock_is_in_force(site(store, at), "shop", "primary", second.label)
    assert held.passed and held.details["objects"] == len(second.objects) + 1
    at.advance(9 * DAY)
    over = operations.lock_is_in_force(site(store, at), "shop", "primary", first.label)
    assert over.passed and over.details["applies"] is False and "are over" in over.summary


def test_the_sample_of_older_objects_is_another_one_every_day() -> None:
    at = clock()
    store = filled(at, 8 * DAY)
    many = {f"servers/shop/backups/{BACKUPS[0].label}/packs/{number:06d}.zst" for number in range(10, 10 + 3 * SAMPLE)}
    for key in many:
        store.put(key, Body.of(key.encode()))
    seen = set[str]()
    for _ in range(7):
        check = operations.lock_is_in_force(site(store, at), "shop", "primary")
        seen |= set(check.details["loose"])
        at.advance(DAY)
    assert len(seen & many) > 30


def test_a_store_that_does_not_lock_is_a_fact_or_a_failure() -> None:
    at = clock()
    for check in (
        operations.lock_is_in_force(site(MemoryStore("bucket", at), at, lock=False), "shop", "primary"),
        operations.locks_hold(site(MemoryStore("bucket", at), at, lock=False), "primary"),
    ):
        assert check.passed and "the plan does not ask for it" in check.summary
    unable = site(MemoryStore("bucket", at, lock=None), at)
    assert operations.lock_is_in_force(unable, "shop", "primary").verdict is Verdict.FAIL
    assert operations.locks_hold(unable, "primary").verdict is Verdict.FAIL
    assert operations.bucket_is_as_planned(unable, "primary").verdict is Verdict.FAIL
    down = site(FaultyStore(MemoryStore("bucket", at), fail_at=1, stays_down=True), at)
    assert operations.lock_is_in_force(down, "shop", "primary").verdict is Verdict.NOT_PROVEN
    assert operations.locks_hold(down, "primary").verdict is Verdict.NOT_PROVEN


# --- the canary ---


def test_a_lock_that_holds_is_a_pass_and_on_record() -> None:
    at = clock()
    store = MemoryStore("bucket", at)
    check = operations.locks_hold(site(store, at), "primary")
    assert check.passed
    (evidence,) = [info.key for info in store.list(layout.EVIDENCE)]
    assert json.loads(read_all(store, evidence))["tries"] == check.details["tries"]
    at.advance(2 * DAY)
    assert operations.locks_hold(site(store, at), "primary").passed
    assert len([*store.list(layout.CANARIES)]) == 1  # the old one is gone


def test_a_lock_that_its_own_credentials_can_take_off_fails() -> None:
    at = clock()
    check = operations.locks_hold(site(MemoryStore("bucket", at, lock="governance"), at), "primary")
    assert check.verdict is Verdict.FAIL
    assert "remove the lock" in check.summary


class _Lying(MemoryStore):
    """Says that every try was refused."""

    def attack(self, key: str) -> Sequence[LockAttempt]:
        self._objects.pop(key)
        return [LockAttempt("delete", True, "AccessDenied")]


class _Idle(MemoryStore):
    def attack(self, key: str) -> Sequence[LockAttempt]:
        return []


def test_only_a_canary_that_was_attacked_and_lives_is_a_pass() -> None:
    at = clock()
    assert operations.locks_hold(site(_Lying("bucket", at), at), "primary").verdict is Verdict.FAIL
    assert operations.locks_hold(site(_Idle("bucket", at), at), "primary").verdict is Verdict.NOT_PROVEN


# --- the bucket ---

WANTED = Wanted(BucketExpectations(rules=("ours",)), locks=False, prefix="dr/", grace=3 * DAY)


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        (LifecycleRule("thief", expires_days=1), "removes objects after 1 days"),
        (LifecycleRule("thief", prefix="dr/servers/", expires_days=1), "removes objects"),
        (LifecycleRule("thief", prefix="d", moves=((0, "GLACIER"),)), "moves objects to GLACIER"),
        (LifecycleRule("old", old_versions_expire_days=2), "removes old versions after 2 days"),
        (LifecycleRule("off", enabled=False, expires_days=1), None),
        (LifecycleRule("another", prefix="logs/", expires_days=1), None),
        (LifecycleRule("ours", expires_days=400, moves=((30, "GLACIER"),)), None),
        (LifecycleRule("old", old_versions_expire_days=30, unfinished_uploads_days=1), None),
    ],
)
def test_a_rule_that_nobody_planned_is_drift(rule: LifecycleRule, told: str | None) -> None:
    seen = drift(BucketSettings(versioning=True, lifecycle=(rule,)), WANTED)
    assert (told is None) == (seen.wrong == ())
    assert told is None or told in seen.wrong[0]


def test_every_setting_that_the_plan_names_is_compared() -> None:
    plan = BucketExpectations.model_validate({"versioning": True, "encryption": "aws:kms", "default_lock": "30 days"})
    wanted = Wanted(plan, locks=True, prefix="", grace=3 * DAY)
    assert len(drift(BucketSettings(), wanted).wrong) == 4
    right = BucketSettings(True, True, 30, "AWS:KMS", (LifecycleRule("old", old_versions_expire_days=30),))
    assert drift(right, wanted) == drift(right, wanted).__class__((), ())
    never = BucketSettings(True, True, 30, "aws:kms", ())
    assert "charged for ever" in drift(never, wanted).facts[0]


class _Shy(MemoryStore):
    def settings(self) -> BucketSettings:
        raise AccessDenied("bucket: no", hint="it needs the right s3:GetLifecycleConfiguration.")


def test_a_bucket_that_may_not_be_asked_is_not_proven() -> None:
    check = operations.bucket_is_as_planned(site(_Shy("bucket"), clock()), "primary")
    assert check.verdict is Verdict.NOT_PROVEN
    assert "s3:GetLifecycleConfiguration" in check.details["hint"]


def test_the_check_of_a_store_asks_all_of_it() -> None:
    at = clock()
    new = operations.check_immutability(site(MemoryStore("bucket", at), at), "primary", canary=False)
    assert [check.name for check in new] == ["bucket_is_as_planned"]  # there is no lock to look at yet
    checks = operations.check_immutability(site(filled(at, 8 * DAY), at), "primary", canary=True)
    assert [(check.name, check.passed) for check in checks] == [
        ("bucket_is_as_planned", True), ("lock_is_in_force", True), ("locks_hold", True),
    ]  # fmt: skip
