"""`dr store age` over retention's decisions: what moves, what stays readable, and when nothing moves at all."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dr_pipelines.clock import FixedClock
from dr_pipelines.lsn import Lsn, Timeline, WalSegment
from dr_pipelines.operations import AgingReport, age_storage, open_incident
from dr_pipelines.plan import Plan
from dr_pipelines.progress import Silent
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.layout import Role, role_of
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.repository.repository import Repository
from dr_pipelines.site import Site
from dr_pipelines.storage.memory import MemoryStore
from tests.support.archives import manifest, put_backup

SIZE = 1 << 20
DAY = timedelta(days=1)
BEGIN = datetime(2026, 1, 1, 2, tzinfo=UTC)
IA, GLACIER = {"name": "STANDARD_IA", "after": "3 days"}, {"name": "GLACIER", "after": "20 days"}


class Estate:
    """A daily full since New Year, one segment of WAL a day, on one tier."""

    def __init__(self, tier: str = "secondary", classes: tuple[Any, ...] = (IA, GLACIER)) -> None:
        self.clock = FixedClock(BEGIN)
        names = ("STANDARD_IA", "GLACIER")
        self.store = MemoryStore(tier, self.clock, classes=names, offline=("GLACIER",))
        place = {"type": "s3", "profile": "aws"}
        self.tier = tier
        plan = Plan.model_validate(
            {
                "version": 1, "name": "test", "state_dir": "/nowhere", "encryption": "none",
                "storage": {
                    "primary": {"type": "local", "path": "/nowhere"},
                    tier: {**place, "bucket": "cold-bucket", "classes": classes},
                },
                "databases": {
                    "shop": {
                        "connection": {"host": "127.0.0.1"},
                        "schedule": {"full": "daily"},
                        "retention": {"daily": 7, "weekly": 4, "monthly": 12},
                        "storage": {"primary": "primary", tier: tier},
                        "replication": {tier: {"send": "everything"}},
                    }
                },
            }
        )  # fmt: skip
        self.site = Site(plan, clock=self.clock, stores={"primary": MemoryStore("primary"), tier: self.store})
        self.repository = Repository(self.store, Codec(1), tier)
        self.repository.initialise()
        self.backups: list[BackupManifest] = []

    def live(self, days: int) -> None:
        for _ in range(days):
            number, now = len(self.backups) + 1, self.clock.now()
            start = Lsn(number * SIZE + 40)
            made = manifest(
                f"{now:%Y%m%dT%H%M%SZ}-full", started_at=now, finished_at=now, start_lsn=start, stop_lsn=start + 400,
                segment_size=SIZE,
            )  # fmt: skip
            self.backups.append(put_backup(self.store, made))
            segment = WalSegment(Timeline(1), number, SIZE)
            self.repository.wal("shop", "1", SIZE).put_segment(segment, bytes([number % 256]) * SIZE)
            self.clock.advance(DAY)

    def age(self, *, dry_run: bool = False) -> AgingReport:
        return age_storage(self.site, "shop", self.tier, Silent(), dry_run=dry_run)

    def classes(self) -> dict[int, set[str | None]]:
        """By day, of the packs and the WAL; what is no such thing must have none."""
        found: dict[int, set[str | None]] = {}
        for info in self.store.list():
            if role_of(info.key) is not Role.BULK:
                assert info.storage_class is None, info.key
        for day, backup in enumerate(self.backups, 1):
            found[day] = {self.store.stat(pack.key).storage_class for pack in backup.archive.packs}
        return found


def test_each_backup_is_in_the_class_of_its_age_and_the_window_stays_readable() -> None:
    estate = Estate()
    estate.live(45)
    report = estate.age()
    assert report.aged is not None and report.aged.objects == len(report.plan.moves) > 0
    classes = estate.classes()
    # January's newest is kept for a year; daily and weekly ones go before Glacier's 90 days, and most before IA's 30.
    assert classes[31] == {"STANDARD_IA"}
    assert {day for day, there in classes.items() if there == {"GLACIER"}} == set()
    for day in range(37, 46):
        assert classes[day] == {None}
    estate.live(10)
    estate.age()
    assert estate.classes()[31] == {"GLACIER"}
    assert estate.age().plan.moves == ()


def test_a_look_moves_nothing() -> None:
    estate = Estate()
    estate.live(60)
    report = estate.age(dry_run=True)
    assert report.plan.moves and report.aged is None
    assert {there for classes in estate.classes().values() for there in classes} == {None}


@pytest.mark.parametrize("trouble", ["incident", "silence"])
def test_nothing_moves_while_an_incident_is_open_or_backups_have_stopped(trouble: str) -> None:
    estate = Estate()
    estate.live(60)
    if trouble == "incident":
        open_incident(estate.site, "the region is dark", "on call")
    else:
        estate.clock.advance(10 * DAY)
    report = estate.age()
    assert [guard.name for guard in report.guards] == [trouble] and report.plan.moves
    assert {there for classes in estate.classes().values() for there in classes} == {None}


def test_an_archive_is_cold_as_soon_as_the_plan_says() -> None:
    estate = Estate("archive", ({"name": "GLACIER", "after": "1 day"},))
    estate.live(32)
    report = estate.age()
    assert estate.classes()[31] == {"GLACIER"}, report.plan
    assert estate.classes()[32] == {None}


def test_a_store_without_classes_is_left_alone() -> None:
    report = Estate(classes=()).age()
    assert (report.plan.moves, report.aged) == ((), None)
