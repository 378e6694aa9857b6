"""Everything that a decision about what is kept on a tier needs, read once: of a server, or of a file set."""

from __future__ import annotations

import contextlib
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar

from dr_pipelines.errors import DrError
from dr_pipelines.files.liveness import Liveness, liveness
from dr_pipelines.files.read_table import read_table
from dr_pipelines.plan.policies import RetentionPlan
from dr_pipelines.repository import layout
from dr_pipelines.repository.file_layout import SnapshotLayout
from dr_pipelines.repository.incidents import Incident, open_incidents
from dr_pipelines.repository.labels import Labelled
from dr_pipelines.repository.layout import BackupLayout, LabelLayout
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.repository.repository import Repository
from dr_pipelines.repository.snapshot_manifest import Snapshot
from dr_pipelines.retention.calendar import Reason
from dr_pipelines.retention.cold import Early
from dr_pipelines.retention.decisions import Decision, Retained
from dr_pipelines.retention.guards import Circumstances, Guard, Limits, Words, guards_of
from dr_pipelines.retention.holds import Holds, holds_of
from dr_pipelines.retention.locks import extend_locks, extend_shared_locks
from dr_pipelines.retention.planner import OtherTier, Retention, plan_tier
from dr_pipelines.retention.prune import Pruned, prunable_wal, prune, prune_snapshots
from dr_pipelines.retention.records import Needs, Record, needs_of, put_record, read_records
from dr_pipelines.retention.shared import freed_by
from dr_pipelines.retention.snapshots import OtherSnapshots, SnapshotRetention, plan_snapshots, rules_on
from dr_pipelines.retention.view import SnapshotView, TierView, View, snapshot_view_of, view_of
from dr_pipelines.site import Site
from dr_pipelines.storage.base import Body, ObjectInfo, ObjectStore

M = TypeVar("M", bound=Labelled)
V = TypeVar("V", bound=View[Any])
P = TypeVar("P", bound=Retained)

SNAPSHOT_WORDS = Words("snapshot", "dr files snapshot {}", "dr verify {}", "dr validate {}", "take another")


@dataclass(frozen=True)
class RetentionTable:
    """One tier of a server or a file set as retention sees it; `thing` is what it has, a backup or a snapshot. `prune`
    and `garbage`: labels whose objects would go, with their bytes; `archives`, with their bytes, and `wal_objects` and
    `wal_bytes` would go too; `early`: what it costs to let a label go now; `guards`: why nothing goes at all; `unread`:
    tiers that could not be looked at. `liveness`: of the archives that the newest snapshot names; None where nobody
    asked, and `unmeasured` why it is not known."""

    name: str
    tier: str
    at: datetime
    decisions: tuple[Decision, ...]
    prune: Mapping[str, int]
    garbage: Mapping[str, int]
    early: Mapping[str, Early]
    guards: tuple[Guard, ...]
    unread: tuple[str, ...] = ()
    thing: str = "backup"
    wal_objects: int = 0
    wal_bytes: int = 0
    archives: Mapping[str, int] = field(default_factory=dict)
    liveness: Liveness | None = None
    unmeasured: str | None = None

    @property
    def expire(self) -> tuple[Decision, ...]:
        return tuple(decision for decision in self.decisions if not decision.keep)

    @property
    def frees(self) -> int:
        """Bytes that go now; those of what is expired follow after the grace."""
        return sum(self.prune.values()) + sum(self.garbage.values()) + sum(self.archives.values()) + self.wal_bytes


