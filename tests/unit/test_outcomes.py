"""What the library's results become in our words: a pass that saw nothing is none, and people's data is not kept."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from dr_pipelines.checks import Verdict
from dr_pipelines.validation.outcomes import expected_of, hide, outcome_of
from dr_pipelines.validation.suites import Expectation, Severity


def judged(
    found: dict[str, Any], *, success: bool = True, type: str = "expect_column_values_to_be_unique", rows: int = 5
) -> tuple[Verdict, str]:
    words = Expectation(type, "it is so", {"column": "id"}, Severity.CRITICAL)
    result = SimpleNamespace(result=found, exception_info={"raised_exception": False}, success=success)
    outcome = outcome_of(words, result, rows, "id")
    return outcome.verdict, outcome.observed


@pytest.mark.parametrize(
    ("found", "rows"),
    [
        ({"element_count": 0, "unexpected_count": 0}, 0),
        ({"element_count": 5, "missing_count": 5, "unexpected_count": 0}, 5),
        ({"observed_value": None}, 5),
        ({"observed_value": 3}, 0),
    ],
)
def test_a_pass_without_anything_to_look_at_is_none(found: dict[str, Any], rows: int) -> None:
    assert judged(found, rows=rows)[0] is Verdict.NOT_PROVEN
    assert judged(found, rows=rows, success=False)[0] is Verdict.FAIL


def test_what_was_seen_is_told() -> None:
    assert judged({"element_count": 5, "missing_count": 1, "unexpected_count": 0}) == (Verdict.PASS, "all of 4")
    wrong = {"element_count": 5, "unexpected_count": 2, "partial_unexpected_index_list": [{"id": 7}, {"id": 3}]}
    assert judged(wrong, success=False) == (Verdict.FAIL, "2 of 5: 3, 7")
    assert judged({}, type="expect_table_row_count_to_be_between") == (Verdict.PASS, "")


def test_bounds_are_told_as_they_are_meant() -> None:
    assert expected_of({"min_value": 1, "max_value": 1}) == "1"
    assert expected_of({"min_value": 1, "max_value": 2.5, "strict_max": True}) == "≥ 1, < 2.5"


def test_what_is_data_is_not_kept() -> None:
    result = SimpleNamespace(result={"observed_value": "Ann", "details": {"rows": ["Ann"]}, "unexpected_list": ["Ann"]})
    hide(result)
    assert "Ann" not in str(result)
