"""Each reason to keep a backup, each guard, each way to take something back, one at a time."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dr_pipelines import operations
from dr_pipelines.clock import FixedClock
from dr_pipelines.errors import BackupNotFound, NotProven, RepositoryError, UsageError
from dr_pipelines.lsn import Timeline
from dr_pipelines.operations import RetentionReport, RetentionTable
from dr_pipelines.plan.policies import RetentionPlan
from dr_pipelines.progress import Silent
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.layout import BackupKind, BackupLayout, WalLayout, wal_damage
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.repository.repository import Repository
from dr_pipelines.retention.calendar import representatives
from dr_pipelines.retention.planner import kept_labels
from dr_pipelines.retention.view import view_of
from dr_pipelines.storage.base import Body
from dr_pipelines.storage.memory import MemoryStore
from tests.support.archives import manifest
from tests.support.estate import RULES, SEGMENT, SERVER, Estate, contents, plan
from tests.support.faulty_store import FaultyStore

DAY, HOUR = timedelta(days=1), timedelta(hours=1)


def fulls_from(first: datetime, days: int) -> list[BackupManifest]:
    """One at two o'clock of each day."""
    times = [first + n * DAY for n in range(days)]
    return [manifest(f"{at:%Y%m%dT%H%M%SZ}-full", started_at=at, finished_at=at + timedelta(hours=1)) for at in times]


def lived(days: int = 6, **given: Any) -> Estate:
    estate = Estate(**given)
    for _ in range(days):
        estate.work(4, 3)
        estate.back_up(estate.back_up())
        estate.work(18, 5)
    return estate


def apply(
    estate: Estate, tier: str = "primary", *, yes: bool = True, early: bool = False, **given: Any
) -> RetentionReport:
    stores = {name: given.pop(name) for name in ("primary", "secondary") if name in given}
    clock = given.pop("clock", None)
    site = estate.site(given.pop("plan", plan()), clock=clock, **stores)
    return operations.apply_retention(site, SERVER, tier, Silent(), yes=yes, early=early)


def table(estate: Estate, given: Any = None) -> RetentionTable:
    return operations.plan_retention(estate.site(given or plan()), SERVER, "primary")


def why(found: RetentionTable, label: str) -> str:
    return next(decision.why for decision in found.decisions if decision.label == label)


# --- the calendar ---


def test_the_newest_of_each_day_week_and_month() -> None:
    fulls = fulls_from(datetime(2025, 11, 1, 2, tzinfo=UTC), 80)  # to 2026-01-19, a Monday
    rules = RetentionPlan(daily=2, weekly=3, monthly=2)
    now = fulls[-1].finished_at
    found = {label: reason for label, reason in representatives(fulls, [b.label for b in fulls], {}, rules, now)}
    assert {label[:8]: reason.text for label, reason in found.items()} == {
        "20260119": "monthly 2026-01",
        "20260118": "weekly 2026-W03",
        "20260111": "weekly 2026-W02",
        "20251231": "monthly 2025-12",
    }
    assert found["20251231T020000Z-full"].until == datetime(2026, 2, 2, tzinfo=UTC)
    assert found["20260111T020000Z-full"].until == datetime(2026, 1, 27, tzinfo=UTC)


def test_iso_weeks_belong_to_iso_years() -> None:
    fulls = fulls_from(datetime(2026, 12, 31, 2, tzinfo=UTC), 4)  # Thursday of 2026-W53 to Sunday
    rules = RetentionPlan(daily=0, weekly=2, monthly=0)
    found = dict(representatives(fulls, [b.label for b in fulls], {}, rules, fulls[-1].finished_at))
    assert [reason.text for reason in found.values()] == ["weekly 2026-W53"]


def test_days_without_a_full_do_not_count() -> None:
    fulls = fulls_from(datetime(2026, 1, 1, 2, tzinfo=UTC), 2) + fulls_from(datetime(2026, 1, 20, 2, tzinfo=UTC), 1)
    rules = RetentionPlan(daily=3, weekly=0, monthly=0, window=timedelta(hours=1))
    assert kept_labels(fulls, rules, datetime(2026, 1, 20, 4, tzinfo=UTC)) == {b.label for b in fulls}


