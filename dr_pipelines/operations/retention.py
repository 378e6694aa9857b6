"""What is kept on a tier and what goes: showing it, doing it, taking it back; and a person's veto."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from dr_pipelines.checks import CheckResult, failed, passed
from dr_pipelines.errors import BackupNotFound, DrError, NotProven, RepositoryError
from dr_pipelines.operations.backups import verify_backup
from dr_pipelines.progress import Progress
from dr_pipelines.repository import layout
from dr_pipelines.repository.incidents import Incident, open_incidents
from dr_pipelines.repository.layout import BackupKind, BackupLayout
from dr_pipelines.repository.marks import Keep, put_keep
from dr_pipelines.repository.repository import Repository
from dr_pipelines.retention.cold import Early
from dr_pipelines.retention.expire import expire, undo
from dr_pipelines.retention.guards import Circumstances, Guard, guards_of
from dr_pipelines.retention.holds import Holds, holds_of
from dr_pipelines.retention.locks import extend_locks
from dr_pipelines.retention.planner import Decision, OtherTier, Retention, plan_tier
from dr_pipelines.retention.prune import Pruned, prunable_wal, prune
from dr_pipelines.retention.records import Needs, Record, needs_of, put_record, read_records
from dr_pipelines.retention.view import TierView, view_of
from dr_pipelines.site import Site
from dr_pipelines.storage.base import Body, ObjectStore

_APPLIED = "retention_is_applied"


@dataclass(frozen=True)
class RetentionTable:
    """One tier of a server as retention sees it. `prune` and `garbage`: labels whose objects would go, with their
    bytes; `wal_objects` and `wal_bytes` would go too; `early`: what it costs to let a label go now; `guards`: why
    nothing goes at all; `unread`: tiers that could not be looked at."""

    server: str
    tier: str
    at: datetime
    decisions: tuple[Decision, ...]
    prune: Mapping[str, int]
    garbage: Mapping[str, int]
    wal_objects: int
    wal_bytes: int
    early: Mapping[str, Early]
    guards: tuple[Guard, ...]
    unread: tuple[str, ...] = ()

    @property
    def expire(self) -> tuple[Decision, ...]:
        return tuple(decision for decision in self.decisions if not decision.keep)

    @property
    def frees(self) -> int:
        """Bytes that go now; those of what is expired follow after the grace."""
        return sum(self.prune.values()) + sum(self.garbage.values()) + self.wal_bytes


@dataclass(frozen=True)
class RetentionReport:
    """What `apply_retention` did: where the table has guards nothing but to lengthen locks. `refused`: why labels that
    were to go stay."""

    table: RetentionTable
    expired: tuple[str, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    pruned: Pruned = field(default_factory=Pruned)
    evidence: str | None = None

    @property
    def check(self) -> CheckResult:
        """Nothing stops expiry, and nothing that was to go stays."""
        tier, guards = self.table.tier, self.table.guards
        if guards:
            first = guards[0]
            return failed(_APPLIED, f"nothing is removed from {tier}: {first.sentence}", hint=first.hint)
        if self.refused:
            label, why = next(iter(self.refused.items()))
            return failed(_APPLIED, f"{label} could not be removed from {tier}: {why}", refused=dict(self.refused))
        kept = len(self.table.decisions) - len(self.expired)
        return passed(_APPLIED, f"{tier} keeps {kept} backups, and let {len(self.expired)} go")


def plan_retention(site: Site, server: str, tier: str) -> RetentionTable:
    """Changes nothing. Raises what the tier's store raises; another tier that cannot be read is told in `unread`."""
    return _Look(site, server, tier, site.read_only_repository(server, tier)).table()


def retention_of(
    site: Site, server: str, tier: str, repository: Repository, *, ask_clock: bool = False
) -> tuple[TierView, Retention, tuple[Guard, ...]]:
    """For whoever does something else than removing by it. With `ask_clock` the store is asked for its time, which puts
    a small object and removes it."""
    look = _Look(site, server, tier, repository, ask_clock=ask_clock)
    return look.here, look.planned, look.table().guards


