"""Which checks a restored copy goes through, and where it stands for each."""

from __future__ import annotations

from dataclasses import dataclass

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
from dr_pipelines.validation.own_expectations import own_expectations_are_met, strays, suite_files
from dr_pipelines.validation.subject import Check, Checks
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


def whole(plan: ValidationPlan, server: str) -> Suite:
    """All of them, with the operator's own suites where there are any."""
    own = bool(suite_files(plan, server) or strays(plan, server))
    return Suite(BEFORE_START, AT_FACTS, (*AT_END, *([own_expectations_are_met] if own else [])))