def test_a_damaged_full_represents_nothing_and_stays_only_where_there_is_no_other() -> None:
    fulls = fulls_from(datetime(2026, 1, 1, 2, tzinfo=UTC), 3)
    again = fulls_from(datetime(2026, 1, 3, 9, tzinfo=UTC), 1)
    rules = RetentionPlan(daily=2, weekly=0, monthly=0)
    good = [fulls[0].label, fulls[2].label]
    troubles = {fulls[1].label: "is damaged", again[0].label: "is damaged"}
    found = dict(representatives([*fulls, *again], good, troubles, rules, again[0].finished_at))
    assert {label: reason.text for label, reason in found.items()} == {
        fulls[2].label: "daily 2026-01-03",
        fulls[1].label: "daily 2026-01-02 has no other; is damaged",
        fulls[0].label: "daily 2026-01-01",
    }


# --- reasons ---


def test_every_backup_has_its_reasons() -> None:
    estate = lived()
    found = table(estate)
    said = {decision.label[6:8] + decision.label[-5:]: decision.why for decision in found.decisions}
    assert said["02-full"] == "older than the recovery window, not the newest of a day, week or month that is kept"
    assert said["02-incr"] == "older than the recovery window"
    assert said["05-full"].startswith("the recovery window begins with it; ")
    assert "-incr builds on it" in said["05-full"]
    assert said["06-full"].startswith("recovery window; daily 2026-03-06")
    assert "daily 2026-03-07; weekly 2026-W10; monthly 2026-03" in said["07-full"]


def test_a_plan_changes_nothing() -> None:
    estate = lived()
    before = [*estate.store.list()]
    assert table(estate).expire
    assert [*estate.store.list()] == before


def test_an_incremental_that_is_kept_keeps_its_chain_and_its_wal() -> None:
    estate = lived()
    full, incremental = estate.manifests()[:2]
    assert incremental.parent == full.label
    site = estate.site(plan())
    until = estate.clock.now() + 30 * DAY
    kept = operations.keep_backup(site, SERVER, incremental.label, until=until, reason="audit", by="ann")
    assert kept == ("primary",)
    for _ in range(6):
        apply(estate)
        estate.work(4, 3)
        estate.back_up()
        estate.work(18, 5)
    assert f"kept until {until:%Y-%m-%d} by ann: audit" in why(table(estate), incremental.label)
    assert estate.judge().restores(incremental)
    assert operations.release_backup(site, SERVER, incremental.label) == ("primary",)
    apply(estate)
    assert incremental.label not in {b.label for b in estate.manifests()}


def test_a_keep_ends_by_itself() -> None:
    estate = lived()
    label = estate.manifests()[0].label
    until = estate.clock.now() + DAY
    operations.keep_backup(estate.site(plan()), SERVER, label, until=until, reason="audit", by="ann")
    estate.clock.advance(2 * DAY)
    assert not next(d for d in table(estate).decisions if d.label == label).keep


def test_a_keep_names_the_tiers_that_it_could_not_be_written_on() -> None:
    estate = lived(1)
    estate.replicate()
    label = estate.manifests()[0].label
    two = plan(tiers=("primary", "secondary"))
    down = FaultyStore(estate.secondary, fail_at=1, stays_down=True)
    with pytest.raises(NotProven, match=r"kept on primary, and could not be on secondary: .* fails") as caught:
        operations.keep_backup(estate.site(two, secondary=down), SERVER, label, until=None, reason="x", by="ann")
    assert "again" in (caught.value.hint or "")
    with pytest.raises(BackupNotFound, match="no tier has"):
        operations.keep_backup(estate.site(two), SERVER, "20200101T000000Z-full", until=None, reason="x", by="ann")


def test_a_keep_on_one_tier_holds_on_the_others() -> None:
    estate = lived()
    estate.replicate()
    label = estate.manifests()[0].label
    operations.keep_backup(estate.site(plan()), SERVER, label, until=None, reason="x", by="ann")
    report = apply(estate, "secondary", plan=plan(tiers=("primary", "secondary")))
    assert label not in report.expired
    assert report.expired


