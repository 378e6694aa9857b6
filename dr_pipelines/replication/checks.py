"""Is what a tier must hold there, and the same? The answers of two promises."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from dr_pipelines.checks import CheckResult, failed, not_proven, passed
from dr_pipelines.errors import ObjectOffline
from dr_pipelines.plan.values import format_duration
from dr_pipelines.replication.policy import Due
from dr_pipelines.replication.reading import matches
from dr_pipelines.replication.wal_policy import WalDue
from dr_pipelines.repository.completeness import manifest_is_complete
from dr_pipelines.repository.digests import not_read, recall_hint
from dr_pipelines.repository.manifest import StoredObject
from dr_pipelines.repository.sampling import WHOLE, Manifest, Part, objects_in
from dr_pipelines.storage.base import ObjectStore, read_all
from dr_pipelines.wording import counted

REPLICA_IS_CURRENT = "replica_is_current"
REPLICA_EQUALS = "replica_equals"
_THREADS = 4


@dataclass(frozen=True)
class TierLag:
    """How far a tier is behind: labels (of a `kind`: backup or snapshot) that are `waiting`, bytes of WAL that are not
    there (`wal_behind`), and for how long the oldest of both has been due (`lag`); `limit` is the plan's. `held` says
    why a label that waits is not sent."""

    tier: str
    limit: timedelta
    waiting: tuple[str, ...] = ()
    lag: timedelta = timedelta()
    wal_behind: int = 0
    held: tuple[str, ...] = ()
    kind: str = "backup"

    @property
    def is_late(self) -> bool:
        return self.lag > self.limit

    def __str__(self) -> str:
        many = "wait" if len(self.waiting) > 1 else "waits"
        parts = [f"{counted(len(self.waiting), self.kind)} {many}"] if self.waiting else []
        parts += [f"{self.wal_behind / 1e6:.1f} MB of WAL wait"] if self.wal_behind else []
        if not parts:
            return "all copies are there"
        ages = (format_duration(timedelta(seconds=int(age.total_seconds()))) for age in (self.lag, self.limit))
        return " and ".join(parts) + ", the oldest for {} (limit {})".format(*ages)


def tier_lag(tier: str, limit: timedelta, due: Sequence[Due[Any]], wal: WalDue, *, now: datetime, kind: str) -> TierLag:
    began = [one.since for one in due] + ([wal.oldest] if wal.oldest is not None else [])
    return TierLag(
        tier,
        limit,
        tuple(one.backup.label for one in due),
        max(now - min(began), timedelta()) if began else timedelta(),
        wal.bytes,
        tuple(f"{one.backup.label} is not sent: {one.held}" for one in due if one.held is not None),
        kind,
    )


def replica_is_current(lag: TierLag) -> CheckResult:
    details = {
        "waiting": list(lag.waiting)[:10],
        "lag_seconds": lag.lag.total_seconds(),
        "limit_seconds": lag.limit.total_seconds(),
        "wal_behind": lag.wal_behind,
        "held": list(lag.held)[:10],
    }
    judge = failed if lag.is_late else passed
    return judge(REPLICA_IS_CURRENT, f"{lag.tier}: {lag}", **details)


def replica_equals(
    source: ObjectStore, target: ObjectStore, backup: Manifest, tier: str, part: Part = WHOLE
) -> CheckResult:
    """The copy of a backup or snapshot on a tier against the original: the manifest the same to the byte, every object
    with its size, and those of the part with their SHA-256. Raises what a store raises."""
    seen = manifest_is_complete(target, backup)
    details = {**seen.details, "tier": tier}
    if not seen.passed:
        return failed(REPLICA_EQUALS, f"{seen.summary} on {tier}", **details)
    manifest = backup.layout.manifest
    if read_all(source, manifest) != read_all(target, manifest):
        return failed(REPLICA_EQUALS, f"{manifest} on {tier} is another than the primary's", **details)
    chosen = objects_in(backup, part)
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="replica") as pool:
        whole = [*pool.map(lambda stored: _matches(target, stored), chosen)]
    bad = [stored.key for stored, right in zip(chosen, whole, strict=True) if right is False]
    offline = [stored for stored, right in zip(chosen, whole, strict=True) if right is None]
    size = sum(stored.size for stored, right in zip(chosen, whole, strict=True) if right is not None)
    read = len(chosen) - len(offline)
    details |= {"read": read, "bytes": size, "bad": bad[:10], "offline": len(offline)}
    if bad:
        summary = f"{len(bad)} of {read} objects of {backup.label} that were read on {tier} are damaged: {bad[0]}"
        return failed(REPLICA_EQUALS, summary, hint=f"`dr scrub {tier}` repairs them.", **details)
    if offline:
        said = f"{seen.summary} on {tier} with their sizes; {not_read(offline)}"
        return not_proven(REPLICA_EQUALS, said, hint=recall_hint(tier, backup), **details)
    said = f"{seen.summary} on {tier}; {len(chosen)} were read, and match"
    return passed(REPLICA_EQUALS, said, **details)


def _matches(store: ObjectStore, stored: StoredObject) -> bool | None:
    """None when it must be recalled first."""
    try:
        return matches(store, stored)
    except ObjectOffline:
        return None
