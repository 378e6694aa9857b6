"""Which backups and which WAL: what is proven before what is faster, and refusals that say what can be had."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from dr_pipelines.errors import RestoreError, TargetUnreachable, WalGap
from dr_pipelines.lsn import Lsn, Timeline
from dr_pipelines.postgres.restore_plan import (
    LATEST,
    RecoveryTarget,
    RestorePlan,
    Switch,
    UseIncrementals,
    WalSpan,
    plan_restore,
)
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.repository.manifest import BackupManifest
from tests.support.archives import AT, manifest

MIB = 1 << 20
ONE, TWO = Timeline(1), Timeline(2)


def _hour(number: float) -> datetime:
    return AT + timedelta(hours=number)


def full(hour: int, *, mib: int = 10, timeline: Timeline = ONE, **changes: object) -> BackupManifest:
    """Taken at `hour`, from `hour` times 1 GiB of WAL on for 1 MiB; `mib` is the size of its archive."""
    start = Lsn(hour << 30)
    packs = [{"key": "k", "size": 1, "sha256": ""}]
    return manifest(
        f"full{hour}",
        start_lsn=start, stop_lsn=start + MIB, started_at=_hour(hour), finished_at=_hour(hour), timeline=timeline,
        archive={"size": mib * MIB, "pack_size": mib * MIB, "packs": packs}, **changes,
    )  # fmt: skip


def incremental(hour: int, parent: BackupManifest, **changes: object) -> BackupManifest:
    return full(hour, mib=1, kind=BackupKind.INCREMENTAL, parent=parent.label, **changes).model_copy(
        update={"label": f"incr{hour}"}
    )


def span(start: float, end: float, timeline: Timeline = ONE) -> WalSpan:
    """WAL from one hour to another."""
    return WalSpan(timeline, Lsn(int(start * (1 << 30))), Lsn(int(end * (1 << 30))))


def at(hour: float, timeline: Timeline | None = None) -> RecoveryTarget:
    return RecoveryTarget("lsn", Lsn(int(hour * (1 << 30))), timeline=timeline)


def _ways(plan: RestorePlan) -> list[list[str]]:
    return [[backup.label for backup in way.chain] for way in plan.candidates]


BASE = full(1)
CHAIN = [BASE, incremental(2, BASE), incremental(3, incremental(2, BASE))]
DOUBT = {"provisional": "may omit blocks"}
DOUBTFUL = [BASE, incremental(2, BASE, **DOUBT), incremental(3, incremental(2, BASE), **DOUBT)]
WAL = [span(1, 4)]


# --- the choice ---


def test_the_faster_way_first_and_every_other_after_it() -> None:
    plan = plan_restore(CHAIN, WAL, {}, LATEST)
    assert _ways(plan) == [["full1", "incr2", "incr3"], ["full1", "incr2"], ["full1"]]
    assert plan.reachable_end == Lsn(4 << 30)
    assert (plan.candidates[0].wal_start, plan.candidates[0].wal_bytes) == (Lsn(3 << 30), 1 << 30)


def test_a_full_is_faster_where_the_chain_is_large() -> None:
    heavy = incremental(2, BASE).model_copy(update={"archive": full(1, mib=9000).archive})
    assert _ways(plan_restore([BASE, heavy], [span(1, 2.1)], {}, LATEST))[0] == ["full1"]
    forced = plan_restore([BASE, heavy], [span(1, 2.1)], {}, LATEST, use_incrementals="always")
    assert _ways(forced)[0] == ["full1", "incr2"]


def test_what_is_proven_goes_before_what_is_faster() -> None:
    plan = plan_restore(DOUBTFUL, WAL, {}, LATEST)
    assert _ways(plan) == [["full1"], ["full1", "incr2", "incr3"], ["full1", "incr2"]]
    assert any("provisional" in note for note in plan.notes)


def test_a_comparison_vouches_for_all_that_its_incremental_builds_on() -> None:
    assert _ways(plan_restore(DOUBTFUL, WAL, {}, LATEST, proven=["incr3"]))[0] == ["full1", "incr2", "incr3"]
    # What came after it is as doubtful as before.
    assert _ways(plan_restore(DOUBTFUL, WAL, {}, LATEST, proven=["incr2"])) == [
        ["full1", "incr2"], ["full1"], ["full1", "incr2", "incr3"],
    ]  # fmt: skip


def test_a_person_may_want_incrementals_or_none() -> None:
    assert _ways(plan_restore(DOUBTFUL, WAL, {}, LATEST, use_incrementals="always"))[0] == ["full1", "incr2", "incr3"]
    assert _ways(plan_restore(CHAIN, WAL, {}, LATEST, use_incrementals="never")) == [["full1"]]


def test_a_label_restricts_the_choice() -> None:
    assert _ways(plan_restore(CHAIN, WAL, {}, LATEST, label="incr2")) == [["full1", "incr2"]]


def test_only_backups_that_end_before_the_target_serve() -> None:
    assert _ways(plan_restore(CHAIN, WAL, {}, at(2.5)))[0] == ["full1", "incr2"]
    assert _ways(plan_restore(CHAIN, WAL, {}, RecoveryTarget("time", _hour(1.5)))) == [["full1"]]
    exactly = RecoveryTarget("lsn", CHAIN[1].stop_lsn)
    assert ["full1", "incr2"] in _ways(plan_restore(CHAIN, WAL, {}, exactly))


def test_immediate_is_the_end_of_the_newest_backup() -> None:
    plan = plan_restore(CHAIN, WAL, {}, RecoveryTarget("immediate"))
    assert _ways(plan)[0] == ["full1", "incr2", "incr3"]
    assert plan.candidates[0].wal_bytes == MIB


def test_a_chain_that_lost_its_parent_is_passed_over() -> None:
    backups = [CHAIN[0], CHAIN[2]]
    assert _ways(plan_restore(backups, WAL, {}, LATEST)) == [["full1"]]


def test_after_a_gap_only_the_newer_backup_gets_to_the_end() -> None:
    backups, wal = [BASE, full(3)], [span(1, 2), span(3, 4)]
    assert _ways(plan_restore(backups, wal, {}, LATEST)) == [["full3"]]
    assert _ways(plan_restore(backups, wal, {}, at(1.5))) == [["full1"]]


# --- timelines ---

HISTORY = {TWO: Switch(ONE, Lsn(3 << 30))}


def test_the_newest_timeline_is_followed_over_its_switch() -> None:
    plan = plan_restore([BASE], [span(1, 3.5), span(2.9, 5, TWO)], HISTORY, LATEST)
    assert (plan.timeline, plan.reachable_end) == (TWO, Lsn(5 << 30))


def test_the_end_of_the_left_timeline_is_in_the_first_segment_of_the_next() -> None:
    plan = plan_restore([BASE], [span(1, 2.95), span(2.9, 5, TWO)], HISTORY, LATEST)
    assert plan.reachable_end == Lsn(5 << 30)
    with pytest.raises(WalGap, match="WAL is missing between"):
        plan_restore([BASE], [span(1, 2.8), span(2.9, 5, TWO)], HISTORY, LATEST)


def test_a_backup_of_a_part_that_was_left_does_not_serve() -> None:
    left = full(4)
    wal = [span(1, 5), span(3, 6, TWO)]
    assert _ways(plan_restore([BASE, left], wal, HISTORY, LATEST)) == [["full1"]]
    assert _ways(plan_restore([BASE, left], wal, HISTORY, RecoveryTarget(timeline=ONE)))[0] == ["full4"]
    with pytest.raises(TargetUnreachable, match="no backup leads to timeline 2"):
        plan_restore([left], wal, HISTORY, at(5.5, TWO))


def test_a_backup_of_a_later_timeline_does_not_serve_an_earlier_one() -> None:
    with pytest.raises(TargetUnreachable, match="no backup leads to timeline 1"):
        plan_restore([full(4, timeline=TWO)], [span(4, 5, TWO)], HISTORY, RecoveryTarget(timeline=ONE))


def test_a_lost_history_file_never_selects_an_older_timeline() -> None:
    with pytest.raises(WalGap, match="history file of timeline 2"):
        plan_restore([BASE], [span(1, 3), span(3, 4, TWO)], {}, LATEST)


# --- refusals say what can be had ---


def _refused(
    error: type[RestoreError],
    said: str,
    hint: str,
    backups: list[BackupManifest],
    wal: list[WalSpan],
    target: RecoveryTarget,
    label: str | None = None,
    use_incrementals: UseIncrementals = "auto",
) -> None:
    with pytest.raises(error) as caught:
        plan_restore(backups, wal, {}, target, label=label, use_incrementals=use_incrementals)
    assert said in caught.value.message
    assert hint in (caught.value.hint or "")


def test_before_the_oldest_backup() -> None:
    oldest = "0/40100000 (2026-01-02T04:04:05Z)"
    for target in (at(0.5), RecoveryTarget("time", _hour(0.5))):
        _refused(
            TargetUnreachable, f"before the oldest point that can be restored: {oldest}", oldest, CHAIN, WAL, target
        )
    # A backup that lacks the WAL to become consistent is no point to restore to.
    later = "0/80100000 (2026-01-02T05:04:05Z)"
    _refused(TargetUnreachable, f"can be restored: {later}", later, [BASE, full(2)], [span(2, 3)], at(0.5))


def test_in_a_gap() -> None:
    backups, wal = [BASE, full(3)], [span(1, 2), span(2.5, 4)]
    gap = "WAL is missing between 0/80000000 and 0/A0000000"
    around = "up to 0/80000000 or from 0/C0100000 (2026-01-02T06:04:05Z) on"
    _refused(WalGap, gap, around, backups, wal, at(2.2))
    _refused(WalGap, gap, around, backups, wal, at(2.7))  # there is WAL, but no way to it
    _refused(WalGap, gap, "up to 0/80000000, or for another tier", [BASE], wal, at(2.2))
    plan = plan_restore(backups, wal, {}, RecoveryTarget("time", _hour(2.2)))
    assert any(gap in note for note in plan.notes)


def test_latest_does_not_stop_at_a_gap_without_a_word() -> None:
    _refused(WalGap, "WAL is missing between 0/80000000 and 0/C0000000", "--lsn 0/80000000", [BASE],
             [span(1, 2), span(3, 4)], LATEST)  # fmt: skip


def test_a_label_before_the_gap_is_not_all_that_there_is() -> None:
    _refused(WalGap, "full1 was taken before that", "--lsn", [BASE, full(3)], [span(1, 2), span(3, 4)], LATEST, "full1")


def test_for_a_time_every_way_is_kept_those_that_get_furthest_first() -> None:
    backups = [BASE, full(3)]
    plan = plan_restore(backups, [span(1, 2), span(3, 4)], {}, RecoveryTarget("time", _hour(3.5)))
    assert _ways(plan) == [["full3"], ["full1"]]


def test_beyond_the_end() -> None:
    _refused(TargetUnreachable, "after the newest WAL that can be replayed: 1/0", "up to 1/0", CHAIN, WAL, at(9))


def test_without_the_wal_to_become_consistent() -> None:
    for wal in ([], [span(1, 1.0001)], [span(2, 4)]):
        _refused(WalGap, "to become consistent is not there", "--tier", [BASE], wal, LATEST)


def test_only_incrementals_and_none_wanted() -> None:
    _refused(
        TargetUnreachable, "only incremental backups", "--use-incrementals never", CHAIN, WAL, LATEST, "incr2", "never"
    )


def test_a_chain_that_is_not_whole() -> None:
    _refused(TargetUnreachable, "incr3 builds on incr2", "--tier", [BASE, CHAIN[2]], WAL, LATEST, "incr3")


def test_no_backup() -> None:
    _refused(TargetUnreachable, "no complete backup", "dr list", [], WAL, LATEST)
    _refused(TargetUnreachable, "no complete backup nothing", "dr list", CHAIN, WAL, LATEST, "nothing")
