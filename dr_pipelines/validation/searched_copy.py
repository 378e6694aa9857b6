"""A restored copy that stands at one position after another, in any order, with as few restores as that takes.

Forward it is replayed. Back it goes to where its files were kept, which is the newest position known to be good. It is
restored anew where that is estimated to be quicker than replay, because a newer backup lies in between, or where the
disk has no room to keep files.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from dr_pipelines.clock import Clock
from dr_pipelines.commands import Runner
from dr_pipelines.errors import DamagedWal, DrError, IntegrityError, RepositoryError, RestoreError, StoreError
from dr_pipelines.lsn import Lsn
from dr_pipelines.postgres.restore_plan import FETCH_RATE, REPLAY_RATE, START_SECONDS, Candidate, RecoveryTarget
from dr_pipelines.postgres.restore_request import RestoreRequest
from dr_pipelines.postgres.restore_source import none_is_early_enough
from dr_pipelines.postgres.scratch import ScratchServer, scratch
from dr_pipelines.progress import Progress
from dr_pipelines.repository.repository import Repository

_ANOTHER_MAY_SERVE = (IntegrityError, StoreError, RepositoryError, DamagedWal)


@dataclass
class Effort:
    """What it took. `restored` and `kept` in bytes: of backups, and of files that were copied on this disk."""

    restores: int = 0
    steps: int = 0
    restored: int = 0
    kept: int = 0


@dataclass
class _Copy:
    """One restored server and what ends it. `spent`: it was promoted."""

    server: ScratchServer
    stack: ExitStack
    spent: bool = False

    @property
    def at(self) -> Lsn:
        return self.server.at.reached if self.server.at is not None else self.server.backup.start_lsn

    @property
    def here(self) -> RecoveryTarget:
        """What begins where it stands is not replayed: the same state again."""
        return RecoveryTarget("lsn", self.at, inclusive=False)


class SearchedCopy:
    """Use as a context manager; all of it is gone at the end. `request` names the target up to which it can be asked to
    go, and a directory beside which its copies are made; `candidates` are the backups that lead there.

    After each `stand_at` it must be told by `judge` whether the data were good there. It never needs to go back to
    before the newest position that was."""

    def __init__(
        self,
        request: RestoreRequest,
        repositories: Sequence[Repository],
        candidates: Sequence[Candidate],
        *,
        clock: Clock,
        runner: Runner,
        progress: Progress,
    ) -> None:
        self._request, self._repositories = request, repositories
        self._candidates = list(candidates)
        self._clock, self._runner, self._progress = clock, runner, progress
        self.effort = Effort()
        self._good: _Copy | None = None
        self._asked: _Copy | None = None
        self._told = False

    def __enter__(self) -> SearchedCopy:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._good is not None:
            self._drop(self._good)
        if self._asked is not None and self._asked is not self._good:
            self._drop(self._asked)

    def stand_at(self, target: RecoveryTarget, position: Lsn) -> ScratchServer:
        """The copy at `target`, which lies at `position`, after the newest good one. Raises what a restore raises."""
        self._asked = self._best_for(position)
        # WAL ends early in a segment that was switched: a position in the void behind that is where it stands already.
        self._step(self._asked, target if position >= self._asked.at else self._asked.here)
        return self._asked.server

    def promoted(self, target: RecoveryTarget) -> ScratchServer:
        """The copy where it stands, but with nothing open: no transaction, no lock."""
        copy = self._standing()
        copy.spent = True
        copy.server.promote_at(target)
        return copy.server

    def judge(self, *, good: bool) -> None:
        """What was found where it stands."""
        copy, self._asked = self._standing(), None
        if good and not copy.spent:
            if self._good is not None and self._good is not copy:
                self._drop(self._good)
            self._good = copy
            if not copy.server.save() and not self._told:
                self._told = True
                self._progress.note("there is no room to keep a copy's files: it is restored anew after each bad point")
        elif copy.server.can_go_back:
            copy.server.go_back()
            copy.spent = False
        else:
            self._drop(copy)
            self._good = None if copy is self._good else self._good

    def at_good(self, target: RecoveryTarget, position: Lsn) -> ScratchServer:
        """The copy, running once more at the newest good position."""
        if self._good is None:
            return self.stand_at(target, position)
        self._step(self._good, self._good.here)
        return self._good.server

    def _step(self, copy: _Copy, target: RecoveryTarget) -> None:
        self.effort.steps += 1
        copy.server.replay_to(target)

    def _standing(self) -> _Copy:
        if self._asked is None:
            raise ValueError("the copy stands nowhere")
        return self._asked

    def _best_for(self, position: Lsn) -> _Copy:
        """By replay from where it is, or from a backup, whichever is estimated to be quicker."""
        replay = None if self._good is None else _seconds(0, position - self._good.at)
        trouble: DrError | None = None
        for candidate in sorted(self._before(position), key=lambda way: _restore_seconds(way, position)):
            if self._good is not None and replay is not None and replay <= _restore_seconds(candidate, position):
                break
            try:
                return self._restored(candidate)
            except (*_ANOTHER_MAY_SERVE, RestoreError) as error:
                # A disk without room for a second copy is no reason to give up the one that is there.
                if self._good is None and not isinstance(error, _ANOTHER_MAY_SERVE):
                    raise
                self._progress.note(f"{candidate.label} cannot be used: {error.message}")
                self._candidates.remove(candidate)
                trouble = trouble or error
        if self._good is None:
            raise trouble or none_is_early_enough(RecoveryTarget("lsn", position))
        return self._good

    def _before(self, position: Lsn) -> list[Candidate]:
        return [candidate for candidate in self._candidates if candidate.chain[-1].stop_lsn <= position]

    def _restored(self, candidate: Candidate) -> _Copy:
        self.effort.restores += 1
        folder = self._request.target_dir
        target_dir: Path = folder.with_name(f"{folder.name}-{self.effort.restores}")
        request = replace(self._request, target_dir=target_dir, label=candidate.label)
        stack = ExitStack()
        server = stack.enter_context(
            scratch(request, self._repositories, clock=self._clock, runner=self._runner, progress=self._progress)
        )
        self.effort.restored += candidate.bytes
        self._progress.phase("search")
        return _Copy(server, stack)

    def _drop(self, copy: _Copy) -> None:
        self.effort.kept += copy.server.copied
        copy.stack.close()


def _restore_seconds(candidate: Candidate, position: Lsn) -> float:
    return _seconds(candidate.bytes, position - candidate.chain[-1].start_lsn)


def _seconds(restored: int, replayed: int) -> float:
    return restored / FETCH_RATE + max(0, replayed) / REPLAY_RATE + START_SECONDS