class Look(Generic[M, V, P], ABC):
    """`here`: the tier; `planned`: what is to happen there; `unread`: other tiers that could not be looked at."""

    words = Words()

    def __init__(
        self,
        site: Site,
        name: str,
        tier: str,
        repository: Repository,
        *,
        yes: bool = False,
        early: bool = False,
        ask_clock: bool = False,
    ) -> None:
        self.site, self.name, self._repository = site, name, repository
        self._yes, self._early = yes, early
        self.store = repository.store
        repository.check_format()
        self.now = site.clock.now()
        self._terms = site.terms(name, tier)
        self._store_now = _ask_clock(self.store, self.now) if ask_clock else None
        self._records = read_records(self.store, name, self.now - self.grace)
        self.unread: list[str] = []
        self._incidents: list[Incident] = [*open_incidents(self.store)]
        self.here = self.view(repository)
        self.views: list[V] = [self.here]
        self._others = {other: self._look_at(other) for other in site.tiers(name) if other != tier}
        self.planned, self._holds = self._plan()

    # --- what differs ---

    @property
    @abstractmethod
    def grace(self) -> timedelta: ...

    @property
    @abstractmethod
    def limits(self) -> Limits: ...

    @property
    @abstractmethod
    def intervals(self) -> tuple[timedelta, timedelta]:
        """The longest between two that need no other, and between any two."""

    @abstractmethod
    def view(self, repository: Repository) -> V: ...

    @abstractmethod
    def plan(self, others: Mapping[str, V | None], holds: Mapping[str, Sequence[Reason]]) -> P: ...

    @abstractmethod
    def layout(self, label: str) -> LabelLayout: ...

    @abstractmethod
    def going_with(self, planned: P) -> Callable[[str], Iterable[ObjectInfo]]:
        """What is removed with a label that goes."""

    @abstractmethod
    def lock(self, known: Mapping[str, datetime]) -> dict[str, datetime]: ...

    @abstractmethod
    def prune(self) -> Pruned: ...

    @property
    def needs(self) -> Needs:
        """The WAL that stays."""
        return {}

    @abstractmethod
    def besides(self) -> dict[str, Any]:
        """What else goes, as fields of the table."""

    # --- what does not ---

    @property
    def newest_record(self) -> Record | None:
        return self._records[-1] if self._records else None

    @property
    def guards(self) -> tuple[Guard, ...]:
        interval, between = self.intervals
        incidents = [*{incident.id: incident for incident in self._incidents}.values()]
        around = Circumstances(
            self.name, self.views, interval, between, incidents, self._store_now, self.words
        )  # fmt: skip
        return guards_of(self.planned, self.here, around, self.limits, yes=self._yes)

    def table(self) -> RetentionTable:
        return RetentionTable(
            self.name,
            self.here.tier,
            self.now,
            self.planned.decisions,
            self.planned.prune,
            self.planned.garbage,
            self._holds.early,
            self.guards,
            tuple(self.unread),
            self.words.thing,
            **self.besides(),
        )

    def put(self, record: Record, outcome: Mapping[str, Any]) -> str:
        return put_record(self.store, self.name, self.planned, record, outcome)

    def extend_locks(self) -> dict[str, datetime]:
        known = next((dict(r.locks) for r in reversed(self._records) if r.locks), {})
        if self._repository.placement.lock_for is None or not self.store.capabilities.object_lock:
            return {}
        return self.lock(known)

    def stay(self, storage_class: str | None) -> timedelta:
        return timedelta(0) if self._early else self._terms.minimum(storage_class)

    def _plan(self) -> tuple[P, Holds]:
        """Twice: what would go is asked for locks and charges, and what these hold may hold more."""
        holds = Holds()
        while True:
            planned = self.plan(self._others, holds.reasons)
            going = {decision.label: self.layout(decision.label) for decision in planned.expire}
            found = holds_of(
                self.store,
                self._terms,
                going,
                self.going_with(planned),
                self.now,
                grace=self.grace,
                anyway=self._early,
            )
            holds.early |= found.early
            if not found.reasons:
                return planned, holds
            holds.reasons |= found.reasons

    def _look_at(self, tier: str) -> V | None:
        try:
            repository = self.site.read_only_repository(self.name, tier)
            repository.check_format()
            view = self.view(repository)
            self._incidents += open_incidents(repository.store)
        except DrError as error:
            self.unread.append(f"{tier}: {error.message}")
            return None
        self.views.append(view)
        return view