def apply_retention(
    site: Site, server: str, tier: str, progress: Progress, *, yes: bool = False, early: bool = False
) -> RetentionReport:
    """Expire, then prune. `yes`: more than the plan's share may go at once; `early`: what its storage class is paid for
    still may go too. Raises what the tier's store raises; what it was stopped at can be gone on with."""
    look = _Look(site, server, tier, site.bare_repository(server, tier), yes=yes, early=early, ask_clock=True)
    store, table, newest = look.store, look.table(), look.newest_record
    if table.guards:
        names = tuple(guard.name for guard in table.guards)
        # An incident may last longer than locks do. By a wrong clock they would be for years.
        record = Record(table.at, locks={} if "clock" in names else look.extend_locks(), frozen=names)
        known = newest is not None and (newest.frozen, newest.locks) == (names, record.locks)
        return RetentionReport(table, evidence=None if known else look.put(record, {}))
    progress.phase("expire")
    done = expire(store, look.here, look.planned, site.clock.now())
    locks = look.extend_locks()
    record = Record(table.at, look.planned.needs, locks)
    unchanged = newest is not None and newest.needs == record.needs and newest.locks == locks
    evidence = None
    if not unchanged or done.expired or done.refused:
        evidence = look.put(record, {"expired": done.expired, "refused": done.refused})
    progress.phase("prune")
    pruned = prune(store, server, look.here, look.planned, look.needs, stay=look.stay)
    progress.advance(pruned.bytes)
    if pruned.labels or pruned.wal_objects:
        look.put(replace(record, at=site.clock.now()), {"pruned": pruned.__dict__})
    return RetentionReport(table, tuple(done.expired), done.refused, pruned, evidence)


def prove_if_stale(site: Site, server: str, tier: str, progress: Progress) -> list[CheckResult]:
    """Verifies the newest full that can be restored when expiry would stop for want of a fresh proof; nothing
    otherwise. Where backups are copied or scrubbed, that proves them already; where they are restored to prove them,
    only a restore does, and it is missed for a reason."""
    if not any(guard.name == "proof" for guard in plan_retention(site, server, tier).guards):
        return []
    usable = site.read_only_repository(server, tier).usable_backups(server)
    fulls = [backup.label for backup in usable if backup.kind is BackupKind.FULL]
    if not fulls:
        return []
    progress.note(f"no backup of {server} was proven lately: {fulls[-1]} is, on {tier}")
    return verify_backup(site, server, fulls[-1], tier, progress)


def undo_expiry(site: Site, server: str, tier: str, labels: Collection[str] | None = None) -> list[str]:
    """The manifests of expired backups are put back, of all that still can be when no label is named, and held for the
    plan's grace, which is time to mend the plan or to keep them. Returns their labels. Raises `UsageError` and
    `RepositoryError` as `retention.expire.undo` does, and changes nothing then."""
    repository = site.bare_repository(server, tier)
    repository.check_format()
    catalog, now = repository.catalog(server), site.clock.now()
    grace = site.plan_of(server).retention.on(tier).grace
    keep = Keep(until=now + grace, reason="its expiry was undone", by="dr retention undo", at=now)
    if labels is not None:
        return undo(repository, catalog.backups, catalog.expired, labels, keep)
    back: list[str] = []
    trouble: DrError | None = None
    for gone in catalog.expired:
        try:
            back += undo(repository, catalog.backups, catalog.expired, [gone.manifest.label], keep)
        except RepositoryError as error:
            trouble = error
    if trouble is not None and not back:
        raise trouble
    return list(dict.fromkeys(back))


def keep_backup(
    site: Site, server: str, label: str, *, until: datetime | None, reason: str, by: str
) -> tuple[str, ...]:
    """A person's veto, on every tier that has the backup; until None is for ever. Returns those tiers. An incremental
    keeps what it builds on and the WAL that it needs.

    Raises `BackupNotFound` when no tier has it, `NotProven` naming the tiers that could not be written.
    """
    keep = Keep(until=until, reason=reason, by=by, at=site.clock.now())

    def write(repository: Repository) -> bool:
        repository.backup(server, label)
        put_keep(repository.store, BackupLayout(server, label), keep)
        repository.backup(server, label)  # expiry may have let it go between the two
        return True

    return _on_every_tier(site, server, label, write, "kept")


def release_backup(site: Site, server: str, label: str) -> tuple[str, ...]:
    """Takes every keep of a backup back. Returns the tiers on which there was one. Raises as `keep_backup`."""

    def write(repository: Repository) -> bool:
        keeps = [info.key for info in repository.store.list(BackupLayout(server, label).keeps)]
        if not keeps:
            repository.backup(server, label)
        for key in keeps:
            repository.store.delete(key)
        return bool(keeps)

    return _on_every_tier(site, server, label, write, "released")


def _on_every_tier(
    site: Site, server: str, label: str, write: Callable[[Repository], bool], done: str
) -> tuple[str, ...]:
    """All tiers are tried, whatever the first of them says."""
    written: list[str] = []
    absent: list[str] = []
    failed: dict[str, str] = {}
    for tier in site.tiers(server):
        try:
            if write(site.bare_repository(server, tier)):
                written.append(tier)
        except BackupNotFound:
            absent.append(tier)
        except DrError as error:
            failed[tier] = error.message
    if failed:
        told = "; ".join(f"{tier}: {why}" for tier, why in failed.items())
        raise NotProven(
            f"{label} is {done} on {', '.join(written) or 'no tier'}, and could not be on {told}",
            hint="say it again when the tiers can be written; meanwhile what is kept on one tier is kept on all that "
            "can read it.",
        )
    if len(absent) == len(site.tiers(server)):
        raise BackupNotFound(f"no tier has a backup {label} of {server}", hint=f"`dr list {server}` shows those.")
    return tuple(written)


