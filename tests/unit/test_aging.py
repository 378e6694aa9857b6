"""What moves to which storage class, when, and what never does."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from dr_pipelines.clock import FixedClock
from dr_pipelines.errors import DrError, StoreError, StoreUnavailable
from dr_pipelines.lsn import Lsn, Timeline, WalSegment
from dr_pipelines.progress import Silent
from dr_pipelines.replication.aging import (
    AT_HAND,
    AgedClass,
    AgedWal,
    AgingPlan,
    AgingRules,
    Lasting,
    Move,
    apply_aging,
    plan_aging,
)
from dr_pipelines.repository.catalog import Catalog
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.repository.marks import Marks
from dr_pipelines.storage.base import Body
from dr_pipelines.storage.memory import MemoryStore
from tests.support.archives import manifest

NOW = datetime(2026, 11, 26, tzinfo=UTC)
DAY = timedelta(days=1)
SIZE = 1 << 20
COOL = AgedClass("Cool", 7 * DAY, minimum=30 * DAY)
ARCHIVE = AgedClass("Archive", 30 * DAY, offline=True, minimum=180 * DAY)
RULES = AgingRules((COOL, ARCHIVE), ("Hot", "Cool", "Cold", "Archive"))
FOR_EVER = None


def full(age: int, segment: int, **changes: object) -> BackupManifest:
    """A full of so many days ago, within one segment."""
    at = NOW - age * DAY
    start = Lsn(segment * SIZE + 40)
    fields = dict(started_at=at, finished_at=at, start_lsn=start, stop_lsn=start + 400, segment_size=SIZE)
    return manifest(f"{at:%Y%m%dT%H%M%SZ}-full", **(fields | changes))


def segment(number: int, age: float, storage_class: str | None = None, timeline: int = 1) -> AgedWal:
    there = WalSegment(Timeline(timeline), number, SIZE)
    return AgedWal(there, f"wal/{there.name}", SIZE, storage_class, NOW - age * DAY)


def plan(
    backups: list[BackupManifest],
    *wal: AgedWal,
    until: dict[str, datetime | None] | None = None,
    at_hand: tuple[BackupManifest, ...] = (),
    rules: AgingRules = RULES,
    marks: dict[str, Marks] | None = None,
    window: timedelta = 7 * DAY,
) -> AgingPlan:
    catalog = Catalog(tuple(backups), marks=marks or {})
    lasting = Lasting(
        {backup.label: FOR_EVER for backup in backups} if until is None else until,
        frozenset(backup.label for backup in at_hand),
        window=window,
    )
    return plan_aging(catalog, {backups[0].system_id: wal}, rules, lasting, now=NOW)


def where(found: AgingPlan) -> dict[str, str]:
    return {move.key.rpartition("/")[2]: move.to for move in found.moves}


def to(found: AgingPlan, backup: BackupManifest) -> str | None:
    return {move.key: move.to for move in found.moves}.get(backup.archive.packs[0].key)


def test_packs_go_to_the_coldest_class_that_they_are_old_enough_for() -> None:
    new, cool, old = full(6, 3), full(7, 2), full(30, 1)
    found = plan([old, cool, new])
    assert (to(found, new), to(found, cool), to(found, old)) == (None, "Cool", "Archive")
    packs = {backup.archive.packs[0].key for backup in (cool, old)}
    assert {move.key for move in found.moves} == packs  # and nothing that recovery is planned with


def test_what_is_in_its_class_or_a_colder_one_stays() -> None:
    backups = [full(40, 1), full(20, 2), full(15, 3), full(10, 4)]
    there = ("Archive", "Archive", "Cold", "INTELLIGENT")  # the last is none that we know
    marks = {
        backup.label: Marks(classes={backup.archive.packs[0].key: name})
        for backup, name in zip(backups, there, strict=True)
    }
    assert plan(backups, marks=marks).moves == ()


def test_what_a_recovery_in_the_window_reads_stays_at_hand() -> None:
    base = full(40, 2)
    top = full(39, 4, kind=BackupKind.INCREMENTAL, parent=base.label)
    older = full(45, 1)
    wal = [segment(number, 40) for number in (1, 2, 3, 4, 5)]
    found = plan([older, base, top], *wal, at_hand=(top,))
    assert (to(found, base), to(found, top), to(found, older)) == ("Cool", "Cool", "Archive")
    moved = where(found)
    assert [moved.get(wal[n].segment.name) for n in range(5)] == ["Archive", "Cool", "Cool", "Cool", None]
    assert {held.reason for held in found.held} >= {AT_HAND}


def test_a_tier_for_cold_keeping_keeps_nothing_at_hand() -> None:
    newest = full(40, 1)
    only = replace(RULES, classes=(replace(ARCHIVE, after=timedelta(0)),))
    assert to(plan([newest], at_hand=(newest,), rules=only), newest) is None
    assert to(plan([newest], at_hand=(newest,), rules=replace(only, is_cold_by_design=True)), newest) == "Archive"


def test_wal_of_a_later_timeline_that_the_window_needs_stays_at_hand() -> None:
    base = full(40, 2)
    wal = [segment(3, 35, timeline=2), segment(1, 50)]
    found = plan([base], *wal, at_hand=(base,), rules=replace(RULES, classes=(replace(ARCHIVE, minimum=0 * DAY),)))
    assert where(found) == {}  # segment 1 has no backup that is kept, but is young enough for none to care


@pytest.mark.parametrize(("days", "expected"), [(179, "Cool"), (180, "Archive"), (29, None)])
def test_nothing_goes_where_it_is_charged_for_longer_than_it_is_kept(days: int, expected: str | None) -> None:
    old = full(60, 1)
    found = plan([old], until={old.label: NOW + days * DAY})
    assert to(found, old) == expected
    assert bool(found.held) == (expected != "Archive")


def test_what_retention_lets_go_now_never_moves() -> None:
    assert plan([full(60, 1)], until={}).moves == ()


def test_wal_is_as_old_as_the_first_backup_after_it_says() -> None:
    """A copy, or a change of class, makes it look new."""
    backups = [full(60, 1), full(40, 3)]
    wal = [segment(1, 1), segment(2, 1), segment(3, 1), segment(4, 1)]
    assert where(plan(backups, *wal, window=400 * DAY)) == {wal[n].segment.name: "Archive" for n in (0, 1, 2)} | {
        backup.archive.packs[0].key.rpartition("/")[2]: "Archive" for backup in backups
    }


def test_wal_of_a_kept_full_goes_with_it_and_the_rest_goes_with_the_window() -> None:
    kept = full(60, 1)
    wal = [segment(1, 60), segment(2, 60)]
    found = plan([kept], *wal)
    names = where(found)
    assert names[wal[0].segment.name] == "Archive" and wal[1].segment.name not in names


def test_wal_of_a_system_without_backups_does_not_move() -> None:
    found = plan_aging(Catalog(()), {"1": [segment(1, 400)]}, RULES, Lasting({}, frozenset()), now=NOW)
    assert found.moves == ()


def test_an_age_is_applied_once_and_again() -> None:
    store = MemoryStore(clock=FixedClock(NOW), classes=("Cool", "Archive"), offline=("Archive",))
    for name in "abc":
        store.put(name, Body.of(name.encode()))
    moves = tuple(Move(name, 1, "Archive") for name in ("a", "b", "gone"))
    for _ in range(2):
        done = apply_aging(AgingPlan(moves), store, Silent())
        assert (done.objects, done.bytes, done.refused) == (2, 2, {})
    assert {info.key: info.storage_class for info in store.list()} == {"a": "Archive", "b": "Archive", "c": None}


class _Refusing(MemoryStore):
    error: DrError

    def set_class(self, key: str, storage_class: str) -> None:
        if key == "b":
            raise self.error
        super().set_class(key, storage_class)


def test_what_one_object_has_against_it_stops_no_other_and_a_store_in_trouble_stops_all() -> None:
    store = _Refusing(classes=("Cool",), offline=())
    for name in "abc":
        store.put(name, Body.of(name.encode()))
    planned = AgingPlan(tuple(Move(name, 1, "Cool") for name in "abc"))
    store.error = StoreError("it is being read")
    done = apply_aging(planned, store, Silent())
    assert (done.objects, done.refused) == (2, {"b": "it is being read"})
    store.error = StoreUnavailable("gone")
    with pytest.raises(StoreUnavailable):
        apply_aging(planned, store, Silent())
