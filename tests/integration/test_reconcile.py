"""Rows of a real database against the files of a directory, on the source and in snapshots."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dr_pipelines.checks import Verdict
from dr_pipelines.clock import FixedClock, SystemClock
from dr_pipelines.commands import Completed
from dr_pipelines.errors import BackupNotFound, RecallPending, ServerError, UsageError
from dr_pipelines.operations import Reconciliation, reconcile
from dr_pipelines.progress import Silent
from dr_pipelines.storage.base import Availability
from tests.support.cold_files import HOURS, ColdShop, Noted
from tests.support.forked import dr
from tests.support.shop import Shop


def findings(seen: Reconciliation) -> set[tuple[str, str]]:
    return {(row["kind"], row["path"]) for rows in seen.check.details["findings"].values() for row in rows}


def test_rows_and_files_agree(shop: Shop) -> None:
    (shop.files / "elsewhere").write_text("no row, and outside of the prefix")
    seen = shop.look()
    assert seen.check.verdict is Verdict.PASS, seen.check
    assert (seen.check.details["rows"], seen.check.details["contents_compared"]) == (3, 3)


@pytest.mark.parametrize("snapshot", [False, True])
def test_what_does_not_agree_is_named(shop: Shop, snapshot: bool) -> None:
    shop.add("lost", file=False)
    shop.add("stray", row=False)
    shop.add("longer")
    shop.add("other")
    if snapshot:
        shop.snapshot()
    (shop.files / "store/longer").write_text("content and more")
    (shop.files / "store/other").write_text("CONTENT")
    seen = shop.look()
    assert seen.check.verdict is Verdict.FAIL
    assert findings(seen) == {
        ("missing", "store/lost"), ("extra", "store/stray"), ("size", "store/longer"), ("digest", "store/other"),
    }  # fmt: skip


def test_files_that_a_snapshot_knows_are_read_only_when_that_is_asked(shop: Shop) -> None:
    # Written to well before the snapshot, by its clock.
    shop.snapshot(shop.site(clock=FixedClock(datetime.now(UTC) + timedelta(minutes=1))))
    read: list[int] = []

    class Counting(Silent):
        def advance(self, count: int) -> None:
            read.append(count)

    seen = reconcile(shop.site(), "docs", Counting(), settled=0.0)
    assert (seen.check.details["contents_compared"], read) == (3, [])
    reconcile(shop.site(), "docs", Counting(), settled=0.0, read_all=True)
    assert sum(read) == sum(len(name.encode()) for name in ("a", "b/c", "naïve ☃"))


class Meanwhile(SystemClock):
    """Runs something in the pause before what differs is looked at again."""

    def __init__(self, change: Any) -> None:
        self._change = change

    def wait(self, seconds: float, stop: Any = None) -> bool:
        self._change()
        return False


def test_what_is_on_its_way_is_no_finding(shop: Shop) -> None:
    shop.add("uploaded", row=False)
    shop.add("announced", file=False)
    shop.add("rewritten")
    (shop.files / "store/rewritten").write_text("another")

    def arrive() -> None:
        shop.add("uploaded", file=False)
        shop.add("announced", row=False)
        shop.server.psql("DELETE FROM docs.files WHERE \"Path\" = 'rewritten'")
        shop.add("rewritten", "another", file=False)

    seen = reconcile(shop.site(clock=Meanwhile(arrive)), "docs", Silent())
    assert seen.check.verdict is Verdict.PASS, seen.check
    shop.add("for good", file=False)
    seen = reconcile(shop.site(clock=Meanwhile(lambda: shop.add("later", row=False))), "docs", Silent())
    assert findings(seen) == {("missing", "store/for good")}


def test_a_folder_that_cannot_be_read_is_not_proven(shop: Shop) -> None:
    shop.server.psql("INSERT INTO docs.files VALUES ('b', NULL, NULL)")
    assert shop.look().check.verdict is Verdict.PASS  # a folder is there too
    shutil.rmtree(shop.files / "store")
    (shop.files / "store").write_text("no folder")
    assert shop.look().check.verdict is Verdict.FAIL


def test_no_rows_prove_nothing(shop: Shop) -> None:
    shop.server.psql("TRUNCATE docs.files")
    shutil.rmtree(shop.files / "store")
    assert shop.look().check.verdict is Verdict.NOT_PROVEN


def test_a_snapshot(shop: Shop) -> None:
    first = shop.snapshot()
    assert shop.look(against=first).check.verdict is Verdict.PASS
    shop.add("younger")
    seen = shop.look(against="latest")
    assert (seen.against, seen.check.verdict) == (first, Verdict.NOT_PROVEN)
    assert findings(seen) == {("missing", "store/younger")}
    told = reconcile(shop.site(changed="changed"), "docs", Silent(), against=first)
    assert told.check.verdict is Verdict.PASS, told.check
    there = shop.look(against=first, database_at=f"127.0.0.1:{shop.server.port}")
    assert there.check.verdict is Verdict.FAIL
    assert shop.look(against="2099-01-01T00:00:00Z").against == first
    with pytest.raises(BackupNotFound, match="whole by 2001"):
        shop.look(against="2001-01-01T00:00:00Z")


def test_what_is_asked_wrongly(shop: Shop) -> None:
    with pytest.raises(UsageError, match="no address"):
        shop.look(database_at="nowhere")
    with pytest.raises(ServerError, match="does not exist") as raised:
        reconcile(shop.site(path="nothing"), "docs", Silent())
    assert raised.value.sqlstate == "42703"
    with pytest.raises(ServerError, match="identifier"):
        reconcile(shop.site(table="docs.files; SELECT 1"), "docs", Silent())


def repaired(shop: Shop) -> Reconciliation:
    return shop.look(mend=True)


def test_what_a_snapshot_has_is_repaired(shop: Shop) -> None:
    shop.add("folder/lost", "lost")
    shop.add("overwritten", "right")
    shop.add("rewritten", "as its row says")
    shop.add("never seen", file=False)
    (shop.files / "store/folder").chmod(0o750)
    shop.snapshot()
    shutil.rmtree(shop.files / "store/folder")
    (shop.files / "store/overwritten").write_text("wrong")
    shop.change("rewritten", "a version that no snapshot has")
    (shop.files / "store/rewritten").write_text("another one")
    done = repaired(shop)
    assert done.repaired is not None
    assert (done.repaired.restored, [*done.repaired.replaced]) == (("store/folder/lost",), ["store/overwritten"])
    assert done.repaired.not_repaired == dict.fromkeys(
        ("store/never seen", "store/rewritten"), "no snapshot has the version that its row names"
    )
    assert (shop.files / "store/folder/lost").read_text() == "lost"
    assert (shop.files / "store/folder").stat().st_mode & 0o777 == 0o750
    assert (shop.files / "store/overwritten").read_text() == "right"
    assert (shop.files / done.repaired.replaced["store/overwritten"]).read_text() == "wrong"
    assert (shop.files / "store/rewritten").read_text() == "another one"
    # What was kept needs no row.
    assert findings(done) == {("missing", "store/never seen"), ("size", "store/rewritten")}


def test_versions_that_are_offline_are_all_asked_for_before_anything_is_repaired(shop: Shop) -> None:
    shop.add("lost")
    shop.snapshot()
    shop.add("overwritten", "right")
    shop.snapshot()
    (shop.files / "store/lost").unlink()
    (shop.files / "store/overwritten").write_text("wrong")
    cold = ColdShop(shop, datetime.now(UTC))
    notes = Noted()
    reconcile(cold.site, "docs", notes, settled=0.0, plan_only=True)
    assert any(
        "2 objects" in note and "must be recalled first, which takes about 15 hours" in note for note in notes.notes
    )
    assert cold.states() == {Availability.OFFLINE}
    with pytest.raises(RecallPending, match=r"2 objects .* all were asked for just now.*nothing was changed here"):
        reconcile(cold.site, "docs", Silent(), settled=0.0, mend=True)
    assert not (shop.files / "store/lost").exists() and (shop.files / "store/overwritten").read_text() == "wrong"
    done = reconcile(cold.site, "docs", Silent(), settled=0.0, mend=True, wait=True)
    assert done.check.verdict is Verdict.PASS and len(cold.clock.waited) == HOURS
    assert (shop.files / "store/overwritten").read_text() == "right"


def test_without_digests_only_what_is_missing_is_repaired(shop: Shop) -> None:
    shop.snapshot()
    (shop.files / "store/a").unlink()
    (shop.files / "store/b/c").write_text("longer than before")
    site = shop.site(digest=None)
    done = reconcile(site, "docs", Silent(), settled=0.0, mend=True)
    assert done.repaired is not None
    assert (done.repaired.restored, done.repaired.replaced) == (("store/a",), {})
    assert "no SHA-256" in done.repaired.not_repaired["store/b/c"]
    assert (shop.files / "store/b/c").read_text() == "longer than before"


def test_only_live_files_are_repaired(shop: Shop) -> None:
    with pytest.raises(UsageError, match="only live files"):
        shop.look(mend=True, against="latest")


def test_the_command_line(shop: Shop) -> None:
    def run(*words: str) -> Completed:
        return dr("--plan", shop.plan_file(), *words)

    shop.snapshot()
    shop.add("polled")
    polled = run("files", "poll", "docs")
    assert polled.returncode == 0 and "1 path changed" in polled.stdout, polled
    listed = run("files", "list", "docs")
    assert listed.stdout.count("Z-snapshot") == 2 and "file RPO: " in listed.stdout, listed
    met = run("objectives", "--json")
    assert json.loads(met.stdout)["objectives"][0]["verdict"] == "pass", met
    (shop.files / "store/polled").unlink()
    broken = run("reconcile", "docs", "--settle", "0")
    assert broken.returncode == 41 and "1 row without its file" in broken.stderr, broken
    assert "would come back: store/polled from " in broken.stdout
    assert not (shop.files / "store/polled").exists()
    mended = run("reconcile", "docs", "--settle", "0", "--repair", "--json")
    told = json.loads(mended.stdout)
    assert (mended.returncode, told["repaired"]["restored"], told["check"]["verdict"]) == (0, ["store/polled"], "pass")
