"""One restored copy goes through its checks: at each position where its source told facts, then at the end of the WAL.

Decides which check runs where, and that a check which could not run has not passed. What to restore, and what becomes
of the verdict, does not belong here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from pydantic import ValidationError

from dr_pipelines.checks import CheckResult, not_proven, together
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
from dr_pipelines.validation import suite
from dr_pipelines.validation.presence import DATA_WAS_SEEN, Sight, data_was_seen, look
from dr_pipelines.validation.subject import Check, Checks, KeepPage, RestoredCopy

_NO_FACTS = "the backup holds no facts of its source to compare with"


@dataclass(frozen=True)
class Told:
    """The facts of those databases that told them at one position; of the cluster too at the last of them."""

    lsn: Lsn
    facts: SourceFacts


def read_facts(repository: Repository, backup: BackupManifest) -> SourceFacts | None:
    """None when none were taken. Raises `IntegrityError`, `KeyUnusable`, `RepositoryError`, what the store raises."""
    if backup.facts is None:
        return None
    data = repository.codec.decode(fetch_verified(repository.store, backup.facts))
    try:
        return decode_facts(data)
    except ValidationError as error:
        raise RepositoryError(f"{backup.facts.key} on {repository.tier} holds no readable facts") from error


def positions(facts: SourceFacts) -> Iterator[Told]:
    """Ascending: a copy can only go forward."""
    lsns = sorted({database.lsn for database in facts.databases})
    for lsn in lsns:
        here = tuple(database for database in facts.databases if database.lsn == lsn)
        cluster = facts.cluster if lsn == lsns[-1] else {}
        yield Told(lsn, facts.model_copy(update={"databases": here, "cluster": cluster}))


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
        why: str = _NO_FACTS,
        before_start: Checks | None = None,
        at_facts: Checks | None = None,
        at_end: Checks | None = None,
        promises: Mapping[str, timedelta] | None = None,
        keep_page: KeepPage | None = None,
    ) -> None:
        self._facts, self._plan, self._clock, self._progress = facts, plan, clock, progress
        self._before_start = suite.BEFORE_START if before_start is None else before_start
        self._at_facts = suite.AT_FACTS if at_facts is None else at_facts
        self._at_end = suite.AT_END if at_end is None else at_end
        self._promises, self._keep_page = promises or {}, keep_page
        self._left = [] if facts is None else [*positions(facts)]
        self._found: dict[int, list[CheckResult]] = {}
        self._sight: CheckResult | None = None
        self._why_not_at_facts = why
        self.seconds = 0.0
        self.reached: Lsn | None = None

    def run(self, scratch: ScratchServer) -> None:
        """Raises what the replay raises; what was found until then stays."""
        self._check(0, self._before_start, self._copy(scratch, self._facts))
        sight = Sight()
        while self._left:
            self._progress.phase("replay")
            try:
                scratch.replay_to(RecoveryTarget("lsn", self._left[0].lsn, inclusive=False))
            except TargetUnreachable as error:  # the end may still be there
                self._why_not_at_facts = f"the copy cannot stand where its source told its facts: {error.message}"
                break
            sight += self._at(scratch, self._left[0])
            del self._left[0]
        self._progress.phase("replay")
        self.reached = scratch.replay_to_end().reached
        while self._left and self._left[0].lsn == self.reached:  # nothing was written since they were told
            sight += self._at(scratch, self._left[0])
            del self._left[0]
        self._look(scratch, sight)
        self._check(len(self._before_start) + len(self._at_facts), self._at_end, self._copy(scratch, self._facts))

    def results(self, why: str | None = None) -> tuple[CheckResult, ...]:
        """One for each declared check, and whether anything was seen. `why` the rest did not run."""
        end = why or "the copy did not reach the end of the WAL"
        unseen = why or self._why_not_at_facts
        found = [self._sight or not_proven(DATA_WAS_SEEN, f"nothing was looked at: {end}")]
        first = len(self._before_start)
        for number, check in enumerate([*self._before_start, *self._at_facts, *self._at_end]):
            of_facts = first <= number < first + len(self._at_facts)
            results = self._found.get(number, [])
            if not results or (of_facts and self._left):  # some databases are not all databases
                results = [*results, not_proven(_name(check), unseen if of_facts else end)]
            found.append(_one(results))
        return tuple(found)

    def _copy(self, scratch: ScratchServer, facts: SourceFacts | None) -> RestoredCopy:
        return RestoredCopy(
            scratch, facts, self._plan, self._clock.now(), promises=self._promises, keep_page=self._keep_page
        )

    def _at(self, scratch: ScratchServer, told: Told) -> Sight:
        copy = self._copy(scratch, told.facts)
        self._check(len(self._before_start), self._at_facts, copy)
        return self._seen(copy, [database.name for database in told.facts.databases])

    def _look(self, scratch: ScratchServer, sight: Sight) -> None:
        """At the facts the source is known; else whatever is there at the end."""
        if self._facts is not None and self._facts.databases and not self._left:
            self._sight = data_was_seen(sight, self._facts.databases)
            return
        copy = self._copy(scratch, None)
        try:
            self._sight = data_was_seen(look(copy, copy.databases()))
        except DrError as error:
            self._sight = not_proven(DATA_WAS_SEEN, f"could not be looked at: {error.message}", hint=error.hint)

    def _seen(self, copy: RestoredCopy, databases: Sequence[str]) -> Sight:
        try:
            return look(copy, databases)
        except DrError:  # a database that is not there: whoever compares it with its facts says so
            return Sight()

    def _check(self, first: int, checks: Checks, copy: RestoredCopy) -> None:
        """`first` is the number of the first of them among all that are declared."""
        for number, check in enumerate(checks, first):
            self._progress.phase(_name(check))
            began = self._clock.monotonic()
            result = _answer(check, copy)
            self.seconds += self._clock.monotonic() - began
            self._found.setdefault(number, []).append(result)


def _one(results: Sequence[CheckResult]) -> CheckResult:
    """Of one check, which may have been made for several databases, each where it told its facts."""
    if len(results) == 1:
        return results[0]
    worst = together(results[0].name, results)
    steps = [{"verdict": one.verdict.value, "summary": one.summary, **one.details} for one in results]
    return CheckResult(worst.name, worst.verdict, worst.summary, {**worst.details, "steps": steps})


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
