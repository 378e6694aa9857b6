"""What is kept on a tier and what goes: showing it, doing it, taking it back; and a person's veto."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TypeVar

from dr_pipelines.checks import CheckResult, failed, passed
from dr_pipelines.errors import BackupNotFound, DrError, NotProven, RepositoryError
from dr_pipelines.files.verify import CONTENTS_MATCH
from dr_pipelines.operations.backups import verify_backup
from dr_pipelines.operations.file_integrity import check_snapshot
from dr_pipelines.operations.retention_look import AnyLook, FileSetLook, RetentionTable, look
from dr_pipelines.progress import Progress
from dr_pipelines.repository.digests import OBJECTS_MATCH
from dr_pipelines.repository.file_layout import SnapshotLayout, parse_snapshot_label
from dr_pipelines.repository.labels import LabelCatalog, Labelled
from dr_pipelines.repository.layout import BackupKind, BackupLayout
from dr_pipelines.repository.marks import Keep, put_keep
from dr_pipelines.repository.repository import Repository
from dr_pipelines.repository.snapshots import read_snapshot, read_snapshots
from dr_pipelines.retention.expire import Expiry, expire, undo
from dr_pipelines.retention.prune import Pruned
from dr_pipelines.retention.records import Record
from dr_pipelines.site import Site
from dr_pipelines.wording import counted

M = TypeVar("M", bound=Labelled)
_APPLIED = "retention_is_applied"


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
        return passed(_APPLIED, f"{tier} keeps {counted(kept, self.table.thing)}, and let {len(self.expired)} go")


def plan_retention(site: Site, name: str, tier: str) -> RetentionTable:
    """Of a server or a file set. Changes nothing. Raises what the tier's store raises; another tier that cannot be read
    is told in `unread`."""
    seen = look(site, name, tier, site.read_only_repository(name, tier))
    return seen.measured() if isinstance(seen, FileSetLook) else seen.table()


def apply_retention(
    site: Site, name: str, tier: str, progress: Progress, *, yes: bool = False, early: bool = False
) -> RetentionReport:
    """Of a server or a file set: expire, then prune. `yes`: more than the plan's share may go at once; `early`: what
    its storage class is paid for still may go too. Raises what the tier's store raises; what it was stopped at can be
    gone on with."""
    seen = look(site, name, tier, site.bare_repository(name, tier), yes=yes, early=early, ask_clock=True)
    table, newest = seen.table(), seen.newest_record
    if table.guards:
        names = tuple(guard.name for guard in table.guards)
        # An incident may last longer than locks do. By a wrong clock they would be for years.
        record = Record(table.at, locks={} if "clock" in names else seen.extend_locks(), frozen=names)
        known = newest is not None and (newest.frozen, newest.locks) == (names, record.locks)
        return RetentionReport(table, evidence=None if known else seen.put(record, {}))
    progress.phase("expire")
    done = _expire(seen, site.clock.now())
    locks = seen.extend_locks()
    record = Record(table.at, seen.needs, locks)
    unchanged = newest is not None and newest.needs == record.needs and newest.locks == locks
    evidence = None
    if not unchanged or done.expired or done.refused:
        evidence = seen.put(record, {"expired": done.expired, "refused": done.refused})
    progress.phase("prune")
    pruned = seen.prune()
    progress.advance(pruned.bytes)
    if pruned.labels or pruned.wal_objects or pruned.archives:
        seen.put(replace(record, at=site.clock.now()), {"pruned": pruned.__dict__})
    return RetentionReport(table, tuple(done.expired), done.refused, pruned, evidence)


def _expire(seen: AnyLook, at: datetime) -> Expiry:
    if isinstance(seen, FileSetLook):
        return expire(seen.store, seen.here, seen.planned, at)
    return expire(seen.store, seen.here, seen.planned, at)


def prove_if_stale(site: Site, name: str, tier: str, progress: Progress) -> list[CheckResult]:
    """Verifies the newest full, or snapshot, that can be restored when expiry would stop for want of a fresh proof;
    nothing otherwise. Where backups are copied or scrubbed, that proves them already; where they are restored to prove
    them, only a restore does, and it is missed for a reason."""
    if not any(guard.name == "proof" for guard in plan_retention(site, name, tier).guards):
        return []
    catalog = site.owner(name).catalog(site.read_only_repository(name, tier).store)
    usable = [one.label for one in catalog.usable if getattr(one, "kind", BackupKind.FULL) is BackupKind.FULL]
    if not usable:
        return []
    of_files = name in site.plan.file_storage
    thing = "snapshot" if of_files else "backup"
    progress.note(f"no {thing} of {name} was proven lately: {usable[-1]} is, on {tier}")
    if of_files:
        return check_snapshot(site, name, usable[-1], tier, progress, only=(OBJECTS_MATCH, CONTENTS_MATCH))
    return verify_backup(site, name, usable[-1], tier, progress)


def undo_expiry(site: Site, name: str, tier: str, labels: Collection[str] | None = None) -> list[str]:
    """The manifests of expired backups, or snapshots, are put back, of all that still can be when no label is named,
    and held for the plan's grace, which is time to mend the plan or to keep them. Returns their labels. Raises
    `UsageError` and `RepositoryError` as `retention.expire.undo` does, and changes nothing then."""
    repository = site.bare_repository(name, tier)
    repository.check_format()
    now = site.clock.now()
    if name in site.plan.file_storage:
        snapshots, grace = read_snapshots(repository.store, name), site.file_set(name).grace
        return _undo(repository, snapshots, labels, _held(now, grace), "snapshot")
    grace = site.plan_of(name).retention.on(tier).grace
    return _undo(repository, repository.catalog(name), labels, _held(now, grace), "backup")


def _held(now: datetime, grace: timedelta) -> Keep:
    return Keep(until=now + grace, reason="its expiry was undone", by="dr retention undo", at=now)


def _undo(
    repository: Repository, known: LabelCatalog[M], labels: Collection[str] | None, keep: Keep, thing: str
) -> list[str]:
    if labels is not None:
        return undo(repository, known, labels, keep, thing=thing)
    back: list[str] = []
    trouble: DrError | None = None
    for gone in known.expired:
        try:
            back += undo(repository, known, [gone.manifest.label], keep, thing=thing)
        except RepositoryError as error:
            trouble = error
    if trouble is not None and not back:
        raise trouble
    return list(dict.fromkeys(back))


def keep_backup(site: Site, name: str, label: str, *, until: datetime | None, reason: str, by: str) -> tuple[str, ...]:
    """A person's veto, on every tier that has the backup or the snapshot; until None is for ever. Returns those tiers.
    An incremental keeps what it builds on and the WAL that it needs, a snapshot all that it names.

    Raises `BackupNotFound` when no tier has it, `NotProven` naming the tiers that could not be written.
    """
    keep = Keep(until=until, reason=reason, by=by, at=site.clock.now())

    def write(repository: Repository) -> bool:
        found = find_label(repository, name, label)
        put_keep(repository.store, found.layout, keep)
        find_label(repository, name, label)  # expiry may have let it go between the two
        return True

    return _on_every_tier(site, name, label, write, "kept")


def release_backup(site: Site, name: str, label: str) -> tuple[str, ...]:
    """Takes every keep of a backup or a snapshot back. Returns the tiers on which there was one. Raises as
    `keep_backup`."""

    def write(repository: Repository) -> bool:
        layout = SnapshotLayout(name, label) if is_snapshot(label) else BackupLayout(name, label)
        keeps = [info.key for info in repository.store.list(layout.keeps)]
        if not keeps:
            find_label(repository, name, label)
        for key in keeps:
            repository.store.delete(key)
        return bool(keeps)

    return _on_every_tier(site, name, label, write, "released")


def is_snapshot(label: str) -> bool:
    try:
        parse_snapshot_label(label)
    except ValueError:
        return False
    return True


def find_label(repository: Repository, name: str, label: str) -> Labelled:
    """The backup of a server, or the snapshot of a file set. Raises `BackupNotFound`."""
    return read_snapshot(repository.store, name, label) if is_snapshot(label) else repository.backup(name, label)


def _on_every_tier(
    site: Site, name: str, label: str, write: Callable[[Repository], bool], done: str
) -> tuple[str, ...]:
    """All tiers are tried, whatever the first of them says."""
    written: list[str] = []
    absent: list[str] = []
    failed: dict[str, str] = {}
    for tier in site.tiers(name):
        try:
            if write(site.bare_repository(name, tier)):
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
    if len(absent) == len(site.tiers(name)):
        thing, command = ("snapshot", "dr files list") if is_snapshot(label) else ("backup", "dr list")
        raise BackupNotFound(f"no tier has a {thing} {label} of {name}", hint=f"`{command} {name}` shows those.")
    return tuple(written)