def test_what_is_locked_waits() -> None:
    estate = lived(lock_days=6)
    report = apply(estate)
    assert not report.expired
    assert "locked until 2026-03-08" in why(report.table, estate.manifests()[0].label)
    estate.clock.advance(DAY)
    assert apply(estate).expired


def test_packs_that_are_still_locked_stay_until_their_lock_ends() -> None:
    estate = lived()
    first = estate.manifests()[0]
    locked = estate.clock.now() + 4 * DAY
    estate.store.extend_lock(first.archive.packs[0].key, locked)
    apply(estate)
    estate.clock.advance(2 * DAY)
    report = apply(estate)
    assert first.label not in report.pruned.labels
    assert (report.pruned.locked, report.pruned.locked_until) == (1, locked)
    assert first.archive.packs[0].key in contents(estate.store)
    estate.clock.advance(2 * DAY + timedelta(hours=1))
    estate.prove(estate.back_up())
    assert first.label in apply(estate).pruned.labels


def test_locks_follow_what_is_kept() -> None:
    estate = lived()
    full = estate.manifests()[-2]
    locked = plan(lock=True)
    apply(estate, plan=locked)
    until = next(d.until for d in table(estate, locked).decisions if d.label == full.label)
    assert until is not None
    assert estate.store.stat(full.layout.manifest).retain_until == until
    assert all(estate.store.stat(named.key).retain_until == until for named in full.objects)
    operations.keep_backup(estate.site(locked), SERVER, full.label, until=until + 90 * DAY, reason="x", by="ann")
    apply(estate, plan=locked)
    assert estate.store.stat(full.archive.packs[0].key).retain_until == until + 90 * DAY
    # Nothing has moved since, so no object is asked again.
    counted = FaultyStore(estate.store)
    apply(estate, plan=locked, primary=counted)
    assert counted.calls < 40 + len(estate.manifests())


def test_locks_follow_while_nothing_is_removed() -> None:
    """An incident may last longer than what was put before it is locked."""
    estate = lived()
    full = estate.manifests()[-2]
    locked = plan({**RULES, "weekly": 0, "monthly": 0}, lock=True)
    apply(estate, plan=locked)
    operations.keep_backup(estate.site(locked), SERVER, full.label, until=None, reason="evidence", by="ann")
    operations.open_incident(estate.site(locked), "somebody was in", "ann")
    for _ in range(10):
        estate.work(10 * 24, 1)
        assert "incident" in frozen_by(apply(estate, plan=locked))
        until = estate.store.stat(full.archive.packs[0].key).retain_until
        assert until is not None
        assert until > estate.clock.now()
    assert apply(estate, plan=locked).evidence is None
    estate.clock.advance(-1000 * DAY)
    assert "clock" in frozen_by(apply(estate, plan=locked))


def test_what_is_paid_for_waits_unless_a_person_says_so() -> None:
    estate = Estate()
    estate.store = ClassedStore("primary", estate.clock)
    operations_ready(estate)
    for _ in range(6):
        estate.work(4, 3)
        estate.back_up()
        estate.work(19, 5)
    found = table(estate)
    first = estate.manifests()[0].label
    assert why(found, first).endswith("GLACIER is paid for until 2026-05-31")
    assert found.early[first].cost > 0
    assert not apply(estate).expired
    assert first in apply(estate, early=True).expired


class ClassedStore(MemoryStore):
    """Lists packs as the service does that holds them in a colder class."""

    def list(self, prefix: str = "") -> Any:
        return (
            replace(info, storage_class="GLACIER") if "/packs/" in info.key else info for info in super().list(prefix)
        )


def operations_ready(estate: Estate) -> None:
    estate.store.put("repository.json", Body.of(b'{"format": 1, "id": "x"}'))


# --- several tiers ---


def test_what_is_not_yet_on_the_secondary_stays() -> None:
    estate = lived(8)
    longer = {**RULES, "tiers": {"secondary": {"daily": 7, "window": "7 days"}}}
    two = plan(longer, ("primary", "secondary"))
    report = apply(estate, plan=two)
    stays = [d for d in report.table.decisions if "not yet on secondary" in d.why]
    assert len([d for d in stays if d.kind is BackupKind.FULL]) >= 6
    estate.replicate()
    assert len(apply(estate, plan=two).expired) >= 6


