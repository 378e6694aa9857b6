"""Copies on the other tiers: bringing them there, and saying how far behind a tier is."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta

from dr_pipelines.checks import CheckResult, failed, not_proven, passed
from dr_pipelines.errors import BackupNotFound, DrError, IntegrityError, ObjectNotFound, RepositoryError, UsageError
from dr_pipelines.plan.policies import TierReplicationPlan
from dr_pipelines.plan.values import format_duration
from dr_pipelines.progress import Progress
from dr_pipelines.replication import checks
from dr_pipelines.replication.backups import SourceDamaged, copy_backup
from dr_pipelines.replication.checks import TierLag
from dr_pipelines.replication.copy import Copied, Copier
from dr_pipelines.replication.policy import Due, due_backups
from dr_pipelines.replication.wal import copy_wal
from dr_pipelines.replication.wal_policy import WalDue, wal_due, wal_need
from dr_pipelines.repository.catalog import Catalog, chain_of, in_order
from dr_pipelines.repository.layout import wal_prefix
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.repository.repository import Repository
from dr_pipelines.repository.sampling import part_of_today
from dr_pipelines.retention.planner import kept_labels
from dr_pipelines.retention.wal import wal_among
from dr_pipelines.site import Site


@dataclass(frozen=True)
class ReplicationReport:
    """What one run brought to a tier: the labels that are there now, objects and bytes that were copied for them, how
    many were there already, and objects of WAL."""

    server: str
    tier: str
    labels: tuple[str, ...]
    objects: int
    bytes: int
    already_there: int
    wal_objects: int
    wal_bytes: int
    seconds: float


def replicated_tiers(site: Site, server: str) -> tuple[str, ...]:
    """Those that copies are sent to."""
    plan = site.plan_of(server).replication
    return tuple(tier for tier in site.tiers(server) if (sent := plan.of(tier)) is not None and sent.send != "nothing")


def replicate(
    site: Site,
    server: str,
    tier: str,
    progress: Progress,
    *,
    labels: Sequence[str] | None = None,
    wal: bool = True,
    source: str = "primary",
) -> ReplicationReport:
    """Bring to a tier what the plan sends there, or the backups with these labels and what they build on. `source` is
    where it is read.

    One damaged backup stops no other: what is whole is copied, then `IntegrityError` is raised. Raises `UsageError`,
    `BackupNotFound`, and at once what a store raises.
    """
    return _Run(site, server, tier, source, progress).run(labels, wal=wal)


def replication_lag(site: Site, server: str, tier: str) -> TierLag:
    """How far a tier is behind the primary. Raises what a store raises."""
    return look_at_replica(site, server, tier).lag


@dataclass(frozen=True)
class ReplicaState:
    """A tier held against the primary, in one look: `due` are backups that are to be copied, oldest first."""

    due: tuple[BackupManifest, ...]
    lag: TierLag

    @property
    def check(self) -> CheckResult:
        return checks.replica_is_current(self.lag)


def look_at_replica(site: Site, server: str, tier: str) -> ReplicaState:
    """Raises what a store raises."""
    sides = _Sides(site, server, tier, "primary")
    due = sides.due()
    wal = sides.wal_due(due) if sides.plan.send != "nothing" else WalDue()
    lag = checks.tier_lag(tier, sides.plan.lag, due, wal, now=site.clock.now())
    return ReplicaState(tuple(one.backup for one in due if one.held is None), lag)


def replica_is_current(site: Site, server: str, tier: str) -> CheckResult:
    try:
        return look_at_replica(site, server, tier).check
    except DrError as error:
        return unseen_replica(tier, error)


def unseen_replica(tier: str, error: DrError) -> CheckResult:
    """How far it is behind, when it could not be looked at."""
    return not_proven(
        checks.REPLICA_IS_CURRENT, f"how far {tier} is behind cannot be seen: {error.message}", hint=error.hint
    )


def replica_equals(site: Site, server: str, label: str, tier: str, *, sample: int = 100) -> CheckResult:
    """Of one backup: is its copy on a tier what the primary has? `sample` is the share of it, in percent, that is read.
    One that is not there fails."""
    source, target = (site.read_only_repository(server, name) for name in ("primary", tier))
    try:
        backup = source.backup(server, label)
        part = part_of_today(sample, label, site.clock.now())
        return checks.replica_equals(source.store, target.store, backup, tier, part)
    except ObjectNotFound as error:
        return failed(checks.REPLICA_EQUALS, error.message, label=label, tier=tier)
    except DrError as error:
        return not_proven(checks.REPLICA_EQUALS, error.message, label=label, tier=tier, hint=error.hint)


def replicas_equal(site: Site, server: str, label: str, *, sample: int = 100) -> list[CheckResult]:
    """Of one backup of the primary: the same for each tier that has a copy of it, or must have one by now."""
    found = []
    for tier in replicated_tiers(site, server):
        try:
            if (absent := _absence(site, server, label, tier)) is not None:
                found.append(absent)
                continue
        except DrError as error:
            found.append(not_proven(checks.REPLICA_EQUALS, error.message, label=label, tier=tier, hint=error.hint))
            continue
        found.append(replica_equals(site, server, label, tier, sample=sample))
    return found


def _absence(site: Site, server: str, label: str, tier: str) -> CheckResult | None:
    """What is to say of a copy that is not on a tier; None where it is."""
    sides = _Sides(site, server, tier, "primary")
    if any(backup.label == label for backup in sides.there.backups):
        return None
    due = next((one for one in sides.due() if one.backup.label == label), None)
    if due is None:
        said = f"{label} is not sent to {tier}: the plan does not ask for it there, or not any more"
        return passed(checks.REPLICA_EQUALS, said, label=label, tier=tier, applies=False)
    late = site.clock.now() - due.since - sides.plan.lag
    if late <= timedelta():
        said = f"{label} is not on {tier} yet, and has {format_duration(timedelta(seconds=-int(late.total_seconds())))}"
        return passed(checks.REPLICA_EQUALS, f"{said} to get there", label=label, tier=tier, applies=False)
    hint = f"`dr replicate {server} --tier {tier}` copies it."
    said = f"{label} is not on {tier}, and should be: the plan allows {format_duration(sides.plan.lag)}"
    return failed(checks.REPLICA_EQUALS, said, label=label, tier=tier, hint=hint)


class _Sides:
    """A tier and where it is copied from, both read whole, at once."""

    def __init__(self, site: Site, server: str, tier: str, source: str) -> None:
        # A primary that was lost whole is made anew and filled from a tier that was not.
        plan = TierReplicationPlan() if tier == "primary" else site.plan_of(server).replication.of(tier)
        if plan is None or tier == source:
            raise UsageError(
                f"nothing is copied from {source} to {tier}",
                hint=f"the tiers that copies are sent to are: {', '.join(replicated_tiers(site, server)) or 'none'}.",
            )
        self.plan: TierReplicationPlan = plan
        self._site, self._server, self._tier = site, server, tier
        self._rules = site.plan_of(server).retention.on(tier)
        self.source, self.target = (site.bare_repository(server, name) for name in (source, tier))
        with ThreadPoolExecutor(2, thread_name_prefix="catalogs") as pool:
            self.here, self.there = pool.map(self._read, (self.source, self.target))

    def _read(self, repository: Repository) -> Catalog:
        repository.check_format()
        return repository.catalog(self._server)

    def due(self) -> tuple[Due, ...]:
        now = self._site.clock.now()
        return due_backups(
            self.plan.send, self.here, self.there, now=now, keeps=lambda backups: kept_labels(backups, self._rules, now)
        )

    def asked(self, labels: Sequence[str]) -> tuple[Due, ...]:
        """What a person wants there, whatever the plan sends, with the chains that it needs."""
        by_label = {backup.label: backup for backup in self.here.backups}
        for label in labels:
            if label not in by_label:
                raise BackupNotFound(
                    f"no backup {label!r} of {self._server} on {self.source.tier}",
                    hint=f"`dr list {self._server} --tier {self.source.tier}` shows those that there are.",
                )
            if any(gone.manifest.label == label for gone in self.there.expired):
                raise RepositoryError(
                    f"{label} was expired from {self._tier}",
                    hint=f"`dr retention undo` brings it back on {self._tier}.",
                )
        wanted = {link.label for label in labels for link in chain_of(by_label[label], by_label)}
        whole = {backup.label for backup in self.there.backups if not self.there.marks[backup.label].missing}
        return tuple(
            Due(backup, backup.finished_at)
            for backup in self.here.backups
            if backup.label in wanted and backup.label not in whole
        )

    def wal_due(self, due: Sequence[Due]) -> WalDue:
        """For the backups that are on the tier and those that are on their way."""
        held = {backup.label: backup for backup in (*self.there.backups, *(one.backup for one in due))}
        with ThreadPoolExecutor(2, thread_name_prefix="listings") as pool:
            listed = pool.map(
                lambda repository: [*repository.store.list(wal_prefix(self._server))], (self.source, self.target)
            )
            here, there = listed
            gone = (expired.manifest for expired in (*self.here.expired, *self.there.expired))
            known = (*held.values(), *self.here.backups, *gone)
            sizes = {backup.system_id: backup.segment_size for backup in known}
            wal = wal_among(here, self._server, sizes.get)
            backups, now = in_order(held.values()), self._site.clock.now()
            need = wal_need(self.plan.send, backups, self._rules, now=now, wal=wal)
            return wal_due(self._server, here, there, need)


class _Run:
    """One run of `replicate`."""

    def __init__(self, site: Site, server: str, tier: str, source: str, progress: Progress) -> None:
        self._clock, self._progress = site.clock, progress
        self._server, self._tier = server, tier
        self._began = site.clock.monotonic()
        self._sides = _Sides(site, server, tier, source)
        self._id = secrets.token_hex(8)
        self._troubles: list[DrError] = []

    def run(self, labels: Sequence[str] | None, *, wal: bool) -> ReplicationReport:
        sides = self._sides
        due = sides.due() if labels is None else sides.asked(labels)
        for one in due:
            if one.held is not None:
                self._progress.note(f"{one.backup.label} is not sent to {self._tier}: {one.held}")
        sent = [one for one in due if one.held is None]
        with Copier(sides.source, sides.target, self._progress) as copier:
            # WAL first: a backup is not seen before what it needs is there, and on most days WAL is what counts.
            brought = self._copy_wal(copier, sent) if wal and (sides.plan.send != "nothing" or sent) else Copied()
            there, copied = self._copy_backups(copier, [one.backup for one in sent])
        if self._troubles:
            raise self._trouble(len(there))
        seconds = self._clock.monotonic() - self._began
        return ReplicationReport(
            self._server, self._tier, tuple(there), copied.objects, copied.bytes, copied.already_there,
            brought.objects, brought.bytes, seconds,
        )  # fmt: skip

    def _copy_wal(self, copier: Copier, due: Sequence[Due]) -> Copied:
        wal = self._sides.wal_due(due)
        if wal.whole or wal.heads:
            self._progress.phase(f"WAL to {self._tier}", wal.bytes)
        done = copy_wal(copier, wal)
        for error in done.damaged:
            self._tell(error)
        return done.copied

    def _copy_backups(self, copier: Copier, backups: Sequence[BackupManifest]) -> tuple[list[str], Copied]:
        there = {backup.label for backup in self._sides.there.backups}
        copied, labels = Copied(), []
        for backup in backups:
            if backup.parent is not None and backup.parent not in there:
                self._progress.note(f"{backup.label} waits for {backup.parent}, which it builds on")
                continue
            self._progress.phase(f"{backup.label} to {self._tier}", backup.stored_size)
            try:
                copied += copy_backup(copier, backup, clock=self._clock, run=self._id)
            except BackupNotFound as error:
                self._progress.note(error.message)
                continue
            except (SourceDamaged, RepositoryError) as error:
                self._tell(error)
                continue
            there.add(backup.label)
            labels.append(backup.label)
        return labels, copied

    def _tell(self, error: DrError) -> None:
        self._troubles.append(error)
        self._progress.note(error.message)

    def _trouble(self, copied: int) -> DrError:
        first = self._troubles[0]
        if len(self._troubles) == 1:
            return first
        kind = IntegrityError if isinstance(first, IntegrityError) else RepositoryError
        return kind(
            f"{first.message}, and {len(self._troubles) - 1} more could not be copied to {self._tier} ({copied} were)",
            hint=first.hint,
        )
