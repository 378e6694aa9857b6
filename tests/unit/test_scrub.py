"""Scrubbing: every flipped byte is found and repaired from wherever good bytes are; what is nowhere is marked, and the
restore points that it costs are named; what comes and goes meanwhile is no damage."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import zstandard

from dr_pipelines import operations
from dr_pipelines.checks import Verdict
from dr_pipelines.clock import FixedClock
from dr_pipelines.commands import Runner
from dr_pipelines.errors import AccessDenied, IntegrityError, RepositoryError, StoreUnavailable, WalGap
from dr_pipelines.lsn import Lsn, Timeline, WalSegment
from dr_pipelines.plan import Plan
from dr_pipelines.postgres.restore_request import RestoreRequest
from dr_pipelines.postgres.restore_source import find_sources
from dr_pipelines.progress import Silent
from dr_pipelines.replication.description import scrub_description
from dr_pipelines.replication.reading import Sample
from dr_pipelines.replication.repair import State
from dr_pipelines.replication.scrub import ScrubOrder, ServerScrub, scrub_server
from dr_pipelines.repository import layout
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.manifest import encode
from dr_pipelines.repository.marks import Keep, put_expired, put_keep, read_keep
from dr_pipelines.repository.owners import ServerOwner
from dr_pipelines.repository.placement import Placement
from dr_pipelines.repository.repository import Repository
from dr_pipelines.site import Site
from dr_pipelines.storage.base import Body, ObjectInfo, read_all
from dr_pipelines.storage.memory import MemoryStore
from dr_pipelines.storage.wrappers import ReadOnly
from tests.support.faulty_store import FaultyStore
from tests.support.tiers import BACKUPS, CHILD, CLOCK, FIRST, FULL, SECOND, SIZE, SYSTEM, content, flip, tier, wal_key


def scrub(on: Repository, *others: Repository, **changes: object) -> ServerScrub:
    order = ScrubOrder(ServerOwner("shop"), on, others, "scrub-1", window=timedelta(days=7))
    return scrub_server(replace(order, **changes), clock=CLOCK, progress=Silent())  # type: ignore[arg-type]


def states(result: ServerScrub) -> dict[str, State]:
    return {outcome.fault.key: outcome.state for outcome in result.outcomes}


def test_a_whole_tier_is_proven_and_not_changed() -> None:
    primary = tier("primary")
    before = content(primary)
    result = scrub(primary)
    assert result.outcomes == []
    assert result.read == result.objects == len(before)
    assert result.bytes == sum(map(len, before.values()))
    assert content(primary) == before
    marks = primary.catalog("shop").marks
    assert all((proof := marks[made.label].proven()) and proof.kind == "scrub" for made in BACKUPS)


def test_the_newest_wal_is_missing_when_another_tier_has_had_it_for_long() -> None:
    primary, secondary = tier("primary"), tier("secondary")
    gone = [wal_key(primary, number) for number in (6, 7)]
    for key in gone:
        primary.store.delete(key)
    assert not scrub(primary, secondary, window=timedelta(days=7)).outcomes  # it may be on its way
    later = FixedClock(CLOCK.now() + timedelta(days=1))

    def scrubbed(window: timedelta | None) -> ServerScrub:
        order = ScrubOrder(ServerOwner("shop"), primary, [secondary], "scrub-2", window=window)
        return scrub_server(order, clock=later, progress=Silent())

    assert not scrubbed(timedelta(hours=1)).outcomes  # it may have been let go
    assert not scrubbed(None).outcomes  # no backup needs it
    assert states(scrubbed(timedelta(days=7))) == dict.fromkeys(gone, State.REPAIRED)
    assert not scrubbed(timedelta(days=7)).outcomes


def may_never_have_been_here(key: str) -> bool:
    """WAL before and after all else, and a history, of which nothing here tells."""
    return any(end in key for end in ("000000000001.", "000000000007.", ".history."))


@pytest.mark.parametrize("damage", ["flip", "cut", "longer", "delete"])
def test_whatever_object_is_damaged_it_is_repaired_from_another_tier(damage: str) -> None:
    primary, secondary = tier("primary"), tier("secondary")
    whole = content(primary)
    for key, data in whole.items():
        if damage == "delete":
            if may_never_have_been_here(key):
                continue
            primary.store.delete(key)
        else:
            spoiled = {"flip": bytes([data[0] ^ 1]) + data[1:], "cut": data[:-1], "longer": data + b"\n"}[damage]
            primary.store.put(key, Body.of(spoiled), if_absent=False)
        result = scrub(primary, secondary)
        assert states(result) == {key: State.REPAIRED}
        assert not result.lost_backups and not result.lost_wal
        assert content(primary) == whole
    assert all(primary.catalog("shop").marks[made.label].proven() for made in BACKUPS)


def test_every_flipped_byte_is_found() -> None:
    primary, chance = tier("primary"), random.Random(7)
    put_keep(primary.store, FULL.layout, Keep(until=None, reason="audit", by="me", at=CLOCK.now()))
    put_expired(primary.store, BACKUPS[2].layout, encode(BACKUPS[2]), at=CLOCK.now(), reason="old")
    primary.store.delete(BACKUPS[2].layout.manifest)
    whole = content(primary)
    heads = [key for key in whole if key.endswith(("manifest.json", "expired.json"))]
    others = [key for key in whole if key not in heads]
    # What a manifest names is known only while it is whole itself.
    for keys in [*([chance.choice(heads)] for _ in range(100)), *(chance.sample(others, 10) for _ in range(40))]:
        for key in keys:
            data = bytearray(whole[key])
            data[chance.randrange(len(data))] ^= chance.randrange(1, 256)
            primary.store.put(key, Body.of(bytes(data)), if_absent=False)
        assert states(scrub(primary, repair=False)) == dict.fromkeys(keys, State.FOUND)
        for key in keys:
            primary.store.put(key, Body.of(whole[key]), if_absent=False)


# --- what no tier can repair ---


def restore_candidates(*tiers: Repository, label: str | None = None) -> tuple[list[str], list[str]]:
    """The labels that a restore would begin with, in order, and what it notes."""
    request = RestoreRequest("shop", Path("/nowhere"), label=label)
    sources, notes = find_sources(request, tiers, runner=Runner(), progress=Silent())
    return [candidate.label for source in sources for candidate in source.plan.candidates], notes


def test_a_backup_that_no_tier_has_whole_is_marked_named_and_never_restored() -> None:
    primary, secondary = tier("primary"), tier("secondary")
    pack = FULL.archive.packs[0].key
    assert FIRST in restore_candidates(primary)[0]
    flip(primary, pack)
    flip(secondary, pack, 3)
    result = scrub(primary, secondary)
    assert states(result) == {pack: State.LOST}
    assert [(lost.label, lost.because) for lost in result.lost_backups] == [
        (FIRST, f"{pack} is damaged"),
        (CHILD, f"it builds on {FIRST}"),
    ]
    assert (result.marked, result.lost_wal) == ([FIRST], ())
    catalog = primary.catalog("shop")
    assert [usable.label for usable in catalog.usable] == [SECOND]
    assert not catalog.marks[FIRST].proven()
    candidates, notes = restore_candidates(primary)
    assert candidates == [SECOND]
    assert any(FIRST in note and "no tier had it whole" in note for note in notes)
    with pytest.raises(IntegrityError, match="damaged"):
        restore_candidates(primary, label=FIRST)


def test_a_mark_is_put_once_and_lifted_when_good_bytes_come_back() -> None:
    primary, secondary = tier("primary"), tier("secondary")
    before = restore_candidates(primary)[0]
    pack = FULL.archive.packs[0].key
    keys = (pack, wal_key(primary, 6))
    for on in (primary, secondary):
        for key in keys:
            flip(on, key)
    assert len(scrub(primary, secondary).marked) == 2
    again = scrub(primary, secondary)
    assert (again.marked, set(states(again).values())) == ([], {State.LOST})
    assert again.lost_wal
    for key in keys:
        flip(secondary, key)  # back to what it was
    assert len(scrub(primary, secondary).lifted) == 2
    assert content(primary) == content(tier("primary"))
    assert restore_candidates(primary)[0] == before


def test_lost_wal_is_a_gap_with_its_limits_named() -> None:
    primary, secondary = tier("primary"), tier("secondary")
    key = wal_key(primary, 4)
    for on in (primary, secondary):
        flip(on, key)
    result = scrub(primary, secondary)
    (lost,) = result.lost_wal
    assert states(result) == {key: State.LOST}
    assert (lost.start, lost.end) == (Lsn(4 * SIZE), Lsn(5 * SIZE))
    assert (lost.next_backup, lost.restorable_again) == (SECOND, BACKUPS[2].stop_lsn)
    assert SECOND in str(lost) and "0/400000" in str(lost)
    assert result.lost_backups == ()
    ranges = primary.wal("shop", SYSTEM).ranges()
    assert [(part.start, part.end) for part in ranges] == [(Lsn(SIZE), Lsn(4 * SIZE)), (Lsn(5 * SIZE), Lsn(8 * SIZE))]
    assert restore_candidates(primary)[0] == [SECOND]


def test_wal_that_a_backup_needs_costs_the_backup_and_what_builds_on_it() -> None:
    primary, secondary = tier("primary"), tier("secondary")
    for on in (primary, secondary):
        flip(on, wal_key(on, 1))
    assert [lost.label for lost in scrub(primary, secondary).lost_backups] == [FIRST, CHILD]
    only = tier("primary", range(5, 6))
    flip(only, wal_key(only, 5))
    (lost,) = scrub(only).lost_wal
    assert lost.next_backup is None and "until another full backup" in str(lost)
    with pytest.raises(WalGap):
        restore_candidates(only, label=SECOND)


def test_what_only_makes_a_restore_easier_costs_no_backup() -> None:
    primary = tier("primary")
    flip(primary, FULL.index.key)
    flip(primary, FULL.break_glass[0].key)
    result = scrub(primary)
    assert states(result) == {FULL.index.key: State.LOST, FULL.break_glass[0].key: State.REPAIRED}
    assert (result.lost_backups, result.marked) == ((), [])


def test_a_tier_that_does_not_answer_is_no_proof_that_nothing_can_be_repaired() -> None:
    primary, secondary = tier("primary"), tier("secondary")
    flip(primary, FULL.archive.packs[0].key)
    down = Repository(FaultyStore(secondary.store, fail_at=1, stays_down=True), Codec(1), "secondary")
    result = scrub(primary, down)
    (outcome,) = result.outcomes
    assert outcome.state is State.UNDECIDED and "secondary" in outcome.by
    assert (result.marked, result.lost_backups) == ([], ())
    (told,) = scrub(primary, closed=["secondary cannot be opened"]).outcomes
    assert told.state is State.UNDECIDED


def test_wal_is_replaced_by_another_writers_object_of_the_same_segment() -> None:
    primary, secondary = tier("primary"), tier("secondary")
    key, segment = wal_key(primary, 4), WalSegment(Timeline(1), 4, SIZE)
    other = zstandard.ZstdCompressor(write_checksum=False).compress(bytes([4]) * SIZE)
    other_key = layout.WalLayout("shop", SYSTEM).segment(segment, Body.of(other).sha256, ".zst")
    assert other_key != key
    secondary.store.delete(key)
    secondary.store.put(other_key, Body.of(other))
    flip(primary, key)
    assert states(scrub(primary, secondary)) == {key: State.REPLACED}
    assert primary.wal("shop", SYSTEM).read_segment(segment) == bytes([4]) * SIZE
    again = scrub(primary, secondary)
    assert (again.outcomes, again.lost_wal) == ([], ())


def test_a_keep_that_cannot_be_read_holds_for_ever() -> None:
    primary = tier("primary")
    keep = Keep(until=CLOCK.now() + timedelta(days=1), reason="audit", by="me", at=CLOCK.now())
    key = put_keep(primary.store, FULL.layout, keep)
    flip(primary, key)
    assert states(scrub(primary)) == {key: State.REPAIRED}
    assert read_keep(primary.store, key).until is None


# --- locks and versions ---


class _Secretive(MemoryStore):
    """Its key may not look at old versions."""

    def revive(self, key: str, sha256: str) -> bool:
        raise AccessDenied("old versions may not be listed")


def test_what_is_repaired_is_locked_no_shorter_than_what_it_takes_the_place_of() -> None:
    long, pack = CLOCK.now() + timedelta(days=90), FULL.archive.packs[0].key
    for store in (MemoryStore("primary", CLOCK, versioned=True), _Secretive("primary", CLOCK, versioned=True)):
        primary = tier("primary", store=store)
        primary = Repository(store, Codec(1), "primary", Placement(CLOCK, timedelta(days=8)))
        store.extend_lock(FULL.layout.manifest, long)  # as retention does for what is kept
        flip(primary, pack)
        (outcome,) = scrub(primary, tier("secondary")).outcomes
        assert outcome.by == ("secondary" if isinstance(store, _Secretive) else "an old version on primary")
        assert (store.stat(pack).retain_until or CLOCK.now()) >= long


def test_records_that_nobody_has_whole_stop_nothing_for_ever() -> None:
    primary = tier("primary")
    gone = BACKUPS[2]
    put_expired(primary.store, gone.layout, encode(gone), at=CLOCK.now(), reason="old")
    primary.store.delete(gone.layout.manifest)
    flip(primary, gone.layout.expired)
    flip(primary, FULL.layout.manifest)
    before = primary.catalog("shop")
    assert len(before.problems) == 2
    assert not before.lost
    assert states(scrub(primary)) == {gone.layout.expired: State.LOST, FULL.layout.manifest: State.LOST}
    after = primary.catalog("shop")
    assert {*after.problems} == after.lost
    assert FULL.layout.manifest in after.problems[0]
    assert after.unfinished == (gone.label,)  # garbage, with nothing that says otherwise


# --- what is no damage ---


class _Moving(MemoryStore):
    """Something happens once, right after everything was listed."""

    meanwhile: Callable[[], None] | None = None

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        listed = list(super().list(prefix))
        if prefix == "servers/shop/" and self.meanwhile is not None:
            act, self.meanwhile = self.meanwhile, None
            act()
        return iter(listed)


def _moving() -> tuple[_Moving, Repository]:
    store = _Moving("primary", CLOCK)
    for key, data in content(tier("primary")).items():
        store.put(key, Body.of(data))
    return store, Repository(store, Codec(1), "primary")


@pytest.mark.parametrize("pruned", [False, True])
def test_backups_and_wal_that_go_meanwhile_are_no_damage(pruned: bool) -> None:
    store, primary = _moving()

    def expire() -> None:
        put_expired(store, FULL.layout, encode(FULL), at=CLOCK.now(), reason="old")
        store.delete(FULL.layout.manifest)
        for stored in FULL.objects:
            store.delete(stored.key)
        if pruned:
            store.delete(FULL.layout.expired)
        for number in (1, 2):
            store.delete(wal_key(primary, number))

    store.meanwhile = expire
    result = scrub(primary, tier("secondary"))
    assert result.outcomes == []
    assert not [info.key for info in store.list(FULL.layout.prefix) if info.key != FULL.layout.expired]


def test_what_was_expired_or_never_sent_is_not_brought_back() -> None:
    primary, secondary = tier("primary"), tier("secondary")
    put_expired(primary.store, FULL.layout, encode(FULL), at=CLOCK.now(), reason="old")
    primary.store.delete(FULL.layout.manifest)
    primary.store.delete(FULL.archive.packs[0].key)  # pruning has begun
    for info in [*primary.store.list(BACKUPS[2].layout.prefix)]:
        primary.store.delete(info.key)
    before = content(primary)
    assert scrub(primary, secondary).outcomes == []
    assert content(primary) == before


def test_a_backup_that_is_being_copied_is_no_damage() -> None:
    secondary = tier("secondary")
    secondary.store.delete(FULL.layout.manifest)
    secondary.store.delete(FULL.index.key)
    assert scrub(secondary, tier("primary")).outcomes == []


# --- sampling ---


@pytest.mark.parametrize("share", [7, 10, 50, 100])
def test_runs_one_after_the_other_read_everything(share: int) -> None:
    keys = {f"servers/shop/{number}" for number in range(1000)}
    sample, read = Sample(share), list[str]()
    for _ in range(-(-100 // share)):
        here = [key for key in keys if sample.holds(key)]
        assert abs(len(here) - 10 * share) <= 50
        read += here
        sample = sample.following
    assert set(read) == keys
    assert share == 7 or len(read) == len(keys)


def test_a_sample_looks_for_all_and_proves_nothing() -> None:
    primary, secondary = tier("primary"), tier("secondary")
    gone, whole = BACKUPS[2].archive.packs[0].key, content(primary)
    primary.store.delete(gone)
    result = scrub(primary, secondary, sample=Sample(10))
    assert states(result) == {gone: State.REPAIRED}
    assert result.read < result.objects
    assert content(primary) == whole
    assert not any(primary.catalog("shop").marks[made.label].proven() for made in BACKUPS)


# --- crashes ---


@pytest.mark.parametrize("stays_down", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("side", ["primary", "secondary"])
def test_wherever_it_stops_the_next_scrub_ends_it(side: str, stays_down: bool) -> None:
    """The tier that is scrubbed, or the one that good bytes come from."""
    good = content(tier("primary"))
    lost = (BACKUPS[1].archive.packs[0].key, wal_key(tier("primary"), 4))

    def damaged() -> tuple[Repository, Repository]:
        tiers = tier("primary"), tier("secondary")
        for key in (FULL.archive.packs[0].key, BACKUPS[2].layout.manifest, wal_key(tiers[0], 6)):
            flip(tiers[0], key)
        for on in tiers:
            for key in lost:
                flip(on, key)
        return tiers

    for calls in range(1, 1000):
        primary, secondary = tiers = damaged()
        before = content(primary)
        faulty = FaultyStore((primary if side == "primary" else secondary).store, fail_at=calls, stays_down=stays_down)
        fails = Repository(faulty, Codec(1), side)
        with contextlib.suppress(StoreUnavailable):
            scrub(*(fails if each.tier == side else each for each in tiers))
        marks = primary.catalog("shop").marks
        assert not any(marks[label].damage for label in (FIRST, SECOND) if label in marks)  # another tier has them
        after = content(primary)
        assert {layout.damaged_wal(key) for key in after} <= {None, lost[1]}
        assert all(after[key] in (before[key], good[key]) for key in before)  # nothing is half, or gone
        scrub(primary, secondary)
        assert set(states(scrub(primary, secondary))) == {*lost}
        catalog = primary.catalog("shop")
        assert [backup.label for backup in catalog.usable] == [FIRST, SECOND]
        assert len(catalog.marks[CHILD].damage) == 1
        if faulty.calls < calls:
            return
    raise AssertionError("no end")


def test_what_must_be_recalled_is_told_as_not_read() -> None:
    primary = tier("primary")
    primary.store.set_class(FULL.archive.packs[0].key, "ARCHIVE")
    primary.store.set_class(BACKUPS[2].archive.packs[0].key, "COOL")
    result = scrub(primary)
    assert (result.offline, result.outcomes, result.read) == (1, [], result.objects - 1)
    marks = primary.catalog("shop").marks
    assert [bool(marks[made.label].proven()) for made in BACKUPS] == [False, True, True]


def test_where_the_only_good_bytes_must_be_recalled_nothing_is_called_lost() -> None:
    primary, archive = tier("primary"), tier("archive")
    pack = FULL.archive.packs[0].key
    archive.store.set_class(pack, "ARCHIVE")
    flip(primary, pack)
    (outcome,) = scrub(primary, archive).outcomes
    assert outcome.state is State.UNDECIDED and f"dr store recall archive shop --key {pack}" in outcome.by


# --- as an operation ---


def site(**stores: Repository) -> Site:
    plan = {
        "version": 1, "name": "test", "encryption": "none",
        "storage": {name: {"type": "local", "path": name} for name in stores},
        "databases": {"shop": {
            "connection": {"host": "db"}, "schedule": {"full": "daily"}, "storage": {name: name for name in stores},
        }},
    }  # fmt: skip
    return Site(
        Plan.model_validate(plan),
        clock=FixedClock(CLOCK.now()),
        stores={name: tier.store for name, tier in stores.items()},
    )


def test_the_report_says_what_was_done_and_is_kept_on_the_tier() -> None:
    primary, secondary = tier("primary"), tier("secondary")
    flip(primary, FULL.archive.packs[0].key)
    primary.store.put(layout.REPOSITORY, Body.of(b'{"format": 1, "id": "spoiled'), if_absent=False)
    report = operations.scrub(site(primary=primary, secondary=secondary), "primary", Silent())
    assert report.check.passed and "2 were repaired" in report.check.summary
    primary.check_format()
    evidence = json.loads(read_all(primary.store, report.evidence or ""))
    assert evidence["servers"][0]["faults"][0]["by"] == "secondary"
    assert evidence["run"] == report.run


def test_any_changed_byte_of_the_description_is_found_and_a_newer_format_is_left_alone() -> None:
    primary = tier("primary")
    whole = read_all(primary.store, layout.REPOSITORY)
    for at in range(len(whole)):
        flip(primary, layout.REPOSITORY, at)
        with contextlib.suppress(RepositoryError):  # what looks like a newer format is refused
            assert scrub_description(primary, repair=False) is not None, at
        primary.store.put(layout.REPOSITORY, Body.of(whole), if_absent=False)
    newer = b'{"format": 2}'
    primary.store.put(layout.REPOSITORY, Body.of(newer), if_absent=False)
    with pytest.raises(RepositoryError):
        scrub_description(primary, repair=True)
    assert read_all(primary.store, layout.REPOSITORY) == newer


def test_a_tier_that_was_lost_whole_is_nothing_to_call_good() -> None:
    secondary = Repository(MemoryStore("secondary", CLOCK), Codec(1), "secondary")
    secondary.initialise()
    both = site(primary=tier("primary"), secondary=secondary)
    check = operations.scrub(both, "secondary", Silent()).check
    assert check.verdict is Verdict.NOT_PROVEN
    assert "holds no backup of shop, while primary does" in check.summary
    assert "dr replicate shop --tier secondary --from primary" in check.details["hint"]


def test_samples_go_on_where_the_last_one_ended() -> None:
    primary = tier("primary")
    here, read = site(primary=primary), 0
    for _ in range(4):
        here.clock.wait(3600)
        (server,) = operations.scrub(here, "primary", Silent(), sample=25).servers
        read += server.read - 4  # manifests and wal.json are read every time
    assert read == server.objects - 4
    assert server.sample.start == 75


@pytest.mark.parametrize("stays_down", [True, False])
def test_what_could_not_be_read_is_not_proven(stays_down: bool) -> None:
    primary = tier("primary")
    faulty = FaultyStore(primary.store, fail_at=12, stays_down=stays_down)
    check = operations.objects_match_their_digests(
        site(primary=Repository(faulty, Codec(1), "primary")), "primary", Silent()
    )
    assert check.verdict is Verdict.NOT_PROVEN
    empty = Repository(MemoryStore("primary"), Codec(1), "primary")
    empty.initialise()
    assert (
        operations.objects_match_their_digests(site(primary=empty), "primary", Silent()).verdict is Verdict.NOT_PROVEN
    )


# --- dr verify leaves a proof too ---


class _Notes(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_what_verify_found_wrong_is_put_down_beside_the_backup() -> None:
    primary = tier("primary")  # its packs decode to nothing, so the contents fail
    scrub(primary)
    here = site(primary=primary)
    here.clock.wait(60)
    checks = operations.verify_backup(here, "shop", FIRST, "primary", Silent())
    assert not all(check.passed for check in checks)
    marks = primary.catalog("shop").marks[FIRST]
    assert {(proof.kind, proof.verdict) for proof in marks.proofs} == {("scrub", "pass"), ("verify", "fail")}
    assert marks.proven() is None


def test_a_proof_that_cannot_be_put_is_a_note() -> None:
    primary = tier("primary")
    seen, told = Repository(ReadOnly(primary.store), Codec(1), "primary"), _Notes()
    checks = operations.verify_backup(site(primary=seen), "shop", FIRST, "primary", told)
    assert [check.name for check in checks if check.passed]
    assert any("could not be put on primary" in note for note in told.notes)