def test_a_tier_that_cannot_be_read_holds_what_is_due_there() -> None:
    estate = lived(8)
    estate.replicate()
    two = plan({**RULES, "tiers": {"secondary": {"daily": 7}}}, ("primary", "secondary"))
    down = FaultyStore(estate.secondary, fail_at=1, stays_down=True)
    report = apply(estate, plan=two, secondary=down)
    assert report.table.unread
    assert any("not known to be on secondary" in d.why for d in report.table.decisions)
    # Known to be there, they go.
    assert {label[-4:] for label in apply(estate, plan=two).expired} == {"full"}


def test_a_copy_that_is_on_its_way_keeps_its_parent() -> None:
    estate = lived()
    estate.replicate()
    two = plan(tiers=("primary", "secondary"))
    full, incremental = estate.manifests()[:2]
    estate.secondary.delete(incremental.layout.manifest)
    estate.secondary.put(incremental.layout.claim("cd"), Body.of(b"{}"))
    report = apply(estate, "secondary", plan=two)
    assert "is being copied and builds on it" in why(report.table, full.label)
    assert incremental.label not in report.table.garbage


# --- guards ---


def frozen_by(report: RetentionReport) -> set[str]:
    assert not report.expired
    assert not report.pruned.labels
    return {guard.name for guard in report.table.guards}


def test_an_open_incident_freezes_everything() -> None:
    estate = lived()
    estate.replicate()
    two = plan(tiers=("primary", "secondary"))
    incident = operations.open_incident(estate.site(two), "a disk is gone", "ann")
    assert [found.id for found in operations.list_incidents(estate.site(two))] == [incident.id]
    before = contents(estate.store)
    assert frozen_by(apply(estate, plan=two)) == {"incident"}
    assert contents(estate.store) == before
    operations.close_incident(estate.site(two), incident.id, "ann")
    assert operations.list_incidents(estate.site(two)) == []
    assert apply(estate, plan=two).expired
    with pytest.raises(UsageError, match="no incident"):
        operations.close_incident(estate.site(two), incident.id, "ann")


def test_an_incident_that_only_another_tier_knows_freezes_too() -> None:
    estate = lived()
    estate.replicate()
    operations.open_incident(estate.site(plan()), "a disk is gone", "ann")
    assert frozen_by(apply(estate, "secondary", plan=plan(tiers=("primary", "secondary")))) == {"incident"}


def test_unproven_backups_freeze() -> None:
    estate = Estate()
    for _ in range(6):
        estate.work(4, 3)
        estate.back_up(proven=False)
        estate.work(19, 5)
    strict = plan({**RULES, "proven_within": "2 days"})
    assert frozen_by(apply(estate, plan=strict)) == {"proof"}
    estate.prove(estate.manifests()[0])
    assert frozen_by(apply(estate, plan=strict)) == {"proof"}
    estate.prove(estate.manifests()[-1])
    assert apply(estate, plan=strict).expired


def test_a_proof_of_what_cannot_be_restored_any_more_is_none() -> None:
    estate, strict = lived(), plan({**RULES, "proven_within": "2 days"})
    assert apply(estate, plan=strict).expired
    for made in estate.manifests():
        estate.store.delete(made.archive.packs[0].key)
    assert frozen_by(apply(estate, plan=strict)) == {"proof"}


def test_where_backups_are_restored_to_prove_them_reading_is_not_enough() -> None:
    estate, strict = lived(), plan({**RULES, "proven_within": "2 days"})
    *_, older, newest = estate.manifests()
    estate.prove(older, "validate")
    assert apply(estate.clone(), plan=strict).expired
    estate.clock.advance(HOUR)
    estate.prove(older, "validate", good=False)
    estate.prove(newest)
    assert frozen_by(apply(estate, plan=strict)) == {"proof by restore"}
    assert operations.prove_if_stale(estate.site(strict), "shop", "primary", Silent()) == []
    estate.clock.advance(HOUR)
    estate.prove(newest, "validate")
    assert apply(estate, plan=strict).expired


