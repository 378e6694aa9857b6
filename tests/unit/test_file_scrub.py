"""Scrubbing file sets: what snapshots share is read once, repaired once, and its loss costs each of them."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import timedelta

import pytest

from dr_pipelines import operations
from dr_pipelines.checks import Verdict
from dr_pipelines.clock import FixedClock
from dr_pipelines.errors import StoreUnavailable
from dr_pipelines.progress import Silent
from dr_pipelines.replication.reading import Sample
from dr_pipelines.replication.repair import State
from dr_pipelines.replication.scrub import ScrubOrder, ServerScrub, scrub_server
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.file_layout import archive_pack
from dr_pipelines.repository.layout import REPOSITORY
from dr_pipelines.repository.manifest import StoredObject
from dr_pipelines.repository.marks import Keep, put_expired, put_keep
from dr_pipelines.repository.owners import FileSetOwner
from dr_pipelines.repository.placement import Placement
from dr_pipelines.repository.repository import Repository
from dr_pipelines.repository.snapshots import read_snapshots
from dr_pipelines.storage.base import Body, read_all
from dr_pipelines.storage.memory import MemoryStore
from tests.support.faulty_store import FaultyStore
from tests.support.file_tiers import (
    BEGIN,
    DOCS,
    FIRST,
    NOW,
    SECOND,
    THIRD,
    contents,
    empty,
    file_site,
    filled,
    flip,
    snapshot,
    take,
)

CLOCK = FixedClock(NOW)


def scrub(on: Repository, *others: Repository, **changes: object) -> ServerScrub:
    order = ScrubOrder(FileSetOwner(DOCS), on, others, "scrub-1")
    return scrub_server(replace(order, **changes), clock=CLOCK, progress=Silent())  # type: ignore[arg-type]


def states(result: ServerScrub) -> dict[str, State]:
    return {outcome.fault.key: outcome.state for outcome in result.outcomes}


def shared_pack() -> str:
    """Of an archive that all three snapshots need."""
    return snapshot(filled().store, FIRST).archives[0].packs[0].key


def test_a_whole_tier_is_read_once_and_every_snapshot_proven() -> None:
    primary = filled()
    before = contents(primary.store)
    result = scrub(primary)
    assert (result.outcomes, result.read, result.bytes) == ([], len(before), sum(map(len, before.values())))
    assert contents(primary.store) == before
    marks = read_snapshots(primary.store, DOCS).marks
    assert all((proof := marks[label].proven()) and proof.kind == "scrub" for label in (FIRST, SECOND, THIRD))


@pytest.mark.parametrize("damage", ["flip", "cut", "delete"])
def test_whatever_object_is_damaged_it_is_repaired_from_another_tier(damage: str) -> None:
    primary, secondary = filled(), filled("secondary")
    whole = contents(primary.store)
    for key, data in whole.items():
        primary.store.delete(key)
        if damage != "delete":
            primary.store.put(key, Body.of(data[:-1] if damage == "cut" else bytes([data[0] ^ 1]) + data[1:]))
        result = scrub(primary, secondary)
        assert states(result) == {key: State.REPAIRED}, key
        assert (result.lost, result.marked) == ([], [])
        assert contents(primary.store) == whole


def test_what_no_tier_has_whole_costs_every_snapshot_that_needs_it_and_no_other() -> None:
    primary, secondary = filled(), filled("secondary")
    take(primary, BEGIN + timedelta(hours=3), {"e": b"alone"})
    alone = read_snapshots(primary.store, DOCS).snapshots[-1].label
    bad = snapshot(primary.store, SECOND).archives[-1].packs[0].key
    for tier in (primary, secondary):
        flip(tier.store, bad)
    result = scrub(primary, secondary)
    assert states(result) == {bad: State.LOST}
    assert [lost.label for lost in result.lost_backups] == [SECOND, THIRD] == result.marked
    assert result.lost[0] == f"{SECOND}: {bad} is damaged"
    catalog = read_snapshots(primary.store, DOCS)
    assert [one.label for one in catalog.usable] == [FIRST, alone]
    assert catalog.marks[FIRST].proven() and not catalog.marks[SECOND].proven()
    # It is told again, and marked once; what names it later gets a mark of its own.
    assert (again := scrub(primary, secondary)).marked == [] and states(again) == {bad: State.LOST}
    late = take(primary, BEGIN + timedelta(hours=4), {"f": b"late"}, snapshot(primary.store, SECOND))
    assert scrub(primary, secondary).marked == [late.label]
    # Another tier has it again: it is repaired, and all marks go.
    good = contents(filled().store)[bad]
    secondary.store.put(bad, Body.of(good), if_absent=False)
    assert len(scrub(primary, secondary).lifted) == 3
    assert len(read_snapshots(primary.store, DOCS).usable) == 5


def list_of_second() -> StoredObject:
    """It lists what the first snapshot does not need, and the others do."""
    [one] = {*snapshot(filled().store, SECOND).lists} - {*snapshot(filled().store, FIRST).lists}
    return one


@pytest.mark.parametrize("damage", ["flip", "delete"])
def test_what_a_damaged_list_names_is_read_as_soon_as_it_is_repaired(damage: str) -> None:
    primary, secondary = filled(), filled("secondary")
    whole, pack = contents(primary.store), snapshot(primary.store, SECOND).archives[-1].packs[0].key
    flip(primary.store, pack)
    flip(primary.store, list_of_second().key) if damage == "flip" else primary.store.delete(list_of_second().key)
    result = scrub(primary, secondary)
    assert states(result) == {list_of_second().key: State.REPAIRED, pack: State.REPAIRED}
    assert (contents(primary.store), result.lost) == (whole, [])
    marks = read_snapshots(primary.store, DOCS).marks
    assert all(marks[label].proven() for label in (FIRST, SECOND, THIRD))


def test_a_list_that_no_tier_has_whole_costs_what_names_it_until_one_has() -> None:
    primary, secondary, bad = filled(), filled("secondary"), list_of_second().key
    for tier in (primary, secondary):
        flip(tier.store, bad)
    for again in (False, True):
        result = scrub(primary, secondary)
        assert states(result) == {bad: State.LOST}
        assert [lost.label for lost in result.lost_backups] == [SECOND, THIRD]
        assert result.marked == ([] if again else [SECOND, THIRD])
    catalog = read_snapshots(primary.store, DOCS)
    assert [one.label for one in catalog.usable] == [FIRST]
    assert {*catalog.problems} == catalog.lost and any(bad in problem for problem in catalog.lost)
    assert catalog.marks[FIRST].proven()
    secondary.store.put(bad, Body.of(contents(filled().store)[bad]), if_absent=False)
    assert len(scrub(primary, secondary).lifted) == 2
    assert len(read_snapshots(primary.store, DOCS).usable) == 3


def test_a_manifest_and_its_list_are_repaired_at_once() -> None:
    primary, secondary = filled(), filled("secondary")
    whole, third = contents(primary.store), snapshot(primary.store, THIRD)
    flip(primary.store, third.layout.manifest)
    flip(primary.store, third.lists[-1].key)
    assert set(states(scrub(primary, secondary)).values()) == {State.REPAIRED}
    assert contents(primary.store) == whole
    assert scrub(primary, secondary).outcomes == []


def test_a_list_of_what_is_expired_is_not_brought_back() -> None:
    primary, secondary = filled(), filled("secondary")
    gone = snapshot(primary.store, THIRD)
    put_expired(primary.store, gone.layout, read_all(primary.store, gone.layout.manifest), at=NOW, reason="old")
    primary.store.delete(gone.layout.manifest)
    own = gone.lists[-1].key
    flip(primary.store, own)
    assert states(scrub(primary, secondary)) == {own: State.REPAIRED}
    primary.store.delete(own)
    assert scrub(primary, secondary).outcomes == []


def test_a_table_that_others_stand_on_costs_them_too() -> None:
    primary = filled()
    primary.store.delete(snapshot(primary.store, FIRST).table.key)
    assert [lost.label for lost in scrub(primary).lost_backups] == [FIRST, SECOND]


def test_archives_that_no_snapshot_names_are_no_damage() -> None:
    primary, secondary = filled(), filled("secondary")
    rest = archive_pack(DOCS, "20260301T070000Z-000000", 0, ".zst")
    primary.store.put(rest, Body.of(b"of a snapshot that did not end"))
    secondary.store.put(rest, Body.of(b"another rest"))
    result = scrub(primary, secondary)
    assert result.outcomes == []
    assert rest in contents(primary.store)


def test_what_is_pruned_while_it_is_read_is_no_damage() -> None:
    primary = filled()
    gone = snapshot(primary.store, THIRD)
    own = gone.archives[-1].packs[0].key

    class Pruned(FaultyStore):
        def open(self, key: str, *, offset: int = 0, length: int | None = None):  # type: ignore[no-untyped-def]
            if key == own:
                for info in [*primary.store.list(gone.layout.prefix)]:
                    primary.store.delete(info.key)
                primary.store.delete(own)
            return super().open(key, offset=offset, length=length)

    result = scrub(Repository(Pruned(primary.store), Codec(1), "primary"))
    assert result.outcomes == []
    assert [one.label for one in read_snapshots(primary.store, DOCS).usable] == [FIRST, SECOND]


def test_what_is_expired_is_read_while_it_is_there_and_not_brought_back() -> None:
    primary, secondary = filled(), filled("secondary")
    gone = snapshot(primary.store, THIRD)
    put_expired(primary.store, gone.layout, read_all(primary.store, gone.layout.manifest), at=NOW, reason="old")
    primary.store.delete(gone.layout.manifest)
    flip(primary.store, gone.archives[-1].packs[0].key)
    assert states(scrub(primary, secondary)) == {gone.archives[-1].packs[0].key: State.REPAIRED}
    primary.store.delete(gone.archives[-1].packs[0].key)
    assert scrub(primary, secondary).outcomes == []
    flip(primary.store, shared_pack())
    assert states(scrub(primary, secondary)) == {shared_pack(): State.REPAIRED}


def test_a_repaired_object_is_locked_as_long_as_what_needs_it() -> None:
    store, long = MemoryStore("primary", CLOCK, versioned=False), NOW + timedelta(days=90)
    primary = filled(store=store)
    store.extend_lock(snapshot(store, THIRD).layout.manifest, long)
    primary = Repository(store, Codec(1), "primary", Placement(CLOCK, timedelta(days=8)))
    store.delete(shared_pack())
    assert states(scrub(primary, filled("secondary"))) == {shared_pack(): State.REPAIRED}
    assert (store.stat(shared_pack()).retain_until or NOW) >= long


def test_a_keep_that_cannot_be_read_holds_for_ever() -> None:
    primary = filled()
    keep = Keep(until=NOW + timedelta(days=1), reason="audit", by="me", at=NOW)
    key = put_keep(primary.store, snapshot(primary.store, FIRST).layout, keep)
    flip(primary.store, key)
    assert states(scrub(primary)) == {key: State.REPAIRED}
    assert [kept.until for kept in read_snapshots(primary.store, DOCS).marks[FIRST].keeps.values()] == [None]


def test_samples_one_after_the_other_read_everything() -> None:
    primary, sample, read = filled(), Sample(25), 0
    flip(primary.store, shared_pack())
    found: set[str] = set()
    for _ in range(4):
        result = scrub(primary, sample=sample, repair=False)
        found |= {*states(result)}
        read += result.read
        sample = sample.following
    assert found == {shared_pack()}
    assert read >= len(contents(primary.store))


@pytest.mark.parametrize("stays_down", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("side", ["primary", "secondary"])
def test_wherever_it_stops_the_next_scrub_ends_it(side: str, stays_down: bool) -> None:
    good = contents(filled().store)
    lost = snapshot(filled().store, THIRD).archives[-1].packs[0].key
    for calls in range(1, 1000):
        tiers = {name: filled(name) for name in ("primary", "secondary")}
        primary = tiers["primary"]
        flip(primary.store, shared_pack())
        flip(primary.store, snapshot(primary.store, SECOND).layout.manifest)
        flip(primary.store, list_of_second().key)
        for tier in tiers.values():
            flip(tier.store, lost)
        before = contents(primary.store)
        faulty = FaultyStore(tiers[side].store, fail_at=calls, stays_down=stays_down)
        with contextlib.suppress(StoreUnavailable):
            scrub(*(Repository(faulty, Codec(1), n) if n == side else tier for n, tier in tiers.items()))
        after = contents(primary.store)
        assert all(after[key] in (before[key], good[key]) for key in before)
        assert not any(read_snapshots(primary.store, DOCS).marks[label].damage for label in (FIRST,))
        scrub(*tiers.values())
        assert set(states(scrub(*tiers.values()))) == {lost}
        catalog = read_snapshots(primary.store, DOCS)
        assert [one.label for one in catalog.usable] == [FIRST, SECOND]
        assert len(catalog.marks[THIRD].damage) == 1
        if faulty.calls < calls:
            return
    raise AssertionError("no end")


def test_a_scrub_of_a_store_walks_its_file_sets() -> None:
    primary, secondary = filled().store, filled("secondary").store
    site = file_site({"primary": primary, "secondary": secondary})
    flip(primary, shared_pack())
    report = operations.scrub(site, "primary", Silent())
    assert [(one.server, one.tier) for one in report.servers] == [(DOCS, "primary")]
    assert report.check.verdict is Verdict.PASS
    assert "1 was repaired" in report.check.summary
    primary.delete(REPOSITORY)
    assert [outcome.fault.key for outcome in operations.scrub(site, "primary", Silent(), server=DOCS).outcomes] == [
        REPOSITORY
    ]
    emptied = file_site({"primary": empty().store, "secondary": secondary})
    check = operations.scrub(emptied, "primary", Silent()).check
    assert check.verdict is Verdict.NOT_PROVEN
    assert "holds no backup of docs, while secondary does" in check.summary
