"""A restored data directory becomes a server: replay to the target, proof that the target was reached, promotion or a
stop there.

The server listens on a private socket only, with an authentication file of its own, until recovery has ended.
"""

from __future__ import annotations

import errno
import os
import pwd
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dr_pipelines.clock import Clock
from dr_pipelines.commands import Process, Runner
from dr_pipelines.errors import (
    BeforeConsistency,
    DamagedWal,
    DrError,
    HostTooSmall,
    IntegrityError,
    ObjectOffline,
    RecoveryFailed,
    RestoreError,
    ServerError,
    StoreError,
    TargetUnreachable,
    WalOffline,
)
from dr_pipelines.lsn import Lsn, Timeline, WalSegment, is_segment_name
from dr_pipelines.postgres import neutralise, tools
from dr_pipelines.postgres.recovery_proof import assert_nothing_left, assert_reached, stop_line, switch_point
from dr_pipelines.postgres.restore_request import RestoreRequest
from dr_pipelines.postgres.server import Server, ServerConnection
from dr_pipelines.postgres.subscriptions import disable_subscriptions
from dr_pipelines.postgres.wal_fetch import WalFetcher

PORT = 5432
"""Of a private socket."""
_PATIENCE = 24 * 3600.0  # seconds
_FULL = os.strerror(errno.ENOSPC)
_NO_MEMORY = ("could not map anonymous shared memory", "could not create semaphores", os.strerror(errno.ENOMEM))
_TOO_EARLY = "requested recovery stop point is before consistent recovery point"
_UNREACHED = "recovery ended before configured recovery target was reached"


@dataclass(frozen=True)
class Recovered:
    """Where recovery ended: `reached` is the end of the last record that was replayed. `timeline` is the new one, or,
    of a server that stays at its target, the one it was recovered on."""

    reached: Lsn
    timeline: Timeline
    stopped: str | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Host:
    """With what the server is run. `superuser` is a role of the restored server."""

    runner: Runner
    clock: Clock
    bin_dir: Path | None
    os_user: str | None
    superuser: str = "postgres"


def recover(
    data_dir: Path,
    request: RestoreRequest,
    fetcher: WalFetcher,
    host: Host,
    *,
    timeline: Timeline,
    planned_end: Lsn,
    version_num: int,
) -> Recovered:
    """Replay WAL from `fetcher` to the target, promote unless the request says otherwise; the server is stopped when
    this returns, and configured for `request.target_dir`.

    Raises `TargetUnreachable` when the target was not reached, `RestoreError` with the log's last lines otherwise.
    """
    target, action = request.target, request.action
    with private_folder(host) as private:
        quiet, notes = configure(
            data_dir, request, fetcher.restore_command, host, private, timeline=timeline, version_num=version_num
        )
        recovered = _replay(data_dir, request, fetcher, host, private, timeline, planned_end)
    notes += recovered.notes
    if action != "promote":
        quiet |= neutralise.staying_settings(target, timeline=timeline, action=action)
    neutralise.settle(data_dir, quiet)
    # Not the whole directory again: replay may have made links that lead out of it, to tablespaces of the live server.
    own(neutralise.write_notes(data_dir, quiet, notes), host.os_user)
    names = ", ".join(sorted(quiet))
    notes.append(f"set until a person lets the server out: {names} (postgresql.auto.conf)")
    return Recovered(recovered.reached, recovered.timeline, recovered.stopped, tuple(notes))


def configure(
    data_dir: Path,
    request: RestoreRequest,
    restore_command: str,
    host: Host,
    private: Path,
    *,
    timeline: Timeline,
    version_num: int,
) -> tuple[dict[str, str], list[str]]:
    """All that a server in recovery reads: what must stay quiet, where its WAL comes from, where it stops, its socket
    in `private`. Returns the settings that stay after recovery, and notes on what had to go."""
    quiet, notes = _quieted(data_dir, request, host, version_num)
    settings = neutralise.recovery_settings(
        request.target,
        timeline=timeline,
        action=request.action,
        restore_command=restore_command,
        socket_dir=private,
        port=PORT,
    )
    if version_num >= 17_00_00:
        settings["summarize_wal"] = "off"  # a summarizer that misses WAL sleeps 10 s, and so does the shutdown
        settings["transaction_timeout"] = "0"
        settings["event_triggers"] = "off"  # those on login run whatever they were made for
    notes += neutralise.write_settings(data_dir, quiet, settings, _minimal_files(data_dir, host))
    own(data_dir, host.os_user)
    return quiet, notes


def own(path: Path, user: str | None) -> None:
    """Let the server's account own a file, or a directory and everything below it; only root can and needs to."""
    if user is None or os.geteuid() != 0:
        return
    account = pwd.getpwnam(user)
    os.chown(path, account.pw_uid, account.pw_gid)
    for here, folders, files in os.walk(path, followlinks=True):
        for name in (".", *folders, *files):
            os.chown(Path(here, name), account.pw_uid, account.pw_gid, follow_symlinks=False)


def _quieted(data_dir: Path, request: RestoreRequest, host: Host, version_num: int) -> tuple[dict[str, str], list[str]]:
    """The settings that stay after recovery, and notes on what had to go."""
    libraries = neutralise.configured_libraries(data_dir)
    missing = neutralise.missing_libraries(libraries, tools.library_dirs(host.bin_dir))
    quiet = neutralise.quiet_settings([name for name in libraries if name not in missing], version_num)
    quiet |= neutralise.missing_files(data_dir, request.target_dir) | request.listening()
    return quiet, [f"{name} of shared_preload_libraries is not installed here" for name in missing]


