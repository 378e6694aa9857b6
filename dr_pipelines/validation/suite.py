"""Which checks a restored copy goes through, and where it stands for each."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from dr_pipelines.checks import CheckResult, not_proven
from dr_pipelines.plan.validation import ValidationPlan
from dr_pipelines.validation.baseline import baseline_is_met
from dr_pipelines.validation.consistency import source_is_matched
from dr_pipelines.validation.corruption import (
    indexes_are_sound,
    indexes_are_valid,
    page_checksums_match,
    relations_are_whole,
)
from dr_pipelines.validation.fidelity import catalogue_is_matched
from dr_pipelines.validation.own_expectations import overlooked, own_expectations_are_met, strays, suite_files
from dr_pipelines.validation.subject import Check, Checks, RestoredCopy
from dr_pipelines.validation.verifybackup import pg_verifybackup_agrees

BEFORE_START: tuple[Check, ...] = (pg_verifybackup_agrees,)
"""While the copy is the files of its backup and nothing else: no server has run on them."""

AT_FACTS: tuple[Check, ...] = (source_is_matched, catalogue_is_matched, baseline_is_met)
"""While the copy stands, read-only, exactly where its source was when it told its facts: at `facts.lsn`, which is one
for all databases, replayed to `RecoveryTarget("lsn", facts.lsn, inclusive=False)`. Without facts, or anywhere else,
these are not proven. What the source changed afterwards, by right, is no fault of the copy: so whatever is compared
with facts is compared here."""

AT_END: tuple[Check, ...] = (
    relations_are_whole,
    indexes_are_valid,
    indexes_are_sound,
    page_checksums_match,
)
"""When all WAL was replayed and the copy was promoted: it can be written, and reaches nothing."""


@dataclass(frozen=True)
class Suite:
    """Checks for each of the three."""

    before_start: Checks = ()
    at_facts: Checks = ()
    at_end: Checks = ()


def whole(plan: ValidationPlan, server: str, servers: Collection[str] = ()) -> Suite:
    """All of them, with the operator's own suites where there are any. `servers` are all of the plan: suites that are
    of none are not proven, for somebody thinks that they are looked at."""
    own: list[Check] = []
    if suite_files(plan, server) or strays(plan, server):
        own.append(own_expectations_are_met)
    if lying := overlooked(plan, {server, *servers}):
        own.append(_no_suite_is_overlooked(lying))
    return Suite(BEFORE_START, AT_FACTS, (*AT_END, *own))


def _no_suite_is_overlooked(lying: Sequence[str]) -> Check:
    def no_suite_is_overlooked(copy: RestoredCopy) -> CheckResult:
        more = f", and {len(lying) - 1} more" if len(lying) > 1 else ""
        return not_proven("no_suite_is_overlooked", f"{lying[0]}{more}", hint="name its folder as the server.")

    return no_suite_is_overlooked
