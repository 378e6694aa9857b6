"""Packs of files grow old on a tier: each archive by its own age, once, whatever snapshots name it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from dr_pipelines import operations
from dr_pipelines.clock import FixedClock
from dr_pipelines.operations import AgingReport
from dr_pipelines.progress import Silent
from dr_pipelines.replication.aging import AT_HAND, TOO_SHORT, AgedClass, AgingRules, Lasting
from dr_pipelines.replication.file_aging import plan_file_aging
from dr_pipelines.repository.layout import Role, role_of
from dr_pipelines.repository.repository import Repository
from dr_pipelines.repository.snapshot_manifest import ArchiveList, FileArchive, SnapshotManifest
from dr_pipelines.repository.snapshots import begin_snapshot, read_snapshots
from dr_pipelines.storage.memory import MemoryStore
from tests.support.file_tiers import BEGIN, DOCS, empty, file_site, put_archive, take

DAY = timedelta(days=1)
IA, GLACIER = {"name": "STANDARD_IA", "after": "30 days"}, {"name": "GLACIER", "after": "60 days"}


class ColdSet:
    """A snapshot a day on one tier, each with a file that is new, beside all that the one before names."""

    def __init__(self, tier: str = "archive", classes: Sequence[Any] = (GLACIER,), *, retention: str = "1 day") -> None:
        self.clock, self.tier = FixedClock(BEGIN), tier
        self.store = MemoryStore(tier, self.clock, classes=("STANDARD_IA", "GLACIER"), offline=("GLACIER",))
        self.repository: Repository = empty(tier, self.store)
        tiers = {"primary": empty("primary").store, tier: self.store}
        place = {"type": "s3", "profile": "aws", "bucket": "cold-bucket", "classes": [*classes]}
        self.site = file_site(tiers, clock=self.clock, more_stores={tier: place}, schedule="daily", retention=retention)
        self.taken: list[SnapshotManifest] = []

    def live(self, days: int, *, keeping: bool = True) -> None:
        """With `keeping`, what was there stays."""
        for _ in range(days):
            base = self.taken[-1] if self.taken and keeping else None
            name = f"{len(self.taken)}"
            made = take(self.repository, self.clock.now(), {name: name.encode() * 100}, base, keeps_table=False)
            self.taken.append(made)
            self.clock.advance(DAY)

    def age(self, *, dry_run: bool = False) -> AgingReport:
        return operations.age_storage(self.site, DOCS, self.tier, Silent(), dry_run=dry_run)

    def own(self, day: int) -> FileArchive:
        """What the snapshot of that day put."""
        return self.taken[day].archives[-1]

    def class_of(self, archive: FileArchive) -> str | None:
        for info in self.store.list():
            assert role_of(info.key) is Role.BULK or info.storage_class is None, info.key
        (found,) = {self.store.stat(pack.key).storage_class for pack in archive.packs}
        return found


def test_an_archive_moves_once_at_its_own_age_though_the_newest_snapshot_names_it() -> None:
    cold = ColdSet(retention="400 days")
    cold.live(61)
    assert {archive.name for archive in cold.taken[-1].archives} >= {cold.own(0).name, cold.own(1).name}
    report = cold.age()
    assert report.aged is not None and report.aged.objects == 2 == len({move.key for move in report.plan.moves})
    assert [cold.class_of(cold.own(day)) for day in (0, 1, 2, 60)] == ["GLACIER", "GLACIER", None, None]
    assert cold.age().plan.moves == ()
    cold.live(1)
    assert [move.key for move in cold.age().plan.moves] == [pack.key for pack in cold.own(2).packs]


def test_a_warmer_class_comes_first_and_a_look_moves_nothing() -> None:
    cold = ColdSet("secondary", (IA, GLACIER), retention="400 days")
    cold.live(61)
    assert cold.age(dry_run=True).aged is None and cold.class_of(cold.own(0)) is None
    cold.age()
    assert [cold.class_of(cold.own(day)) for day in (0, 10, 31, 32)] == ["GLACIER", "STANDARD_IA", "STANDARD_IA", None]


def test_the_primary_keeps_the_newest_snapshot_at_hand_and_lets_go_of_older_ones() -> None:
    cold = ColdSet("primary", (IA, GLACIER), retention="400 days")
    cold.live(30)
    cold.live(35, keeping=False)
    report = cold.age()
    assert cold.class_of(cold.own(0)) == "GLACIER" and AT_HAND not in {held.reason for held in report.plan.held}
    cold = ColdSet("primary", (IA, GLACIER), retention="400 days")
    cold.live(65)
    assert AT_HAND in {held.reason for held in cold.age().plan.held}
    assert cold.class_of(cold.own(0)) == "STANDARD_IA"


def test_what_goes_before_its_class_is_paid_for_stays_and_what_is_named_on_and_on_does_not() -> None:
    """Both are kept for 65 days after the last snapshot that names them; Glacier charges for 90."""
    cold = ColdSet(retention="65 days")
    cold.live(1)
    cold.live(61, keeping=False)
    gone, report = cold.own(0), cold.age()
    assert cold.class_of(gone) is None and report.plan.moves == ()
    assert [held.reason for held in report.plan.held] == [TOO_SHORT.format(name="GLACIER")]
    cold = ColdSet(retention="65 days")
    cold.live(62)
    cold.age()
    assert cold.class_of(cold.own(0)) == "GLACIER"


class Looked(tuple[FileArchive, ...]):
    """Archives, and how often somebody went through them."""

    times = 0

    def __iter__(self) -> Iterator[FileArchive]:
        self.times += 1
        return super().__iter__()


def test_archives_that_many_snapshots_share_are_gone_through_once() -> None:
    cold = ColdSet(retention="400 days")
    cold.live(61)
    catalog = read_snapshots(cold.store, DOCS)
    newest, shared = catalog.snapshots[-1], Looked(catalog.snapshots[-1].archives)
    one = ArchiveList(shared, newest.lists[0])
    snapshots = [newest.model_copy(update={"label": f"{number}", "listed": (one,)}) for number in range(100)]
    rules = AgingRules((AgedClass("GLACIER", timedelta(days=60), offline=True),), ("GLACIER",))
    lasting = Lasting({"0": None}, frozenset(["99"]))
    plan = plan_file_aging(replace(catalog, snapshots=tuple(snapshots)), rules, lasting, now=cold.clock.now())
    assert {held.reason for held in plan.held} == {AT_HAND}
    assert shared.times <= 3  # all of them, those of the newest, those at hand


def test_what_no_snapshot_names_does_not_move() -> None:
    cold = ColdSet(retention="400 days")
    running = begin_snapshot(cold.repository, DOCS, clock=cold.clock)
    put = put_archive(running, {"new": b"new" * 100})
    cold.live(70)
    cold.age()
    assert (cold.class_of(put), cold.class_of(cold.own(0))) == (None, "GLACIER")


@pytest.mark.parametrize("trouble", ["incident", "silence"])
def test_nothing_moves_while_an_incident_is_open_or_snapshots_have_stopped(trouble: str) -> None:
    cold = ColdSet(retention="400 days")
    cold.live(70)
    if trouble == "incident":
        operations.open_incident(cold.site, "the region is dark", "on call")
    else:
        cold.clock.advance(10 * DAY)
    report = cold.age()
    assert trouble in [guard.name for guard in report.guards] and report.plan.moves and report.aged is None
    assert cold.class_of(cold.own(0)) is None
