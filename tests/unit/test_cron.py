"""What schedules that have a word are said to be, against croniter."""

from __future__ import annotations

import pytest

from dr_pipelines.plan.cron import WORDS, distances, measured


@pytest.mark.parametrize("word", WORDS)
def test_the_distances_of_a_word_are_those_of_its_ticks(word: str) -> None:
    assert distances(WORDS[word]) == measured(WORDS[word])
