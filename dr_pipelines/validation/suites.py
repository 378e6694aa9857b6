"""Expectations, and what came of them, in words of our own: what belongs to no library.

An expectation that was not evaluated has not been met, nor has one that saw no value; what is skipped says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from dr_pipelines.checks import CheckResult, Verdict, not_proven
from dr_pipelines.wording import are, counted

MOST_SHOWN = 300
"""Rows of a table of expectations; what was not met comes first."""
_MOST_NAMED = 3


class Severity(StrEnum):
    """Great Expectations' own. What is not critical is shown, and fails nothing."""

    CRITICAL = "critical"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True)
class Expectation:
    """`type` and `arguments` are Great Expectations' (`expect_column_values_to_be_unique`, `{"column": "key"}`); `says`
    is what a person reads. One with a reason in `skipped` is not evaluated, and shown as not evaluated."""

    type: str
    says: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    severity: Severity = Severity.CRITICAL
    skipped: str | None = None

    @property
    def column(self) -> str | None:
        given = self.arguments
        named = given.get("column") or given.get("column_list") or (given.get("column_A"), given.get("column_B"))
        return named if isinstance(named, str) else ", ".join(name for name in named if name) or None


@dataclass(frozen=True)
class Suite:
    """`name` is what is looked at: a table, a backup, the catalog."""

    name: str
    expectations: tuple[Expectation, ...]


def filled(column: str, says: str, *more: Expectation) -> tuple[Expectation, ...]:
    """A column's expectations, the first of which is that it has no gaps: most others take a NULL for right."""
    return (Expectation("expect_column_values_to_not_be_null", says, {"column": column}), *more)


def not_empty(says: str) -> Expectation:
    return Expectation("expect_table_row_count_to_be_between", says, {"min_value": 1})


@dataclass(frozen=True)
class Outcome:
    """What came of one expectation."""

    says: str
    column: str | None
    observed: str
    expected: str
    verdict: Verdict
    severity: Severity = Severity.CRITICAL
    skipped: bool = False

    @property
    def result(self) -> str:
        """One word for a table's cell."""
        if self.skipped:
            return "skipped"
        if self.verdict is Verdict.FAIL:
            return "FAILED" if self.severity is Severity.CRITICAL else str(self.severity)
        return "met" if self.verdict is Verdict.PASS else "not proven"


@dataclass(frozen=True)
class SuiteResult:
    """`declared` is how many expectations were written down, skipped ones among them; `rows` how many rows were seen
    (None: not counted). `raw` is the library's own result, for its documents; None when nothing was evaluated."""

    name: str
    declared: int
    outcomes: tuple[Outcome, ...]
    rows: int | None = None
    raw: Any = field(default=None, repr=False, compare=False)


def unproven(name: str, why: str, *, declared: int = 1) -> SuiteResult:
    """A suite that could not be run at all."""
    return SuiteResult(name, declared, (Outcome("the suite can be run", None, why, "", Verdict.NOT_PROVEN),))


def unmet(name: str, says: str, observed: str) -> SuiteResult:
    """What is wrong before any expectation can be evaluated."""
    return SuiteResult(name, 1, (Outcome(says, None, observed, "", Verdict.FAIL),))


def unasked(name: str, says: str, why: str) -> SuiteResult:
    """A suite of which nothing is evaluated, for a reason."""
    return SuiteResult(name, 1, (Outcome(says, None, why, "", Verdict.NOT_PROVEN, skipped=True),))


def judged(name: str, results: Sequence[SuiteResult], **details: Any) -> CheckResult:
    """One promise for several suites. Passes only when every expectation that was declared is accounted for, and at
    least one was evaluated and met."""
    if not results:
        return not_proven(name, "there was no suite to run", **details)
    all_of = [(result.name, outcome) for result in results for outcome in result.outcomes]
    broken = [one for one in all_of if one[1].result == "FAILED"]
    lost = [
        f"{result.name}: {result.declared} expectations are declared and {len(result.outcomes)} came back"
        for result in results
        if len(result.outcomes) != result.declared or not result.outcomes
    ]
    unclear = [one for one in all_of if one[1].verdict is Verdict.NOT_PROVEN and not one[1].skipped]
    skipped = [one for one in all_of if one[1].skipped]
    warned = [one for one in all_of if one[1].verdict is Verdict.FAIL and one[1].result != "FAILED"]
    evaluated = len(all_of) - len(skipped)
    seen = {
        "declared": sum(result.declared for result in results),
        "evaluated": evaluated,
        "skipped": len(skipped),
        "warnings": len(warned),
        "suites": len(results),
        "rows": sum(result.rows or 0 for result in results),
        "expectations": rows_of(results),
        **details,
    }
    aside = "".join(
        f", {len(those)} {word}" for those, word in ((skipped, "skipped"), (warned, "not met as a warning")) if those
    )
    if broken:
        said = f"{len(broken)} of {counted(evaluated, 'expectation')} {are(len(broken))} not met: {_first(broken)}"
        return CheckResult(name, Verdict.FAIL, said, seen)
    if lost or unclear:
        said = "; ".join([*lost[:_MOST_NAMED], *([_first(unclear)] if unclear else [])])
        return CheckResult(name, Verdict.NOT_PROVEN, f"not everything could be evaluated: {said}", seen)
    if not evaluated:
        return CheckResult(name, Verdict.NOT_PROVEN, f"nothing could be evaluated: {_reasons(skipped)}", seen)
    met = evaluated - len(warned)
    return CheckResult(
        name, Verdict.PASS, f"{counted(met, 'expectation')} of {_suites(results)} {are(met)} met{aside}", seen
    )


def _suites(results: Sequence[SuiteResult]) -> str:
    return results[0].name if len(results) == 1 else f"{len(results)} suites"


def _reasons(those: Sequence[tuple[str, Outcome]]) -> str:
    """Why nothing was asked; what is the same for all is said once."""
    whys = {outcome.observed for _, outcome in those}
    return whys.pop() if len(those) > 1 and len(whys) == 1 else _first(those)


def _first(those: Sequence[tuple[str, Outcome]]) -> str:
    named = [
        f"{name}: {outcome.says}" + (f" ({outcome.observed})" if outcome.observed else "")
        for name, outcome in those[:_MOST_NAMED]
    ]
    more = len(those) - len(named)
    return "; ".join([*named, *([f"and {more} more"] if more else [])])


_ORDER = ("FAILED", "not proven", "warning", "info", "skipped", "met")


def rows_of(results: Sequence[SuiteResult], *, most: int | None = MOST_SHOWN) -> list[dict[str, str]]:
    """A table for people, what was not met first; at most so many rows."""
    rows = [
        {
            "of": result.name,
            "expectation": outcome.says,
            "column": outcome.column or "",
            "observed": outcome.observed,
            "expected": outcome.expected,
            "result": outcome.result,
        }
        for result in results
        for outcome in result.outcomes
    ]
    rows.sort(key=lambda row: _ORDER.index(row["result"]))
    return rows[:most]
