"""A restored data directory becomes a server: replay to the target, proof that the target was reached, promotion.

The server listens on a private socket only, with an authentication file of its own, until recovery has ended.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dr_pipelines.clock import Clock
from dr_pipelines.commands import Process, Runner
from dr_pipelines.errors import RestoreError, ServerError, TargetUnreachable
from dr_pipelines.lsn import Lsn, Timeline
from dr_pipelines.postgres import neutralise, tools
from dr_pipelines.postgres.restore_plan import RecoveryTarget
from dr_pipelines.postgres.server import Server, ServerConnection
from dr_pipelines.postgres.wal_checks import parse_history
from dr_pipelines.postgres.wal_fetch import WalFetcher

_PORT = 5432
_UNREACHED = "recovery ended before configured recovery target was reached"


@dataclass(frozen=True)
class Recovered:
    """Where recovery ended: `reached` is the end of the last record that was replayed, on `timeline`'s parent."""

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
    target: RecoveryTarget,
    fetcher: WalFetcher,
    host: Host,
    *,
    timeline: Timeline,
    version_num: int,
    patience: float = 24 * 3600.0,
) -> Recovered:
    """Replay WAL from `fetcher` to the target and promote; the server is stopped when this returns.

    Raises `TargetUnreachable` when the target was not reached, `RestoreError` with the log's last lines otherwise.
    """
    with _private_folder(host) as private:
        quiet = neutralise.quiet_settings(neutralise.configured_libraries(data_dir), version_num)
        settings = neutralise.recovery_settings(
            target, timeline=timeline.id, restore_command=fetcher.restore_command, socket_dir=private, port=_PORT
        )
        notes = neutralise.write_settings(data_dir, quiet, settings)
        own(data_dir, host.os_user)
        log = private / "recovery.log"
        process = _start(data_dir, private, log, host)
        try:
            server = Server(ServerConnection(str(private), _PORT, user=host.superuser, application_name="dr restore"))
            _wait_until_promoted(server, process, log, fetcher, host.clock, patience)
            new_timeline = server.facts().timeline
        finally:
            _stop(process)
        recovered = Recovered(
            _switch_point(data_dir, new_timeline), new_timeline, _stop_line(log), (*notes, *_quieted(quiet))
        )
        _assert_reached(target, recovered, fetcher)
    neutralise.remove_recovery_settings(data_dir, keep={})
    own(data_dir, host.os_user)
    return recovered


def own(path: Path, user: str | None) -> None:
    """Let the server's account own everything below `path`; only root can and needs to."""
    if user is None or os.geteuid() != 0:
        return
    account = pwd.getpwnam(user)
    for here, folders, files in os.walk(path, followlinks=True):
        for name in (".", *folders, *files):
            os.chown(Path(here, name), account.pw_uid, account.pw_gid, follow_symlinks=False)


@contextmanager
def _private_folder(host: Host) -> Iterator[Path]:
    """A folder that only the server's account enters: its socket, its pg_hba.conf, its log."""
    folder = Path(tempfile.mkdtemp(prefix="dr-"))  # short: a socket's path holds about 100 bytes
    (folder / "pg_hba.conf").write_text("local all all trust\n")
    own(folder, host.os_user)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _start(data_dir: Path, private: Path, log: Path, host: Host) -> Process:
    settings = {"hba_file": str(private / "pg_hba.conf"), "lc_messages": "C", "log_min_messages": "log"}
    command = tools.postgres(data_dir, settings, bin_dir=host.bin_dir, user=host.os_user)
    with log.open("ab") as out:
        return host.runner.start(command, stdout=out, stderr=out)


def _stop(process: Process) -> None:
    process.signal(signal.SIGINT)  # a fast shutdown
    if process.wait(60) is None:
        process.stop()


def _wait_until_promoted(
    server: Server, process: Process, log: Path, fetcher: WalFetcher, clock: Clock, patience: float
) -> None:
    deadline = clock.monotonic() + patience
    while clock.monotonic() < deadline:
        if process.returncode is not None:
            raise _failure(log, fetcher)
        try:
            if not server.in_recovery():
                return
        except ServerError:
            pass  # not yet
        clock.wait(0.05)
    raise RestoreError(f"recovery did not end within {patience:.0f} seconds")


def _failure(log: Path, fetcher: WalFetcher) -> RestoreError:
    text = log.read_text(errors="replace")
    if fetcher.errors:
        error = fetcher.errors[0]
        return RestoreError(f"recovery stopped because WAL could not be fetched: {error.message}", hint=error.hint)
    if _UNREACHED in text:
        return TargetUnreachable(
            f"the WAL ended before the recovery target was reached (at {fetcher.newest_end or 'the backup itself'})",
            hint="`dr restore --preview` says how far the WAL goes.",
        )
    last = [line for line in text.splitlines() if "FATAL" in line or "PANIC" in line or "ERROR" in line][-5:]
    return RestoreError("the restored server ended during recovery:\n" + "\n".join(last or text.splitlines()[-8:]))


def _switch_point(data_dir: Path, timeline: Timeline) -> Lsn:
    """Where the new timeline began, which is where replay ended."""
    rows = parse_history((data_dir / "pg_wal" / timeline.history_file).read_bytes())
    at = rows[-1][1] if rows else None
    if at is None:
        raise RestoreError(f"{timeline.history_file} of the restored server does not say where recovery ended")
    return at


def _stop_line(log: Path) -> str | None:
    """What PostgreSQL says of an explicit target, such as `recovery stopping before commit of transaction …`."""
    for line in log.read_text(errors="replace").splitlines():
        if "recovery stopping" in line:
            return line.partition("LOG:")[2].strip()
    return None


def _assert_reached(target: RecoveryTarget, recovered: Recovered, fetcher: WalFetcher) -> None:
    if target.kind == "latest":
        newest = fetcher.newest_end
        if newest is not None and recovered.reached < newest:
            # A partial's end lies behind its last whole record; a whole segment's last record may end before it.
            missing = newest - recovered.reached
            if missing > fetcher.segment_size:
                raise TargetUnreachable(f"recovery ended at {recovered.reached}, {missing} bytes before the newest WAL")
        return
    if recovered.stopped is None and not isinstance(target.value, Lsn):
        raise TargetUnreachable(f"PostgreSQL did not say that it stopped at the target {target}")
    if isinstance(target.value, Lsn) and target.inclusive and recovered.reached < target.value:
        raise TargetUnreachable(f"recovery ended at {recovered.reached}, before the target {target.value}")


def _quieted(settings: dict[str, str]) -> list[str]:
    names = ", ".join(sorted(settings))
    return [f"switched off until a person lets the server out: {names} (postgresql.auto.conf)"]
