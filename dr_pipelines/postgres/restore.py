"""A restore from plan to proven server.

Everything is built in `<target>.partial`; pg_control is written last, and the directory gets its name when all of it
is on disk and recovered. A candidate whose bytes prove bad gives way to the next one by itself, and then to the next
tier.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from dr_pipelines.clock import Clock
from dr_pipelines.commands import Runner
from dr_pipelines.errors import (
    BeforeConsistency,
    CommandFailed,
    DamagedWal,
    DrError,
    IntegrityError,
    RepositoryError,
    RestoreError,
    StoreError,
    WalOffline,
)
from dr_pipelines.lsn import Lsn, Timeline
from dr_pipelines.postgres import tools
from dr_pipelines.postgres.next_commands import ServerCommands
from dr_pipelines.postgres.programs import require_programs
from dr_pipelines.postgres.recover import Host, Recovered, recover
from dr_pipelines.postgres.restore_files import RestoredFiles
from dr_pipelines.postgres.restore_needs import Needs
from dr_pipelines.postgres.restore_plan import Candidate
from dr_pipelines.postgres.restore_request import RecoveryAction, RestoreRequest
from dr_pipelines.postgres.restore_source import Source, find_sources, none_is_early_enough
from dr_pipelines.postgres.restore_target import alone, beside, refuse_used
from dr_pipelines.postgres.wal_fetch import WalFetcher
from dr_pipelines.progress import Progress
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.repository.recall import bring_back, find_offline
from dr_pipelines.repository.repository import Repository

__all__ = ["RestoreReport", "RestoreRequest", "restore"]

_FORESIGHTS = 3
"""So often a restore is planned; WAL may move to cold storage while it is replayed."""
_GIVES_WAY = (IntegrityError, StoreError, RepositoryError, BeforeConsistency, DamagedWal)


@dataclass(frozen=True)
class RestoreReport:
    """What was done. `phases` in seconds; their sum is the measured recovery time. `commands` are what a person types
    next, each by what it does."""

    server: str
    data_dir: Path
    tier: str
    chain: tuple[str, ...]
    target: str
    action: RecoveryAction
    running: bool
    reached_lsn: Lsn
    timeline: Timeline
    bytes: int
    wal_bytes: int
    phases: dict[str, float]
    stopped: str | None
    commands: dict[str, str]
    notes: tuple[str, ...]

    @property
    def seconds(self) -> float:
        return sum(self.phases.values())


@dataclass(frozen=True)
class _Way:
    """One way to restore; `is_asleep` when something of it must be recalled first."""

    source: Source
    candidate: Candidate
    is_asleep: bool = False


@dataclass(frozen=True)
class _Restored:
    """A server that is whole and has its name."""

    source: Source
    candidate: Candidate
    recovered: Recovered
    wal_bytes: int


def restore(
    request: RestoreRequest, repositories: Sequence[Repository], *, clock: Clock, runner: Runner, progress: Progress
) -> RestoreReport:
    """Restore and recover; the server in `target_dir` is whole when this returns, and runs only if that was asked.

    `repositories` in order of preference. Raises `TargetInUse`, `TargetUnreachable`, `WalGap`, `RestoreError` or what
    the stores raise; then nothing is left behind, except a whole server that could not be started.
    """
    refuse_used(request.target_dir)
    with alone(request.target_dir):
        return _Restoring(request, repositories, clock, runner, progress).run()


class _Restoring:
    """One restore."""

    def __init__(
        self,
        request: RestoreRequest,
        repositories: Sequence[Repository],
        clock: Clock,
        runner: Runner,
        progress: Progress,
    ) -> None:
        self._request, self._repositories = request, repositories
        self._clock, self._runner, self._progress = clock, runner, progress
        self._phases: dict[str, float] = {}
        self._notes: list[str] = []
        self._partial = beside(request.target_dir, "partial")
        self._folder = beside(request.target_dir, "wal")
        self._bin_dir = request.bin_dir
        self._all_wal = False

    def run(self) -> RestoreReport:
        restored = self._restored()
        commands = ServerCommands(self._request, self._bin_dir)
        if self._request.start:
            with self._phase("start"):
                self._start(commands)
        return self._report(restored, commands)

    def _restored(self) -> _Restored:
        """Planned anew when replay came to WAL that is offline, unforeseen: then all of it is recalled."""
        for _ in range(_FORESIGHTS - 1):
            try:
                return self._first_that_can(self._sources())
            except WalOffline as error:
                self._note(error.message)
                self._all_wal = True
        return self._first_that_can(self._sources())

    def _sources(self) -> list[Source]:
        with self._phase("plan"):
            sources, notes = find_sources(
                self._request, self._repositories, runner=self._runner, progress=self._progress
            )
            for note in notes:
                self._note(note)
            self._bin_dir = require_programs(self._request, sources[0].backups[-1], self._runner)
        return sources

    def _first_that_can(self, sources: Sequence[Source]) -> _Restored:
        trouble: DrError | None = None
        tried = _Tried()
        asleep: list[_Way] = []
        for way in itertools.chain(self._at_hand(sources, asleep), asleep):
            source, candidate = way.source, way.candidate
            if tried.fails_too(candidate):
                continue
            try:
                if way.is_asleep:
                    self._recall(source, candidate)
                if self._request.before_writing is not None:
                    self._request.before_writing()
                return self._attempt(source, candidate)
            except _GIVES_WAY as error:
                tried.failed(candidate, error)
                if trouble is None or isinstance(trouble, BeforeConsistency):
                    trouble = error
                self._note(f"{candidate.label} on {source.repository.tier} cannot be used: {error.message}")
        raise trouble or none_is_early_enough(self._request.target)

    def _at_hand(self, sources: Sequence[Source], asleep: list[_Way]) -> Iterator[_Way]:
        """The ways that need no recall, in order; the others are put aside into `asleep`."""
        for source in sources:
            for candidate in source.candidates(self._note):
                try:
                    online = self._needs(source, candidate).all_at_hand()
                except DrError:
                    online = True  # whatever it is, the attempt will tell
                if online:
                    yield _Way(source, candidate)
                else:
                    asleep.append(_Way(source, candidate, is_asleep=True))

    def _needs(self, source: Source, candidate: Candidate) -> Needs:
        return Needs(source, candidate, self._request.terms, all_wal=self._all_wal)

    def _attempt(self, source: Source, candidate: Candidate) -> _Restored:
        files = RestoredFiles(self._request, self._partial, self._note)
        try:
            with self._phase("restore", candidate.bytes):
                control = files.unpack(source.repository, candidate, self._progress.advance)
            with self._phase("sync"):
                files.sync(control)
            with self._phase("recover", candidate.wal_bytes):
                recovered, wal_bytes = self._recover(source, candidate)
            files.keep()
            self._partial.rename(self._request.target_dir)
        except BaseException:
            files.remove()
            raise
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
        return _Restored(source, candidate, recovered, wal_bytes)

    def _recall(self, source: Source, candidate: Candidate) -> None:
        """Returns when all that can be foreseen is at hand. Raises `RecallPending`."""
        offline = find_offline(self._needs(source, candidate), urgent=self._request.urgent)
        if not offline.objects:
            return
        if all(found.key != backup.backup_manifest.key for backup in candidate.chain for found in offline.objects):
            # What would fail after hours of waiting fails now: no key, no room.
            RestoredFiles(self._request, self._partial, self._note).require_room(source.repository, candidate)
        with self._phase("recall", offline.bytes):
            bring_back(
                offline,
                urgent=self._request.urgent,
                wait=self._request.wait,
                clock=self._clock,
                progress=self._progress,
                note=self._note,
            )

    def _recover(self, source: Source, candidate: Candidate) -> tuple[Recovered, int]:
        request, newest = replace(self._request, target=source.plan.target), candidate.chain[-1]
        host = Host(self._runner, self._clock, self._bin_dir, request.os_user, request.superuser)
        with wal_fetcher(source, newest, request, self._folder, host) as fetcher:
            recovered = recover(
                self._partial,
                request,
                fetcher,
                host,
                timeline=source.plan.timeline,
                planned_end=source.plan.reachable_end,
                version_num=newest.postgres_version_num,
            )
        return recovered, fetcher.bytes

    def _start(self, commands: ServerCommands) -> None:
        try:
            self._runner.run(commands.start())
        except CommandFailed as error:
            raise RestoreError(
                f"the server is restored to {self._request.target_dir}, and could not be started: {error.message}\n"
                + commands.end_of_log(),
                hint=f"mend what the log says (another --port?) and start it: {tools.as_typed(commands.start())}",
            ) from error

    def _report(self, restored: _Restored, commands: ServerCommands) -> RestoreReport:
        request, source, recovered = self._request, restored.source, restored.recovered
        return RestoreReport(
            server=request.server,
            data_dir=request.target_dir,
            tier=source.repository.tier,
            chain=tuple(backup.label for backup in restored.candidate.chain),
            target=str(request.target),
            action=request.action,
            running=request.start,
            reached_lsn=recovered.reached,
            timeline=recovered.timeline,
            bytes=restored.candidate.bytes,
            wal_bytes=restored.wal_bytes,
            phases=dict(self._phases),
            stopped=recovered.stopped,
            commands=commands.next(),
            notes=(*source.plan.notes, *self._notes, *recovered.notes),
        )

    def _note(self, text: str) -> None:
        self._notes.append(text)
        self._progress.note(text)

    @contextmanager
    def _phase(self, name: str, total: int | None = None) -> Iterator[None]:
        self._progress.phase(name, total)
        started = self._clock.monotonic()
        try:
            yield
        finally:
            self._phases[name] = self._phases.get(name, 0.0) + self._clock.monotonic() - started


class _Tried:
    """What the ways that were tried say of those that were not."""

    def __init__(self) -> None:
        self._too_late: Lsn | None = None
        self._damaged: Lsn | None = None

    def failed(self, candidate: Candidate, error: DrError) -> None:
        if isinstance(error, BeforeConsistency):
            self._too_late = candidate.chain[-1].stop_lsn
        if isinstance(error, DamagedWal):
            self._damaged = error.until

    def fails_too(self, candidate: Candidate) -> bool:
        """It becomes consistent no earlier than what was too late, or needs the damaged WAL."""
        too_late = self._too_late is not None and candidate.chain[-1].stop_lsn >= self._too_late
        return too_late or (self._damaged is not None and candidate.wal_start < self._damaged)


def wal_fetcher(
    source: Source,
    newest: BackupManifest,
    request: RestoreRequest,
    folder: Path,
    host: Host,
    *,
    replayed_until: Lsn | None = None,
) -> WalFetcher:
    """Serves the WAL of a source to a server that is recovered from `newest` on, through `folder`; one that goes on
    with its recovery has `replayed_until` there before."""
    return WalFetcher(
        source.system.wal.preferring(source.repository.tier),
        folder,
        timeline=source.plan.timeline,
        replayed_from=replayed_until or newest.start_lsn,
        segment_size=newest.segment_size,
        os_user=host.os_user,
        clock=host.clock,
        has_target=request.target.kind != "latest",
    )
