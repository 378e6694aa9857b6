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
from dr_pipelines.lsn import Lsn, Timeline, WalSegment
from dr_pipelines.postgres import neutralise, tools
from dr_pipelines.postgres.restore_plan import RecoveryTarget
from dr_pipelines.postgres.server import Server, ServerConnection
from dr_pipelines.postgres.wal_checks import parse_history
from dr_pipelines.postgres.wal_fetch import WalFetcher
from dr_pipelines.postgres.wal_pages import has_whole_record

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
    final_dir: Path,
    patience: float = 24 * 3600.0,
) -> Recovered:
    """Replay WAL from `fetcher` to the target and promote; the server is stopped when this returns.

    Raises `TargetUnreachable` when the target was not reached, `RestoreError` with the log's last lines otherwise.
    """
    with _private_folder(host) as private:
        libraries = neutralise.configured_libraries(data_dir)
        missing = neutralise.missing_libraries(libraries, tools.library_dirs(host.bin_dir))
        quiet = neutralise.quiet_settings([name for name in libraries if name not in missing], version_num)
        quiet |= neutralise.missing_files(data_dir, final_dir)
        settings = neutralise.recovery_settings(
            target, timeline=timeline.id, restore_command=fetcher.restore_command, socket_dir=private, port=_PORT
        )
        notes = neutralise.write_settings(data_dir, quiet, settings)
        notes += [f"{name} of shared_preload_libraries is not installed here" for name in missing]
        own(data_dir, host.os_user)
        stored_end = fetcher.stored_end()  # the stream may ship more while we recover
        log = private / "recovery.log"
        process = _start(data_dir, private, log, host, version_num)
        try:
            server = Server(ServerConnection(str(private), _PORT, user=host.superuser, application_name="dr restore"))
            _wait_until_promoted(server, process, log, fetcher, host.clock, patience)
            new_timeline = server.facts().timeline
        finally:
            _stop(process)
        recovered = Recovered(
            _switch_point(data_dir, new_timeline), new_timeline, _stop_line(log), (*notes, *_quieted(quiet))
        )
        _assert_reached(target, recovered, fetcher, timeline, stored_end)
    neutralise.remove_recovery_settings(data_dir, keep={})
    neutralise.write_notes(data_dir, quiet, notes)
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


def _start(data_dir: Path, private: Path, log: Path, host: Host, version_num: int) -> Process:
    settings = {"hba_file": str(private / "pg_hba.conf"), "lc_messages": "C", "log_min_messages": "log"}
    if version_num >= 17_00_00:
        settings["summarize_wal"] = "off"  # a summarizer that misses WAL sleeps 10 s, and so does the shutdown
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
        said = RestoreError(f"recovery stopped because WAL could not be fetched: {error.message}", hint=error.hint)
        said.exit_code = error.exit_code
        return said
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


def _assert_reached(
    target: RecoveryTarget, recovered: Recovered, fetcher: WalFetcher, timeline: Timeline, stored_end: Lsn | None
) -> None:
    if target.kind == "latest":
        _assert_nothing_left(recovered.reached, fetcher, timeline, stored_end)
    elif isinstance(target.value, Lsn):
        if target.inclusive and recovered.reached < target.value:
            raise TargetUnreachable(f"recovery ended at {recovered.reached}, before the target {target.value}")
    elif recovered.stopped is None:
        raise TargetUnreachable(f"PostgreSQL did not say that it stopped at the target {target}")


def _assert_nothing_left(reached: Lsn, fetcher: WalFetcher, timeline: Timeline, stored_end: Lsn | None) -> None:
    """No whole record of the stored WAL lies between where recovery ended and where the stored WAL ends."""
    if stored_end is None or reached >= stored_end:
        return
    segment = WalSegment.containing(reached, timeline, fetcher.segment_size)
    data = fetcher.segment_data(segment) or b""
    while segment.end < stored_end:
        segment = segment.next()
        data += fetcher.segment_data(segment) or b""
    start = reached.value % fetcher.segment_size
    length = stored_end - reached
    if has_whole_record(data[: start + length], start):
        raise TargetUnreachable(
            f"recovery ended at {reached}, but the stored WAL goes on until {stored_end}",
            hint="the WAL there is damaged: restore from another tier with --tier, or with a target before it.",
        )


def _quieted(settings: dict[str, str]) -> list[str]:
    names = ", ".join(sorted(settings))
    return [f"switched off until a person lets the server out: {names} (postgresql.auto.conf)"]
