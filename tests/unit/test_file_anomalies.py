"""What changed in a file set beside the snapshot before: what is usual, what is not, and what follows from it."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from shutil import rmtree

import pytest

from dr_pipelines import operations
from dr_pipelines.clock import FixedClock
from dr_pipelines.errors import BackupNotFound, UsageError
from dr_pipelines.files.beside import Differences
from dr_pipelines.files.sample import compresses_to
from dr_pipelines.operations.files import take_in_turn
from dr_pipelines.plan.file_sets import AnomalyPlan
from dr_pipelines.progress import Silent
from dr_pipelines.site import Site
from dr_pipelines.validation.file_anomalies import changes_are_usual
from tests.support.file_site import directory_site, root, take_now
from tests.support.file_tiers import DOCS

FILES = 40


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Forty letters, and a first snapshot of them."""
    made = directory_site(tmp_path)
    for number in range(FILES):
        folder = root(made) / f"{number % 4}"
        folder.mkdir(exist_ok=True)
        (folder / f"letter {number}.docx").write_text(f"Dear customer {number}, " + "we write to you again. " * 200)
    take_now(made)
    return made


def letters(site: Site) -> list[Path]:
    return sorted(root(site).glob("*/*"))


def write_again(some: list[Path]) -> None:
    for path in some:
        path.write_text(path.read_text().replace("again", "once more"))


def scramble(some: list[Path]) -> None:
    for path in some:
        path.write_bytes(os.urandom(path.stat().st_size))


def lock(some: list[Path]) -> None:
    for path in some:
        path.with_name(path.name + ".locked").write_bytes(os.urandom(5000))
        path.unlink()


def convert(some: list[Path]) -> None:
    for path in some:
        path.rename(path.with_suffix(".odt"))


def remove(some: list[Path]) -> None:
    for path in some:
        path.unlink()


def move(some: list[Path]) -> None:
    for path in some:
        (path.parents[1] / "moved").mkdir(exist_ok=True)
        path.rename(path.parents[1] / "moved" / path.name)


@pytest.mark.parametrize(
    ("act", "on", "said"),
    [
        (write_again, 12, "12 of 40 files (30 %) changed"),
        (remove, 8, "8 of 40 files (20 %) vanished"),
        (lock, 4, "4 of 40 files (10 %) now end in .locked"),
        (convert, 4, "4 of 40 files (10 %) now end in .odt"),
        (scramble, 8, "8 of 40 files (20 %) no longer compress"),
    ],
)
def test_from_its_share_on_a_change_is_unusual_and_below_it_is_not(
    site: Site, act: Callable[[list[Path]], None], on: int, said: str
) -> None:
    act(letters(site)[: on - 1])
    usual = take_now(site)
    assert operations.changes_are_usual(site, DOCS, usual.label).passed
    act([path for path in letters(site) if path.suffix == ".docx"][-on:])
    found = operations.changes_are_usual(site, DOCS, take_now(site).label)
    # Some of the first were gone before the second snapshot.
    assert found.verdict == "fail"
    assert said.partition(" ")[0] in found.summary
    assert said.rpartition(") ")[2] in found.summary


def test_the_numbers_are_those_of_the_files(site: Site) -> None:
    scramble(letters(site)[:8])
    remove(letters(site)[-2:])
    found = operations.changes_are_usual(site, DOCS, take_now(site).label)
    assert found.summary.partition(";")[0].endswith(": 8 of 38 files (21 %) no longer compress")
    numbers = {share["files that"]: (share["number"], share["of"]) for share in found.details["shares"]}
    assert numbers["changed"] == (8, 40)
    assert numbers["vanished"] == (2, 40)


def test_what_only_moved_has_not_vanished(site: Site) -> None:
    move(letters(site))
    found = operations.changes_are_usual(site, DOCS, take_now(site).label)
    assert found.passed and found.details["moved"] == FILES


def test_the_first_snapshot_is_compared_with_none(tmp_path: Path) -> None:
    made = directory_site(tmp_path)
    (root(made) / "a").write_text("a")
    found = operations.changes_are_usual(made, DOCS, take_now(made).label)
    assert found.skipped


def test_few_files_are_never_unusual() -> None:
    few = Differences("w", before=19, changed=19, vanished=0, compressible=19, incompressible=19)
    assert changes_are_usual("x", [few], AnomalyPlan()).passed
    assert not changes_are_usual("x", [few], AnomalyPlan(at_least=19)).passed


def test_it_is_told_beside_which_snapshot_it_is_the_most_unusual() -> None:
    """One that changed less may have lost more."""
    lost = Differences("then", before=100, changed=5, vanished=22)
    changed = Differences("before", before=100, changed=31, vanished=2)
    for beside in ([lost, changed], [changed, lost]):
        found = changes_are_usual("x", beside, AnomalyPlan())
        assert "beside then: 22 of 100 files (22 %) vanished" in found.summary and found.details["beside"] == "then"


