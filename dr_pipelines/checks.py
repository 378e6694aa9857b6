"""The one small shape of a check's answer, for the CLI, asset checks, drills and reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """What a check says. What could not be checked has not passed."""

    PASS = "pass"
    FAIL = "fail"
    NOT_PROVEN = "not proven"


@dataclass(frozen=True)
class CheckResult:
    """`name` is the promise (`manifest_is_complete`); `summary` one sentence; `details` plain JSON values, among
    them the evidence that was seen (objects read, bytes, segments)."""

    name: str
    verdict: Verdict
    summary: str
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return self.verdict is Verdict.PASS

    @property
    def skipped(self) -> bool:
        """Whether there was nothing that it had to look at (`applies=False`): no alarm, and no evidence either."""
        return self.passed and self.details.get("applies") is False


def passed(name: str, summary: str, **details: Any) -> CheckResult:
    return CheckResult(name, Verdict.PASS, summary, details)


def failed(name: str, summary: str, **details: Any) -> CheckResult:
    return CheckResult(name, Verdict.FAIL, summary, details)


def not_proven(name: str, summary: str, **details: Any) -> CheckResult:
    return CheckResult(name, Verdict.NOT_PROVEN, summary, details)


def together(name: str, results: Sequence[CheckResult]) -> CheckResult:
    """One promise for several places: broken where one is, proven where all are. Of none, nothing is proven."""
    if not results:
        return not_proven(name, "there was nothing to look at")
    broken = [result for result in results if result.verdict is Verdict.FAIL]
    unproven = [result for result in results if result.verdict is Verdict.NOT_PROVEN]
    worst = broken or unproven or results
    first = next((result for result in worst if not result.skipped), worst[0])
    return CheckResult(name, first.verdict, "; ".join(result.summary for result in worst), first.details)
