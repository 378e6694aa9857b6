"""A restored server to be looked at and thrown away: it is replayed to one position after another, and asked at each.

It lies in a folder of its own, listens on a private socket only, reaches nothing outside, and is gone at the end.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from dr_pipelines.clock import Clock
from dr_pipelines.commands import Process, Runner
from dr_pipelines.errors import RestoreError, ServerError, UsageError
from dr_pipelines.lsn import Lsn, Timeline
from dr_pipelines.postgres import tools
from dr_pipelines.postgres.programs import require_programs
from dr_pipelines.postgres.recover import PORT, Host, configure, private_folder, running, wait_until
from dr_pipelines.postgres.recovery_proof import (
    assert_nothing_left,
    assert_reached,
    is_consistent,
    stop_line,
    switch_point,
)
from dr_pipelines.postgres.restore import wal_fetcher
from dr_pipelines.postgres.restore_files import RestoredFiles
from dr_pipelines.postgres.restore_needs import Needs
from dr_pipelines.postgres.restore_plan import LATEST, Candidate, RecoveryTarget
from dr_pipelines.postgres.restore_request import RestoreRequest
from dr_pipelines.postgres.restore_source import Source, find_sources
from dr_pipelines.postgres.restore_target import alone, beside, refuse_used
from dr_pipelines.postgres.saved_files import SavedFiles
from dr_pipelines.postgres.server import Server, ServerConnection
from dr_pipelines.postgres.subscriptions import disable_subscriptions
from dr_pipelines.postgres.wal_fetch import WalFetcher
from dr_pipelines.progress import Progress
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.repository.recall import bring_back, find_offline
from dr_pipelines.repository.repository import Repository

_UNTOUCHED = {"autovacuum": "off", "max_worker_processes": "0", "fsync": "off"}
"""Nothing writes but replay and the checkpoints after it. What is to be thrown away need not outlive a power cut."""
_SPARE = 1 << 30
"""Bytes that stay free, or a tenth of a small disk: by default the WAL stream's spool is on the same one, and commits
may wait for it. What replay writes comes out of them."""
_WRITE_ALL = 3600.0
_ANSWERS, _ANSWERS_EVERY = 1200, 0.05


@dataclass(frozen=True)
class Replayed:
    """Where the server stands: `reached` is the end of the last record that was replayed; `stopped` what PostgreSQL
    says of that (None at the end of WAL)."""

    reached: Lsn
    timeline: Timeline
    stopped: str | None


class ScratchServer:
    """Use through `scratch`. `phases` in seconds: plan, recall, fetch (with unpacking), write (to disk), start (until
    the server is consistent, with what it replays for that; of each step), replay (from there on).
    Not thread-safe."""

    def __init__(
        self,
        request: RestoreRequest,
        source: Source,
        candidate: Candidate,
        host: Host,
        private: Path,
        phases: dict[str, float],
        data_dir: Path,
    ) -> None:
        self.data_dir, self.host = data_dir, host
        self.source, self.candidate = source, candidate
        self.phases = phases
        self.wal_bytes = 0
        self.at: Replayed | None = None
        self.log = private / "recovery.log"
        self._request, self._private = request, private
        self._steps = 0
        self._run = ExitStack()
        self._process: Process | None = None
        self._saved = SavedFiles(data_dir, beside(request.target_dir, "saved"))
        self._saved_at: Replayed | None = None

    @property
    def tier(self) -> str:
        return self.source.repository.tier

    @property
    def backup(self) -> BackupManifest:
        return self.candidate.chain[-1]

    @property
    def chain(self) -> tuple[BackupManifest, ...]:
        """Oldest first."""
        return self.candidate.chain

    @property
    def end(self) -> Lsn:
        """The newest position that the stored WAL gave when the restore was planned."""
        return self.source.plan.reachable_end

    def server(self, dbname: str = "postgres") -> Server:
        """To be asked while it runs, as a superuser; its socket asks nobody for a password."""
        return Server(
            ServerConnection(
                str(self._private), PORT, user=self.host.superuser, dbname=dbname, application_name="dr scratch"
            )
        )

    def replay_to(self, target: RecoveryTarget) -> Replayed:
        """Forward to a target, and stay there: the server runs, in recovery, and can be read. Raises `UsageError` for
        a target that lies behind, `TargetUnreachable` and what a restore raises."""
        if target.kind == "latest":
            raise UsageError("a server that is to stay in recovery needs a target", hint="`replay_to_end` goes on.")
        if self.at is not None and isinstance(target.value, Lsn) and target.value < self.at.reached:
            raise UsageError(f"the scratch server is at {self.at.reached} already, and {target} lies before that")
        return self._step(replace(self._request, target=target, action="pause"))

    def replay_to_end(self) -> Replayed:
        """All the WAL that is there; then the server is promoted, and can be written (it archives nothing)."""
        return self._step(replace(self._request, target=LATEST, action="promote"))

    def promote_at(self, target: RecoveryTarget) -> Replayed:
        """Where it stands, once more, but promoted: transactions that were open there are gone, and so are their locks.
        It goes no further from there; `go_back` takes it back."""
        return self._step(replace(self._request, target=target, action="promote"))

    def settle_at(self, target: RecoveryTarget) -> Replayed:
        """Forward to a target and, with nobody connected and nothing of its own at work, promoted there and shut down:
        the files say what the WAL says, and no more. (A server that is stopped while it recovers leaves in memory what
        the next start replays again.) Raises as `replay_to`."""
        request = replace(self._request, target=target, action="promote")
        with self._recovering(request, more=_UNTOUCHED, patience=_WRITE_ALL) as recovery:
            status = self.data_dir / "postmaster.pid"
            recovery.wait_until(lambda: _is_ready(status))
        self.stop()
        told = self.host.runner.run(tools.pg_controldata(self.data_dir, bin_dir=self.host.bin_dir)).stdout
        state, timeline = tools.cluster_state(told)
        if state != "shut down":
            raise RestoreError(f"the restored server was not shut down but left {state!r}, so its files say nothing")
        reached, stopped = switch_point(self.data_dir, timeline), stop_line(self.log)
        assert_reached(target, reached, stopped)
        self.at = Replayed(reached, timeline, stopped)
        return self.at

    def start(self) -> Server:
        """A server that settled, let in for questions."""
        log = self.log
        with ExitStack() as starting:
            process = starting.enter_context(running(self.data_dir, self._private, log, self.host, more=_UNTOUCHED))
            server = self.server()
            for _ in range(_ANSWERS):
                with suppress(ServerError):
                    _answers(server)
                    self._process = process
                    self._run.enter_context(starting.pop_all())
                    return server
                if process.wait(_ANSWERS_EVERY) is not None:
                    break
        raise RestoreError("the restored server does not start again:\n" + "\n".join(log.read_text().splitlines()[-8:]))

    def stop(self) -> None:
        self._run.close()

    def abandon(self) -> None:
        """End it at once. What it has in memory is lost: for a copy that goes back, or goes away."""
        if self._process is not None:
            self._process.signal(signal.SIGQUIT)
            self._process.wait(30)
        self.stop()

    def save(self) -> bool:
        """Stop, and keep the files beside it, so that `go_back` can bring it back to here. False, and nothing is kept,
        where the disk has no room. Costs what changed since it was saved last."""
        self.stop()
        self._saved_at = self.at if (kept := self._saved.save()) else None
        return kept

    @property
    def copied(self) -> int:
        """Bytes that saving and going back copied so far."""
        return self._saved.copied

    @property
    def can_go_back(self) -> bool:
        return self._saved_at is not None

    def go_back(self) -> None:
        """Stop, and be where it was saved last. Raises `UsageError` where it was not."""
        if self._saved_at is None:
            raise UsageError("the scratch server was not saved: it cannot go back")
        self.abandon()
        self._saved.bring_back()
        self.at = self._saved_at

    @contextmanager
    def at_rest(self) -> Iterator[Path]:
        """The files of a server that was promoted, while it is shut down; afterwards it runs again."""
        if self.at is None or self.server().in_recovery():
            raise UsageError("only a server whose recovery has ended can be shut down and started again")
        self.stop()
        yield self.data_dir
        self.start()

    def _step(self, request: RestoreRequest) -> Replayed:
        timeline, stays = self.source.plan.timeline, request.action != "promote"
        to_end = request.target.kind == "latest"
        with self._recovering(request) as recovery:
            stored_end = recovery.fetcher.stored_end() if to_end else None
            server, log = self.server(), self.log
            # One that goes on to the end answers nobody before it (`hot_standby` is off), though it is consistent.
            recovery.wait_until(lambda: is_consistent(log) or _answers(server))
            recovery.has_started()
            recovery.wait_until(server.replay_is_paused if stays else lambda: not server.in_recovery())
            now_on = timeline if stays else server.facts().timeline
            reached = server.flush_lsn() if stays else switch_point(self.data_dir, now_on)
            stopped = stop_line(self.log)
            if to_end:
                assert_nothing_left(reached, recovery.fetcher, timeline, stored_end)
            else:
                assert_reached(request.target, reached, stopped)
            if not stays:
                disable_subscriptions(server, in_recovery=False)
        self.at = Replayed(reached, now_on, stopped)
        return self.at

    @contextmanager
    def _recovering(
        self, request: RestoreRequest, *, more: Mapping[str, str] | None = None, patience: float = 60.0
    ) -> Iterator[_Recovery]:
        """The server, started to recover as `request` says; it runs on unless the block raises."""
        self.stop()
        self._steps += 1
        folder = beside(self._request.target_dir, "wal") / str(self._steps)
        folder.parent.mkdir(mode=0o711, exist_ok=True)
        log = self.log = self._private / f"recovery-{self._steps}.log"
        clock, began = self.host.clock, self.host.clock.monotonic()
        before = self.at.reached if self.at is not None else None
        fetcher = self._run.enter_context(
            wal_fetcher(self.source, self.backup, request, folder, self.host, replayed_until=before)
        )
        recovery: _Recovery | None = None
        try:
            configure(
                self.data_dir,
                request,
                fetcher.restore_command,
                self.host,
                self._private,
                timeline=self.source.plan.timeline,
                version_num=self.backup.postgres_version_num,
            )
            runs = running(self.data_dir, self._private, log, self.host, more=more, patience=patience)
            self._process = self._run.enter_context(runs)
            recovery = _Recovery(self._process, fetcher, log, clock, began)
            yield recovery
        except BaseException:
            self.stop()
            raise
        finally:
            started = began if recovery is None else recovery.started
            self.wal_bytes += fetcher.bytes
            self._took("start", started - began)
            self._took("replay", clock.monotonic() - started)

    def _took(self, phase: str, seconds: float) -> None:
        self.phases[phase] = self.phases.get(phase, 0.0) + seconds


@dataclass
class _Recovery:
    """A server that recovers; `started` is when it was consistent."""

    process: Process
    fetcher: WalFetcher
    log: Path
    clock: Clock
    started: float

    def wait_until(self, ended: Callable[[], bool]) -> None:
        wait_until(ended, self.process, self.log, self.fetcher, self.clock)

    def has_started(self) -> None:
        self.started = self.clock.monotonic()


def _answers(server: Server) -> bool:
    """Raises `ServerError` while it does not."""
    server.in_recovery()
    return True


def _is_ready(status: Path) -> bool:
    """Whether a server takes connections that write, by its eighth line of postmaster.pid, without asking it."""
    with suppress(FileNotFoundError):
        return status.read_text().splitlines()[7:8] == ["ready   "]
    return False


@contextmanager
def scratch(
    request: RestoreRequest,
    repositories: Sequence[Repository],
    *,
    clock: Clock,
    runner: Runner,
    progress: Progress,
    phases: dict[str, float] | None = None,
) -> Iterator[ScratchServer]:
    """The chain of `request.label`, or the one that a restore to `request.target` would take first, as files in
    `<target_dir>.partial`, so that what a killed process left there goes with the next; not started: `replay_to`,
    `replay_to_end` or `settle_at` do that. Nothing gives way to another backup, for it is this one that is looked at.
    All of it is removed at the end. `phases` is filled even when it fails.

    Raises `TargetInUse`, `RecallPending`, `RestoreError`, `IntegrityError` or what the stores raise.
    """
    refuse_used(request.target_dir)
    phases = {} if phases is None else phases

    @contextmanager
    def phase(name: str, total: int | None = None) -> Iterator[None]:
        progress.phase(name, total)
        began = clock.monotonic()
        try:
            yield
        finally:
            phases[name] = phases.get(name, 0.0) + clock.monotonic() - began

    with alone(request.target_dir):
        with phase("plan"):
            sources, notes = find_sources(request, repositories, runner=runner, progress=progress)
            source, candidate = sources[0], sources[0].plan.candidates[0]
            bin_dir = require_programs(request, candidate.chain[-1], runner)
        for note in (*notes, *source.plan.notes):
            progress.note(note)
        host = Host(runner, clock, bin_dir, request.os_user, request.superuser)
        offline = find_offline(Needs(source, candidate, request.terms), urgent=request.urgent)
        if offline.objects:
            with phase("recall", offline.bytes):
                bring_back(
                    offline,
                    urgent=request.urgent,
                    wait=request.wait,
                    clock=clock,
                    progress=progress,
                    note=progress.note,
                )
        data_dir = beside(request.target_dir, "partial")
        files = RestoredFiles(request, data_dir, progress.note)
        try:
            with phase("fetch", candidate.bytes):
                spare = min(_SPARE, shutil.disk_usage(data_dir.parent).total // 10)
                control = files.unpack(source.repository, candidate, progress.advance, spare=spare)
            with phase("write"):
                files.sync(control)
            with private_folder(host) as private:
                copy = ScratchServer(request, source, candidate, host, private, phases, data_dir)
                try:
                    yield copy
                finally:
                    copy.abandon()
        finally:
            files.remove()
            for ending in ("wal", "saved"):
                shutil.rmtree(beside(request.target_dir, ending), ignore_errors=True)