def test_stopped_backups_freeze() -> None:
    estate = lived()
    estate.clock.advance(2 * DAY)
    assert apply(estate).expired
    estate.clock.advance(2 * DAY)
    assert frozen_by(apply(estate)) == {"silence"}


@pytest.mark.parametrize("jump", [-30, -2, 2, 30])
def test_a_clock_that_is_not_the_stores_freezes(jump: int) -> None:
    estate = lived()
    report = apply(estate, clock=FixedClock(estate.clock.now() + jump * timedelta(hours=1)))
    assert "clock" in frozen_by(report)


def test_a_clock_that_jumped_back_everywhere_freezes() -> None:
    estate = lived(8)
    estate.clock.advance(-3 * DAY)
    assert "clock" in frozen_by(apply(estate))


def test_what_is_not_understood_freezes() -> None:
    estate = lived()
    made = estate.manifests()[2]
    key = made.layout.manifest
    estate.store.put(key, Body.of(b"{}"), if_absent=False)
    assert frozen_by(apply(estate)) == {"problems"}
    assert key in contents(estate.store)
    # Once a scrub has found that no tier has it, it stands in the way of nothing.
    estate.damage(made)
    report = apply(estate)
    assert report.expired
    assert not report.table.guards
    assert key in contents(estate.store)


def test_more_than_the_share_needs_a_person_but_an_ordinary_day_does_not() -> None:
    estate = lived(12)
    some = plan({**RULES, "largest_share": "20 %"})
    assert frozen_by(apply(estate, plan=some, yes=False)) == {"share"}
    assert apply(estate, plan=some, yes=True).expired
    for _ in range(14):
        estate.work(4, 3)
        estate.back_up(estate.back_up())
        estate.work(18, 5)
        assert not apply(estate, plan=some, yes=False).table.guards


def test_a_frozen_pass_is_on_record_once() -> None:
    estate = lived()
    operations.open_incident(estate.site(plan()), "x", "ann")
    records = [apply(estate).evidence for _ in range(3)]
    assert records[0] is not None
    assert records[1:] == [None, None]


# --- what goes, and what comes back ---


def test_garbage_waits_until_it_is_surely_no_backup_that_is_being_taken() -> None:
    estate = lived(3)
    label = estate.crash()
    assert label not in apply(estate).table.garbage
    estate.clock.advance(2 * DAY)
    report = apply(estate)
    assert label in report.pruned.labels
    assert not [key for key in contents(estate.store) if label in key]


def test_what_was_let_go_comes_back_with_what_it_builds_on() -> None:
    estate = lived()
    before = {b.label for b in estate.manifests()}
    expired = apply(estate).expired
    incremental = next(label for label in expired if label.endswith("incr"))
    site = estate.site(plan())
    back = operations.undo_expiry(site, SERVER, "primary", [incremental])
    assert back[-1] == incremental
    assert len(back) == 2
    operations.undo_expiry(site, SERVER, "primary")
    assert {b.label for b in estate.manifests()} == before
    assert all(estate.judge().restores(one) for one in estate.manifests())
    with pytest.raises(UsageError, match="is no expired backup"):
        operations.undo_expiry(site, SERVER, "primary", [incremental])


def test_what_is_pruned_does_not_come_back() -> None:
    estate = lived()
    label = apply(estate).expired[0]
    pack = BackupLayout(SERVER, label).pack(0, ".zst")
    estate.store.delete(pack)
    with pytest.raises(RepositoryError, match="is pruned already"):
        operations.undo_expiry(estate.site(plan()), SERVER, "primary", [label])
    assert label not in {b.label for b in estate.manifests()}


def test_a_keep_that_comes_while_the_plan_is_carried_out_counts() -> None:
    estate = lived()
    label = next(d.label for d in reversed(table(estate).decisions) if not d.keep)
    report = apply(estate, primary=KeepsMeanwhile(estate, label))
    assert report.refused[label] == "somebody keeps it since the plan was made"
    assert label in {b.label for b in estate.manifests()}


