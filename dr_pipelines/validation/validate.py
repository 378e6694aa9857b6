"""One restored copy goes through its checks: as files, where its source told its facts, and at the end of the WAL.

Decides which check runs where, and that a check which could not run has not passed. What to restore, and what becomes
of the verdict, does not belong here.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from pydantic import ValidationError

from dr_pipelines.checks import CheckResult, not_proven
from dr_pipelines.clock import Clock
from dr_pipelines.errors import DrError, RepositoryError, TargetUnreachable
from dr_pipelines.lsn import Lsn
from dr_pipelines.plan.validation import ValidationPlan
from dr_pipelines.postgres.restore_plan import RecoveryTarget
from dr_pipelines.postgres.scratch import ScratchServer
from dr_pipelines.progress import Progress
from dr_pipelines.repository.fetch import fetch_verified
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.repository.repository import Repository
from dr_pipelines.repository.source_facts import SourceFacts, decode_facts
from dr_pipelines.validation.presence import DATA_WAS_SEEN, data_was_seen, look
from dr_pipelines.validation.subject import Check, Checks, KeepPage, RestoredCopy
from dr_pipelines.validation.suite import Suite

_NO_FACTS = "the backup holds no facts of its source to compare with"


def read_facts(repository: Repository, backup: BackupManifest) -> SourceFacts | None:
    """None when none were taken. Raises `IntegrityError`, `KeyUnusable`, `RepositoryError`, what the store raises."""
    if backup.facts is None:
        return None
    data = repository.codec.decode(fetch_verified(repository.store, backup.facts))
    try:
        return decode_facts(data)
    except ValidationError as error:
        raise RepositoryError(f"{backup.facts.key} on {repository.tier} holds no readable facts") from error


class Validating:
    """Every declared check gives one result, whatever happens: what did not run is not proven. `facts` None: there are
    none, for the reason `why`. `promises` and `keep_page` are as `RestoredCopy` has them; `seconds` is what the checks
    alone took. Not to be used twice."""

    def __init__(
        self,
        facts: SourceFacts | None,
        plan: ValidationPlan,
        *,
        clock: Clock,
        progress: Progress,
        suite: Suite,
        why: str = _NO_FACTS,
        promises: Mapping[str, timedelta] | None = None,
        keep_page: KeepPage | None = None,
    ) -> None:
        self._facts, self._plan, self._clock, self._progress = facts, plan, clock, progress
        self._suite = suite
        self._promises, self._keep_page = promises or {}, keep_page
        self._found: dict[tuple[str, int], CheckResult] = {}
        self._sight: CheckResult | None = None
        self._why_not_at_facts = why
        self.seconds = 0.0
        self.reached: Lsn | None = None

    def run(self, scratch: ScratchServer) -> None:
        """Raises what the replay raises; what was found until then stays."""
        copy = RestoredCopy(
            scratch, self._facts, self._plan, self._clock.now(), promises=self._promises, keep_page=self._keep_page
        )
        self._check("before start", self._suite.before_start, copy)
        if self._stands_at_facts(scratch):
            self._check("facts", self._suite.at_facts, copy)
            self._look(copy)
        self._progress.phase("replay")
        self.reached = scratch.replay_to_end().reached
        self._check("end", self._suite.at_end, copy)
        if self._sight is None:
            self._look(copy)

    def results(self, why: str | None = None) -> tuple[CheckResult, ...]:
        """One for each declared check, and whether anything was seen. `why` the rest did not run."""
        end = why or "the copy did not reach the end of the WAL"
        stages = (
            ("before start", self._suite.before_start, end),
            ("facts", self._suite.at_facts, why or self._why_not_at_facts),
            ("end", self._suite.at_end, end),
        )
        return (
            self._sight or not_proven(DATA_WAS_SEEN, f"nothing was looked at: {end}"),
            *(
                self._found.get((stage, number)) or not_proven(_name(check), reason)
                for stage, checks, reason in stages
                for number, check in enumerate(checks)
            ),
        )

    def _stands_at_facts(self, scratch: ScratchServer) -> bool:
        """The end of the WAL may still be reached where this is not."""
        if self._facts is None or self._facts.lsn is None:
            return False
        self._progress.phase("replay to the facts")
        try:
            scratch.replay_to(RecoveryTarget("lsn", self._facts.lsn, inclusive=False))
        except TargetUnreachable as error:
            self._why_not_at_facts = f"the copy cannot stand where its source told its facts: {error.message}"
            return False
        return True

    def _look(self, copy: RestoredCopy) -> None:
        """At the facts it is known what must be there; elsewhere whatever is there."""
        told = () if self._facts is None or self.reached is not None else self._facts.databases
        began = self._clock.monotonic()
        try:
            databases = [database.name for database in told] or copy.databases()
            self._sight = data_was_seen(look(copy, databases), told)
        except DrError as error:
            self._sight = not_proven(DATA_WAS_SEEN, f"could not be looked at: {error.message}", hint=error.hint)
        self.seconds += self._clock.monotonic() - began

    def _check(self, stage: str, checks: Checks, copy: RestoredCopy) -> None:
        for number, check in enumerate(checks):
            self._progress.phase(_name(check))
            began = self._clock.monotonic()
            self._found[stage, number] = _answer(check, copy)
            self.seconds += self._clock.monotonic() - began


def _answer(check: Check, copy: RestoredCopy) -> CheckResult:
    """An error on the way means that nothing is proven, of whatever kind it is: it must not hide the other checks."""
    try:
        result = check(copy)
        if not isinstance(result, CheckResult):
            raise TypeError(f"{_name(check)} gave {result!r}")
        return result
    except DrError as error:
        return not_proven(_name(check), f"could not be looked at: {error.message}", hint=error.hint)
    except Exception as error:  # noqa: BLE001 - a check that has a bug must not pass, nor hide the others
        return not_proven(_name(check), f"unexpected {type(error).__name__}: {error}")


def _name(check: Check) -> str:
    return str(getattr(check, "__name__", type(check).__name__))
