"""Polls between two snapshots: what rows say is new is copied before it is overwritten; nothing else is looked at."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from dr_pipelines.clock import FixedClock, SystemClock
from dr_pipelines.embedded.postgres import EmbeddedPostgres, open_folder
from dr_pipelines.errors import UsageError
from dr_pipelines.operations import Polled, poll, restore_files
from dr_pipelines.operations.objectives import file_exposures
from dr_pipelines.progress import Silent
from dr_pipelines.site import Site
from tests.support.shop import Shop

NOW = SystemClock()


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedPostgres]:
    base = open_folder("dr-test-poll-")
    server = EmbeddedPostgres(base / "data", initdb=("--wal-segsize=1",))
    server.start()
    yield server
    server.kill()
    shutil.rmtree(base, ignore_errors=True)


@pytest.fixture
def shop(server: EmbeddedPostgres, tmp_path: Path) -> Shop:
    made = Shop(server, tmp_path)
    made.make_table()
    for name in ("a", "b/c"):
        made.add(name, name)
    return made


def at(minutes: int) -> FixedClock:
    """A clock so much after now: snapshots by it are well after what was written."""
    return FixedClock(NOW.now() + timedelta(minutes=minutes))


def polled(site: Site) -> Polled:
    return poll(site, "docs", Silent())


def test_new_versions_are_kept_though_they_are_overwritten(shop: Shop) -> None:
    first = shop.snapshot(shop.site(clock=at(1)))
    (shop.files / "store/without a row").write_text("nobody says that it is there")
    shop.change("a", "second")
    shop.add("new/comes", "for a minute")
    seen = polled(shop.site(clock=at(2)))
    assert seen.snapshot is not None and seen.changed == 2
    assert (seen.snapshot.parent, seen.snapshot.counts.files) == (first, 3)
    assert seen.snapshot.scanned_at is not None and seen.snapshot.scanned_at < seen.snapshot.started_at
    shop.change("a", "third")
    (shop.files / "store/new/comes").unlink()
    shop.server.psql("DELETE FROM docs.files WHERE \"Path\" = 'new/comes'")
    restored = shop.folder / "restored"
    restore_files(shop.site(), "docs", seen.snapshot.label, restored, Silent())
    assert (restored / "store/a").read_text() == "second"
    assert (restored / "store/new/comes").read_text() == "for a minute"
    assert (restored / "store/b/c").read_text() == "b/c"
    # The next snapshot of everything sees everything.
    shop.snapshot(shop.site(clock=at(3)))
    restore_files(shop.site(), "docs", "latest", shop.folder / "later", Silent())
    assert sorted(path.name for path in (shop.folder / "later/store").iterdir()) == ["a", "b", "new", "without a row"]


def test_what_is_as_it_was_costs_no_snapshot(shop: Shop) -> None:
    shop.add("never there", file=False)
    shop.add("another than its row says")
    (shop.files / "store/another than its row says").write_text("other")
    shop.snapshot(shop.site(clock=at(1)))
    site = shop.site(clock=at(5), changed="changed")
    assert polled(site).snapshot is None
    shop.add("later")
    assert polled(site).changed == 1


def test_without_a_digest_rows_say_when_they_changed(shop: Shop) -> None:
    shop.snapshot(shop.site(clock=at(1)))
    shop.change("a", "z")
    site = shop.site(clock=at(2), digest=None, size=None, changed="changed")
    seen = polled(site)
    assert seen.changed == 1 and seen.snapshot is not None and seen.snapshot.counts.changed == 1


def test_a_first_poll_is_a_snapshot(shop: Shop) -> None:
    shop.site().repository("docs", "primary").initialise()
    seen = polled(shop.site())
    assert seen.is_whole and seen.snapshot is not None and seen.snapshot.counts.files == 2


def test_a_poll_lowers_what_would_be_lost(shop: Shop) -> None:
    [nothing] = file_exposures(shop.site(), "docs")
    assert not nothing.seen
    shop.snapshot(shop.site(clock=at(0)))
    site = shop.site(clock=at(30), prefix="")
    shop.server.psql('UPDATE docs.files SET "Path" = \'store/\' || "Path"')
    [before] = file_exposures(site, "docs")
    assert before.seconds is not None and before.seconds > 29 * 60
    polled(site)
    [after] = file_exposures(site, "docs")
    assert after.seconds == 0 and "rows" in after.how
    # Rows say nothing of the files outside of their folder.
    [outside] = file_exposures(shop.site(clock=at(30)), "docs")
    assert outside.seconds is not None and outside.seconds > 29 * 60


def test_a_set_without_rows_has_nothing_to_poll(shop: Shop) -> None:
    site = shop.site()
    planned = site.plan.file_storage["docs"].model_copy(update={"references": {}})
    bare = Site(site.plan.model_copy(update={"file_storage": {"docs": planned}}))
    with pytest.raises(UsageError, match="no rows"):
        polled(bare)
