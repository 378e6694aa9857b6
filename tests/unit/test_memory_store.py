"""The store in memory behaves as the cold, locked and versioned ones do, by its clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from dr_pipelines.clock import FixedClock
from dr_pipelines.errors import ObjectLocked, ObjectNotFound, ObjectOffline, StoreError
from dr_pipelines.storage.base import Availability, Body, BucketSettings, read_all
from dr_pipelines.storage.memory import MemoryStore

_NOW = datetime(2026, 11, 26, tzinfo=UTC)
_UNTIL = _NOW + timedelta(days=30)
_X, _Y = Body.of(b"x"), Body.of(b"y")


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(_NOW)


def test_an_offline_object_arrives_and_goes_again(clock: FixedClock) -> None:
    store = MemoryStore(clock=clock, latency=timedelta(hours=15), kept=timedelta(days=3))
    assert store.put("a", _X, storage_class="ARCHIVE").availability is Availability.OFFLINE
    with pytest.raises(ObjectOffline):
        read_all(store, "a")
    for hours, expected in ((0, "arriving"), (14, "arriving"), (1, "online"), (71, "online"), (1, "offline")):
        clock.advance(timedelta(hours=hours))
        if expected != "offline":
            assert store.recall("a", urgent=True) == expected  # asking again changes nothing
        assert store.stat("a").availability == expected
        if expected == "online":
            assert read_all(store, "a") == b"x"
    assert store.recall("a") is Availability.ARRIVING


def test_classes_are_listed_and_moved(clock: FixedClock) -> None:
    store = MemoryStore(clock=clock)
    store.put("a", _X, retain_until=_UNTIL)
    store.put("b", _Y, storage_class="COOL")
    assert [info.storage_class for info in store.list()] == [None, "COOL"]
    store.set_class("a", "ARCHIVE")
    info = store.stat("a")
    assert (info.storage_class, info.retain_until) == ("ARCHIVE", _UNTIL)
    assert store.put("a", _X, storage_class="COOL").storage_class == "ARCHIVE"
    with pytest.raises(ObjectOffline):
        store.set_class("a", "COOL")
    assert store.put("b", _Y, storage_class="ARCHIVE").storage_class == "ARCHIVE"


def test_a_class_that_there_is_not_is_refused() -> None:
    store = MemoryStore()
    with pytest.raises(StoreError, match="GLACIER"):
        store.put("a", _X, storage_class="GLACIER")
    store.put("a", _X)
    with pytest.raises(StoreError, match="GLACIER"):
        store.set_class("a", "GLACIER")


def test_old_versions_come_back_where_they_are_kept(clock: FixedClock) -> None:
    for versioned in (True, False):
        store = MemoryStore(clock=clock, versioned=versioned)
        store.put("a", _X)
        store.put("a", _Y, if_absent=False)
        assert store.revive("a", _X.sha256) is versioned
        assert read_all(store, "a") == (b"x" if versioned else b"y")
        assert store.revive("a", _Y.sha256)
        store.delete("a")
        assert [*store.list()] == []
        assert store.revive("a", _Y.sha256) is versioned
        assert not store.revive("a", Body.of(b"never").sha256)
        assert store.settings() == BucketSettings(versioning=versioned, object_lock=True)


def test_a_firm_lock_withstands_and_a_loose_one_falls(clock: FixedClock) -> None:
    firm, loose = MemoryStore(clock=clock), MemoryStore(clock=clock, lock="governance")
    for store in (firm, loose):
        store.put("canary", _X, retain_until=_UNTIL)
    attempts = firm.attack("canary")
    assert len(attempts) == 4 and all(attempt.held for attempt in attempts)
    assert read_all(firm, "canary") == b"x"
    fallen = [attempt.what for attempt in loose.attack("canary") if not attempt.held]
    assert fallen == ["remove the lock", "overwrite", "delete"]
    with pytest.raises(ObjectNotFound):
        loose.stat("canary")


def test_what_is_not_or_no_longer_locked_falls(clock: FixedClock) -> None:
    store = MemoryStore(clock=clock)
    store.put("free", _X)
    store.put("ended", _Y, retain_until=_UNTIL)
    clock.advance(timedelta(days=31))
    for key in ("free", "ended"):
        attempts = store.attack(key)
        assert attempts[0].what == "find its lock"
        assert not any(attempt.held for attempt in (attempts[0], attempts[-1]))


def test_a_store_without_locks_says_so(clock: FixedClock) -> None:
    store = MemoryStore(clock=clock, lock=None)
    assert not store.capabilities.object_lock
    store.put("a", _X)
    for attempt in (
        lambda: store.put("b", _X, retain_until=_UNTIL),
        lambda: store.extend_lock("a", _UNTIL),
        lambda: store.attack("a"),
    ):
        with pytest.raises(StoreError, match="cannot lock"):
            attempt()


def test_a_locked_object_is_not_replaced_even_where_versions_would_keep_it(clock: FixedClock) -> None:
    store = MemoryStore(clock=clock, versioned=True)
    store.put("a", _X, retain_until=_UNTIL)
    with pytest.raises(ObjectLocked):
        store.put("a", _Y, if_absent=False)
    with pytest.raises(ObjectLocked):
        store.delete("a")