class _Look:
    """Everything that a decision needs, read once."""

    def __init__(
        self,
        site: Site,
        server: str,
        tier: str,
        repository: Repository,
        *,
        yes: bool = False,
        early: bool = False,
        ask_clock: bool = False,
    ) -> None:
        self._site, self._server, self._repository = site, server, repository
        self._yes = yes
        self.store = repository.store
        repository.check_format()
        self._now = site.clock.now()
        self.rules = site.plan_of(server).retention.on(tier)
        self._terms = site.terms(server, tier)
        self._store_now = _ask_clock(self.store, self._now) if ask_clock else None
        self._records = read_records(self.store, server, self._now - self.rules.grace)
        self.unread: list[str] = []
        self._incidents: list[Incident] = [*open_incidents(self.store)]
        self.here = view_of(repository, server)
        self._others = [self._other(name) for name in site.tiers(server) if name != tier]
        self.planned, self._holds = self._plan(early)
        needs = needs_of(self._records, self.planned.needs, at=self._now, grace=self.rules.grace)
        self.needs: Needs | None = needs
        self._early = early

    @property
    def newest_record(self) -> Record | None:
        return self._records[-1] if self._records else None

    def stay(self, storage_class: str | None) -> timedelta:
        return timedelta(0) if self._early else self._terms.minimum(storage_class)

    def table(self) -> RetentionTable:
        wal_objects = wal_bytes = 0
        for system_id, system in self.here.wal.items() if self.needs is not None else ():
            needed = self.needs.get(system_id, ()) if self.needs is not None else ()
            for found in prunable_wal(system, needed, self._now, self.stay):
                wal_objects += 1
                wal_bytes += found.size
        return RetentionTable(
            self._server,
            self.here.tier,
            self._now,
            self.planned.decisions,
            self.planned.prune,
            self.planned.garbage,
            wal_objects,
            wal_bytes,
            self._holds.early,
            self._guards(),
            tuple(self.unread),
        )

    def put(self, record: Record, outcome: Mapping[str, Any]) -> str:
        return put_record(self.store, self._server, self.planned, record, outcome)

    def extend_locks(self) -> dict[str, datetime]:
        known = next((dict(r.locks) for r in reversed(self._records) if r.locks), {})
        if self._repository.placement.lock_for is None or not self.store.capabilities.object_lock:
            return {}
        return extend_locks(self.store, self.here, self.planned, known)

    def _plan(self, early: bool) -> tuple[Retention, Holds]:
        """Twice: what would go is asked for locks and charges, and what these hold may hold more."""
        holds = Holds()
        while True:
            planned = plan_tier(self.here, self.rules, self._now, others=self._others, holds=holds.reasons)
            unasked = [decision.label for decision in planned.expire]
            found = holds_of(
                self.store, self._terms, self._server, unasked, self._now, grace=self.rules.grace, anyway=early
            )
            holds.early |= found.early
            if not found.reasons:
                return planned, holds
            holds.reasons |= found.reasons

    def _other(self, tier: str) -> OtherTier:
        plan = self._site.plan_of(self._server)
        sent = plan.replication.of(tier)
        view: TierView | None = None
        try:
            repository = self._site.read_only_repository(self._server, tier)
            repository.check_format()
            view = view_of(repository, self._server)
            self._incidents += open_incidents(repository.store)
        except DrError as error:
            self.unread.append(f"{tier}: {error.message}")
        return OtherTier(tier, sent.send if sent else "nothing", plan.retention.on(tier), view)

    def _guards(self) -> tuple[Guard, ...]:
        schedule = self._site.plan_of(self._server).schedule
        around = Circumstances(
            self._server,
            [self.here, *(other.view for other in self._others if other.view is not None)],
            schedule.full.longest_interval,
            (schedule.incremental or schedule.full).longest_interval,
            list({incident.id: incident for incident in self._incidents}.values()),
            self._store_now,
        )
        return guards_of(self.planned, self.here, around, self.rules, yes=self._yes)


def _ask_clock(store: ObjectStore, now: datetime) -> datetime:
    """The store's own time: of an object that is put now and removed again."""
    key = layout.evidence("clock", now, secrets.token_hex(6))
    store.put(key, Body.of(b'{"what": "asks the store what time it is"}\n'))
    try:
        return store.stat(key).modified
    finally:
        with contextlib.suppress(DrError):  # a bucket that locks whatever is put
            store.delete(key)
