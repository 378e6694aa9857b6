"""A server's life and what its tiers hold of it, without any server: backups, WAL, promotions, accidents, by a clock
that the test moves. What is restorable is judged by the restore's own planner over what is left.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from dr_pipelines.checks import failed, passed
from dr_pipelines.clock import Clock, FixedClock
from dr_pipelines.errors import RestoreError
from dr_pipelines.lsn import Lsn, Timeline, WalSegment
from dr_pipelines.plan import Plan
from dr_pipelines.postgres.restore_plan import RecoveryTarget, Switch, WalSpan, plan_restore
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.layout import BackupKind, BackupLayout, WalLayout, label_for
from dr_pipelines.repository.manifest import BackupManifest, WalRange, decode
from dr_pipelines.repository.marks import put_damage, put_proof
from dr_pipelines.repository.repository import Repository
from dr_pipelines.site import Site
from dr_pipelines.storage.base import Body, ObjectInfo, ObjectStore, read_all
from dr_pipelines.storage.memory import MemoryStore
from tests.support.archives import manifest, put_backup

Histories = Mapping[str, Mapping[Timeline, Switch]]
SERVER = "shop"
SEGMENT = 1 << 20
QUARTER = SEGMENT // 4
BEGIN = datetime(2026, 3, 2, 2, tzinfo=UTC)
RULES = {
    "daily": 2, "weekly": 1, "monthly": 1, "window": "2 days", "grace": "1 day", "largest_share": "100 %",
    "proven_within": "1000 days",
}  # fmt: skip


def plan(
    retention: Mapping[str, Any] = RULES, tiers: Sequence[str] = ("primary",), *, lock: bool = False, **changes: Any
) -> Plan:
    """Stores named like the tiers; `Estate` brings them."""
    place = {"type": "s3", "endpoint": "http://127.0.0.1:1", **({"lock": {}} if lock else {})}
    stores = {tier: {**place, "bucket": f"{tier}-bucket"} for tier in tiers}
    return Plan.model_validate(plan_with(stores, retention, state_dir="/nowhere", **changes))


def plan_with(
    stores: Mapping[str, Mapping[str, Any]],
    retention: Mapping[str, Any] = RULES,
    *,
    state_dir: str = "state",
    **changes: Any,
) -> dict[str, Any]:
    """As it is written; the stores are named like the tiers."""
    return {
        "version": 1,
        "name": "test",
        "state_dir": state_dir,
        "encryption": "none",
        "storage": {**stores},
        "databases": {
            SERVER: {
                "connection": {"host": "127.0.0.1"},
                "schedule": {"full": "daily", "incremental": "hourly"},
                "retention": {**retention},
                "storage": {tier: tier for tier in stores},
                **changes,
            }
        },
    }


@dataclass(frozen=True)
class Instant:
    """The server was there at a time."""

    at: datetime
    system_id: str
    timeline: Timeline
    lsn: Lsn


@dataclass
class Estate:
    """`at` hours and LSNs only grow, but for PITR. Everything is written to `store`, the primary."""

    clock: FixedClock = field(default_factory=lambda: FixedClock(BEGIN))
    lock_days: int = 0

    def __post_init__(self) -> None:
        self.store = MemoryStore("primary", self.clock)
        self.secondary = MemoryStore("secondary", self.clock)
        for store in (self.store, self.secondary):
            Repository(store, Codec(1), store.name).initialise()
        self.system_id, self.timeline, self.lsn = "1", Timeline(1), Lsn(16 * SEGMENT)
        self.newest = {"1": Timeline(1)}
        self.histories: dict[str, dict[Timeline, Switch]] = {"1": {}}
        self.instants: list[Instant] = []

    def site(self, given: Plan, *, clock: Clock | None = None, **stores: ObjectStore) -> Site:
        return Site(
            given, clock=clock or self.clock, stores={"primary": self.store, "secondary": self.secondary, **stores}
        )

    def clone(self) -> Estate:
        """As it is now, with a primary and a clock of its own; every object as old as it is. Without its locks."""
        twin = Estate()
        for info in sorted(self.store.list(), key=lambda info: info.modified):
            twin.clock.advance(info.modified - twin.clock.now())
            twin.store.put(info.key, Body.of(read_all(self.store, info.key)), if_absent=False)
        twin.clock.advance(self.clock.now() - twin.clock.now())
        twin.system_id, twin.timeline, twin.lsn = self.system_id, self.timeline, self.lsn
        twin.newest, twin.histories, twin.instants = {**self.newest}, {**self.histories}, [*self.instants]
        return twin

    def write_to(self, folder: Path) -> None:
        """The primary as a store of a directory, or a bucket in a server's: each object as old as it is."""
        write_to(self.store, folder)

    # --- what happens ---

    def work(self, hours: float, quarters: int) -> None:
        """Time passes and WAL is written, in quarters of a segment."""
        self.clock.advance(timedelta(hours=hours))
        before, self.lsn = self.lsn, self.lsn + quarters * QUARTER
        segment = self._segment(before)
        while segment.end <= self.lsn:
            self._put_wal(self._wal.segment(segment, _sha(f"{segment}"), ".zst"))
            self._drop_heads(segment)
            segment = segment.next()
        if segment.start < self.lsn:
            self._drop_heads(segment)
            self._put_wal(self._wal.partial(segment, self.lsn, _sha(f"{segment}{self.lsn}"), ".zst"))
        self.instants.append(Instant(self.clock.now(), self.system_id, self.timeline, self.lsn))

    def back_up(self, parent: BackupManifest | None = None, *, proven: bool = True) -> BackupManifest:
        """A full, or an incremental on top of another backup of this timeline. Takes an hour and some WAL."""
        kind = BackupKind.INCREMENTAL if parent else BackupKind.FULL
        start, started = self.lsn, self.clock.now()
        self.work(1, 1)
        made = manifest(
            label_for(started, kind), kind=kind, asked_kind=kind, parent=parent.label if parent else None,
            started_at=started, finished_at=self.clock.now(), system_id=self.system_id, timeline=self.timeline,
            start_lsn=start, stop_lsn=self.lsn,
            wal_ranges=(WalRange(timeline=self.timeline, start=start, end=self.lsn),),
        )  # fmt: skip
        put_backup(self.store, made)
        if self.lock_days:
            until = self.clock.now() + timedelta(days=self.lock_days)
            for key in (*(named.key for named in made.objects), made.layout.manifest):
                self.store.extend_lock(key, until)
        if proven:
            self.prove(made)
        return made

    def prove(self, backup: BackupManifest, kind: str = "verify", *, good: bool = True) -> None:
        seen = passed("it_is_good", "all") if good else failed("it_is_good", "nothing")
        put_proof(self.store, backup.layout, kind, seen, at=self.clock.now(), tier="primary", run="test")

    def crash(self) -> str:
        """A backup that was begun and never ended. Returns its label."""
        label = label_for(self.clock.now(), BackupKind.FULL)
        self.clock.advance(timedelta(seconds=2))
        layout = BackupLayout(SERVER, label)
        self.store.put(layout.claim("ab"), Body.of(b"{}"))
        self.store.put(layout.pack(0, ".zst"), Body.of(b"half"))
        return label

    def damage(self, backup: BackupManifest) -> None:
        put_damage(self.store, backup.layout, [backup.index.key], at=self.clock.now(), found_by="test")

    def promote(self, back_to: Instant | None = None) -> None:
        """A new timeline from here on, or from where the server was at an instant: PITR."""
        if back_to is not None:
            self.system_id, self.timeline, self.lsn = back_to.system_id, back_to.timeline, back_to.lsn
        switch = Switch(self.timeline, self.lsn)
        self.timeline = self.newest[self.system_id] = Timeline(self.newest[self.system_id].id + 1)
        self.histories[self.system_id][self.timeline] = switch
        self._put_wal(self._wal.history(self.timeline, _sha(f"{self.timeline}"), ".zst"))

    def make_anew(self) -> None:
        """Another system under the same name."""
        self.system_id = str(int(self.system_id) + 1)
        self.timeline, self.lsn = Timeline(1), Lsn(16 * SEGMENT)
        self.newest[self.system_id], self.histories[self.system_id] = self.timeline, {}

    def replicate(self) -> None:
        """Everything that is on the primary, to the secondary."""
        there = {info.key for info in self.secondary.list("servers/")}
        keys = [info.key for info in self.store.list("servers/") if info.key not in there]
        gone = {info.key.removesuffix("expired.json") for info in self.secondary.list() if "expired.json" in info.key}
        for key in sorted(keys, key=lambda key: key.endswith("/manifest.json")):
            if not key.endswith("/expired.json") and not any(key.startswith(label) for label in gone):
                self.secondary.put(key, Body.of(read_all(self.store, key)))

    # --- what is there ---

    def manifests(self, store: ObjectStore | None = None) -> list[BackupManifest]:
        store = store or self.store
        prefix = f"servers/{SERVER}/backups/"
        keys = [info.key for info in store.list(prefix) if info.key.endswith("/manifest.json")]
        return [decode(read_all(store, key)) for key in keys]

    def judge(self, store: ObjectStore | None = None) -> Judge:
        store = store or self.store
        return Judge(store, self.manifests(store), self.histories)

    @property
    def _wal(self) -> WalLayout:
        return WalLayout(SERVER, self.system_id)

    def _segment(self, lsn: Lsn) -> WalSegment:
        return WalSegment.containing(lsn, self.timeline, SEGMENT)

    def _put_wal(self, key: str) -> None:
        self.store.put(self._wal.description, Body.of(b'{"segment_size": %d}\n' % SEGMENT))
        self.store.put(key, Body.of(b"wal"))

    def _drop_heads(self, segment: WalSegment) -> None:
        for info in [*self.store.list(self._wal.segment_prefix(segment))]:
            if ".partial." in info.key:
                self.store.delete(info.key)