class KeepsMeanwhile(FaultyStore):
    """Somebody keeps a backup just before the first is let go."""

    def __init__(self, estate: Estate, label: str) -> None:
        super().__init__(estate.store)
        self._estate, self._label, self._done = estate, label, False

    def list(self, prefix: str = "") -> Any:
        if prefix.endswith("/keeps/") and not self._done:
            self._done = True
            site = self._estate.site(plan())
            operations.keep_backup(site, SERVER, self._label, until=None, reason="now", by="ann")
        return super().list(prefix)


@pytest.mark.parametrize("when", ["as its manifest goes", "after that"])
def test_a_keep_is_never_overtaken_by_expiry(when: str) -> None:
    """Either it holds, or whoever said it is told that the backup is gone."""
    estate = lived()
    label = next(d.label for d in reversed(table(estate).decisions) if not d.keep)
    said: list[str] = []

    def keep() -> None:
        try:
            operations.keep_backup(estate.site(plan()), SERVER, label, until=None, reason="now", by="ann")
        except BackupNotFound:
            said.append("gone")

    class Overtaken(FaultyStore):
        def delete(self, key: str) -> None:
            if key == BackupLayout(SERVER, label).manifest and when == "as its manifest goes":
                keep()
            super().delete(key)

    report = apply(estate, primary=Overtaken(estate.store))
    if when == "after that":
        keep()
    kept = label in {made.label for made in estate.manifests()}
    assert kept == (label in report.refused) == (said == [])


class ExpiresMeanwhile(FaultyStore):
    """The backup is let go just before its keep is put."""

    def put(self, key: str, body: Body, **how: Any) -> Any:
        if "/keeps/" in key:
            super().delete(f"{key.partition('/keeps/')[0]}/manifest.json")
        return super().put(key, body, **how)


def test_whoever_keeps_what_goes_at_that_moment_is_told() -> None:
    estate = lived(2)
    site = estate.site(plan(), primary=ExpiresMeanwhile(estate.store))
    label = estate.manifests()[0].label
    with pytest.raises(BackupNotFound):
        operations.keep_backup(site, SERVER, label, until=None, reason="now", by="ann")


def test_wal_goes_only_when_it_was_unneeded_for_the_grace() -> None:
    estate = lived(8)
    assert apply(estate).pruned.wal_objects == 0
    estate.work(20, 1)
    assert apply(estate).pruned.wal_objects == 0
    estate.work(8, 1)
    assert apply(estate).pruned.wal_objects > 0


def test_a_timeline_that_went_back_to_just_behind_an_old_full_can_be_restored() -> None:
    """It was left in the segment in which that full ends, so where it begins lies before it, as far as keys tell."""
    estate, rules = Estate(), plan({**RULES, "weekly": 0, "monthly": 0})
    estate.work(1, 1)
    estate.back_up()
    target = estate.instants[-1]
    for _ in range(2):
        estate.work(22, 12)
        estate.back_up()
        apply(estate, plan=rules)
    estate.promote(target)
    for turn in range(32):
        estate.work(3, 2)
        judge, since = estate.judge(), estate.clock.now() - 2 * DAY
        reached = [instant for instant in estate.instants if instant.at >= since and judge.reaches(instant)]
        apply(estate, plan=rules)
        judge = estate.judge()
        assert [instant for instant in reached if not judge.reaches(instant)] == []
        if turn % 8 == 7:
            estate.back_up()


def test_wal_of_a_timeline_that_went_back_behind_every_full_stays_until_it_has_its_own() -> None:
    estate, rules = Estate(), plan({**RULES, "weekly": 0, "monthly": 0, "window": "4 days"})
    estate.work(1, 2)
    long_ago = estate.instants[-1]
    for _ in range(9):
        estate.work(22, 12)
        estate.back_up()
        apply(estate, plan=rules)
    estate.promote(long_ago)  # with a full that only the archive has
    estate.work(1, 9)
    began = estate.lsn
    for _ in range(9):
        estate.work(8, 2)
        apply(estate, plan=rules)
    kept = Repository(estate.store, Codec(1), "primary").wal(SERVER, "1", SEGMENT).ranges()
    assert any(part.timeline == Timeline(2) and part.start <= began < part.end for part in kept)


