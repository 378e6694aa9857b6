"""A restore of files from a tier whose packs are offline: what it says, asks for, waits for, and brings back."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from dr_pipelines import operations
from dr_pipelines.checks import Verdict
from dr_pipelines.errors import RecallPending, RepositoryError
from dr_pipelines.files.restore_preview import FilesPreview
from dr_pipelines.progress import Silent
from dr_pipelines.replication.repair import State
from dr_pipelines.storage.base import Availability
from tests.support.cold_files import COLD, HOURS, ColdFiles, Noted
from tests.support.file_tiers import DOCS, flip

NOISE = random.Random(1).randbytes(4_000_000)
"""More than one pack of small files holds."""


@pytest.fixture
def cold(tmp_path: Path) -> ColdFiles:
    """Three snapshots, an archive each; the primary is there."""
    made = ColdFiles(tmp_path)
    made.take(a=b"a" * 1000)
    made.take(b=b"b" * 2000)
    made.take(c=NOISE)
    return made


def test_what_another_tier_has_at_hand_is_not_asked_for(cold: ColdFiles, tmp_path: Path) -> None:
    assert cold.restore(tmp_path / "out").files == 3
    assert (cold.cold.recalled, cold.clock.hours) == ([], 0)


def test_what_was_recalled_on_another_tier_is_read_from_there(cold: ColdFiles, tmp_path: Path) -> None:
    for key in cold.bulk(cold.primary):
        cold.primary.set_class(key, "Archive")
    operations.recall_stored(cold.site, DOCS, COLD, Silent(), label="latest")
    progress = Noted()
    with pytest.raises(RecallPending, match="all were asked for before"):
        cold.restore(tmp_path / "out", progress=progress)
    cold.clock.pass_hours(HOURS)
    assert cold.restore(tmp_path / "out", progress=progress).files == 3
    assert len(progress.notes) == 1, "what is offline on one tier is no trouble of that tier"


def test_it_asks_for_what_it_needs_ends_with_nothing_written_and_goes_on(cold: ColdFiles, tmp_path: Path) -> None:
    cold.lose_primary()
    before, progress = sorted(tmp_path.rglob("*")), Noted()
    with pytest.raises(RecallPending, match=r"2 objects .* all were asked for just now.* about 15 hours") as first:
        cold.restore(tmp_path / "out", paths=["a", "b"], progress=progress)
    assert first.value.exit_code == 31 and first.value.hint is not None and "--wait" in first.value.hint
    assert sorted(tmp_path.rglob("*")) == before
    assert "2 of 2 files lie in offline storage: a, b" in progress.notes
    assert len(cold.asked()) == 2 < len(cold.bulk())
    with pytest.raises(RecallPending, match="all were asked for before"):
        cold.restore(tmp_path / "out", paths=["a", "b"])
    assert len(cold.cold.recalled) == 2
    cold.clock.pass_hours(HOURS)
    assert cold.restore(tmp_path / "out", paths=["a", "b"]).files == 2
    assert (tmp_path / "out" / "b").read_bytes() == b"b" * 2000 and len(cold.cold.recalled) == 2


def test_with_wait_it_restores_what_is_there_and_goes_on_by_itself(cold: ColdFiles, tmp_path: Path) -> None:
    cold.lose_primary()
    [first] = {pack.key for pack in operations.list_snapshots(cold.site, DOCS, COLD).snapshots[0].packs}
    cold.cold.recall(first)
    cold.clock.pass_hours(HOURS)
    cold.cold.opened.clear()
    report = cold.restore(tmp_path / "out", wait=True, urgent=True)
    assert report.files == 3 and (tmp_path / "out" / "c").read_bytes() == NOISE
    assert cold.clock.hours == HOURS
    assert cold.cold.opened[first] == 0
    assert {cold.cold.opened[key] for key in cold.bulk() - {first}} == {HOURS}
    assert {urgent for key, urgent in cold.cold.recalled if key != first} == {True}


def test_a_wait_that_is_interrupted_loses_nothing(cold: ColdFiles, tmp_path: Path) -> None:
    cold.lose_primary()
    target = tmp_path / "out"

    cold.clock.interrupted = 3
    with pytest.raises(KeyboardInterrupt):
        cold.restore(target, wait=True)
    assert not target.exists() and not [*tmp_path.glob("out.partial-*")]
    cold.clock.interrupted = None
    asked = [*cold.cold.recalled]
    assert cold.restore(target, wait=True).files == 3
    assert cold.cold.recalled == asked and cold.clock.hours == HOURS


def test_a_preview_says_what_is_offline_and_asks_for_nothing(cold: ColdFiles, tmp_path: Path) -> None:
    def preview(**asked: object) -> FilesPreview:
        return operations.preview_files(cold.site, DOCS, "latest", tmp_path / "out", Silent(), **asked)  # type: ignore[arg-type]

    assert preview().offline_objects == 0
    seen = preview(tier=COLD, paths=["b", "c"])
    assert (seen.files, seen.offline_files, seen.offline_tiers) == (2, 2, (COLD,))
    assert seen.packs == seen.offline_objects and seen.stored_bytes == seen.offline_bytes > 2_000_000
    assert seen.recall_seconds == HOURS * 3600 and seen.cost == pytest.approx(seen.stored_bytes / 1e9 * 0.02)
    assert preview(tier=COLD, urgent=True).recall_seconds == 3600
    assert (cold.cold.recalled, [*tmp_path.glob("out*")]) == ([], [])


def test_a_damaged_pack_whose_only_other_copy_is_offline_is_named_and_the_rest_restored(
    cold: ColdFiles, tmp_path: Path
) -> None:
    [first] = {pack.key for pack in operations.list_snapshots(cold.site, DOCS, "primary").snapshots[0].packs}
    flip(cold.primary, first)
    report = cold.restore(tmp_path / "out")
    assert report.files == 2 and "must be recalled first" in report.failed["a"]
    assert cold.cold.recalled == []


def test_the_snapshots_themselves_read_no_pack_that_is_offline(cold: ColdFiles, tmp_path: Path) -> None:
    """Though this host has forgotten all that it knew."""
    for key in cold.bulk(cold.primary):
        cold.primary.set_class(key, "Archive")
    shutil.rmtree(tmp_path / "state")
    (cold.source / "d").write_bytes(b"d")
    cold.clock.pass_hours(1)
    taken = operations.take_snapshot(cold.site, DOCS, Silent(), read_all=True)
    assert (taken.counts.files, taken.counts.new, taken.counts.new_bytes) == (4, 1, 1)


# --- what else reads packs ---


def offline_archive(cold: ColdFiles) -> str:
    """One archive of the primary is offline; returns its pack."""
    key = sorted(cold.bulk(cold.primary))[0]
    cold.primary.set_class(key, "Archive")
    return key


def test_checks_skip_what_is_offline_and_call_it_neither_damaged_nor_proven(cold: ColdFiles) -> None:
    key = offline_archive(cold)
    found = {one.name: one for one in operations.check_snapshot(cold.site, DOCS, "latest", "primary", Silent())}
    assert found["snapshot_is_complete"].passed
    for name in ("objects_match_sha256", "contents_match", "replica_equals"):
        assert found[name].verdict is Verdict.NOT_PROVEN and "must be recalled first" in found[name].summary, name
        assert "dr store recall" in found[name].details["hint"]
    assert found["contents_match"].details["files"] == 2 and "2 files of 3 were read" in found["contents_match"].summary
    assert found["objects_match_sha256"].details["offline"] == 1 < found["objects_match_sha256"].details["objects"]
    # What can be read and is damaged is damaged all the same.
    flip(cold.primary, sorted(cold.bulk(cold.primary))[1])
    found = {one.name: one for one in operations.check_snapshot(cold.site, DOCS, "latest", "primary", Silent())}
    for name in ("objects_match_sha256", "contents_match"):
        assert found[name].verdict is Verdict.FAIL
    cold.primary.recall(key)
    cold.clock.pass_hours(HOURS)
    assert operations.check_snapshot(cold.site, DOCS, "latest", "primary", Silent())[1].details["offline"] == 0


def test_differences_are_told_without_any_pack(cold: ColdFiles) -> None:
    for key in cold.bulk(cold.primary):
        cold.primary.set_class(key, "Archive")
    (cold.source / "a").write_bytes(b"A" * 1000)
    found = operations.diff_files(cold.site, DOCS, "latest", "live", Silent(), contents=True)
    assert [(one.path, one.what) for one in found.changes] == [("a", "changed")]


def test_a_scrub_whose_good_bytes_are_offline_says_how_to_get_them_and_then_repairs(cold: ColdFiles) -> None:
    key = sorted(cold.bulk(cold.primary))[0]
    flip(cold.primary, key)
    seen = operations.scrub(cold.site, "primary", Silent(), server=DOCS)
    [outcome] = seen.outcomes
    assert outcome.state is State.UNDECIDED and seen.check.verdict is Verdict.NOT_PROVEN
    assert f"dr store recall {COLD} {DOCS} --key {key}" in outcome.by and cold.cold.recalled == []
    asked = operations.recall_stored(cold.site, DOCS, COLD, Silent(), keys=[key], wait=True)
    assert asked.is_here and cold.clock.hours == HOURS and cold.asked() == {key}
    [outcome] = operations.scrub(cold.site, "primary", Silent(), server=DOCS).outcomes
    assert (outcome.state, outcome.by) == (State.REPAIRED, COLD)


def test_what_is_repaired_on_the_cold_tier_itself_lies_offline_at_once(cold: ColdFiles) -> None:
    key = sorted(cold.bulk())[0]
    cold.cold.delete(key)
    [outcome] = operations.scrub(cold.site, COLD, Silent(), server=DOCS).outcomes
    assert (outcome.state, outcome.by) == (State.REPAIRED, "primary")
    assert cold.cold.stat(key).availability is Availability.OFFLINE


def test_a_copy_from_the_cold_tier_says_what_to_recall_and_then_fills_the_primary(cold: ColdFiles) -> None:
    cold.lose_primary()
    with pytest.raises(RepositoryError, match=r"is not copied: 1 object .* must be recalled first on archive") as told:
        operations.replicate(cold.site, DOCS, "primary", Silent(), source=COLD)
    assert f"dr store recall {COLD} {DOCS} " in str(told.value.hint)
    assert not cold.bulk(cold.primary)
    look = operations.recall_stored(cold.site, DOCS, COLD, Silent(), label="latest", look_only=True)
    assert look.offline_objects == len(cold.bulk()) and cold.cold.recalled == []
    asked = operations.recall_stored(cold.site, DOCS, COLD, Silent(), label="latest")
    assert (asked.is_here, cold.asked()) == (False, cold.bulk())
    cold.clock.pass_hours(HOURS)
    assert len(operations.replicate(cold.site, DOCS, "primary", Silent(), source=COLD).labels) == 3
    assert cold.bulk(cold.primary) == cold.bulk()


def test_a_snapshot_is_kept_on_a_cold_tier_without_reading_any_pack(cold: ColdFiles) -> None:
    label = operations.list_snapshots(cold.site, DOCS, COLD).snapshots[0].label
    kept = operations.keep_backup(cold.site, DOCS, label, until=None, reason="asked", by="me")
    assert kept == ("primary", COLD) and not {key for key in cold.cold.opened if key in cold.bulk()}
