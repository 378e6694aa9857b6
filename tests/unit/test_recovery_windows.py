"""Recovery windows of a server over its tiers: what is shown, why there are gaps, what the plan's promise comes to."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from dr_pipelines import operations
from dr_pipelines.checks import Verdict
from dr_pipelines.cli.output import plain
from dr_pipelines.clock import FixedClock
from dr_pipelines.errors import StoreUnavailable
from dr_pipelines.lsn import Lsn, Timeline, WalSegment
from dr_pipelines.operations import TierWindows, recovery_window_is_kept, recovery_windows
from dr_pipelines.plan import load_plan
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.layout import BackupLayout
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.repository.marks import put_damage
from dr_pipelines.repository.repository import Repository
from dr_pipelines.site import Site
from dr_pipelines.storage.base import ObjectInfo
from dr_pipelines.storage.memory import MemoryStore
from tests.support.archives import AT, manifest, put_backup

MIB = 1 << 20
ONE, TWO = Timeline(1), Timeline(2)


class _Away(MemoryStore):
    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        raise StoreUnavailable("nobody answers")


class Tiers:
    """A site of stores in memory. A segment is stored an hour after the one before; a backup lies in the segment of its
    hour."""

    def __init__(self, folder: Path, codec: Codec | None = None, **tiers: MemoryStore) -> None:
        self.clock = FixedClock(AT)
        names = list(tiers) or ["primary"]
        self.stores = {name: tiers.get(name) or MemoryStore(name) for name in names}
        for store in self.stores.values():
            store._clock = self.clock
        plan = {
            "version": 1, "name": "test", "state_dir": "state", "encryption": "none",
            "storage": {name: {"type": "local", "path": name} for name in names},
            "databases": {"shop": {
                "connection": {"host": "127.0.0.1", "port": 1},
                "schedule": {"full": "daily", "incremental": "hourly"},
                "storage": {name: name for name in names},
            }},
        }  # fmt: skip
        (folder / "plan.yaml").write_text(yaml.dump(plan))
        self.site = Site(load_plan(folder / "plan.yaml"), clock=self.clock, stores=self.stores)
        self.repositories = {name: Repository(store, codec or Codec(1), name) for name, store in self.stores.items()}
        for repository in self.repositories.values():
            repository.initialise()

    def wal(self, *numbers: int, tier: str = "primary", timeline: Timeline = ONE, system: str = "1") -> None:
        archive = self.repositories[tier].wal("shop", system)
        for number in numbers:
            self.clock.advance(AT + timedelta(hours=number + 1) - self.clock.now())
            archive.put_segment(WalSegment(timeline, number, MIB), bytes(MIB))

    def full(self, hour: int, *, tier: str = "primary", **changes: Any) -> BackupManifest:
        at = AT + timedelta(hours=hour, minutes=30)
        made = manifest(
            f"{at:%Y%m%dT%H%M%SZ}-full", start_lsn=Lsn(hour * MIB + 1000), stop_lsn=Lsn(hour * MIB + 2000),
            started_at=at, finished_at=at, **changes,
        )  # fmt: skip
        return put_backup(self.stores[tier], made)

    def windows(self, tier: str = "primary") -> TierWindows:
        return next(found for found in recovery_windows(self.site, "shop") if found.tier == tier)


@pytest.fixture
def tiers(tmp_path: Path) -> Callable[..., Tiers]:
    return lambda *args, **stores: Tiers(tmp_path, *args, **stores)


def test_a_gap_is_between_two_windows_and_says_why(tiers: Callable[..., Tiers]) -> None:
    shop = tiers()
    shop.full(0)
    spoilt, after = shop.full(4), shop.full(5)
    shop.wal(0, 1, 4, 5, 6)
    put_damage(shop.stores["primary"], BackupLayout("shop", spoilt.label), ["x"], at=AT, found_by="scrub")
    (system,) = shop.windows().systems
    assert [(window.start, window.end) for window in system.windows] == [
        (Lsn(2000), Lsn(2 * MIB)),
        (Lsn(5 * MIB + 2000), Lsn(7 * MIB)),
    ]
    assert [window.end_at for window in system.windows] == [AT + timedelta(hours=2), AT + timedelta(hours=7)]
    (gap,) = system.gaps
    assert f"WAL is missing from {Lsn(2 * MIB)} to {Lsn(4 * MIB)} (2 segments)" in gap.why
    assert f"{after.label} is the first usable backup after it; {spoilt.label} is damaged" in gap.why
    kept = recovery_window_is_kept(shop.site, "shop")
    assert kept.verdict is Verdict.FAIL and gap.why in kept.summary


def test_a_young_repository_keeps_its_window_back_to_its_first_backup(tiers: Callable[..., Tiers]) -> None:
    shop = tiers()
    assert shop.windows().kept.verdict is Verdict.NOT_PROVEN  # type: ignore[union-attr]
    shop.full(0)
    assert recovery_window_is_kept(shop.site, "shop").verdict is Verdict.FAIL  # of its WAL nothing is there
    shop.wal(0, 1)
    shop.clock.advance(timedelta(days=90))  # idle since: nothing was written, nothing is lost
    (system,) = shop.windows().systems
    assert recovery_window_is_kept(shop.site, "shop").passed
    assert (system.wal_end, system.wal_stored_at) == (Lsn(2 * MIB), AT + timedelta(hours=2))


def test_what_came_before_the_promised_window_may_have_gaps(tiers: Callable[..., Tiers]) -> None:
    shop = tiers()
    for hour in (0, 100):
        shop.full(hour)
    shop.wal(0, *range(100, 100 + 7 * 24 + 1))
    assert recovery_window_is_kept(shop.site, "shop").passed
    (system,) = shop.windows().systems
    assert [window.is_point for window in system.windows] == [True, False]


def test_wal_after_a_gap_without_a_backup_is_out_of_reach(tiers: Callable[..., Tiers]) -> None:
    shop = tiers()
    shop.full(0)
    shop.wal(0, 1, 3)
    kept = recovery_window_is_kept(shop.site, "shop")
    assert kept.verdict is Verdict.FAIL and "no usable backup was taken after it" in kept.summary
    (state,) = operations.status(shop.site)
    assert any("dr backup shop --full" in warning for warning in state.warnings)


def test_a_tier_that_is_away_hides_no_other_and_a_copy_has_the_time_of_what_it_copies(
    tiers: Callable[..., Tiers],
) -> None:
    shop = tiers(primary=MemoryStore("primary"), secondary=MemoryStore("secondary"), archive=_Away("archive"))
    for tier in ("primary", "secondary"):
        shop.full(0, tier=tier)
    shop.wal(0, 1)
    for number in (0, 1):  # copied later
        shop.repositories["secondary"].wal("shop", "1").put_segment(WalSegment(ONE, number, MIB), bytes(MIB))
        shop.clock.advance(timedelta(hours=1))
    primary, secondary, archive = recovery_windows(shop.site, "shop")
    assert primary.systems == secondary.systems
    assert (archive.systems, archive.error) == ((), "nobody answers")
    assert archive.promised is None and archive.kept is None  # single backups are sent there
    (state,) = operations.status(shop.site)
    assert [tier.error is None for tier in state.tiers] == [True, True, False]


def test_a_server_made_anew_is_shown_after_the_former_one(tiers: Callable[..., Tiers]) -> None:
    shop = tiers()
    shop.full(0, system_id="9")
    shop.wal(0, system="9")
    shop.full(5, system_id="2")
    shop.wal(5, 6, system="2")
    assert [system.system_id for system in shop.windows().systems] == ["9", "2"]
    assert recovery_window_is_kept(shop.site, "shop").passed


def _promoted(shop: Tiers) -> None:
    """In segment 2."""
    shop.full(0)
    shop.wal(0, 1, 2, 3)
    archive = shop.repositories["primary"].wal("shop", "1")
    archive.put_history(TWO, f"1\t{Lsn(2 * MIB + 500)}\tno reason\n".encode())
    shop.wal(2, 3, 4, timeline=TWO)


def test_a_window_goes_on_over_a_promotion_and_what_was_left_behind_is_a_branch(tiers: Callable[..., Tiers]) -> None:
    shop = tiers()
    _promoted(shop)
    (system,) = shop.windows().systems
    (window,), (left,) = system.windows, system.branches
    assert (window.timeline, window.start, window.end) == (TWO, Lsn(2000), Lsn(5 * MIB))
    assert (left.timeline, left.start, left.end) == (ONE, Lsn(2 * MIB + 501), Lsn(4 * MIB))
    assert recovery_window_is_kept(shop.site, "shop").passed


def test_without_a_key_a_promotion_is_assumed_or_left_open_and_nothing_is_proven(
    tmp_path: Path, tiers: Callable[..., Tiers], identity: tuple[str, str]
) -> None:
    shop = tiers(Codec(1, recipients=(identity[1],)))
    _promoted(shop)
    (system,) = shop.windows().systems
    assert system.windows[-1].end == Lsn(4 * MIB)  # the old timeline goes on: where the new one began is not plain
    assert "cannot be read without a key" in system.notes[0]
    shop.stores["primary"].delete(
        next(i.key for i in shop.stores["primary"].list() if "000000010000000000000003" in i.key)
    )
    (system,) = shop.windows().systems
    assert (system.windows[-1].end, system.windows[-1].assumed) == (Lsn(5 * MIB), (TWO,))
    assert recovery_window_is_kept(shop.site, "shop").verdict is Verdict.NOT_PROVEN
    with_key = Site(shop.site.plan, clock=shop.clock, stores=shop.stores, identity=identity[0])
    assert recovery_window_is_kept(with_key, "shop").passed


def test_a_history_that_is_missing_is_no_pass(tiers: Callable[..., Tiers]) -> None:
    shop = tiers()
    shop.full(0)
    shop.wal(0, 1)
    shop.wal(1, 2, timeline=TWO)
    kept = recovery_window_is_kept(shop.site, "shop")
    assert kept.verdict is Verdict.FAIL and "the history file of timeline 2" in kept.summary


def test_windows_are_json_and_a_small_chart_with_the_reasons_in_it(tiers: Callable[..., Tiers]) -> None:
    shop = tiers(primary=MemoryStore("primary"), secondary=_Away("secondary"))
    for hour in range(0, 300, 2):
        shop.full(hour)
    shop.wal(*range(100), *range(110, 301))
    found = recovery_windows(shop.site, "shop")
    first = json.loads(json.dumps(plain(found)))[0]["systems"][0]["windows"][0]
    assert (first["start"], first["timeline"], first["points"][0]["kind"]) == ("0/7D0", 1, "full")
    chart = operations.recoverability_chart(shop.site, {"shop": found})
    assert len(chart) < 60_000
    root = ET.fromstring(chart)
    titles = [title.text or "" for title in root.iter("{http://www.w3.org/2000/svg}title")]
    assert any("WAL is missing from" in title for title in titles)
    words = " ".join(text for text in root.itertext())
    assert "primary" in words and "not seen: nobody answers" in words
    assert chart == operations.recoverability_chart(shop.site, {"shop": found})
