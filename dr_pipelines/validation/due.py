"""Which backups are to be restored now to prove them, from which tier, and which fulls are late. Pure.

Everything is read off the proofs that lie beside the backups, so that whoever asks, wherever, gets the same answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from dr_pipelines.checks import CheckResult, failed, not_proven, passed
from dr_pipelines.plan.validation import ValidationPlan
from dr_pipelines.plan.values import format_duration
from dr_pipelines.repository.catalog import Catalog
from dr_pipelines.repository.layout import BackupKind, ProofName
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.repository.marks import VALIDATE, Marks

RESTORES_AND_VALIDATES = "restores_and_validates"
FULLS_ARE_PROVEN = "fulls_are_proven_in_time"
LOOKS_BACK = timedelta(days=7)
"""Fulls that are older were taken before anybody validated, or are superseded: only the newest of them still counts."""
TRIES = 3
"""So often one backup is restored when nothing is proven by it; an hour later, then four."""
_AGAIN_AFTER = timedelta(hours=1)
_NEVER = datetime.min.replace(tzinfo=UTC)
_UNMARKED = Marks()


@dataclass(frozen=True)
class SeenTier:
    """`is_sent_all`: what it does not hold yet is on its way."""

    tier: str
    catalog: Catalog
    is_sent_all: bool

    def holds(self, label: str) -> bool:
        return any(backup.label == label for backup in self.catalog.backups)

    def marks(self, label: str) -> Marks:
        return self.catalog.marks.get(label, _UNMARKED)

    @property
    def newest_try(self) -> datetime:
        """When anything was restored from here, whatever came of it."""
        tried = (proof.at for marks in self.catalog.marks.values() for proof in _tries(marks))
        return max(tried, default=_NEVER)


@dataclass(frozen=True)
class DueValidation:
    """`is_there`: the tier holds the backup; otherwise it is worth waiting for."""

    backup: BackupManifest
    tier: str
    is_there: bool


def is_chosen(backup: BackupManifest, plan: ValidationPlan) -> bool:
    """Every full, and a share of the incrementals: by their labels, so that it is always the same ones."""
    if backup.kind is BackupKind.FULL:
        return True
    digest = hashlib.sha256(backup.label.encode()).digest()
    return int.from_bytes(digest[:8]) % 100 < plan.incrementals


def due_validations(tiers: Sequence[SeenTier], plan: ValidationPlan, now: datetime) -> list[DueValidation]:
    """What matters most comes first: the newest full. The tiers take turns: the one that was restored from longest ago
    is next, and is waited for during half of the time that the plan allows."""
    turns = {seen.tier: seen.newest_try for seen in tiers}
    due: list[DueValidation] = []
    for backup in _watched(tiers, plan, now):
        repaired = _repaired_on(tiers, backup)
        if repaired is None and not _is_open(tiers, backup, now):
            continue
        where = repaired or next_tier(tiers, backup, turns, wait=now - backup.finished_at <= plan.within / 2)
        if where is not None:
            due.append(DueValidation(backup, where.tier, where.holds(backup.label)))
            turns[where.tier] = now
    return due


def next_tier(
    tiers: Sequence[SeenTier],
    backup: BackupManifest,
    turns: Mapping[str, datetime] | None = None,
    *,
    wait: bool = False,
) -> SeenTier | None:
    """Whose turn it is, of those that hold the backup, or with `wait` of those that will. None when none does."""
    turns = turns if turns is not None else {seen.tier: seen.newest_try for seen in tiers}
    able = [seen for seen in tiers if seen.holds(backup.label) or (wait and seen.is_sent_all)]
    return min(able, key=lambda seen: turns[seen.tier], default=None)


def fulls_are_proven_in_time(
    tiers: Sequence[SeenTier], plan: ValidationPlan, now: datetime, unread: Sequence[str] = ()
) -> CheckResult:
    """Every full that is older than `within` was restored from some tier and found good, and none was found bad.
    `unread` are sentences on tiers that could not be looked at."""
    fulls = [backup for backup in _watched(tiers, plan, now) if backup.kind is BackupKind.FULL]
    if not fulls:
        return not_proven(FULLS_ARE_PROVEN, "; ".join(("there is no full backup", *unread)))
    server = fulls[0].server
    bad = [
        backup for backup in fulls if any(seen.catalog.failed_validation(backup) for seen in _holding(tiers, backup))
    ]
    if bad:
        hint = f"`dr list {server}` shows from which tier, the run's page or the evidence why."
        return failed(FULLS_ARE_PROVEN, f"a restore of {_named(bad)} failed", failed=_labels(bad), hint=hint)
    late = [backup for backup in fulls if now - backup.finished_at > plan.within and not _passed(tiers, backup)]
    if late:
        said = f"{_named(late)} was not proven by a restore within {format_duration(plan.within)}"
        hint = f"prove it now: `dr validate {server} --label {late[0].label}`."
        judged = not_proven if unread else failed
        return judged(FULLS_ARE_PROVEN, "; ".join((said, *unread)), late=_labels(late), hint=hint)
    proven = [backup for backup in fulls if _passed(tiers, backup)]
    waiting = f", and {len(fulls) - len(proven)} still in time" if len(proven) < len(fulls) else ""
    return passed(FULLS_ARE_PROVEN, f"proven by a restore: {len(proven)}{waiting}", proven=_labels(proven))


def _watched(tiers: Sequence[SeenTier], plan: ValidationPlan, now: datetime) -> list[BackupManifest]:
    """Fulls before incrementals, the newest first; incrementals only while they are in time."""
    known = {backup.label: backup for seen in tiers for backup in seen.catalog.backups if is_chosen(backup, plan)}
    newest_first = sorted(known.values(), key=lambda backup: (backup.started_at, backup.label), reverse=True)
    fulls = [backup for backup in newest_first if backup.kind is BackupKind.FULL]
    young = [backup for backup in fulls[1:] if now - backup.finished_at <= LOOKS_BACK]
    rest = (backup for backup in newest_first if backup.kind is not BackupKind.FULL)
    return [*fulls[:1], *young, *(backup for backup in rest if now - backup.finished_at <= plan.within)]


def _is_open(tiers: Sequence[SeenTier], backup: BackupManifest, now: datetime) -> bool:
    """Nothing is known of it yet, and it may be tried (again)."""
    if any(seen.marks(backup.label).validated() is not None for seen in tiers):
        return False
    tried = sorted(proof.at for seen in tiers for proof in _tries(seen.marks(backup.label)))
    return not tried or (len(tried) < TRIES and now - tried[-1] >= _AGAIN_AFTER * 4 ** (len(tried) - 1))


def _repaired_on(tiers: Sequence[SeenTier], backup: BackupManifest) -> SeenTier | None:
    """Where a restore failed, and the bytes were found right since: then it is worth another one."""
    for seen in tiers:
        marks = seen.marks(backup.label)
        newest = marks.validated()
        if newest is not None and newest.verdict == "fail":
            tried = max(proof.at for proof in _tries(marks))
            if any(proof.verdict == "pass" and proof.kind != VALIDATE and proof.at > tried for proof in marks.proofs):
                return seen
    return None


def _tries(marks: Marks) -> list[ProofName]:
    return [proof for proof in marks.proofs if proof.kind == VALIDATE]


def _passed(tiers: Sequence[SeenTier], backup: BackupManifest) -> bool:
    newest = (seen.marks(backup.label).validated() for seen in tiers)
    return any(proof is not None and proof.verdict == "pass" for proof in newest)


def _holding(tiers: Sequence[SeenTier], backup: BackupManifest) -> list[SeenTier]:
    return [seen for seen in tiers if seen.holds(backup.label) and seen.catalog.trouble(backup) is None]


def _labels(backups: Sequence[BackupManifest]) -> list[str]:
    return [backup.label for backup in backups]


def _named(backups: Sequence[BackupManifest]) -> str:
    return backups[0].label if len(backups) == 1 else f"{backups[0].label} and {len(backups) - 1} more"
