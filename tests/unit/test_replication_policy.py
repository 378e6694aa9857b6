"""Which backups and which WAL are due on a tier."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from dr_pipelines.lsn import Lsn, Timeline, WalSegment
from dr_pipelines.plan.policies import RetentionPlan
from dr_pipelines.replication.policy import due_backups
from dr_pipelines.replication.wal_policy import WalNeed, wal_due, wal_need
from dr_pipelines.repository.catalog import Catalog
from dr_pipelines.repository.layout import BackupKind, ProofName, WalLayout, label_for, wal_damage
from dr_pipelines.repository.manifest import BackupManifest, WalRange
from dr_pipelines.repository.marks import Expired, Keep, Marks
from dr_pipelines.retention.wal import wal_among
from dr_pipelines.storage.base import ObjectInfo
from tests.support.archives import manifest

NOW = datetime(2026, 3, 10, tzinfo=UTC)
MIB = 1 << 20
ALL = WalNeed({}, {}, others=True)


def backup(at: str, parent: BackupManifest | None = None, **changes: object) -> BackupManifest:
    """`at` is `03-02` or `03-02T04`, of 2026; its LSN goes with the time."""
    taken = datetime.fromisoformat(f"2026-{at}:00" if "T" in at else f"2026-{at}").replace(tzinfo=UTC)
    kind = BackupKind.INCREMENTAL if parent else BackupKind.FULL
    lsn = Lsn(int((taken - datetime(2026, 1, 1, tzinfo=UTC)).total_seconds()) * 100)
    fields = dict(
        kind=kind, started_at=taken, finished_at=taken + timedelta(minutes=5), start_lsn=lsn, stop_lsn=lsn + 10,
        parent=parent.label if parent else None,
        wal_ranges=(WalRange(timeline=Timeline(1), start=lsn, end=lsn + 10),),
    )  # fmt: skip
    return manifest(label_for(taken, kind), **(fields | changes))


def catalog(
    backups: Iterable[BackupManifest] = (), marks: dict[str, Marks] | None = None, gone: Sequence[BackupManifest] = ()
) -> Catalog:
    held = tuple(backups)
    of_each = {one.label: Marks() for one in held} | (marks or {})
    expired = tuple(Expired(one, NOW, "too old", b"") for one in gone)
    return Catalog(held, marks=of_each, expired=expired)


def lacking(one: BackupManifest) -> Marks:
    return Marks(missing=(one.archive.packs[0].key,))


def due(send: str, source: Catalog, target: Catalog, now: datetime = NOW) -> list[str]:
    return [one.backup.label for one in due_backups(send, source, target, now=now)]


FULL = backup("03-01")
FIRST = backup("03-01T04", FULL)
SECOND = backup("03-01T08", FIRST)
OTHER = backup("03-02")


def test_everything_is_sent_in_order_and_what_is_there_is_not() -> None:
    source = catalog([FULL, FIRST, SECOND, OTHER])
    assert due("everything", source, catalog()) == [b.label for b in (FULL, FIRST, SECOND, OTHER)]
    assert due("everything", source, catalog([FULL, FIRST])) == [SECOND.label, OTHER.label]
    assert due("nothing", source, catalog()) == []


def test_a_copy_that_lacks_objects_is_due_again() -> None:
    there = catalog([FULL], {FULL.label: lacking(FULL)})
    assert due("everything", catalog([FULL]), there) == [FULL.label]


def test_what_is_not_usable_is_not_sent() -> None:
    source = catalog([FULL, FIRST, SECOND, OTHER], {FIRST.label: lacking(FIRST)})
    assert due("everything", source, catalog()) == [FULL.label, OTHER.label]


def test_what_retention_let_go_or_would_let_go_is_not_sent_again() -> None:
    source = catalog([FULL, FIRST, OTHER])
    assert due("everything", source, catalog(gone=[FULL, FIRST])) == [OTHER.label]

    def keeps(backups: Collection[BackupManifest]) -> Collection[str]:
        return [one.label for one in backups if one is not FULL]

    # What is kept is not sent without its chain.
    sent = due_backups("everything", source, catalog([OTHER]), now=NOW, keeps=keeps)
    assert [one.backup.label for one in sent] == [FULL.label, FIRST.label]


def test_what_a_person_keeps_is_kept_on_every_tier() -> None:
    keep = Keep(until=None, reason="audit", by="me", at=NOW)
    source = catalog([FULL, OTHER], {FULL.label: Marks(keeps={"keeps/1.json": keep})})
    sent = due_backups("everything", source, catalog(), now=NOW, keeps=lambda _: ())
    assert [one.backup.label for one in sent] == [FULL.label]


def test_what_was_found_damaged_waits_until_it_is_found_whole() -> None:
    def proof(kind: str, verdict: str, hour: int) -> ProofName:
        return ProofName(kind, datetime(2026, 3, 2, hour, tzinfo=UTC), verdict)

    def held(*proofs: ProofName) -> list[bool]:
        source = catalog([FULL, FIRST], {FULL.label: Marks(proofs=proofs)})
        return [one.held is not None for one in due_backups("everything", source, catalog(), now=NOW)]

    assert held(proof("replicate", "fail", 1)) == [True, True]
    assert held(proof("replicate", "fail", 1), proof("scrub", "pass", 2)) == [False, False]
    assert held(proof("validate", "fail", 1)) == [False, False]  # its bytes are as they were taken


JANUARY, LATE_JANUARY = backup("01-10"), backup("01-30")
FEBRUARY, LATE_FEBRUARY = backup("02-01"), backup("02-28")
MARCH, LATE_MARCH = backup("03-02"), backup("03-09")
ALL_FULLS = [JANUARY, LATE_JANUARY, FEBRUARY, LATE_FEBRUARY, MARCH, LATE_MARCH]


def test_monthly_sends_the_newest_full_of_each_month_that_has_ended() -> None:
    source = catalog([*ALL_FULLS, backup("02-28T04", LATE_FEBRUARY)])
    assert due("monthly", source, catalog()) == [LATE_JANUARY.label, LATE_FEBRUARY.label]
    assert due("monthly", source, catalog([LATE_JANUARY])) == [LATE_FEBRUARY.label]
    assert due("monthly", source, catalog([LATE_JANUARY, LATE_FEBRUARY])) == []
    april = datetime(2026, 4, 1, tzinfo=UTC)
    assert due("monthly", source, catalog([LATE_JANUARY, LATE_FEBRUARY]), april) == [LATE_MARCH.label]


def test_a_month_is_due_when_it_ends() -> None:
    sent = due_backups("monthly", catalog(ALL_FULLS), catalog(), now=NOW)
    assert [one.since for one in sent] == [datetime(2026, 2, 1, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC)]
    taken, ended = datetime(2025, 12, 30, tzinfo=UTC), datetime(2025, 12, 30, 1, tzinfo=UTC)
    december = manifest(label_for(taken, BackupKind.FULL), started_at=taken, finished_at=ended)
    [one] = due_backups("monthly", catalog([december]), catalog(), now=NOW)
    assert one.since == datetime(2026, 1, 1, tzinfo=UTC)


def test_monthly_sends_the_newest_full_of_a_young_repository_once() -> None:
    source = catalog([MARCH, LATE_MARCH])
    assert due("monthly", source, catalog()) == [LATE_MARCH.label]
    assert due("monthly", source, catalog([MARCH])) == []  # superseded in days: not worth 180 days' keep
    damaged = catalog([MARCH], {MARCH.label: lacking(MARCH)})
    assert due("monthly", source, damaged) == [LATE_MARCH.label]


def test_monthly_takes_the_newest_usable_one_and_sends_no_older_one_after_it() -> None:
    broken = {LATE_FEBRUARY.label: Marks(damage=("damage/1.json",))}
    assert due("monthly", catalog([FEBRUARY, LATE_FEBRUARY], broken), catalog()) == [FEBRUARY.label]
    assert due("monthly", catalog([FEBRUARY]), catalog([LATE_FEBRUARY])) == []


# --- WAL ----------------------------------------------------------------------------------------------------


def name(number: int, timeline: int = 1) -> str:
    return WalSegment(Timeline(timeline), number, MIB).name


def whole(number: int, digest: str = "a", system: str = "1", size: int = 10) -> ObjectInfo:
    key = WalLayout("shop", system).segment(WalSegment(Timeline(1), number, MIB), digest * 64, ".zst")
    return ObjectInfo(key, size, NOW + timedelta(minutes=number))


def head(number: int, length: int, digest: str = "b") -> ObjectInfo:
    segment = WalSegment(Timeline(1), number, MIB)
    key = WalLayout("shop", "1").partial(segment, segment.start + length, digest * 64, ".zst")
    return ObjectInfo(key, length, NOW)


def history(timeline: int, digest: str = "c") -> ObjectInfo:
    return ObjectInfo(WalLayout("shop", "1").history(Timeline(timeline), digest * 64, ".zst"), 5, NOW)


DESCRIPTION = ObjectInfo(WalLayout("shop", "1").description, 25, NOW)


def test_segments_are_compared_by_name_whoever_encrypted_them() -> None:
    source = [DESCRIPTION, history(2), whole(2), whole(3), whole(4), whole(4, "d")]
    found = wal_due("shop", source, [whole(2, "e")], ALL)
    assert found.descriptions == (DESCRIPTION.key,)
    assert [[one.key for one in any_of] for any_of in found.whole] == [
        [history(2).key], [whole(3).key], [whole(4).key, whole(4, "d").key],
    ]  # fmt: skip
    assert found.bytes == 5 + 10 + 10
    assert found.oldest == NOW
    assert wal_due("shop", source, [DESCRIPTION, history(2, "f"), whole(2), whole(3), whole(4)], ALL) == wal_due(
        "shop", [], [], ALL
    )


def test_systems_do_not_mix() -> None:
    found = wal_due("shop", [whole(2), whole(2, system="7")], [whole(2)], ALL)
    assert [any_of[0].key for any_of in found.whole] == [whole(2, system="7").key]


def test_a_head_is_sent_only_when_the_whole_is_nowhere_and_it_is_longer() -> None:
    def heads(source: list[ObjectInfo], target: list[ObjectInfo]) -> list[str]:
        return [stored.key for stored in wal_due("shop", source, target, ALL).heads]

    assert heads([head(5, 100), head(5, 200)], []) == [head(5, 200).key]
    assert heads([head(5, 200)], [head(5, 100)]) == [head(5, 200).key]
    assert heads([head(5, 200)], [head(5, 200, "e")]) == []
    assert heads([head(5, 200)], [head(5, 300)]) == []
    assert heads([head(5, 200), whole(5)], []) == []
    assert heads([head(5, 200)], [whole(5)]) == []


def test_heads_that_something_longer_replaces_are_stale() -> None:
    def stale(source: list[ObjectInfo], target: list[ObjectInfo]) -> tuple[str, ...]:
        return wal_due("shop", source, target, ALL).stale

    assert stale([whole(5)], [head(5, 100)]) == (head(5, 100).key,)
    assert stale([], [whole(5), head(5, 100)]) == (head(5, 100).key,)
    assert stale([head(5, 200)], [head(5, 100)]) == (head(5, 100).key,)
    assert stale([head(5, 50)], [head(5, 100)]) == ()
    assert stale([], [head(5, 100), head(5, 50)]) == (head(5, 50).key,)


def test_what_is_marked_as_damaged_is_not_there() -> None:
    mark = ObjectInfo(wal_damage(whole(2).key), 2, NOW)
    assert wal_due("shop", [whole(2), mark], [], ALL).whole == ()
    [any_of] = wal_due("shop", [whole(2, "d")], [whole(2), mark], ALL).whole
    assert any_of[0].key == whole(2, "d").key


def lsn_backup(at: str, start: int, end: int, **changes: object) -> BackupManifest:
    """From segment `start` to segment `end`."""
    begin, stop = Lsn(start * MIB), Lsn(end * MIB + 8)
    ranges = (WalRange(timeline=Timeline(1), start=begin, end=stop),)
    return backup(at, start_lsn=begin, stop_lsn=stop, wal_ranges=ranges, **changes)


@pytest.mark.parametrize(("send", "numbers"), [("monthly", [2, 3, 10, 20, 30]), ("everything", [2, 3, *range(10, 41)])])
def test_what_the_backups_of_a_tier_need(send: str, numbers: list[int]) -> None:
    held = [lsn_backup("01-10", 2, 3), *(lsn_backup(f"03-0{day}", n, n) for day, n in ((1, 10), (8, 20), (9, 30)))]
    need = wal_need(send, held, RetentionPlan(), now=NOW)
    assert [number for number in range(41) if need.wants("1", name(number))] == numbers
    assert need.wants("1", "00000002.history")
    assert need.wants("2", name(1)) == (send == "everything")


def test_wal_of_what_retention_will_remove_is_not_needed() -> None:
    held = [lsn_backup("03-02", 2, 3), lsn_backup("03-02T01", 5, 5), lsn_backup("03-09", 10, 10)]
    need = wal_need("monthly", held, RetentionPlan(window=timedelta(days=1)), now=NOW)
    assert [number for number in range(12) if need.wants("1", name(number))] == [5, 10]


def test_wal_of_a_timeline_that_went_back_is_in_the_window() -> None:
    held = [lsn_backup("03-01", 20, 20), lsn_backup("03-08", 10, 10, timeline=Timeline(2))]
    need = wal_need("everything", held, RetentionPlan(), now=NOW)
    assert need.wants("1", name(10, 2))
    assert not need.wants("1", name(9, 2))


def test_wal_of_a_timeline_that_went_back_is_sent_before_its_first_backup() -> None:
    went_back = [replace(whole(number), key=whole(number).key.replace("00000001", "00000002")) for number in (7, 8)]
    held = [lsn_backup("02-20", 20, 20), lsn_backup("03-01", 30, 30)]
    wal = wal_among([*went_back, *(whole(number) for number in (20, 30))], "shop", {"1": MIB}.get)
    need = wal_need("everything", held, RetentionPlan(), now=NOW, wal=wal)
    assert need.wants("1", name(7, 2))
    assert not need.wants("1", name(7))


def test_wal_of_a_system_whose_backups_are_wanted_no_more_is_not_sent_again_and_again() -> None:
    held = [lsn_backup("03-01", 20, 20, system_id="3")]
    old = replace(whole(7), modified=NOW - timedelta(days=30))
    wal = wal_among([old], "shop", {"1": MIB}.get)
    need = wal_need("everything", held, RetentionPlan(), now=NOW, wal=wal)
    assert not need.wants("1", name(7))
    assert not need.wants("1", "00000002.history")
    assert need.wants("4", name(7))  # its first backup is still to come
    busy = wal_among([whole(7)], "shop", {"1": MIB}.get)
    assert wal_need("everything", held, RetentionPlan(), now=NOW, wal=busy).wants("1", name(7))