class Judge:
    """What can be restored of what a store holds: the backups with all of their objects, and the WAL."""

    def __init__(
        self,
        store: ObjectStore,
        manifests: Sequence[BackupManifest],
        histories: Mapping[str, Mapping[Timeline, Switch]],
    ) -> None:
        listed = {info.key: info.size for info in store.list()}
        damaged = {key.split("/damage/")[0] for key in listed if "/damage/" in key}
        self.whole = [
            one
            for one in manifests
            if all(listed.get(named.key) == named.size for named in one.objects)
            and one.layout.prefix.rstrip("/") not in damaged
        ]
        self._histories = histories
        repository = Repository(store, Codec(1), store.name)
        self._spans = {
            system: [WalSpan(r.timeline, r.start, r.end) for r in repository.wal(SERVER, system, SEGMENT).ranges()]
            for system in histories
        }

    def reaches(self, instant: Instant) -> bool:
        return self._restores(instant.system_id, RecoveryTarget("lsn", instant.lsn, timeline=instant.timeline))

    def restores(self, backup: BackupManifest) -> bool:
        """To the moment at which it was finished."""
        if all(one.label != backup.label for one in self.whole):
            return False
        return self._restores(backup.system_id, RecoveryTarget("immediate", timeline=backup.timeline), backup.label)

    def _restores(self, system_id: str, target: RecoveryTarget, label: str | None = None) -> bool:
        backups = [one for one in self.whole if one.system_id == system_id]
        try:
            plan_restore(backups, self._spans[system_id], self._histories[system_id], target, label=label)
        except RestoreError:
            return False
        return True


def write_to(store: ObjectStore, folder: Path) -> None:
    for info in store.list():
        path = folder / info.key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(read_all(store, info.key))
        os.utime(path, (info.modified.timestamp(), info.modified.timestamp()))


def contents(store: ObjectStore) -> dict[str, ObjectInfo]:
    """What is there but for evidence, which tells of everything that was done."""
    return {info.key: replace(info, retain_until=None) for info in store.list() if not info.key.startswith("evidence/")}


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
