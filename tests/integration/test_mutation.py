"""A short form of `make mutation`: some damages of each sort, each noticed, and no alarm about what is whole."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.mutation.copy_trials import CopyTrials, cases
from tests.mutation.file_home import good_files
from tests.mutation.file_trials import FileTrials, file_damages, file_flips
from tests.mutation.flips import flips
from tests.mutation.home import good_home
from tests.mutation.ledger import REFUSED, Ledger, Trial
from tests.mutation.locks import lock_trials
from tests.mutation.repository_damage import all_damages
from tests.mutation.repository_trials import RepositoryTrials
from tests.support.lived import Lived

SEED = 20261126


@pytest.fixture(scope="module")
def home() -> Iterator[Lived]:
    with good_home() as made:
        yield made


def assert_all_noticed(ledger: Ledger) -> None:
    assert not ledger.alarms
    assert ledger.counted and not ledger.holes


@pytest.mark.parametrize(
    "kind",
    ["pack with a changed byte, sealed anew", "WAL of another system", "replica: manifest: removed"],
)
def test_what_only_one_of_the_checks_can_see_is_seen(home: Lived, kind: str) -> None:
    trials = RepositoryTrials(home, random.Random(SEED))
    trials.mute = {"size_is_as_usual"}
    trials.try_damage(kind, all_damages()[kind])
    assert_all_noticed(trials.ledger)


def test_single_bytes_are_found_by_a_scrub_and_refused_by_a_restore(home: Lived) -> None:
    ledger = flips(home, random.Random(SEED), 16, print)
    assert_all_noticed(ledger)
    assert any(trial.restore == REFUSED for trial in ledger.trials)


def test_damaged_file_sets_are_found_out() -> None:
    with good_files() as files:
        trials = FileTrials(files, random.Random(SEED))
        trials.try_good()
        for kind in ("list of archives: another's in its place", "changes: swapped with another", "manifest: removed"):
            trials.try_damage(kind, file_damages()[kind])
        assert_all_noticed(trials.ledger)
        ledger = file_flips(files, random.Random(SEED), 8, print)
        assert_all_noticed(ledger)
        assert any(trial.restore == REFUSED for trial in ledger.trials)


def test_locks_that_are_gone_or_short_are_found() -> None:
    assert_all_noticed(lock_trials(random.Random(SEED), 6))


def test_restored_copies_that_differ_are_found_out() -> None:
    assert_all_noticed(CopyTrials(random.Random(SEED)).run(cases(random.Random(SEED), 6), print))


def test_a_hole_and_a_false_alarm_are_told() -> None:
    ledger = Ledger("made up", good=1)
    ledger.add(Trial("noticed", "this", ("scrub",)))
    assert ledger.passed
    ledger.add(Trial("not ours", "that", (), unseen_because="nobody can"))
    assert ledger.passed
    ledger.add(Trial("a hole", "there", ()))
    assert not ledger.passed and [hole.kind for hole in ledger.holes] == ["a hole"]
    assert not Ledger("nothing tried", good=1).passed
    assert not Ledger("an alarm", [Trial("noticed", "this", ("scrub",))], ["something"], 1).passed
