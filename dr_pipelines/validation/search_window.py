"""Where a search for the last known good may look: what the stored WAL reaches without a gap, from which backups, and
the commits in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from dr_pipelines.commands import Runner
from dr_pipelines.errors import DrError, TargetUnreachable, UsageError, WalGap
from dr_pipelines.lsn import Lsn
from dr_pipelines.postgres.programs import require_programs
from dr_pipelines.postgres.restore_needs import Needs
from dr_pipelines.postgres.restore_plan import Candidate, RecoveryTarget
from dr_pipelines.postgres.restore_request import RestoreRequest
from dr_pipelines.postgres.restore_source import Source, find_sources
from dr_pipelines.postgres.wal_search import TransactionEnd, WalSearch
from dr_pipelines.progress import Progress
from dr_pipelines.repository.repository import Repository

Bound = Lsn | datetime | None


@dataclass(frozen=True)
class Point:
    """A position to look at: just after the commit record that begins at `lsn`, or, where it is not `inclusive`, just
    before whatever begins there. `xid` is the transaction of that commit, `at` the time of the newest commit before or
    at the point, by the server's clock (None: not known)."""

    lsn: Lsn
    inclusive: bool
    xid: int | None = None
    at: datetime | None = None

    @classmethod
    def of(cls, commit: TransactionEnd) -> Point:
        return cls(commit.lsn, True, commit.xid, commit.at)

    @property
    def target(self) -> RecoveryTarget:
        return RecoveryTarget("lsn", self.lsn, self.inclusive)

    def __str__(self) -> str:
        return f"{self.lsn} ({self.at:%Y-%m-%dT%H:%M:%S.%fZ})" if self.at is not None else str(self.lsn)


@dataclass(frozen=True)
class SearchWindow:
    """From `start` to `end`. `target` is that up to which a copy must be able to go; `candidates` lead there."""

    source: Source
    candidates: tuple[Candidate, ...]
    start: Point
    end: Point
    target: RecoveryTarget

    @property
    def tier(self) -> str:
        return self.source.repository.tier

    def backups(self) -> list[Point]:
        """Where those in the window are consistent, but for one that it begins with, oldest first."""
        ends = sorted({way.chain[-1].stop_lsn for way in self.candidates if self.start.lsn < way.chain[-1].stop_lsn})
        return [self.point_at(lsn, since=self.start.lsn) for lsn in ends]

    def search(self, since: Lsn, until: Lsn) -> WalSearch:
        return self.source.system.search(self.source.plan.timeline, since, until)

    def commits(self, after: Point, until: Point) -> list[TransactionEnd]:
        """Those that the second point has and the first has not, oldest first."""
        first = after.lsn + 1 if after.inclusive else after.lsn
        stop = until.lsn + 1 if until.inclusive else until.lsn
        return _commits(self.search(first, stop), first)

    def point_at(self, lsn: Lsn, *, since: Lsn) -> Point:
        """Just before what begins at `lsn`; its time is looked for down to `since`."""
        return Point(lsn, False, at=_last_commit_at(self.source, since, lsn))


def find_window(
    request: RestoreRequest,
    repositories: Sequence[Repository],
    since: Bound,
    until: Bound,
    *,
    runner: Runner,
    progress: Progress,
) -> tuple[SearchWindow, list[str]]:
    """With notes. Raises `TargetUnreachable`, `WalGap`, `UsageError` for bounds the wrong way round, and what the
    stores raise."""
    timeline = request.target.timeline
    asked = (
        RecoveryTarget("lsn", until, timeline=timeline) if isinstance(until, Lsn) else RecoveryTarget(timeline=timeline)
    )
    progress.phase("window")
    try:
        sources, notes = find_sources(replace(request, target=asked), repositories, runner=runner, progress=progress)
    except WalGap as error:
        error.hint = "search what lies before the gap with --until, or another tier (--tier)."
        raise
    source = sources[0]
    require_programs(request, source.backups[-1], runner)
    candidates = _usable(source, request, notes)
    start, end = _Bounds(source, candidates[0], since, until, notes).find()
    leading = tuple(way for way in candidates if way.chain[-1].stop_lsn <= end.lsn)
    target = replace(end.target, timeline=timeline)
    return SearchWindow(source, leading, start, end, target), [*notes, *source.plan.notes]


