"""A plan with two tiers on stores of the test's own, and a repository to copy."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from dr_pipelines.clock import Clock, FixedClock
from dr_pipelines.lsn import Lsn, Timeline, WalSegment
from dr_pipelines.plan import Plan
from dr_pipelines.repository.catalog import read_catalog
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.layout import BackupKind, parse_wal_key
from dr_pipelines.repository.manifest import BackupManifest, WalRange
from dr_pipelines.repository.marks import Keep, put_keep
from dr_pipelines.repository.repository import Repository
from dr_pipelines.site import Site
from dr_pipelines.storage.base import Body, ObjectInfo, ObjectStore, read_all
from dr_pipelines.storage.memory import MemoryStore
from dr_pipelines.storage.wrappers import Forwarding
from tests.support.archives import manifest, put_backup

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)
SEGMENT = 1 << 20
FULL, INCREMENTAL, OTHER = "20260102T030405Z-full", "20260102T040405Z-incr", "20260102T050405Z-full"


def site_of(stores: Mapping[str, ObjectStore], *, clock: Clock | None = None, **replication: Any) -> Site:
    """The server `shop`; `stores` by tier. `replication` as the plan writes it."""
    plan = {
        "version": 1, "name": "test", "encryption": "none",
        "storage": {tier: {"type": "local", "path": tier} for tier in stores},
        "databases": {"shop": {
            "connection": {"host": "db"}, "schedule": {"full": "daily", "incremental": "hourly"},
            "storage": {tier: tier for tier in stores}, "replication": replication,
        }},
    }  # fmt: skip
    return Site(Plan.model_validate(plan), clock=clock or FixedClock(NOW), stores=stores)


def empty(name: str) -> MemoryStore:
    """A repository in memory."""
    store = MemoryStore(name)
    Repository(store, Codec(1), name).initialise()
    return store


def backups() -> tuple[BackupManifest, ...]:
    """A full with an incremental, and another full: each needs WAL segments 2 and 3."""
    ranges = (WalRange(timeline=Timeline(1), start=Lsn(2 * SEGMENT), end=Lsn(3 * SEGMENT + 8)),)
    lies = dict(start_lsn=Lsn(2 * SEGMENT), segment_size=SEGMENT, wal_ranges=ranges)
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

    def made(label: str, hours: int, **changes: object) -> BackupManifest:
        times = dict(started_at=at + timedelta(hours=hours), finished_at=at + timedelta(hours=hours, minutes=1))
        return manifest(label, stop_lsn=Lsn(3 * SEGMENT + 1 + hours), **lies, **times, **changes)

    return made(FULL, 0), made(INCREMENTAL, 1, kind=BackupKind.INCREMENTAL, parent=FULL), made(OTHER, 2)


def filled(name: str = "primary") -> MemoryStore:
    """`backups()`, a keep on the first, WAL segments 2 to 5 and the head of 6, the history of timeline 2."""
    store = empty(name)
    for one in backups():
        put_backup(store, one)
    put_keep(store, backups()[0].layout, Keep(until=None, reason="a test", by="me", at=NOW))
    wal = Repository(store, Codec(1), name).wal("shop", "1")
    for number in range(2, 6):
        segment = WalSegment(Timeline(1), number, SEGMENT)
        wal.put_segment(segment, bytes([number]) * SEGMENT)
    open_segment = WalSegment(Timeline(1), 6, SEGMENT)
    wal.put_partial(open_segment, open_segment.start + 100, b"o" * 100)
    wal.put_history(Timeline(2), b"1\t0/600000\tno recovery target specified\n")
    return store


def contents(store: ObjectStore) -> dict[str, bytes]:
    """All that replication must bring over. Proofs and claims are a tier's own, as is `repository.json`."""
    own = ("/proofs/", "/claims/", "/damage/", "repository.json")
    return {info.key: read_all(store, info.key) for info in store.list() if not any(part in info.key for part in own)}


def damage(store: ObjectStore, key: str) -> None:
    """One bit of it."""
    data = bytearray(read_all(store, key))
    data[len(data) // 2] ^= 1
    store.put(key, Body.of(bytes(data)), if_absent=False)


class Counting(Forwarding):
    """Counts puts, by what is put."""

    def __init__(self, store: ObjectStore) -> None:
        super().__init__(store)
        self.puts: list[str] = []

    def put(
        self,
        key: str,
        body: Body,
        *,
        if_absent: bool = True,
        retain_until: datetime | None = None,
        storage_class: str | None = None,
    ) -> ObjectInfo:
        self.puts.append(key)
        return super().put(key, body, if_absent=if_absent)


def assert_restorable_or_invisible(target: ObjectStore) -> None:
    catalog = read_catalog(target, "shop")
    assert catalog.usable == catalog.backups
    assert not catalog.problems
    for backup in catalog.backups:
        for stored in backup.objects:
            assert hashlib.sha256(read_all(target, stored.key)).hexdigest() == stored.sha256
    for info in target.list():
        if (key := parse_wal_key(info.key)) is not None:
            assert hashlib.sha256(read_all(target, info.key)).hexdigest() == key.sha256
