"""Which transactions two snapshots see alike, from where on commits wait, and what a sum says of itself."""

from __future__ import annotations

import pytest

from dr_pipelines.lsn import Lsn
from dr_pipelines.postgres.sight import Overlap, Sight, released
from dr_pipelines.postgres.table_facts import Checksum


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10:10:", "10:10:", True),
        ("10:10:", "10:12:10,11", True),  # two began
        ("10:10:", "10:12:11", False),  # 10 has come and gone
        ("10:12:10", "12:12:", False),  # 10 ended
        ("10:12:10,11", "10:13:10,11,12", True),
        ("10:12:10,11", "10:13:10,12", False),
    ],
)
def test_snapshots_see_alike_when_nothing_ended_between_them(one: str, other: str, *, same: bool) -> None:
    first, second = Sight.parse(one), Sight.parse(other)
    assert first.sees_what(second) is second.sees_what(first) is same
    assert str(second) == other


@pytest.mark.parametrize(
    ("names", "confirmed", "upto"),
    [
        ("FIRST 1 (dr_shop)", [5], 5),
        ("dr_shop", [5], 5),
        ("FIRST 2 (a, b, c)", [9, 7], 7),
        ("ANY 1 (a, b)", [9, 7], 9),
        ("any 2 (a, b, c)", [9, 7, 3], 7),
        ("ANY 3 (a, b, c)", [9, 7], 7),  # commits wait; what returned had all that there were
    ],
)
def test_commits_are_let_go_when_enough_standbys_have_them(names: str, confirmed: list[int], upto: int) -> None:
    assert released(names, [Lsn(position) for position in confirmed]) == Lsn(upto)


def test_overlaps_are_named() -> None:
    assert not Overlap()
    assert str(Overlap((7,))) == "transaction 7"
    assert str(Overlap((7,), (9,))) == "transactions 7, 9"
    assert str(Overlap(tuple(range(30)))).endswith("19 and 10 more")
    assert bool(Overlap(unknown=True)) and "more transactions" in str(Overlap(unknown=True))


def test_a_sum_says_what_it_is_over() -> None:
    found = Checksum(61, 607005, -1632144669354749129326)
    assert Checksum.parse(str(found)) == found
    with pytest.raises(ValueError, match="not a checksum"):
        Checksum.parse("607005")