def poll(site: Site, some: list[Path]) -> str:
    """A snapshot for which nothing but these files is looked at."""
    assert isinstance(site.clock, FixedClock)
    site.clock.advance(timedelta(minutes=10))
    only = [bytes(path.relative_to(root(site))) for path in some]
    taken = take_in_turn(site, DOCS, Silent(), only=only)
    assert taken.scanned_at is not None and taken.counts.files == FILES
    return taken.label


def forget(site: Site) -> None:
    """The host forgets what it took, and reads it in the repository."""
    rmtree(site.state_dir / "files" / DOCS / "last")


@pytest.mark.parametrize("forgets", [False, True])
def test_what_many_polls_changed_adds_up_to_what_is_unusual(site: Site, forgets: bool) -> None:
    whole = operations.list_snapshots(site, DOCS).snapshots[0].label
    polls = []
    for number in range(0, 20, 4):  # 10 % each
        some = letters(site)[number : number + 4]
        write_again(some)
        polls.append(poll(site, some))
        if forgets:
            forget(site)
    words = {label: found for label in polls if (found := operations.changes_seen(site, DOCS, label)) is not None}
    assert [found.passed for found in words.values()] == [True, True, False, True, True]
    assert f"beside {whole}: 12 of 40 files (30 %) changed" in words[polls[2]].summary
    # What was told is not told of each that follows, be it accepted or not.
    assert words[polls[4]].details["beside"] == polls[2]
    operations.accept_snapshot(site, DOCS, polls[2], reason="the letters of spring", by="me")
    assert operations.changes_are_usual(site, DOCS, take_now(site).label).passed


@pytest.mark.parametrize("forgets", [False, True])
def test_a_snapshot_of_everything_is_held_against_the_one_before_its_polls(site: Site, forgets: bool) -> None:
    some = letters(site)[:6]
    scramble(some)
    assert operations.changes_are_usual(site, DOCS, poll(site, some)).passed
    if forgets:
        forget(site)
    scramble(letters(site)[6:8])
    assert "8 of 40 files (20 %) no longer" in operations.changes_are_usual(site, DOCS, take_now(site).label).summary
    # The next is held against that one alone.
    scramble(letters(site)[8:14])
    found = operations.changes_seen(site, DOCS, take_now(site).label)
    assert found is not None and found.passed and "6 of 40 files changed" in found.summary


def test_an_unusual_snapshot_holds_all_that_is_older_until_it_is_accepted(site: Site) -> None:
    first = operations.list_snapshots(site, DOCS).snapshots[0].label
    lock(letters(site))
    unusual = take_now(site).label
    later = take_now(site).label  # nothing changed since: only the one before it is unusual
    assert unusual in operations.changes_are_usual(site, DOCS, later).summary
    assert isinstance(site.clock, FixedClock)
    site.clock.advance(timedelta(days=60))
    take_now(site)
    assert first not in goes(site)
    with pytest.raises(UsageError, match="not unusual"):
        operations.accept_snapshot(site, DOCS, later, reason="no", by="me")
    with pytest.raises(BackupNotFound):
        operations.accept_snapshot(site, DOCS, "20200101T000000Z-snapshot", reason="no", by="me")
    operations.accept_snapshot(site, DOCS, unusual, reason="archived by legal", by="me")
    accepted = operations.changes_are_usual(site, DOCS, unusual)
    assert accepted.passed and "archived by legal" in accepted.summary
    assert first in goes(site)


def goes(site: Site) -> list[str]:
    return [decision.label for decision in operations.plan_retention(site, DOCS, "primary").expire]


@pytest.mark.parametrize(
    ("content", "least", "most"),
    [(b"to be or not to be " * 100, 0, 20), (os.urandom(2048), 97, 100), (bytes(2048), 0, 5)],
)
def test_a_beginning_tells_whether_a_content_compresses(content: bytes, least: int, most: int) -> None:
    found = compresses_to(content)
    assert found is not None and least <= found <= most
    assert compresses_to(content[:1000]) is None


def test_taking_reads_nothing_twice_for_it(site: Site) -> None:
    """What is unchanged keeps what is known of it."""
    taken = operations.take_snapshot(site, DOCS, Silent())
    assert taken.counts.read_bytes == 0
    scramble(letters(site)[:8])
    assert "no longer compress" in operations.changes_are_usual(site, DOCS, take_now(site).label).summary


def test_expiry_proves_a_snapshot_itself_where_none_was_proven_lately(site: Site) -> None:
    assert isinstance(site.clock, FixedClock)
    [checked, *_] = operations.prove_if_stale(site, DOCS, "primary", Silent())
    assert checked.passed
    assert not operations.prove_if_stale(site, DOCS, "primary", Silent())
    site.clock.advance(timedelta(days=10))
    take_now(site)
    proven = operations.prove_if_stale(site, DOCS, "primary", Silent())
    assert {result.name for result in proven} == {"objects_match_sha256", "contents_match"}
    assert not operations.apply_retention(site, DOCS, "primary", Silent()).table.guards
