"""Copies on the other tiers: bringing them there, and saying how far behind a tier is."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from dr_pipelines.checks import CheckResult, failed, not_proven, passed
from dr_pipelines.errors import BackupNotFound, DrError, IntegrityError, ObjectNotFound, ObjectOffline, RepositoryError
from dr_pipelines.operations.replica_sides import replicated_tiers, sides_of
from dr_pipelines.plan.values import format_duration
from dr_pipelines.progress import Progress
from dr_pipelines.replication import checks
from dr_pipelines.replication.backups import SourceDamaged, copy_backup
from dr_pipelines.replication.checks import TierLag
from dr_pipelines.replication.copy import Copied, Copier
from dr_pipelines.replication.marks import tell, untold
from dr_pipelines.replication.policy import Due
from dr_pipelines.replication.wal import copy_wal
from dr_pipelines.replication.wal_policy import WalDue
from dr_pipelines.repository.sampling import Manifest, part_of_today
from dr_pipelines.site import Site


@dataclass(frozen=True)
class ReplicationReport:
    """What one run brought to a tier of a `server` or file set: of the `kind` (backup, snapshot) the labels that are
    there now, objects and bytes that were copied for them, how many were there already, and objects of WAL."""

    server: str
    tier: str
    kind: str
    labels: tuple[str, ...]
    objects: int
    bytes: int
    already_there: int
    wal_objects: int
    wal_bytes: int
    seconds: float


def replicate(
    site: Site,
    name: str,
    tier: str,
    progress: Progress,
    *,
    labels: Sequence[str] | None = None,
    wal: bool = True,
    source: str = "primary",
) -> ReplicationReport:
    """Bring to a tier what the plan sends there of a server or a file set, or what has these labels with what that
    builds on. `source` is where it is read.

    One damaged backup stops no other: what is whole is copied, then `IntegrityError` is raised. Raises `UsageError`,
    `BackupNotFound`, and at once what a store raises.
    """
    return _Run(site, name, tier, source, progress).run(labels, wal=wal)


def replication_lag(site: Site, name: str, tier: str) -> TierLag:
    """How far a tier is behind the primary. Raises what a store raises."""
    return look_at_replica(site, name, tier).lag


@dataclass(frozen=True)
class ReplicaState:
    """A tier held against the primary, in one look: `due` is what is to be copied, oldest first."""

    due: tuple[Manifest, ...]
    lag: TierLag

    @property
    def check(self) -> CheckResult:
        return checks.replica_is_current(self.lag)


def look_at_replica(site: Site, name: str, tier: str) -> ReplicaState:
    """Raises what a store raises."""
    sides = sides_of(site, name, tier, "primary")
    due = sides.due()
    wal = sides.wal_due(due) if sides.plan.send != "nothing" else WalDue()
    lag = checks.tier_lag(tier, sides.plan.lag, due, wal, now=site.clock.now(), kind=sides.kind)
    return ReplicaState(tuple(one.backup for one in due if one.held is None), lag)


def replica_is_current(site: Site, name: str, tier: str) -> CheckResult:
    try:
        return look_at_replica(site, name, tier).check
    except DrError as error:
        return unseen_replica(tier, error)


def unseen_replica(tier: str, error: DrError) -> CheckResult:
    """How far it is behind, when it could not be looked at."""
    return not_proven(
        checks.REPLICA_IS_CURRENT, f"how far {tier} is behind cannot be seen: {error.message}", hint=error.hint
    )


def replica_equals(site: Site, name: str, label: str, tier: str, *, sample: int = 100) -> CheckResult:
    """Of one backup or snapshot: is its copy on a tier what the primary has? `sample` is the share of it, in percent,
    that is read. One that is not there fails."""
    source, target = (site.read_only_repository(name, each) for each in ("primary", tier))
    try:
        backup = site.owner(name).read(source.store, label)
        part = part_of_today(sample, label, site.clock.now())
        return checks.replica_equals(source.store, target.store, backup, tier, part)
    except ObjectNotFound as error:
        return failed(checks.REPLICA_EQUALS, error.message, label=label, tier=tier)
    except DrError as error:
        return not_proven(checks.REPLICA_EQUALS, error.message, label=label, tier=tier, hint=error.hint)


def replicas_equal(site: Site, name: str, label: str, *, sample: int = 100) -> list[CheckResult]:
    """Of one backup of the primary: the same for each tier that has a copy of it, or must have one by now."""
    found = []
    for tier in replicated_tiers(site, name):
        try:
            if (absent := _absence(site, name, label, tier)) is not None:
                found.append(absent)
                continue
        except DrError as error:
            found.append(not_proven(checks.REPLICA_EQUALS, error.message, label=label, tier=tier, hint=error.hint))
            continue
        found.append(replica_equals(site, name, label, tier, sample=sample))
    return found


def _absence(site: Site, name: str, label: str, tier: str) -> CheckResult | None:
    """What is to say of a copy that is not on a tier; None where it is."""
    sides = sides_of(site, name, tier, "primary")
    if any(backup.label == label for backup in sides.there.manifests):
        return None
    due = next((one for one in sides.due() if one.backup.label == label), None)
    if due is None:
        said = f"{label} is not sent to {tier}: the plan does not ask for it there, or not any more"
        return passed(checks.REPLICA_EQUALS, said, label=label, tier=tier, applies=False)
    late = site.clock.now() - due.since - sides.plan.lag
    if late <= timedelta():
        said = f"{label} is not on {tier} yet, and has {format_duration(timedelta(seconds=-int(late.total_seconds())))}"
        return passed(checks.REPLICA_EQUALS, f"{said} to get there", label=label, tier=tier, applies=False)
    hint = f"`dr replicate {name} --tier {tier}` copies it."
    said = f"{label} is not on {tier}, and should be: the plan allows {format_duration(sides.plan.lag)}"
    return failed(checks.REPLICA_EQUALS, said, label=label, tier=tier, hint=hint)


class _Run:
    """One run of `replicate`."""

    def __init__(self, site: Site, name: str, tier: str, source: str, progress: Progress) -> None:
        self._clock, self._progress = site.clock, progress
        self._name, self._tier = name, tier
        self._began = site.clock.monotonic()
        self._sides = sides_of(site, name, tier, source)
        self._id = secrets.token_hex(8)
        self._troubles: list[DrError] = []

    def run(self, labels: Sequence[str] | None, *, wal: bool) -> ReplicationReport:
        sides = self._sides
        due = sides.due() if labels is None else sides.asked(labels)
        for one in due:
            if one.held is not None:
                self._progress.note(f"{one.backup.label} is not sent to {self._tier}: {one.held}")
        sent = [one for one in due if one.held is None]
        self._exchange_marks()
        with Copier(sides.source, sides.target, self._progress) as copier:
            # WAL first: a backup is not seen before what it needs is there, and on most days WAL is what counts.
            brought = self._copy_wal(copier, sent) if wal and (sides.plan.send != "nothing" or sent) else Copied()
            there, copied = self._copy_backups(copier, [one.backup for one in sent])
        if self._troubles:
            raise self._trouble(len(there))
        seconds = self._clock.monotonic() - self._began
        return ReplicationReport(
            self._name, self._tier, sides.kind, tuple(there), copied.objects, copied.bytes, copied.already_there,
            brought.objects, brought.bytes, seconds,
        )  # fmt: skip

    def _exchange_marks(self) -> None:
        """Both ways: what a person said while the source could not be reached is on the target alone."""
        sides = self._sides
        for about in untold(sides.here, sides.there):
            tell(sides.source, sides.target, about)
        for about in untold(sides.there, sides.here):
            try:
                tell(sides.target, sides.source, about)
            except DrError as error:  # no reason not to copy
                self._progress.note(f"{sides.source.tier} could not be told of {about.label}: {error.message}")

    def _copy_wal(self, copier: Copier, due: Sequence[Due[Any]]) -> Copied:
        wal = self._sides.wal_due(due)
        if wal.whole or wal.heads:
            self._progress.phase(f"WAL to {self._tier}", wal.bytes)
        done = copy_wal(copier, wal)
        for error in done.damaged:
            self._tell(error)
        return done.copied

    def _copy_backups(self, copier: Copier, backups: Sequence[Manifest]) -> tuple[list[str], Copied]:
        there = {backup.label for backup in self._sides.there.manifests}
        copied, labels = Copied(), []
        for backup in backups:
            if backup.builds_on is not None and backup.builds_on not in there:
                self._progress.note(f"{backup.label} waits for {backup.builds_on}, which it builds on")
                continue
            self._progress.phase(f"{backup.label} to {self._tier}", backup.stored_size)
            try:
                copied += copy_backup(copier, backup, clock=self._clock, run=self._id)
            except BackupNotFound as error:
                self._progress.note(error.message)
                continue
            except (SourceDamaged, RepositoryError, ObjectOffline) as error:
                self._tell(error)
                continue
            there.add(backup.label)
            labels.append(backup.label)
        return labels, copied

    def _tell(self, error: DrError) -> None:
        self._troubles.append(error)
        self._progress.note(error.message)

    def _trouble(self, copied: int) -> DrError:
        first = next((error for error in self._troubles if isinstance(error, IntegrityError)), self._troubles[0])
        if len(self._troubles) == 1:
            return first
        kind = IntegrityError if isinstance(first, IntegrityError) else RepositoryError
        return kind(
            f"{first.message}, and {len(self._troubles) - 1} more could not be copied to {self._tier} ({copied} were)",
            hint=first.hint,
        )
