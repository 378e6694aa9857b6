"""Retention of file sets: each reason to keep a snapshot, what snapshots share, each way to take something back."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from dr_pipelines import operations
from dr_pipelines.errors import BackupNotFound, RepositoryError, UsageError
from dr_pipelines.operations import RetentionReport, RetentionTable
from dr_pipelines.plan import Plan
from dr_pipelines.progress import Silent
from dr_pipelines.replication.policy import due_backups
from dr_pipelines.repository.archive_lists import encode_list
from dr_pipelines.repository.file_layout import archive_list
from dr_pipelines.repository.marks import put_damage
from dr_pipelines.repository.snapshots import read_snapshots
from dr_pipelines.retention.snapshots import SnapshotRules, kept_snapshots
from dr_pipelines.storage.base import Body
from dr_pipelines.storage.memory import MemoryStore
from tests.support.faulty_store import FaultyStore
from tests.support.file_estate import SET, FileEstate, objects, plan

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
BOTH = ("primary", "secondary")


def lived(days: int = 7, **given: Any) -> FileEstate:
    estate = FileEstate(**given)
    for _ in range(days):
        estate.clock.advance(DAY)
        estate.take()
    return estate


def apply(
    estate: FileEstate, given: Plan | None = None, tier: str = "primary", *, yes: bool = True, **stores: Any
) -> RetentionReport:
    return operations.apply_retention(estate.site(given, **stores), SET, tier, Silent(), yes=yes)


def table(estate: FileEstate, given: Plan | None = None, tier: str = "primary") -> RetentionTable:
    return operations.plan_retention(estate.site(given), SET, tier)


def why(found: RetentionTable, label: str) -> str:
    return next(decision.why for decision in found.decisions if decision.label == label)


# --- reasons ---


def test_snapshots_are_kept_for_as_long_as_the_plan_says_and_then_go() -> None:
    estate = lived()
    found = table(estate)
    assert [decision.why for decision in found.decisions] == ["older than 4 days"] * 3 + ["of the last 4 days"] * 4
    assert found.thing == "snapshot"
    report = apply(estate)
    assert len(report.expired) == 3
    assert report.check.summary == "primary keeps 4 snapshots, and let 3 go"
    estate.require_whole()


def test_polls_go_sooner_than_snapshots_of_everything() -> None:
    estate = FileEstate()
    whole = []
    for _ in range(7):
        whole.append(estate.take().label)
        for _ in range(5):
            estate.clock.advance(4 * HOUR)
            estate.take(proven=False, poll=True)
        estate.clock.advance(4 * HOUR)
    given = plan(retention="6 days", poll="5 minutes", keep_polls="2 days", largest_share="30 %")
    found = table(estate, given)
    gone = [decision for decision in found.decisions if not decision.keep]
    # Polls count with the snapshot that they follow.
    assert [guard.name for guard in found.guards] == ["share"]
    assert "27 snapshots of 5 of the 7 chains" in found.guards[0].sentence
    assert {decision.why for decision in gone} == {"a poll older than 2 days", "older than 6 days"}
    assert len(apply(estate, given).expired) == len(gone) == 2 + 5 * 5
    assert set(whole[2:]) < estate.labels()
    assert why(table(estate, given), estate.manifests()[-1].label) == "a poll of the last 2 days"
    estate.require_whole()


def test_polls_stay_until_there_is_a_snapshot_of_everything() -> None:
    estate = FileEstate()
    first = estate.take()
    for _ in range(4):
        estate.clock.advance(DAY)
        estate.take(proven=False, poll=True)
    given = plan(retention="30 days", keep_polls="1 day")
    assert [d.why for d in table(estate, given).decisions[1:4]] == ["a poll, and no snapshot of everything since"] * 3
    damaged = estate.take()
    estate.store.delete(damaged.archives[-1].packs[0].key)
    assert not apply(estate, given).expired
    estate.clock.advance(DAY)
    last = estate.take()
    assert len(apply(estate, given).expired) == 4
    assert estate.labels() == {first.label, damaged.label, last.label}


def test_a_poll_is_not_what_is_sent_of_a_month() -> None:
    estate = lived(29)
    estate.clock.advance(DAY)
    estate.take(poll=True)
    estate.clock.advance(5 * DAY)
    estate.take()
    monthly = plan(("primary", "archive"), tiers={"archive": "1 year"})
    found = operations.plan_retention(estate.site(monthly, archive=lived(0).store), SET, "primary")
    assert [d.label[:8] for d in found.decisions if "not yet on archive" in d.why] == ["20260331"]
    source, target = read_snapshots(estate.store, SET), read_snapshots(MemoryStore(), SET)
    due = due_backups("monthly", source, target, now=estate.clock.now())
    assert [one.backup.label[:8] for one in due] == ["20260331"]


def test_without_versioning_only_the_newest_stays() -> None:
    estate = lived(4)
    report = apply(estate, plan(versioning=False))
    assert [one.label for one in estate.manifests()] == [report.table.decisions[-1].label]
    assert "no older version is kept" in why(report.table, report.table.decisions[-1].label)


def test_a_damaged_newest_is_not_the_only_one_that_stays() -> None:
    estate = lived(4)
    *_, before, newest = estate.manifests()
    estate.store.delete(newest.table.key if newest.changes is None else newest.changes.key)
    apply(estate, plan(versioning=False))
    assert estate.labels() == {before.label, newest.label}


def test_the_newest_and_the_newest_proven_stay() -> None:
    estate = FileEstate()
    proven = estate.take()
    for _ in range(3):
        estate.clock.advance(DAY)
        estate.take(proven=False)
    estate.clock.advance(2 * DAY + 12 * HOUR)
    found = table(estate, plan(retention="1 day"))
    assert [(d.label == proven.label, d.why) for d in found.decisions if d.keep] == [
        (True, "the newest proven"),
        (False, "the newest"),
    ]


def test_what_a_person_keeps_stays_with_all_that_it_shares() -> None:
    estate = lived()
    first = estate.manifests()[0]
    site = estate.site()
    assert operations.keep_backup(site, SET, first.label, until=None, reason="audit", by="ann") == ("primary",)
    for _ in range(6):
        apply(estate)
        estate.clock.advance(DAY)
        estate.take()
    assert "kept for ever by ann: audit" in why(table(estate), first.label)
    estate.require_whole()
    assert operations.release_backup(site, SET, first.label) == ("primary",)
    assert first.label in apply(estate).expired
    with pytest.raises(BackupNotFound, match="no tier has a snapshot"):
        operations.keep_backup(site, SET, "20200101T000000Z-snapshot", until=None, reason="x", by="ann")


def test_an_unusual_snapshot_holds_whatever_is_older_until_a_person_accepts_it() -> None:
    estate = lived()
    unusual = estate.manifests()[4]
    estate.replicate()
    estate.prove(unusual, "anomaly", good=False)
    for tier in BOTH:  # what one tier knows holds on all
        report = apply(estate, plan(BOTH), tier)
        assert not report.expired
        assert f"`dr files accept {SET} {unusual.label}`" in why(report.table, report.table.decisions[0].label)
    estate.clock.advance(10 * DAY)
    estate.take()
    assert unusual.label in {d.label for d in table(estate).decisions if d.keep}
    estate.clock.advance(HOUR)
    estate.prove(unusual, "anomaly")
    assert unusual.label in apply(estate).expired


def test_an_anomaly_says_nothing_of_stored_bytes() -> None:
    estate = FileEstate()
    made = estate.take(proven=False)
    estate.prove(made, "anomaly")
    assert read_snapshots(estate.store, SET).marks[made.label].proven() is None
    estate.prove(made)
    estate.clock.advance(HOUR)
    estate.prove(made, "anomaly", good=False)
    assert read_snapshots(estate.store, SET).marks[made.label].proven() is not None


def test_what_is_not_yet_on_the_secondary_stays() -> None:
    estate = lived(8)
    longer = plan(BOTH, tiers={"secondary": "30 days"})
    assert not apply(estate, longer).expired
    down = FaultyStore(estate.secondary, fail_at=1, stays_down=True)
    assert "not known to be on secondary" in apply(estate, longer, secondary=down).table.decisions[0].why
    estate.replicate()
    assert len(apply(estate, longer).expired) == 4


def test_only_the_newest_of_a_month_is_due_where_that_is_sent() -> None:
    estate = lived(35)
    monthly = plan(("primary", "archive"), tiers={"archive": "1 year"})
    found = operations.plan_retention(estate.site(monthly, archive=lived(0).store), SET, "primary")
    assert [d.label[:8] for d in found.decisions if "not yet on archive" in d.why] == ["20260331"]
    rules = SnapshotRules(kept=2 * DAY, interval=DAY, grace=DAY)
    assert len(kept_snapshots(estate.manifests(), rules, estate.clock.now())) == 2
    assert len(kept_snapshots(estate.manifests(), rules, estate.clock.now() + 90 * DAY)) == 1


# --- guards ---


def frozen_by(report: RetentionReport) -> set[str]:
    assert not report.expired
    return {guard.name for guard in report.table.guards}


def test_guards_hold_for_file_sets_too() -> None:
    estate = lived()
    incident = operations.open_incident(estate.site(), "a disk is gone", "ann")
    assert frozen_by(apply(estate)) == {"incident"}
    operations.close_incident(estate.site(), incident.id, "ann")
    twelve = lived(12)
    assert frozen_by(apply(twelve, plan(largest_share="20 %"), yes=False)) == {"share"}
    sentence = table(twelve, plan(largest_share="20 %")).guards[0].sentence
    assert sentence.startswith("8 of the 12 snapshots on primary would go at once")
    estate.store.put(f"files/{SET}/archives/what/000000.zst", Body.of(b"?"))
    assert frozen_by(apply(estate)) == {"problems"}
    twelve.clock.advance(4 * DAY)
    assert frozen_by(apply(twelve)) == {"silence"}
    assert f"dr files snapshot {SET}" in table(twelve).guards[0].hint


def test_unproven_snapshots_freeze() -> None:
    estate = FileEstate()
    for _ in range(6):
        estate.clock.advance(DAY)
        made = estate.take(proven=False)
    strict = plan(proven_within="2 days")
    assert frozen_by(apply(estate, strict)) == {"proof"}
    estate.prove(made)
    assert apply(estate, strict).expired


# --- what is shared ---


def is_shared(key: str) -> bool:
    return "/archives/" in key or "/lists/" in key


def test_archives_go_once_nothing_names_them_and_nothing_can_bring_that_back() -> None:
    estate = lived()
    before = objects(estate.store).keys()
    gone = {one.label for one in estate.manifests()[:3]}
    apply(estate)
    assert {key for key in before if is_shared(key)} <= objects(estate.store).keys()
    estate.clock.advance(2 * DAY)
    estate.take()
    report = apply(estate)
    assert gone == {*report.pruned.labels}
    assert report.pruned.archives > 0
    named = {stored.key for one in read_snapshots(estate.store, SET).snapshots for stored in one.objects}
    gone_now = {gone.manifest for gone in read_snapshots(estate.store, SET).expired}
    named |= {stored.key for one in gone_now for stored in one.objects}
    assert {key for key in objects(estate.store) if is_shared(key)} <= named
    assert {key for key in before if "/lists/" in key} - objects(estate.store).keys()
    assert table(estate).frees == 0


def shared_list(estate: FileEstate) -> tuple[str, set[str]]:
    """A list that the oldest snapshot names and the newest does not, and the objects of the archives that it lists."""
    oldest, *_, newest = estate.manifests()
    one = next(one for one in oldest.listed if one not in newest.listed)
    assert one.stored is not None
    return one.stored.key, {pack.key for pack in one.packs}


@pytest.mark.parametrize("how", ["gone", "damaged"])
def test_while_a_list_cannot_be_read_no_archive_goes(how: str) -> None:
    """A crash of the store lost it: what it lists nobody knows. A scrub finds that no tier has it and marks what names
    it; then snapshots go by the rules, and archives again once the last that names it is gone."""
    estate = lived()
    key, packs = shared_list(estate)
    kept = [one for one in estate.manifests() if key in {stored.key for stored in one.lists}]
    operations.keep_backup(estate.site(), SET, kept[0].label, until=estate.clock.now() + 9 * DAY, reason="it", by="me")
    archives = {key for key in objects(estate.store) if "/archives/" in key}
    estate.store.delete(key)
    if how == "damaged":
        estate.store.put(key, Body.of(b"?"))
    assert frozen_by(apply(estate)) == {"problems"}
    assert key in table(estate).guards[0].sentence
    for one in kept:
        put_damage(estate.store, one.layout, [key], at=estate.clock.now(), found_by="scrub")
    for _ in range(8):
        estate.clock.advance(DAY)
        estate.take()
        report = apply(estate)
        assert not report.table.guards and not report.pruned.archives
    assert kept[0].label in estate.labels()
    assert archives <= objects(estate.store).keys() >= packs
    assert len(estate.labels()) < 8
    for _ in range(5):
        estate.clock.advance(DAY)
        estate.take()
        report = apply(estate)
    assert kept[0].label not in estate.labels()
    assert report.pruned.archives
    assert not packs & objects(estate.store).keys()


def test_what_a_snapshot_in_progress_may_use_stays_however_long_it_takes() -> None:
    estate = lived()
    running = estate.begin()
    for _ in range(8):  # all that there was when it was begun is let go meanwhile, and could be pruned
        estate.clock.advance(DAY)
        running.put_archive()
        estate.take()
        apply(estate)
    running.commit()
    estate.require_whole()


def test_archives_of_an_interrupted_snapshot_wait_and_then_go() -> None:
    estate = lived(2)
    stamp = estate.crash().removesuffix("-snapshot")
    left = archive_list(SET, f"{stamp}-000000")
    estate.store.put(left, Body.of(encode_list([])))
    estate.clock.advance(DAY + 12 * HOUR)
    estate.take()
    assert not apply(estate).pruned.archives and left in objects(estate.store)
    estate.clock.advance(DAY)
    estate.take()
    assert apply(estate).pruned.labels == [f"{stamp}-snapshot"]
    named = {stored.key for one in estate.manifests() for stored in one.objects}
    assert left not in {key for key in objects(estate.store) if stamp in key} <= named


def test_a_copy_on_its_way_keeps_what_it_needs() -> None:
    estate = lived(3)
    two = plan(BOTH, tiers={"secondary": "30 days"})
    estate.replicate(cut=4)
    there = objects(estate.secondary).keys()
    assert any("/archives/" in key for key in there)
    for _ in range(4):
        estate.clock.advance(DAY)
        estate.take()
        operations.apply_retention(estate.site(two), SET, "secondary", Silent(), yes=True)
    assert there <= objects(estate.secondary).keys()
    estate.replicate()
    estate.require_whole(estate.secondary)


def test_nothing_is_pruned_when_a_snapshot_was_begun_since_it_was_planned() -> None:
    estate = lived()
    apply(estate)
    estate.clock.advance(2 * DAY)
    estate.take()
    before = objects(estate.store).keys()
    assert table(estate).archives

    class Meanwhile(FaultyStore):
        """The last listing of snapshots comes after one was begun."""

        def list(self, prefix: str = "") -> Any:
            self.listed = getattr(self, "listed", 0) + (prefix == f"files/{SET}/snapshots/")
            if self.listed == 2 and prefix.endswith("/snapshots/"):
                estate.begin()
            return super().list(prefix)

    report = apply(estate, primary=Meanwhile(estate.store))
    assert report.pruned.postponed
    assert {key for key in before if "manifest.json" not in key} <= objects(estate.store).keys()


def test_locks_follow_what_is_kept_with_what_it_shares() -> None:
    estate = lived()
    locked = plan(lock=True)
    apply(estate, locked)
    *_, newest = estate.manifests()
    until = next(d.until for d in table(estate, locked).decisions if d.label == newest.label)
    assert until is not None
    assert estate.store.stat(newest.layout.manifest).retain_until == until
    for named in newest.objects:
        lock = estate.store.stat(named.key).retain_until
        assert lock is not None and until <= lock <= until + DAY
    # Nothing has moved since, so no object is asked again.
    counted = FaultyStore(estate.store)
    apply(estate, locked, primary=counted)
    assert counted.calls < 40 + len(estate.manifests())
    # A lock holds up an archive, and nothing else.
    estate.clock.advance(20 * DAY)
    estate.take()
    held = estate.manifests()[0].archives[0].packs[0].key
    estate.store.extend_lock(held, estate.clock.now() + 30 * DAY)
    apply(estate)
    estate.clock.advance(2 * DAY + HOUR)
    estate.take()
    report = apply(estate)
    assert report.pruned.locked == (held in objects(estate.store))
    estate.require_whole()


# --- what comes back ---


def test_what_was_let_go_comes_back_until_it_is_pruned() -> None:
    estate = lived()
    before = estate.labels()
    expired = apply(estate).expired
    with pytest.raises(UsageError, match="is no expired snapshot"):
        operations.undo_expiry(estate.site(), SET, "primary", ["20200101T000000Z-snapshot"])
    assert operations.undo_expiry(estate.site(), SET, "primary", [expired[0]]) == [expired[0]]
    assert not apply(estate).expired  # it is held
    assert {*operations.undo_expiry(estate.site(), SET, "primary")} == {*expired[1:]}
    assert estate.labels() == before
    estate.require_whole()


def test_what_has_lost_an_archive_does_not_come_back() -> None:
    estate = lived()
    first = estate.manifests()[0]
    apply(estate)
    estate.store.delete(first.archives[0].packs[0].key)
    with pytest.raises(RepositoryError, match="is pruned already"):
        operations.undo_expiry(estate.site(), SET, "primary", [first.label])
    assert first.label not in estate.labels()