def _usable(source: Source, request: RestoreRequest, notes: list[str]) -> list[Candidate]:
    """Oldest first: those that are at hand and proven, if there are any."""
    found = list(source.plan.candidates)
    found = [way for way in found if way.provisional is None] or found
    near = [way for way in found if Needs(source, way, request.terms).all_at_hand()]
    if near and len(near) < len(found):
        notes.append(f"left out, because they must be recalled first: {len(found) - len(near)} backups")
    return sorted(near or found, key=lambda way: way.chain[-1].stop_lsn)


@dataclass(frozen=True)
class _Bounds:
    """What a person asked for, as points of the window."""

    source: Source
    oldest: Candidate
    since: Bound
    until: Bound
    notes: list[str]

    def find(self) -> tuple[Point, Point]:
        backup = self.oldest.chain[-1]
        first = backup.stop_lsn
        start = self._position(self.since, first) if self.since is not None else first
        if start <= first:
            if start < first or (isinstance(self.since, datetime) and self.since < backup.started_at):
                self.notes.append(f"nothing before {first} ({backup.finished_at:%Y-%m-%dT%H:%M:%SZ}) can be restored")
            begin = Point(first, False, at=_last_commit_at(self.source, backup.start_lsn, first) or backup.finished_at)
        else:
            begin = Point(start, False, at=_last_commit_at(self.source, first, start))
        return begin, self._end(begin)

    def _end(self, begin: Point) -> Point:
        """The last commit of the window; its start when there is none."""
        stop = self.source.plan.reachable_end
        if isinstance(self.until, Lsn):
            stop = min(stop, self.until + 1)
        elif self.until is not None:
            stop = min(stop, self._position(self.until, begin.lsn))
        if stop <= begin.lsn:
            raise UsageError(
                f"there is nothing to search: the window would begin at {begin} and end at {stop}",
                hint="--until must be after --from, and --from before the newest commit.",
            )
        search = self.source.system.search(self.source.plan.timeline, begin.lsn, stop)
        last = next((end for end in search.transaction_ends() if end.committed and end.lsn >= begin.lsn), None)
        _refuse_damage(search)
        return Point.of(last) if last is not None else begin

    def _position(self, bound: Lsn | datetime, since: Lsn) -> Lsn:
        """Where the first commit after a time begins; the end of the WAL when there is none."""
        end, system, timeline = self.source.plan.reachable_end, self.source.system, self.source.plan.timeline
        if isinstance(bound, Lsn):
            if bound > end:
                raise TargetUnreachable(f"{bound} lies after the newest WAL that can be replayed: {end}")
            return bound
        near = system.soon_after(bound, timeline, since, end)
        search = system.search(timeline, since, near)
        found = near
        for ended in search.transaction_ends():
            if ended.at <= bound or ended.lsn < since:
                break
            found = ended.lsn
        _refuse_damage(search)
        return found


def _commits(search: WalSearch, first: Lsn) -> list[TransactionEnd]:
    found = [end for end in search.transaction_ends() if end.committed and end.lsn >= first]
    _refuse_damage(search)
    return found[::-1]


def _last_commit_at(source: Source, since: Lsn, before: Lsn) -> datetime | None:
    search = source.system.search(source.plan.timeline, since, before)
    return next((end.at for end in search.transaction_ends() if end.committed), None)


def _refuse_damage(search: WalSearch) -> None:
    """Commits that cannot be read may be those that are looked for."""
    trouble: DrError | None = next(iter(search.damaged.values()), None)
    if trouble is not None:
        raise trouble