class ServerLook(Look[BackupManifest, TierView, Retention]):
    """Of a server."""

    @property
    def grace(self) -> timedelta:
        return self.limits.grace

    @property
    def limits(self) -> RetentionPlan:
        return self.site.plan_of(self.name).retention.on(self._repository.tier)

    @property
    def intervals(self) -> tuple[timedelta, timedelta]:
        schedule = self.site.plan_of(self.name).schedule
        return schedule.full.longest_interval, (schedule.incremental or schedule.full).longest_interval

    def view(self, repository: Repository) -> TierView:
        return view_of(repository, self.name)

    def plan(self, others: Mapping[str, TierView | None], holds: Mapping[str, Sequence[Reason]]) -> Retention:
        asked = self.site.plan_of(self.name)
        told = [
            OtherTier(
                tier, sent.send if (sent := asked.replication.of(tier)) else "nothing", asked.retention.on(tier), view
            )
            for tier, view in others.items()
        ]
        return plan_tier(self.here, self.limits, self.now, others=told, holds=holds)

    def layout(self, label: str) -> BackupLayout:
        return BackupLayout(self.name, label)

    def going_with(self, planned: Retention) -> Callable[[str], Iterable[ObjectInfo]]:
        return lambda label: self.store.list(self.layout(label).prefix)

    def lock(self, known: Mapping[str, datetime]) -> dict[str, datetime]:
        return extend_locks(self.store, self.here, self.planned, known)

    @property
    def needs(self) -> Needs:
        return self.planned.needs

    @property
    def _needed(self) -> Needs | None:
        """Now, or at any time within the grace."""
        return needs_of(self._records, self.planned.needs, at=self.now, grace=self.grace)

    def prune(self) -> Pruned:
        return prune(self.store, self.name, self.here, self.planned, self._needed, stay=self.stay)

    def besides(self) -> dict[str, Any]:
        wal_objects = wal_bytes = 0
        needs = self._needed
        for system_id, system in self.here.wal.items() if needs is not None else ():
            needed = needs.get(system_id, ()) if needs is not None else ()
            for found in prunable_wal(system, needed, self.now, self.stay):
                wal_objects += 1
                wal_bytes += found.size
        return {"wal_objects": wal_objects, "wal_bytes": wal_bytes}


class FileSetLook(Look[Snapshot, SnapshotView, SnapshotRetention]):
    """Of a file set."""

    words = SNAPSHOT_WORDS

    @property
    def grace(self) -> timedelta:
        return self.site.file_set(self.name).grace

    @property
    def limits(self) -> Limits:
        return self.site.file_set(self.name)

    @property
    def intervals(self) -> tuple[timedelta, timedelta]:
        interval = self.site.file_set(self.name).schedule.longest_interval
        return interval, interval

    def view(self, repository: Repository) -> SnapshotView:
        return snapshot_view_of(repository, self.name)

    def plan(
        self, others: Mapping[str, SnapshotView | None], holds: Mapping[str, Sequence[Reason]]
    ) -> SnapshotRetention:
        asked = self.site.file_set(self.name)
        told = [
            OtherSnapshots(tier, sent.send if (sent := asked.sent_to(tier)) else "nothing", rules_on(asked, tier), view)
            for tier, view in others.items()
        ]
        return plan_snapshots(self.here, rules_on(asked, self.here.tier), self.now, others=told, holds=holds)

    def layout(self, label: str) -> SnapshotLayout:
        return SnapshotLayout(self.name, label)

    def going_with(self, planned: SnapshotRetention) -> Callable[[str], Iterable[ObjectInfo]]:
        kept = {decision.label for decision in planned.decisions if decision.keep}
        freed = freed_by(self.here.catalog.snapshots, kept)
        stored = {info.key: info for infos in self.here.catalog.archives.values() for info in infos}
        return lambda label: (stored[key] for key in freed.get(label, ()) if key in stored)

    def lock(self, known: Mapping[str, datetime]) -> dict[str, datetime]:
        return extend_shared_locks(self.store, self.here, self.planned, known)

    def prune(self) -> Pruned:
        return prune_snapshots(self.store, self.name, self.here, self.planned)

    def besides(self) -> dict[str, Any]:
        return {"archives": {name: sum(info.size for info in infos) for name, infos in self.planned.archives.items()}}

    def measured(self) -> RetentionTable:
        """The table, with what is dead in the newest snapshot's archives: that reads its rows, and needs an identity
        where they are encrypted."""
        newest = next((one for one in reversed(self.here.catalog.snapshots) if one.label in self.here.restorable), None)
        if newest is None:
            return self.table()
        try:
            return replace(self.table(), liveness=liveness(read_table(self._repository, newest), newest.archives))
        except DrError as error:
            return replace(self.table(), unmeasured=error.message)


AnyLook = ServerLook | FileSetLook


def look(site: Site, name: str, tier: str, repository: Repository, **asked: bool) -> AnyLook:
    """`name`: of a server or a file set. Raises what the tier's store raises."""
    kind = FileSetLook if name in site.plan.file_storage else ServerLook
    return kind(site, name, tier, repository, **asked)


def _ask_clock(store: ObjectStore, now: datetime) -> datetime:
    """The store's own time: of an object that is put now and removed again."""
    key = layout.evidence("clock", now, secrets.token_hex(6))
    store.put(key, Body.of(b'{"what": "asks the store what time it is"}\n'))
    try:
        return store.stat(key).modified
    finally:
        with contextlib.suppress(DrError):  # a bucket that locks whatever is put
            store.delete(key)
