"""Halving finds a place where good turns to bad, wherever it is, and asks seldom."""

from __future__ import annotations

from math import ceil, log2

from hypothesis import given
from hypothesis import strategies as st

from dr_pipelines.validation.halving import halve


@given(st.data(), st.integers(2, 10**9))
def test_the_boundary_is_found_with_few_questions(data: st.DataObject, count: int) -> None:
    first_bad = data.draw(st.integers(1, count))
    asked: list[int] = []

    def is_good(index: int) -> bool:
        asked.append(index)
        return index < first_bad

    assert halve(0, count, is_good) == (first_bad - 1, first_bad)
    assert len(asked) == len(set(asked)) <= ceil(log2(count))
    assert all(0 < index < count for index in asked)


@given(st.lists(st.booleans(), max_size=200))
def test_of_several_boundaries_one_is_found(between: list[bool]) -> None:
    line = [True, *between, False]
    asked: list[int] = []

    def is_good(index: int) -> bool:
        asked.append(index)
        return line[index]

    good, bad = halve(0, len(line) - 1, is_good)
    assert bad == good + 1 and line[good] and not line[bad]
    assert {good, bad} <= {0, len(line) - 1, *asked}, "both were looked at"


@given(st.integers(2, 10**6), st.integers(1, 1000), st.data())
def test_it_ends_when_both_are_near_enough(count: int, near: int, data: st.DataObject) -> None:
    first_bad = data.draw(st.integers(1, count))
    good, bad = halve(0, count, lambda index: index < first_bad, near_enough=lambda good, bad: bad - good <= near)
    assert good < first_bad <= bad
    assert bad - good <= near
    assert bad - good > near // 2 or bad - good == count
