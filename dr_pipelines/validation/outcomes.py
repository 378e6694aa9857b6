"""What came of an evaluation: the library's results in our words. Pure; it knows their shape, not the library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from dr_pipelines.checks import Verdict
from dr_pipelines.validation.suites import Expectation, Outcome

MOST_NAMED = 5
"""Of what does not meet an expectation, so many are named."""


def outcome_of(words: Expectation, result: Any, rows: int | None, named_by: str | None) -> Outcome:
    found = result.result or {}
    trouble = _trouble(result.exception_info)
    verdict = Verdict.PASS if result.success else Verdict.FAIL
    observed = _observed(found, named_by)
    if trouble is not None:
        verdict, observed = Verdict.NOT_PROVEN, trouble
    elif result.success and (nothing := _saw_nothing(words, found, rows)) is not None:
        verdict, observed = Verdict.NOT_PROVEN, nothing
    return Outcome(words.says, words.column, observed, expected_of(words.arguments), verdict, words.severity)


def _saw_nothing(words: Expectation, found: Mapping[str, Any], rows: int | None) -> str | None:
    """Why a pass is none: the library lets pass what has no value to look at."""
    if words.type.startswith("expect_table_"):
        return None
    if "element_count" in found:
        missing = 0 if words.type.endswith("_null") else found.get("missing_count") or 0
        return "no value was there to look at" if found["element_count"] - missing <= 0 else None
    if found.get("observed_value") is None:
        return "no value was there to look at"
    return "no row was there to look at" if rows == 0 else None


def _trouble(info: Any) -> str | None:
    """What was raised; the library puts it down flat, or for each metric that it needed."""
    if not isinstance(info, Mapping):
        return None
    for one in (info, *(inner for inner in info.values() if isinstance(inner, Mapping))):
        if one.get("raised_exception"):
            return first_line(one.get("exception_message") or "it raised an error")
    return None


def _observed(found: Mapping[str, Any], named_by: str | None) -> str:
    if "unexpected_count" in found:
        seen, wrong = found.get("element_count", 0) - (found.get("missing_count") or 0), found["unexpected_count"]
        if not wrong:
            return f"all of {seen}"
        named = [
            str(index[named_by])
            for index in (found.get("partial_unexpected_index_list") or ())
            if isinstance(index, Mapping) and named_by in index
        ]
        return f"{wrong} of {seen}" + (f": {', '.join(sorted(named)[:MOST_NAMED])}" if named else "")
    if unexpected := (found.get("details") or {}).get("unexpected_rows"):
        return ", ".join(f"{name}: {value}" for name, value in unexpected[0].items())
    return _text(found.get("observed_value"))


def expected_of(arguments: Mapping[str, Any]) -> str:
    low, high = arguments.get("min_value"), arguments.get("max_value")
    if low is not None and low == high:
        return _text(low)
    least, most = (">" if arguments.get("strict_min") else "≥"), ("<" if arguments.get("strict_max") else "≤")
    parts = [f"{sign} {_text(bound)}" for sign, bound in ((least, low), (most, high)) if bound is not None]
    parts += [f"matches {arguments['regex']}"] if "regex" in arguments else []
    parts += [f"{_text(arguments['value'])}"] if "value" in arguments else []
    parts += [f"among {_text(arguments['value_set'])}"] if "value_set" in arguments else []
    return ", ".join(parts)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}" if value != int(value) else str(int(value))
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    if isinstance(value, list | tuple | set):
        return ", ".join(_text(item) for item in value)
    return str(value)


def as_judged(raw: Any, judged: Sequence[tuple[Any, Outcome]]) -> None:
    """What we do not take for met is not met in the library's documents either."""
    for result, outcome in judged:
        result.success = outcome.verdict is Verdict.PASS
    met = sum(bool(result.success) for result, _ in judged)
    raw.success = met == len(judged)
    raw.statistics = {
        "evaluated_expectations": len(judged),
        "successful_expectations": met,
        "unsuccessful_expectations": len(judged) - met,
        "success_percent": 100 * met / len(judged) if judged else None,
    }


def hide(result: Any) -> None:
    """What is somebody's data stays in the database: results are kept in clear text."""
    found = result.result or {}
    for name in ("details", "unexpected_list", "unexpected_index_list", "unexpected_index_query"):
        found.pop(name, None)
    if not isinstance(found.get("observed_value"), bool | int | float | Decimal | date | None):
        found["observed_value"] = "not shown: it is data"


def first_line(said: object) -> str:
    lines = str(said).strip().splitlines()
    return lines[0][:300] if lines else type(said).__name__
