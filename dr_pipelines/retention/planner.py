"""What is kept on a tier and what goes, each with its reasons. Pure: views, rules and a time in, decisions out.

Kept are: the newest restorable full of each of the last days, weeks and months; the recovery window; what a person
keeps; what is locked or paid for; what is being copied; what is not yet on the tiers that it is due on; what any of
these builds on; and, whatever else holds, the last full that can be restored, and the last that a restore proved: a
newer one may yet turn out to be bad. Whether anything may be removed at all is
not decided here (`guards.py`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Literal

from dr_pipelines.lsn import Lsn
from dr_pipelines.plan.policies import RetentionPlan
from dr_pipelines.repository.catalog import Catalog, in_order
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.retention.calendar import MONTH, Reason, latest, representatives
from dr_pipelines.retention.decisions import IN_FLIGHT, Decision, Reasons, Retained, beside_the_rules, whole_day
from dr_pipelines.retention.view import TierView, is_full
from dr_pipelines.retention.wal import SystemWal, WalNeed
from dr_pipelines.retention.window import Window, root_of, window_of

_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Retention(Retained):
    """Of a server. `needs`: WAL that stays, by system; `at_hand`: the backups that a recovery within the window may
    begin with, and the newest full."""

    needs: Mapping[str, tuple[WalNeed, ...]] = field(default_factory=dict)
    at_hand: frozenset[str] = frozenset()


@dataclass(frozen=True)
class OtherTier:
    """Another tier of the server: what is sent there, by which rules it keeps, and what it holds (None: it cannot be
    read)."""

    tier: str
    sends: Literal["everything", "monthly", "nothing"]
    rules: RetentionPlan
    view: TierView | None


def plan_tier(
    here: TierView,
    rules: RetentionPlan,
    now: datetime,
    *,
    others: Sequence[OtherTier] = (),
    holds: Mapping[str, Sequence[Reason]] | None = None,
) -> Retention:
    """`holds`: what the store itself has against removing a backup, by label. `others` matter for what is due there
    (of the primary), for keeps, and for knowing what is being copied."""
    backups = here.catalog.backups
    reasons, window = keep_by_rules(backups, here.restorable, here.troubles, here.wal, rules, now)
    needs: dict[str, list[WalNeed]] = defaultdict(list, {system: [*found] for system, found in window.needs.items()})
    views = [here, *(other.view for other in others if other.view is not None)]
    for label, reason in beside_the_rules(here.by_label, views, holds or {}, now):
        reasons[label].append(reason)
    incoming = _incoming(here, others, rules, now)
    for backup in incoming.values():
        needs[backup.system_id].append(wal_of(backup, incoming))
        if backup.parent in here.by_label:
            reasons[str(backup.parent)].append(Reason(f"{backup.label} is being copied and builds on it", now + _DAY))
    if here.tier == "primary":
        _what_is_due(here, others, now, reasons, needs)
    _spare_the_last_full(here, reasons)
    _spare_the_last_proven(here, others, reasons)
    _spare_parents(backups, reasons)
    for backup in backups:
        if reasons.get(backup.label):
            needs[backup.system_id].append(wal_of(backup, here.by_label))
    gone = {expired.manifest.label: expired.manifest for expired in here.catalog.expired}
    for backup in gone.values():
        needs[backup.system_id].append(wal_of(backup, {**gone, **here.by_label}))
    return Retention(
        here.tier,
        now,
        tuple(_decision(here, backup, reasons.get(backup.label, ())) for backup in backups),
        _prunable(here, rules, now),
        _garbage(here, others, incoming, now),
        {system: tuple(found) for system, found in needs.items()},
        window.bases | window.inside | _newest_full(here),
    )


def keep_by_rules(
    backups: Sequence[BackupManifest],
    restorable: Iterable[str],
    troubles: Mapping[str, str | None],
    wal: Mapping[str, SystemWal],
    rules: RetentionPlan,
    now: datetime,
) -> tuple[Reasons, Window]:
    """What the calendar and the recovery window keep, without what that builds on."""
    reasons: Reasons = defaultdict(list)
    good = frozenset(restorable)
    fulls = [backup for backup in backups if is_full(backup)]
    window = window_of(backups, good, wal, now - rules.recovery_window)
    ends = _window_ends(fulls, rules.recovery_window)
    by_label = {backup.label: backup for backup in backups}
    for backup in backups:
        until = max(
            backup.finished_at + rules.recovery_window,
            ends.get(root_of(backup, by_label).label, now),
            now,
        )
        if backup.label in window.bases:
            reasons[backup.label].append(Reason("the recovery window begins with it", until))
        elif backup.label in window.inside:
            reasons[backup.label].append(Reason("recovery window", until))
    for label, reason in representatives(fulls, good, troubles, rules, now):
        reasons[label].append(reason)
    return reasons, window


def kept_labels(backups: Sequence[BackupManifest], rules: RetentionPlan, now: datetime) -> frozenset[str]:
    """Of these backups, were they alone and whole on a tier: those that its rules would keep."""
    reasons, _ = keep_by_rules(backups, [backup.label for backup in backups], {}, {}, rules, now)
    _spare_parents(backups, reasons)
    return frozenset(label for label, found in reasons.items() if found)


# --- beside the rules ---------------------------------------------------------------------------------------


def _incoming(
    here: TierView, others: Sequence[OtherTier], rules: RetentionPlan, now: datetime
) -> dict[str, BackupManifest]:
    """Labels without a manifest here that are whole backups elsewhere, and that belong here: they are being copied, or
    were damaged and will be repaired."""
    elsewhere = {b.label: b for other in others if other.view is not None for b in other.view.catalog.backups}
    found = {label: elsewhere[label] for label in (u.label for u in here.unfinished) if label in elsewhere}
    if not found:
        return {}
    wanted = kept_labels(in_order({**here.by_label, **found}.values()), rules, now)
    touched = {u.label: u.touched for u in here.unfinished}
    return {label: backup for label, backup in found.items() if label in wanted or touched[label] > now - IN_FLIGHT}


def _what_is_due(
    here: TierView, others: Sequence[OtherTier], now: datetime, reasons: Reasons, needs: dict[str, list[WalNeed]]
) -> None:
    """What another tier would keep and does not hold stays here, as long as it can be copied."""
    usable = {backup.label for backup in here.catalog.usable}
    for other in others:
        if other.sends == "nothing":
            continue
        there = other.view or TierView(other.tier, Catalog(()))
        union = in_order({**there.by_label, **here.by_label}.values())
        good = usable | there.restorable
        if other.sends == "monthly":  # of a month's fulls the newest that can be sent, or was
            union = list(_newest_of_months((backup for backup in union if backup.label in good), now))
        wanted, window = keep_by_rules(union, good, {}, here.wal, other.rules, now)
        _spare_parents(union, wanted)
        let_go = {expired.manifest.label for expired in there.catalog.expired}
        known = "yet" if other.view else "known to be"
        for label in (usable & wanted.keys()) - there.restorable - let_go:
            reasons[label].append(Reason(f"not {known} on {other.tier}", now + _DAY))
        if other.sends == "everything":
            for system_id, wal in here.wal.items():
                needs[system_id] += wal.lacking(window.needs.get(system_id, ()), there.wal.get(system_id))


def _newest_of_months(backups: Iterable[BackupManifest], now: datetime) -> Iterable[BackupManifest]:
    """Of months that are over: what is newest in this one is not so for long."""
    by_month: dict[datetime, BackupManifest] = {}
    for full in sorted((b for b in backups if is_full(b)), key=lambda b: b.started_at):
        by_month[MONTH.start(full.started_at)] = full
    return (full for month, full in by_month.items() if MONTH.later(month, 1) <= now)


def _spare_the_last_full(here: TierView, reasons: Reasons) -> None:
    """Of all fulls that could be restored from, one stays; where there is none, the newest."""
    fulls = [backup for backup in here.catalog.backups if is_full(backup)]
    good = [full for full in fulls if full.label in here.restorable]
    if not any(reasons.get(full.label) for full in good or fulls):
        for label in _newest_full(here):
            reasons[label].append(Reason("last restorable full" if good else "last full", None))


def _spare_the_last_proven(here: TierView, others: Sequence[OtherTier], reasons: Reasons) -> None:
    """Of the fulls that a restore proved, from whichever tier, and none from here found bad since."""
    views = [here, *(other.view for other in others if other.view is not None)]
    seen = [(label, marks.validated()) for view in views for label, marks in view.catalog.marks.items()]
    proven = {label for label, proof in seen if proof is not None and proof.verdict == "pass"}
    good = [
        backup
        for backup in here.catalog.backups
        if is_full(backup)
        and backup.label in proven & here.restorable
        and here.catalog.failed_validation(backup) is None
    ]
    if good and not any(reasons.get(full.label) for full in good):
        newest = max(good, key=lambda full: full.finished_at)
        reasons[newest.label].append(Reason("last full that a restore proved", None))


def _newest_full(here: TierView) -> frozenset[str]:
    """That can be restored from, when there is one."""
    fulls = [backup for backup in here.catalog.backups if is_full(backup)]
    good = [full for full in fulls if full.label in here.restorable]
    return frozenset({max(good or fulls, key=lambda full: full.finished_at).label} if fulls else ())


def _spare_parents(backups: Sequence[BackupManifest], reasons: Reasons) -> None:
    by_label = {backup.label: backup for backup in backups}
    spared: Reasons = defaultdict(list)
    for backup in reversed(backups):
        why = [*reasons.get(backup.label, ()), *spared.get(backup.label, ())]
        if why and backup.parent in by_label:
            spared[backup.parent].append(Reason(f"{backup.label} builds on it", latest(why)))
    for label, found in spared.items():
        first, more = found[0], f" and {len(found) - 1} more" if len(found) > 1 else ""
        reasons[label].append(Reason(f"{first.text}{more}", latest(found)))


# --- what goes besides backups ------------------------------------------------------------------------------


def _prunable(here: TierView, rules: RetentionPlan, now: datetime) -> dict[str, int]:
    """Newest first, as they were expired."""
    return {
        expired.manifest.label: expired.manifest.stored_size
        for expired in reversed(sorted(here.catalog.expired, key=lambda expired: expired.manifest.stop_lsn))
        if expired.at + rules.grace <= now
    }


def _garbage(
    here: TierView, others: Sequence[OtherTier], incoming: Mapping[str, BackupManifest], now: datetime
) -> dict[str, int]:
    """What a crash left behind. While a tier cannot be read, what lacks its manifest here may be whole there."""
    if any(other.view is None for other in others):
        return {}
    return {
        found.label: found.stored_bytes
        for found in here.unfinished
        if found.label not in incoming and found.touched <= now - IN_FLIGHT
    }


# --- small --------------------------------------------------------------------------------------------------


def wal_of(backup: BackupManifest, by_label: Mapping[str, BackupManifest]) -> WalNeed:
    """From the start of its full on: an incremental only makes a restore faster, and may prove bad."""
    root = root_of(backup, by_label)
    end = max([backup.stop_lsn, *(needed.end for needed in backup.wal_ranges)])
    start = min([root.start_lsn, backup.start_lsn, *(needed.start for needed in backup.wal_ranges)])
    first = min([root.timeline, backup.timeline, *(needed.timeline for needed in backup.wal_ranges)])
    return WalNeed(first, start, end if end > start else Lsn(start.value + 1))


def _window_ends(fulls: Sequence[BackupManifest], window: timedelta) -> dict[str, datetime]:
    """When a window no longer begins with a full: once the next is older than it. Whole days, so that what is reckoned
    from it (locks) moves seldom. What comes after the newest is expected after as long as that took to come."""
    ordered = sorted(fulls, key=lambda full: full.finished_at)
    ends = {full.label: whole_day(later.finished_at + window) for full, later in pairwise(ordered)}
    if ordered:
        last = ordered[-1].finished_at
        usual = last - ordered[-2].finished_at if len(ordered) > 1 else _DAY
        ends[ordered[-1].label] = whole_day(last + usual + window)
    return ends


def _decision(here: TierView, backup: BackupManifest, reasons: Sequence[Reason]) -> Decision:
    marks = here.catalog.marks.get(backup.label)
    stored = marks.stored_bytes if marks else backup.stored_size
    newest = ", not the newest of a day, week or month that is kept" if is_full(backup) else ""
    otherwise = here.troubles[backup.label] or f"older than the recovery window{newest}"
    return Decision(backup.label, backup.kind, backup.finished_at, stored, tuple(reasons), otherwise)
