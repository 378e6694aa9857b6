"""Copies on other tiers: all that is whole is brought there, once, and proven on the way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from dr_pipelines.checks import Verdict
from dr_pipelines.clock import FixedClock
from dr_pipelines.errors import (
    AccessDenied,
    BackupNotFound,
    IntegrityError,
    RepositoryError,
    StoreUnavailable,
    UsageError,
)
from dr_pipelines.lsn import Timeline, WalSegment
from dr_pipelines.operations.replication import (
    ReplicationReport,
    look_at_replica,
    replica_equals,
    replica_is_current,
    replicate,
    replication_lag,
)
from dr_pipelines.progress import Silent
from dr_pipelines.replication.copy import Copier
from dr_pipelines.repository.catalog import read_catalog
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.layout import WalLayout, parse_wal_key, wal_prefix
from dr_pipelines.repository.manifest import encode
from dr_pipelines.repository.marks import Keep, put_expired, put_keep
from dr_pipelines.repository.repository import Repository
from dr_pipelines.site import Site
from dr_pipelines.storage.base import Body, ObjectInfo, ObjectStore, read_all
from dr_pipelines.storage.memory import MemoryStore
from dr_pipelines.storage.wrappers import Forwarding, ReadOnly
from tests.support.archives import stored_object
from tests.support.faulty_store import FaultyStore
from tests.support.replicas import (
    FULL,
    INCREMENTAL,
    NOW,
    OTHER,
    Counting,
    backups,
    contents,
    damage,
    empty,
    filled,
    site_of,
)


def run(site: Site, tier: str = "secondary", **asked: object) -> ReplicationReport:
    return replicate(site, "shop", tier, Silent(), **asked)  # type: ignore[arg-type]


def test_everything_is_there_to_the_byte_and_nothing_is_copied_again() -> None:
    source, target = filled(), empty("secondary")
    counting = Counting(target)
    site = site_of({"primary": source, "secondary": counting})
    report = run(site)
    assert contents(target) == contents(source)
    assert report.labels == (FULL, INCREMENTAL, OTHER)
    assert (report.objects, report.already_there, report.wal_objects) == (9, 0, 6)
    assert read_catalog(target, "shop").usable == read_catalog(source, "shop").usable
    assert not read_catalog(target, "shop").unfinished
    counting.puts.clear()
    again = run(site)
    assert (again.labels, again.objects, again.wal_objects, counting.puts) == ((), 0, 0, [])


def test_a_manifest_is_put_after_all_that_it_names_and_a_parent_before_what_builds_on_it() -> None:
    counting = Counting(empty("secondary"))
    run(site_of({"primary": filled(), "secondary": counting}))
    for one in backups():
        named = [counting.puts.index(stored.key) for stored in one.objects]
        assert counting.puts.index(one.layout.manifest) > max(named)
    manifests = [key.split("/")[3] for key in counting.puts if key.endswith("/manifest.json")]
    assert manifests == [FULL, INCREMENTAL, OTHER]
    first = counting.puts.index(backups()[0].layout.manifest)
    assert all(counting.puts.index(key) < first for key in counting.puts if parse_wal_key(key))


def test_what_was_read_is_proven_on_both_tiers() -> None:
    source, target = filled(), empty("secondary")
    run(site_of({"primary": source, "secondary": target}))
    for store in (source, target):
        for marks in read_catalog(store, "shop").marks.values():
            assert [(proof.kind, proof.verdict, proof.at) for proof in marks.proofs] == [("replicate", "pass", NOW)]


def test_a_copy_needs_no_right_to_write_to_its_source() -> None:
    target = empty("secondary")
    assert len(run(site_of({"primary": ReadOnly(filled()), "secondary": target})).labels) == 3


def test_a_damaged_backup_stops_no_other_and_is_not_written() -> None:
    source, target = filled(), empty("secondary")
    bad = backups()[0].archive.packs[0].key
    damage(source, bad)
    site = site_of({"primary": source, "secondary": target})
    with pytest.raises(IntegrityError, match=f"{bad} on primary") as caught:
        run(site)
    assert "dr scrub primary" in (caught.value.hint or "")
    assert [backup.label for backup in read_catalog(target, "shop").backups] == [OTHER]
    assert bad not in contents(target)
    [proof] = read_catalog(source, "shop").marks[FULL].proofs
    assert (proof.kind, proof.verdict) == ("replicate", "fail")
    # It waits, and the incremental with it, until it is found whole.
    assert look_at_replica(site, "shop", "secondary").due == ()
    lag = replication_lag(site, "shop", "secondary")
    assert lag.waiting == (FULL, INCREMENTAL)
    assert "was found damaged" in lag.held[0]
    assert run(site).labels == ()
    source.put(bad, Body.of(f"the content of {bad}".encode()), if_absent=False)
    assert run(site, labels=[INCREMENTAL]).labels == (FULL, INCREMENTAL)
    assert contents(target) == contents(source)


class Meanwhile(FaultyStore):
    """A target during whose first pack something happens elsewhere."""

    def __init__(self, happens: Callable[[], object]) -> None:
        super().__init__(empty("secondary"))
        self._happens: Callable[[], object] | None = happens

    def put(self, key: str, body: Body, **how: Any) -> ObjectInfo:
        if "/packs/" in key and self._happens is not None:
            happens, self._happens = self._happens, None
            happens()
        return super().put(key, body, **how)


def test_what_retention_lets_go_meanwhile_is_passed_over_and_not_called_damaged() -> None:
    source, other = filled(), backups()[2]
    site = site_of({"primary": source, "secondary": Meanwhile(lambda: source.delete(other.layout.manifest))})
    assert run(site).labels == (FULL, INCREMENTAL)
    assert not [info.key for info in source.list(other.layout.prefix) if "/proofs/" in info.key]


def test_a_keep_that_comes_while_it_is_copied_goes_with_it() -> None:
    source, keep = filled(), Keep(until=None, reason="audit", by="ann", at=NOW)
    target = Meanwhile(lambda: put_keep(source, backups()[0].layout, keep))
    run(site_of({"primary": source, "secondary": target}))
    assert keep in read_catalog(target, "shop").marks[FULL].keeps.values()
    assert contents(target) == contents(source)


def test_a_damaged_manifest_is_not_copied() -> None:
    source, target = filled(), empty("secondary")
    damage(source, backups()[2].layout.manifest)
    run(site_of({"primary": source, "secondary": target}))
    assert [backup.label for backup in read_catalog(target, "shop").backups] == [FULL, INCREMENTAL]


def test_what_lies_there_with_another_size_is_replaced() -> None:
    source, target = filled(), empty("secondary")
    half = backups()[0].index.key
    target.put(half, Body.of(b"half"))
    run(site_of({"primary": source, "secondary": target}))
    assert contents(target) == contents(source)


def test_another_backup_under_the_same_label_is_left_alone() -> None:
    source, target = filled(), empty("secondary")
    other = backups()[0].model_copy(update={"taken_on": "elsewhere", "index": stored_object("servers/shop/x")})
    target.put(other.layout.manifest, Body.of(encode(other)))
    with pytest.raises(RepositoryError, match="is not that of the backup"):
        run(site_of({"primary": source, "secondary": target}))
    assert read_all(target, other.layout.manifest) == encode(other)
    assert OTHER in [backup.label for backup in read_catalog(target, "shop").usable]


def test_what_was_expired_there_is_not_sent_again_and_asking_for_it_says_how_to_undo_that() -> None:
    source, target = filled(), empty("secondary")
    site = site_of({"primary": source, "secondary": target})
    run(site)
    gone = backups()[2]
    put_expired(target, gone.layout, read_all(target, gone.layout.manifest), at=NOW, reason="too old")
    target.delete(gone.layout.manifest)
    assert run(site).labels == ()
    with pytest.raises(RepositoryError, match="was expired from secondary"):
        run(site, labels=[OTHER])


def test_what_retention_would_let_go_there_is_not_sent() -> None:
    source, target = filled(), empty("secondary")
    source.delete(next(info.key for info in source.list() if "/keeps/" in info.key))
    site = site_of({"primary": source, "secondary": target})
    assert isinstance(site.clock, FixedClock)
    site.clock.advance(timedelta(days=40))
    assert run(site).labels == (OTHER,)  # the newest of its day, week and month
    assert replica_is_current(site, "shop", "secondary").passed
    assert run(site).wal_objects == 0


def test_monthly_sends_a_full_with_the_wal_that_it_needs_and_no_more() -> None:
    source, target = filled(), empty("archive")
    site = site_of({"primary": source, "archive": target})
    assert run(site, "archive").labels == (OTHER,)
    files = [key.file for info in target.list(wal_prefix("shop")) if (key := parse_wal_key(info.key))]
    assert files == ["000000010000000000000002", "000000010000000000000003", "00000002.history"]
    target.stat(WalLayout("shop", "1").description)
    assert replica_is_current(site, "shop", "archive").passed


def test_labels_wal_and_source_can_be_chosen() -> None:
    source, target, archive = filled(), empty("secondary"), empty("archive")
    site = site_of({"primary": source, "secondary": target, "archive": archive})
    assert run(site, labels=[INCREMENTAL], wal=False).labels == (FULL, INCREMENTAL)
    assert [*target.list(wal_prefix("shop"))] == []
    with pytest.raises(BackupNotFound):
        run(site, labels=["20200101T000000Z-full"])
    down = FaultyStore(source, fail_at=1, stays_down=True)
    away = site_of({"primary": down, "secondary": target, "archive": archive})
    assert run(away, "archive", source="secondary").labels == (FULL,)
    with pytest.raises(UsageError, match="nothing is copied"):
        run(site, "secondary", source="secondary")


def test_a_primary_that_was_lost_is_filled_again_from_another_tier() -> None:
    source, target, anew = filled(), empty("secondary"), empty("primary")
    run(site_of({"primary": source, "secondary": target}))
    site = site_of({"primary": anew, "secondary": target})
    assert run(site, "primary", source="secondary").labels == (FULL, INCREMENTAL, OTHER)
    names = {info.key for info in anew.list(wal_prefix("shop"))}
    assert names == {info.key for info in target.list(wal_prefix("shop"))}
    assert run(site, "primary", source="secondary").labels == ()


def test_of_a_segment_that_is_there_twice_the_whole_one_is_copied() -> None:
    source, target = filled(), empty("secondary")
    [segment] = [info.key for info in source.list() if "0003." in info.key]
    body = Body.of(Codec(2).encode(b"\3" * (1 << 20)))
    key = parse_wal_key(segment)
    assert key is not None
    second = segment.replace(key.sha256, body.sha256)
    source.put(second, body)
    damage(source, min(segment, second))
    run(site_of({"primary": source, "secondary": target}))
    assert [info.key for info in target.list() if "0003." in info.key] == [max(segment, second)]


def test_damaged_wal_stops_nothing_else() -> None:
    source, target = filled(), empty("secondary")
    [segment] = [info.key for info in source.list() if "0003." in info.key]
    damage(source, segment)
    with pytest.raises(IntegrityError, match=r"0003.*on primary"):
        run(site_of({"primary": source, "secondary": target}))
    assert set(contents(source)) - set(contents(target)) == {segment}


def test_heads_make_way_for_what_is_longer() -> None:
    source, target = filled(), empty("secondary")
    site = site_of({"primary": source, "secondary": target})
    run(site)
    open_segment = WalSegment(Timeline(1), 6, 1 << 20)
    ours, theirs = (Repository(store, Codec(1), "x").wal("shop", "1") for store in (source, target))
    ours.put_partial(open_segment, open_segment.start + 200, b"o" * 200)
    run(site)
    assert contents(target) == contents(source)
    ours.put_segment(open_segment, bytes(1 << 20))
    ours.drop_partials(open_segment)
    run(site)
    assert theirs.head(open_segment) is None
    assert contents(target) == contents(source)


def test_lag_counts_from_when_the_oldest_was_finished() -> None:
    source, target = filled(), empty("secondary")
    site = site_of({"primary": source, "secondary": target}, secondary={"lag": "9 hours"})
    lag = replication_lag(site, "shop", "secondary")
    assert (lag.tier, lag.waiting) == ("secondary", (FULL, INCREMENTAL, OTHER))
    assert lag.lag == NOW - backups()[0].finished_at
    assert lag.wal_behind == sum(len(data) for key, data in contents(source).items() if parse_wal_key(key))
    assert replica_is_current(site, "shop", "secondary").verdict is Verdict.PASS
    strict = site_of({"primary": source, "secondary": target}, secondary={"lag": "1 hour"})
    assert replica_is_current(strict, "shop", "secondary").verdict is Verdict.FAIL
    run(site)
    assert replication_lag(site, "shop", "secondary").lag == timedelta()
    down = site_of({"primary": source, "secondary": FaultyStore(target, fail_at=1, stays_down=True)})
    assert replica_is_current(down, "shop", "secondary").verdict is Verdict.NOT_PROVEN


def test_a_copy_is_complete_when_all_is_there_and_its_manifest_is_the_same() -> None:
    source, target = filled(), empty("secondary")
    site = site_of({"primary": source, "secondary": target})
    assert replica_equals(site, "shop", FULL, "secondary").verdict is Verdict.FAIL
    run(site)
    assert replica_equals(site, "shop", FULL, "secondary").passed
    target.delete(backups()[0].index.key)
    assert replica_equals(site, "shop", FULL, "secondary").verdict is Verdict.FAIL
    damage(target, backups()[2].layout.manifest)
    assert replica_equals(site, "shop", OTHER, "secondary").verdict is Verdict.FAIL
    down = site_of({"primary": source, "secondary": FaultyStore(target, fail_at=1, stays_down=True)})
    assert replica_equals(down, "shop", FULL, "secondary").verdict is Verdict.NOT_PROVEN


# --- the engine ---------------------------------------------------------------------------------------------


class _Held:
    """Bytes that were read and are not yet put."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.now = self.peak = 0

    def add(self, count: int) -> None:
        with self._lock:
            self.now += count
            self.peak = max(self.peak, self.now)


