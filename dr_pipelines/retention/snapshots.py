"""What is kept of a file set on a tier and what goes, each with its reasons. Pure: views, rules and a time in,
decisions out.

Kept are: what is within the retention, or without versioning the newest; polls for as long as the plan says of them,
and until there is a snapshot of everything after them; what a person keeps; what is locked or paid for; what is not yet
on the tiers that it is due on; an unusual snapshot, and all that is older, until a person says that it is well; and,
whatever else holds, the newest, the newest that can be restored, and the newest that was proven.

What they share is `shared.py`'s.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from dr_pipelines.plan.file_sets import FileSetPlan
from dr_pipelines.plan.values import format_duration
from dr_pipelines.repository.snapshot_manifest import Snapshot
from dr_pipelines.retention.calendar import MONTH, Reason
from dr_pipelines.retention.decisions import Decision, Reasons, Retained, beside_the_rules, whole_day
from dr_pipelines.retention.shared import Stays, freed_by
from dr_pipelines.retention.view import SnapshotView
from dr_pipelines.storage.base import ObjectInfo

Send = Literal["everything", "monthly", "nothing"]


@dataclass(frozen=True)
class SnapshotRules:
    """Of one tier. `kept`: for how long a snapshot is, and `polls` those that are polls; not `versioned`: only the
    newest is. `interval`: the longest between two snapshots. What was let go can be undone for `grace`."""

    kept: timedelta
    interval: timedelta
    grace: timedelta
    versioned: bool = True
    polls: timedelta = timedelta(days=2)


@dataclass(frozen=True)
class SnapshotRetention(Retained):
    """Of a file set. `archives`: objects of archives that nothing needs, by archive; `lists`: lists of archives that
    nothing needs; `needed`: the keys of all that something does."""

    archives: Mapping[str, tuple[ObjectInfo, ...]] = field(default_factory=dict)
    lists: tuple[ObjectInfo, ...] = ()
    needed: frozenset[str] = frozenset()


@dataclass(frozen=True)
class OtherSnapshots:
    """Another tier of the file set: what is sent there, by which rules it keeps, and what it holds (None: it cannot be
    read)."""

    tier: str
    sends: Send
    rules: SnapshotRules
    view: SnapshotView | None


def rules_on(plan: FileSetPlan, tier: str) -> SnapshotRules:
    kept, interval = plan.retention_on(tier), plan.schedule.longest_interval
    return SnapshotRules(kept, interval, plan.grace, plan.versioning, min(kept, plan.keep_polls))


def plan_snapshots(
    here: SnapshotView,
    rules: SnapshotRules,
    now: datetime,
    *,
    others: Sequence[OtherSnapshots] = (),
    holds: Mapping[str, Sequence[Reason]] | None = None,
) -> SnapshotRetention:
    """`holds`: what the store itself has against removing a snapshot, by label. `others` matter for what is due there
    (of the primary), for keeps, for what was found unusual, and for knowing what is being copied."""
    views = [here, *(other.view for other in others if other.view is not None)]
    reasons = keep_by_rules(here.catalog.snapshots, here.restorable, rules, now)
    for label, reason in (
        *beside_the_rules(here.by_label, views, holds or {}, now),
        *_unusual(here, views, now),
        *(_due_elsewhere(here, others, now) if here.tier == "primary" else ()),
    ):
        reasons[label].append(reason)
    _spare_the_last(here, views, reasons, rules, now)
    elsewhere = {label: one for other in others if other.view for label, one in other.view.by_label.items()}
    unread = any(other.view is None for other in others)
    stays = Stays(here, elsewhere, unread, lambda some: kept_snapshots(some, rules, now), rules.grace, now)
    return SnapshotRetention(
        here.tier,
        now,
        tuple(_decisions(here, reasons, rules)),
        stays.prunable,
        stays.garbage,
        stays.unneeded_archives,
        stays.unneeded_lists,
        stays.needed,
    )


def keep_by_rules(
    snapshots: Sequence[Snapshot], usable: Collection[str], rules: SnapshotRules, now: datetime
) -> Reasons:
    """What a tier's retention keeps. `snapshots` oldest first."""
    reasons: Reasons = defaultdict(list)
    if rules.versioned:
        whole = [one.started_at for one in snapshots if not one.is_poll and one.label in usable]
        for snapshot in snapshots:
            kept, said = (rules.polls, "a poll of") if snapshot.is_poll else (rules.kept, "of")
            until = snapshot.finished_at + kept
            if until > now:
                reasons[snapshot.label].append(Reason(f"{said} the last {format_duration(kept)}", until))
            elif snapshot.is_poll and not (whole and whole[-1] > snapshot.started_at):
                reasons[snapshot.label].append(Reason("a poll, and no snapshot of everything since", whole_day(now)))
        return reasons
    # One that is newer than the newest good one may be repaired.
    for snapshot in reversed(snapshots):
        until = whole_day(max(now, snapshot.finished_at + rules.interval))
        reasons[snapshot.label].append(Reason("the newest, and no older version is kept", until))
        if snapshot.label in usable:
            break
    return reasons