def test_a_full_that_was_taken_while_a_clock_was_behind_begins_no_window_alone() -> None:
    estate, rules = Estate(), plan({**RULES, "daily": 0, "weekly": 0, "monthly": 0})
    estate.back_up()
    for _ in range(8):
        estate.work(8, 3)
    estate.clock.advance(-300 * DAY)
    estate.back_up()
    estate.clock.advance(300 * DAY)
    for _ in range(3):
        estate.work(2, 2)
        judge, since = estate.judge(), estate.clock.now() - 2 * DAY
        reached = [instant for instant in estate.instants if instant.at >= since and judge.reaches(instant)]
        assert not apply(estate, plan=rules).table.guards
        judge = estate.judge()
        assert [instant for instant in reached if not judge.reaches(instant)] == []


def test_a_damaged_head_of_wal_is_not_there() -> None:
    estate = Estate()
    estate.work(1, 1)
    full = estate.back_up()
    primary = Repository(estate.store, Codec(1), "primary")
    assert view_of(primary, SERVER).restorable == {full.label}
    [head] = [key for key in contents(estate.store) if ".partial." in key]
    estate.store.put(wal_damage(head), Body.of(b"{}\n"))
    assert view_of(primary, SERVER).restorable == frozenset()


def test_wal_without_its_description_stops_nothing() -> None:
    estate = lived()
    estate.make_anew()
    estate.work(4, 5)
    estate.store.delete(WalLayout(SERVER, "2").description)
    assert apply(estate).expired
    assert [key for key in contents(estate.store) if "/wal/2/" in key]


def test_an_old_system_goes_whole_and_a_new_stream_stays() -> None:
    estate = lived(3)
    estate.make_anew()
    estate.store.put(WalLayout(SERVER, "3").description, Body.of(b'{"segment_size": 1048576}'))
    for _ in range(9):
        estate.work(4, 3)
        estate.back_up()
        estate.work(19, 5)
        estate.store.delete(WalLayout(SERVER, "3").description)
        estate.store.put(WalLayout(SERVER, "3").description, Body.of(b'{"segment_size": 1048576}'))
        apply(estate, plan=plan({**RULES, "weekly": 0, "monthly": 0}))
    keys = contents(estate.store)
    assert not [key for key in keys if "/wal/1/" in key]
    assert WalLayout(SERVER, "2").description in keys
    assert WalLayout(SERVER, "3").description in keys


def test_nothing_is_ever_removed_but_what_is_known() -> None:
    estate = lived(4)
    foreign = ["servers/shop/wal/1/notes.txt", "servers/other/backups/20200101T000000Z-full/packs/000000.zst", "mine"]
    for key in foreign:
        estate.store.put(key, Body.of(b"x"))
    for _ in range(6):
        estate.work(4, 3)
        estate.back_up()
        estate.work(19, 5)
        apply(estate)
    assert set(foreign) <= contents(estate.store).keys()


def test_an_empty_tier_has_nothing_to_say() -> None:
    report = apply(Estate())
    assert not report.table.guards
    assert not report.table.decisions


def test_the_last_restorable_full_stays_whatever_the_rules() -> None:
    estate = lived(3)
    for one in estate.manifests()[2:]:
        estate.damage(one)
    estate.clock.advance(2 * DAY)
    nothing = plan({**RULES, "daily": 0, "weekly": 0, "monthly": 0, "window": "1 hour"})
    report = apply(estate, plan=nothing)
    first = estate.manifests()[0]
    assert estate.judge().restores(first)
    assert first.label not in report.expired


def test_the_last_full_that_a_restore_proved_stays_until_another_is_proven() -> None:
    few = plan({**RULES, "daily": 1, "weekly": 0, "monthly": 0, "window": "1 hour", "proven_within": "9 days"})
    estate = lived(4)
    good, bad = [one for one in estate.manifests() if one.kind is BackupKind.FULL][-2:]
    estate.prove(good, "validate")
    assert good.label not in apply(estate.clone(), plan=few).expired, "nobody has restored the newest yet"
    estate.prove(bad, "validate", good=False)
    assert good.label not in apply(estate.clone(), plan=few).expired
    estate.clock.advance(HOUR)
    estate.prove(bad, "validate")
    assert good.label in apply(estate, plan=few).expired