class _Read(Forwarding):
    def __init__(self, store: ObjectStore, held: _Held) -> None:
        super().__init__(store)
        self._held = held

    def open(self, key: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        self._held.add(self.stat(key).size)
        return super().open(key, offset=offset, length=length)


class _Put(Counting):
    def __init__(self, store: ObjectStore, held: _Held) -> None:
        super().__init__(store)
        self._held = held

    def put(self, key: str, body: Body, **how: object) -> ObjectInfo:  # type: ignore[override]
        try:
            return super().put(key, body)
        finally:
            self._held.add(-body.size)


def test_memory_is_bounded_and_what_is_larger_goes_alone() -> None:
    held, inner, target = _Held(), MemoryStore(), MemoryStore()
    objects = []
    for number in range(40):
        body = Body.of(bytes([number]) * (1000 if number == 20 else 100))
        inner.put(f"o/{number:02d}", body)
        objects.append(
            stored_object("x").model_copy(update={"key": f"o/{number:02d}", "size": body.size, "sha256": body.sha256})
        )
    ends = (Repository(store, Codec(1), "t") for store in (_Read(inner, held), _Put(target, held)))
    with Copier(*ends, Silent(), in_flight=350) as copier:
        copied = copier.copy(objects, {"o/00": 100})
    assert (copied.objects, copied.already_there, copied.bytes) == (39, 1, 38 * 100 + 1000)
    assert held.peak == 1000
    assert len([*target.list()]) == 39


def test_a_store_that_fails_ends_the_batch() -> None:
    source, target = filled(), FaultyStore(MemoryStore(), fail_at=2, stays_down=True)
    objects = [stored for one in backups() for stored in one.objects]
    with Copier(Repository(source, Codec(1), "a"), Repository(target, Codec(1), "b"), Silent()) as copier:
        with pytest.raises(StoreUnavailable):
            copier.copy(objects, {})
        with pytest.raises(AccessDenied):
            Copier(copier.source, Repository(ReadOnly(source), Codec(1), "c"), Silent()).copy(objects, {})