def kept_snapshots(snapshots: Sequence[Snapshot], rules: SnapshotRules, now: datetime) -> frozenset[str]:
    """Of these, were they alone and whole on a tier: the labels that its rules would keep, the newest always."""
    reasons = keep_by_rules(snapshots, {snapshot.label for snapshot in snapshots}, rules, now)
    return frozenset(reasons) | {snapshot.label for snapshot in snapshots[-1:]}


def newest_of_months(snapshots: Iterable[Snapshot], now: datetime) -> Iterator[Snapshot]:
    """Of months that are over: what is newest in this one is not so for long. Polls do not stay."""
    some = sorted((one for one in snapshots if not one.is_poll), key=lambda one: one.started_at)
    by_month = {MONTH.start(one.started_at): one for one in some}
    return (one for month, one in by_month.items() if MONTH.later(month, 1) <= now)


def unusual_labels(views: Iterable[SnapshotView]) -> dict[str, datetime]:
    """What was found unusual and is not accepted, with when that was found: whichever tier says so."""
    found: dict[str, tuple[datetime, bool]] = {}
    for view in views:
        for label, marks in view.catalog.marks.items():
            if (seen := marks.anomaly()) is not None:
                told = (seen.at, seen.verdict == "fail")
                found[label] = max(found.get(label, told), told)
    return {label: at for label, (at, failed) in found.items() if failed}


# --- reasons ------------------------------------------------------------------------------------------------


def _unusual(here: SnapshotView, views: Sequence[SnapshotView], now: datetime) -> Iterator[tuple[str, Reason]]:
    """The newest that is unusual holds whatever is older: what is wrong since then is right there. It stays itself, or
    nobody would know."""
    flagged = unusual_labels(views)
    known = {label: one for view in views for label, one in view.by_label.items() if label in flagged}
    newest = max(known.values(), key=lambda one: one.started_at, default=None)
    if newest is None:
        return
    until = whole_day(now)
    said = f"{newest.label} is unusual: `dr files accept {newest.file_set} {newest.label}` when it is well"
    for snapshot in here.catalog.snapshots:
        if snapshot.started_at <= newest.started_at:
            yield snapshot.label, Reason(said, until)


def _due_elsewhere(here: SnapshotView, others: Sequence[OtherSnapshots], now: datetime) -> Iterator[tuple[str, Reason]]:
    """What another tier would keep and does not hold stays here, as long as it can be copied."""
    usable = here.restorable
    for other in others:
        if other.sends == "nothing":
            continue
        there = other.view
        good = usable | (there.restorable if there else frozenset())
        union = {**(there.by_label if there else {}), **here.by_label}
        some = sorted((one for one in union.values() if one.label in good), key=lambda one: one.started_at)
        if other.sends == "monthly":
            some = [*newest_of_months(some, now)]
        wanted = kept_snapshots(some, other.rules, now)
        let_go = {gone.manifest.label for gone in there.catalog.expired} if there else set()
        known = "yet" if there else "known to be"
        for label in (usable & wanted) - (there.restorable if there else frozenset()) - let_go:
            yield label, Reason(f"not {known} on {other.tier}", whole_day(now))


def _spare_the_last(
    here: SnapshotView, views: Sequence[SnapshotView], reasons: Reasons, rules: SnapshotRules, now: datetime
) -> None:
    """The newest, the newest that can be restored, and the newest that was proven, on whichever tier. Where versions go
    as soon as there is a newer one, each is soon another, and a lock for ever would stay."""
    until = None if rules.versioned else whole_day(now)
    snapshots = here.catalog.snapshots
    good = [one for one in snapshots if one.label in here.restorable]
    proven = {label for view in views for label, marks in view.catalog.marks.items() if marks.proven() is not None}
    for some, said in (
        (snapshots, "the newest"),
        (good, "the newest that can be restored"),
        ([one for one in good if one.label in proven and not here.catalog.failed_validation(one)], "the newest proven"),
    ):
        if some and not reasons.get(some[-1].label):
            reasons[some[-1].label].append(Reason(said, until))


def _decisions(here: SnapshotView, reasons: Reasons, rules: SnapshotRules) -> Iterator[Decision]:
    """With what goes along with each: an object that several name goes with the newest of them."""
    kept, polls = format_duration(rules.kept), format_duration(rules.polls)
    freed = freed_by(here.catalog.snapshots, {label for label, found in reasons.items() if found})
    for one in here.catalog.snapshots:
        found = tuple(reasons.get(one.label, ()))
        stored = one.stored_size if found else sum(freed.get(one.label, {}).values())
        old = f"a poll older than {polls}" if one.is_poll else f"older than {kept}"
        old = old if rules.versioned else "there is a newer one"
        yield Decision(one.label, None, one.finished_at, stored, found, here.troubles[one.label] or old)
