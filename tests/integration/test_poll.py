"""Polls between two snapshots: what rows say is new is copied before it is overwritten; nothing else is looked at."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from threading import Event

import pytest

from dr_pipelines.clock import FixedClock, SystemClock
from dr_pipelines.commands import Completed
from dr_pipelines.errors import Busy, ServerError, UsageError
from dr_pipelines.objectives.polls import Polls
from dr_pipelines.operations import (
    Looked,
    Polled,
    check_polls,
    file_status,
    list_snapshots,
    look_at_rows,
    poll,
    polls_of,
    restore_files,
    take_snapshot,
)
from dr_pipelines.operations.file_exposure import file_exposures
from dr_pipelines.operations.turns import turn
from dr_pipelines.progress import Silent
from dr_pipelines.site import Site
from tests.support.forked import dr
from tests.support.shop import Shop

NOW = SystemClock()


def at(minutes: int) -> FixedClock:
    """A clock so much after now: snapshots by it are well after what was written."""
    return FixedClock(NOW.now() + timedelta(minutes=minutes))


def at_of(site: Site) -> datetime:
    return site.clock.now()


class Told(Silent):
    """Knows when something was noted."""

    def __init__(self) -> None:
        self.noted = Event()

    def note(self, text: str) -> None:
        assert "is waited for" in text
        self.noted.set()


def polled(site: Site) -> Polled:
    return poll(site, "docs", Silent())


def test_new_versions_are_kept_though_they_are_overwritten(shop: Shop) -> None:
    first = shop.snapshot(shop.site(clock=at(1)))
    (shop.files / "store/without a row").write_text("nobody says that it is there")
    shop.change("a", "second")
    shop.add("new/comes", "for a minute")
    seen = polled(shop.site(clock=at(2)))
    assert seen.snapshot is not None and seen.changed == 2
    assert (seen.snapshot.parent, seen.snapshot.counts.files) == (first, 4)
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
    assert sorted(path.name for path in (shop.folder / "later/store").iterdir()) == [
        "a", "b", "naïve ☃", "new", "without a row",
    ]  # fmt: skip


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
    assert seen.is_whole and seen.snapshot is not None and seen.snapshot.counts.files == 3


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


def test_a_poll_is_never_beside_a_snapshot(shop: Shop) -> None:
    shop.snapshot(shop.site(clock=at(1)))
    shop.add("later")
    site = shop.site(clock=at(9))
    with turn(site, "docs", Silent()), pytest.raises(Busy, match="under way"):
        polled(site)
    assert len(list_snapshots(site, "docs").snapshots) == 1
    assert polls_of(site, "docs") == Polls(None, at_of(site), waits=True)
    told = Told()
    with ThreadPoolExecutor(2) as others:
        with turn(site, "docs", Silent()):
            snapshot = others.submit(take_snapshot, site, "docs", told)
            assert told.noted.wait(30)
            told.noted.clear()
            waiting = others.submit(poll, site, "docs", told, wait=True)
            assert told.noted.wait(30)
            assert len(list_snapshots(site, "docs").snapshots) == 1
        assert snapshot.result(30).counts.new + waiting.result(30).changed == 1  # whoever came first has it
    assert polls_of(site, "docs") == Polls(at_of(site), at_of(site))


def test_only_a_look_copies_nothing_and_says_what_a_poll_would(shop: Shop) -> None:
    first, second, third, last = (shop.site(clock=at(minutes)) for minutes in (1, 3, 5, 9))
    shop.snapshot(first)
    quiet = look_at_rows(second, "docs", Silent())
    assert isinstance(quiet, Polled) and quiet.exposed == at_of(second) - at_of(first)
    shop.add("later")
    found = look_at_rows(third, "docs", Silent())
    assert isinstance(found, Looked) and found.changed == [b"store/later"]
    # What is not copied is not polled.
    assert polls_of(third, "docs").until == at_of(second)
    assert polled(last).exposed == at_of(last) - at_of(second)


def test_why_nothing_is_polled_is_said(shop: Shop) -> None:
    shop.snapshot(shop.site(clock=at(0)))
    early, late = (shop.site(clock=at(minutes), poll="1 minute") for minutes in (1, 5))
    never = check_polls(late, "docs")
    assert never is not None and not never.passed and "not looked at at all" in never.summary
    polled(early)
    well = check_polls(early, "docs")
    assert well is not None and well.passed
    shop.server.psql("ALTER TABLE docs.files RENAME TO elsewhere")
    with pytest.raises(ServerError):
        polled(late)
    told = check_polls(late, "docs")
    assert told is not None and not told.passed
    assert 'relation "docs.files" does not exist' in told.summary
    assert f"since {at_of(early):%Y-%m-%d %H:%M:%S} UTC" in told.summary
    assert check_polls(shop.site(), "docs") is None  # the plan asks for none
    [state] = file_status(late)
    assert any(told.summary in warning for warning in state.warnings)


def test_status_and_list_show_file_sets(shop: Shop) -> None:
    shop.plan_file()

    def run(*words: str) -> Completed:
        return dr("--plan", shop.plan_file(), *words)

    shop.site().repository("docs", "primary").initialise()
    empty = run("status")
    assert "there is none at all: run `dr files snapshot docs`" in empty.stdout, empty
    shop.snapshot()
    shop.add("polled")
    taken = polled(shop.site()).snapshot
    assert taken is not None
    (told,) = [one for one in json.loads(run("status", "--json").stdout) if "file_set" in one]
    [tier] = told["tiers"]
    assert (tier["snapshots"], tier["newest"]["label"], told["warnings"]) == (2, taken.label, [])
    assert tier["exposure"]["seconds"] < 60
    seen = run("status").stdout
    assert "warning" not in seen[seen.index("file RPO") :], seen
    one, both, own = run("list", "docs"), run("list"), run("files", "list", "docs")
    assert own.stdout.count("-snapshot") == 2 and own.stdout.count("polled, ") == 1
    assert all(line in both.stdout for line in one.stdout.splitlines() if "-snapshot" in line)
    assert one.stdout.splitlines()[:5] == own.stdout.splitlines()[:5]
    assert len(json.loads(run("list", "--json").stdout)["docs"]["snapshots"]) == 2


def test_polls_by_a_timer_are_quiet(shop: Shop) -> None:
    shop.snapshot()
    plan = shop.plan_file()
    still = dr("--plan", plan, "files", "poll", "docs", "--quiet")
    assert (still.returncode, still.stdout, still.stderr) == (0, "", "")
    with turn(shop.site(), "docs", Silent()):
        waits = dr("--plan", plan, "files", "poll", "docs")
        assert waits.returncode == 0 and "the next poll looks" in waits.stdout, waits
    shop.add("new")
    copied = dr("--plan", plan, "files", "poll", "docs", "--quiet")
    assert copied.returncode == 0 and "1 path changed" in copied.stdout, copied
    shop.server.psql("DROP TABLE docs.files")
    broken = dr("--plan", plan, "files", "poll", "docs", "--quiet")
    assert broken.returncode == 20 and broken.stderr, broken
