"""The newest position at which the data are good, and the transaction after which they are not.

The recovery window is searched by halves: backup by backup, then by position and, where few enough commits are left,
commit by commit. A copy is restored once and replayed forward (`searched_copy`); what is good, `questions` say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

from dr_pipelines.clock import Clock
from dr_pipelines.commands import Runner
from dr_pipelines.errors import CheckFailed, DrError, NotProven, UsageError
from dr_pipelines.lsn import Lsn
from dr_pipelines.postgres.restore_request import RestoreRequest
from dr_pipelines.postgres.wal_transaction import LOOKED_AT, read_transaction
from dr_pipelines.progress import Progress
from dr_pipelines.repository.repository import Repository
from dr_pipelines.validation.halving import halve
from dr_pipelines.validation.questions import Answer, Locked, Question
from dr_pipelines.validation.search_window import Bound, Point, SearchWindow, find_window
from dr_pipelines.validation.searched_copy import Effort, SearchedCopy
from dr_pipelines.validation.touched import Touched, name_tables

LISTED = 256 << 20
"""Bytes of WAL whose commits are listed at a time; a longer stretch is halved by position first."""


@dataclass(frozen=True)
class SearchRequest:
    """What is searched, and for what. `questions` by what they are called; all of them must find the data good.
    Without `since` and `until` it is everything that can be restored. It ends when two commits that follow each other
    are known, or two points no further apart than `precision`."""

    restore: RestoreRequest
    questions: dict[str, Question]
    since: Bound = None
    until: Bound = None
    precision: timedelta = timedelta(0)
    listed: int = LISTED


@dataclass(frozen=True)
class Probe:
    """One point that was tried."""

    point: Point
    good: bool
    said: str


@dataclass(frozen=True)
class LastGood:
    """`good` is the newest point found at which the data are good (up to just before `bad`), `bad` the point after it
    at which they are not; None: they are good at the end of the window. With `exact` no commit lies between the two;
    without, the search ended because `precision` was met. `touched` is what the transaction of `bad` did."""

    server: str
    tier: str
    checks: tuple[str, ...]
    start: Point
    end: Point
    good: Point
    bad: Point | None
    exact: bool
    touched: Touched | None
    probes: tuple[Probe, ...]
    effort: Effort
    notes: tuple[str, ...]


def find_last_good(
    request: SearchRequest, repositories: Sequence[Repository], *, clock: Clock, runner: Runner, progress: Progress
) -> LastGood:
    """Raises `CheckFailed` when the data are bad at the window's start already, `NotProven` when nobody can say, and
    what a restore raises. All copies are gone then."""
    window, notes = find_window(
        request.restore, repositories, request.since, request.until, runner=runner, progress=progress
    )
    with SearchedCopy(
        replace(request.restore, target=window.target),
        repositories,
        window.candidates,
        clock=clock,
        runner=runner,
        progress=progress,
    ) as copy:
        return _Search(request, window, copy, progress, notes).run()


@dataclass
class _Search:
    """One search."""

    request: SearchRequest
    window: SearchWindow
    copy: SearchedCopy
    progress: Progress
    notes: list[str]
    probes: list[Probe] = field(default_factory=list)

    def run(self) -> LastGood:
        start, end = self.window.start, self.window.end
        self._require_good(start)
        around = self._by_backup(start, end) if end != start else None
        if around is None:
            return self._found(end, None)
        good, bad = self._by_position(*around)
        if not self._precise(good, bad):
            good, bad = self._by_commit(good, bad)
        if self._precise(good, bad):
            return self._found(good, bad)
        return self._found(good, bad, self._touched(good, bad), exact=True)

    def _require_good(self, point: Point) -> None:
        answer = self._ask(point)
        if answer.is_error:
            raise UsageError(
                f"the check cannot be asked at the start of the window, {point}: {answer.said}",
                hint="mend the check, or name with --from when what it asks about was there.",
            )
        if not answer.good:
            raise CheckFailed(
                f"the data are bad already at the start of what can be searched, {point}: {answer.said}",
                hint="an older backup may lie on another tier (--tier), or the check was never true; `dr list` shows "
                "the backups.",
            )

    def _by_backup(self, start: Point, end: Point) -> tuple[Point, Point] | None:
        """Two with no backup between them, so that none needs to be restored twice; None when the end is good."""
        points = [start, *self.window.backups()]
        if len(points) > 1 and not self._is_good(points[-1]):
            good, bad = halve(0, len(points) - 1, lambda index: self._is_good(points[index]))
            return points[good], points[bad]
        return None if self._is_good(end) else (points[-1], end)

    def _by_position(self, good: Point, bad: Point) -> tuple[Point, Point]:
        """Until the commits between them can be listed."""
        points = {good.lsn.value: good, bad.lsn.value: bad}

        def is_good(value: int) -> bool:
            points[value] = self.window.point_at(Lsn(value), since=good.lsn)
            return self._is_good(points[value])

        def near_enough(one: int, other: int) -> bool:
            return other - one <= self.request.listed or self._precise(points[one], points[other])

        first, second = halve(good.lsn.value, bad.lsn.value, is_good, near_enough=near_enough)
        return points[first], points[second]

    def _by_commit(self, good: Point, bad: Point) -> tuple[Point, Point]:
        """Two points with no commit between them, or as near as `precision` allows."""
        points = [good, *map(Point.of, self.window.commits(good, bad))]
        if len(points) == 1:
            raise self._unstable(good, bad)
        first, second = halve(
            0,
            len(points) - 1,
            lambda index: self._is_good(points[index]),
            near_enough=lambda one, other: self._precise(points[one], points[other]),
        )
        # The end of a stretch that was halved by position is bad, and so should be the commit that is last in it.
        if points[second] not in [probe.point for probe in self.probes] and self._is_good(points[second]):
            raise self._unstable(points[second], bad)
        return points[first], points[second]

    def _precise(self, good: Point, bad: Point) -> bool:
        precision = self.request.precision
        return bool(precision) and good.at is not None and bad.at is not None and bad.at - good.at <= precision

    def _unstable(self, good: Point, bad: Point) -> NotProven:
        return NotProven(
            f"the data are good at {good} and bad at {bad}, and no commit lies between them",
            hint="the check must depend on nothing but committed data: not on the time, sequences or chance.",
        )

    def _is_good(self, point: Point) -> bool:
        return self._ask(point).good

    def _ask(self, point: Point) -> Answer:
        copy = self.copy.stand_at(point.target, point.lsn)
        try:
            answer = self._all(lambda question: question(copy))
        except Locked:
            promoted = self.copy.promoted(point.target)
            answer = self._all(lambda question: question(promoted))
        self.probes.append(Probe(point, answer.good, answer.said))
        said = f"{'good' if answer.good else 'BAD'} ({answer.said})"
        self.progress.note(f"point {len(self.probes)}: {point}: {said}")
        self.copy.judge(good=answer.good)
        return answer

    def _all(self, ask: Callable[[Question], Answer]) -> Answer:
        """Good when all are; the first that is not says why."""
        said: list[str] = []
        for name, question in self.request.questions.items():
            answer = ask(question)
            said.append(answer.said if len(self.request.questions) == 1 else f"{name}: {answer.said}")
            if not answer.good:
                return replace(answer, said=said[-1])
        return Answer(True, "; ".join(said))

    def _touched(self, good: Point, bad: Point) -> Touched | None:
        """What the transaction of a commit did, by the names that its tables had before."""
        if bad.xid is None:
            return None
        self.progress.phase(f"read transaction {bad.xid}")
        since = Lsn(max(0, bad.lsn.value - LOOKED_AT))
        try:
            records = read_transaction(bad.xid, bad.lsn, self.window.search(since, bad.lsn + 1))
            return name_tables(records, self.copy.at_good(good.target, good.lsn))
        except DrError as error:
            self.notes.append(f"what transaction {bad.xid} did could not be read: {error.message}")
            return None

    def _found(
        self, good: Point, bad: Point | None, touched: Touched | None = None, *, exact: bool = False
    ) -> LastGood:
        return LastGood(
            self.request.restore.server,
            self.window.tier,
            tuple(self.request.questions),
            self.window.start,
            self.window.end,
            good,
            bad,
            exact,
            touched,
            tuple(self.probes),
            self.copy.effort,
            tuple(self.notes),
        )