def _minimal_files(data_dir: Path, host: Host) -> dict[str, list[str]]:
    recorded = tools.recorded_settings(host.runner.run(tools.pg_controldata(data_dir, bin_dir=host.bin_dir)).stdout)
    account = host.os_user or pwd.getpwuid(os.geteuid()).pw_name
    return neutralise.minimal_files(recorded, account=account, superuser=host.superuser)


def _stored_end(fetcher: WalFetcher, planned: Lsn) -> Lsn | None:
    """Where the WAL ends now; where it did when the restore was planned, if a tier does not answer any more."""
    try:
        return fetcher.stored_end()
    except StoreError:
        return planned


def _not_fetched(error: DrError, fetcher: WalFetcher) -> RestoreError:
    name = fetcher.failed_at
    if isinstance(error, ObjectOffline):
        return WalOffline(f"recovery stopped at WAL that must be recalled first: {error.message}", hint=error.hint)
    if isinstance(error, IntegrityError) and name is not None and is_segment_name(name):
        damaged = WalSegment.parse(name, fetcher.segment_size)
        return DamagedWal(
            f"WAL up to {damaged.end} is damaged on every tier: {error.message}",
            damaged.end,
            hint=f"restore what lies before it with --lsn {damaged.start}, or a backup after it (--label).",
        )
    hint = error.hint
    if isinstance(error, StoreError):
        hint = "run the restore again: a tier that cannot be read when it begins is left out."
    said = RestoreError(f"recovery stopped because WAL could not be fetched: {error.message}", hint=hint)
    said.exit_code, said.transient = error.exit_code, error.transient
    return said


def _replay(
    data_dir: Path,
    request: RestoreRequest,
    fetcher: WalFetcher,
    host: Host,
    private: Path,
    timeline: Timeline,
    planned_end: Lsn,
) -> Recovered:
    """Run the server until recovery has ended and is proven; `notes` are on its subscriptions."""
    # The stream may ship more while we recover.
    stored_end = _stored_end(fetcher, planned_end) if request.target.kind == "latest" else None
    log, stays = private / "recovery.log", request.action != "promote"
    server = Server(ServerConnection(str(private), PORT, user=host.superuser, application_name="dr restore"))
    with running(data_dir, private, log, host) as process:
        ended = server.replay_is_paused if stays else lambda: not server.in_recovery()
        wait_until(ended, process, log, fetcher, host.clock)
        reached = server.flush_lsn() if stays else None
        now_on = timeline if stays else server.facts().timeline
        notes = disable_subscriptions(server, in_recovery=stays)
        if request.at_target is not None:
            request.at_target(server)
    reached, stopped = reached or switch_point(data_dir, now_on), stop_line(log)
    if request.target.kind == "latest":
        assert_nothing_left(reached, fetcher, timeline, stored_end)
    else:
        assert_reached(request.target, reached, stopped)
    return Recovered(reached, now_on, stopped, tuple(notes))


@contextmanager
def private_folder(host: Host) -> Iterator[Path]:
    """A folder that only the server's account enters: its socket, its pg_hba.conf, its log."""
    folder = Path(tempfile.mkdtemp(prefix="dr-"))  # short: a socket's path holds about 100 bytes
    try:
        (folder / "pg_hba.conf").write_text("local all all trust\n")
        own(folder, host.os_user)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running(
    data_dir: Path,
    private: Path,
    log: Path,
    host: Host,
    *,
    more: Mapping[str, str] | None = None,
    patience: float = 60.0,
) -> Iterator[Process]:
    """The server while the block runs; `more` settings win over its files, and `patience` is how many seconds its
    shutdown may take."""
    settings = {"hba_file": str(private / "pg_hba.conf"), "lc_messages": "C", "log_min_messages": "log"}
    command = tools.postgres(data_dir, settings | dict(more or {}), bin_dir=host.bin_dir, user=host.os_user)
    with log.open("ab") as out:
        process = host.runner.start(command, stdout=out, stderr=out)
    try:
        yield process
    finally:
        process.signal(signal.SIGINT)  # a fast shutdown
        if process.wait(patience) is None:
            process.stop()


def wait_until(ended: Callable[[], bool], process: Process, log: Path, fetcher: WalFetcher, clock: Clock) -> None:
    deadline = clock.monotonic() + _PATIENCE
    while clock.monotonic() < deadline:
        if process.returncode is not None:
            raise _failure(log, fetcher)
        try:
            if ended():
                return
        except ServerError:
            pass  # not yet
        clock.wait(0.05)
    raise RestoreError(f"recovery did not end within {_PATIENCE / 3600:.0f} hours")


def _failure(log: Path, fetcher: WalFetcher) -> RestoreError:
    text = log.read_text(errors="replace")
    if any(_FULL in said for said in (text, *(error.message for error in fetcher.errors))):
        return HostTooSmall(
            "the disk became full during recovery",
            hint="make room or restore to another disk; nothing was left behind.",
        )
    if any(lack in text for lack in _NO_MEMORY):
        return HostTooSmall(
            "this machine has not the memory that the server's configuration asks for",
            hint="restore on a larger one, or make shared_buffers smaller at the source and take a backup.",
        )
    if fetcher.errors:
        return _not_fetched(fetcher.errors[0], fetcher)
    if _TOO_EARLY in text:
        return BeforeConsistency(
            "the recovery target lies before the point where the backup becomes consistent",
            hint="ask for a later target; times of backups are those of the backup host's clock.",
        )
    if _UNREACHED in text:
        return TargetUnreachable(
            f"the WAL ended before the recovery target was reached (at {fetcher.newest_end or 'the backup itself'})",
            hint="`dr restore --preview` says how far the WAL goes.",
        )
    last = [line for line in text.splitlines() if "FATAL" in line or "PANIC" in line or "ERROR" in line][-5:]
    return RecoveryFailed("the restored server ended during recovery:\n" + "\n".join(last or text.splitlines()[-8:]))
