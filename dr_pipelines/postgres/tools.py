"""Command lines of PostgreSQL's own programs, built by pure functions; `commands.Runner` runs them.

`bin_dir` is where the programs lie; None takes them from PATH. What does not belong here: running anything.
Source: PostgreSQL manual, "PostgreSQL Client Applications" and "PostgreSQL Server Applications".
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from dr_pipelines.commands import Command
from dr_pipelines.lsn import Lsn, Timeline, WalSegment
from dr_pipelines.postgres.server import ServerConnection

_PATIENCE = str(24 * 3600)  # seconds
_STATE = re.compile(r"^Database cluster state: +(.+)$", re.MULTILINE)
_TIMELINE = re.compile(r"^Latest checkpoint's TimeLineID: +(\d+)$", re.MULTILINE)
_RECORDED = re.compile(r"^(\w+) setting: +(\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class ReceiverTarget:
    """How the receiver reaches the server. `password` travels in the environment only."""

    host: str
    port: int
    user: str
    password: str | None = None
    sslmode: str = "prefer"


def program(name: str, bin_dir: Path | None) -> str:
    return name if bin_dir is None else str(bin_dir / name)


def pg_receivewal(
    target: ReceiverTarget, *, directory: Path, slot: str, synchronous: bool, bin_dir: Path | None = None
) -> Command:
    """Receive WAL into `directory` until the connection ends. The application name is the slot's, so that
    `synchronous_standby_names` can name it. Without reconnecting: whoever supervises it sees each trouble at once."""
    argv = [program("pg_receivewal", bin_dir), "-D", str(directory), "-S", slot, "--no-loop", "--no-password"]
    argv += ["--status-interval=5", "-d", _conninfo(target, slot)]
    if synchronous:
        argv.append("--synchronous")
    secrets = {} if target.password is None else {"PGPASSWORD": target.password}
    return Command(argv, env={"PGSSLMODE": target.sslmode, "PGCONNECT_TIMEOUT": "10"}, secrets=secrets)


def pg_waldump(
    directory: Path, start: Lsn, end: Lsn, timeline: Timeline, *, bin_dir: Path | None = None, quiet: bool = True
) -> Command:
    """Read the WAL of `directory` from `start` to `end`; fails when a record between them cannot be read."""
    argv = [program("pg_waldump", bin_dir), "-p", str(directory), "-t", str(timeline.id), "-s", str(start)]
    return Command([*argv, "-e", str(end), *(["--quiet"] if quiet else [])])


def pg_waldump_segments(
    directory: Path, first: WalSegment, last: WalSegment, manager: str | None, *, bin_dir: Path | None = None
) -> Command:
    """Print a resource manager's records (None: of all of them) in the segments from `first` to `last`; times are
    UTC."""
    argv = [program("pg_waldump", bin_dir), "-p", str(directory), *(["-r", manager] if manager else [])]
    return Command([*argv, first.name, last.name], env={"TZ": "UTC"})


def pg_controldata(data_dir: Path, *, bin_dir: Path | None = None) -> Command:
    return Command([program("pg_controldata", bin_dir), "-D", str(data_dir)])


def initdb(
    data_dir: Path, *, bin_dir: Path | None = None, user: str | None = None, segment_size_mb: int | None = None
) -> Command:
    argv = [program("initdb", bin_dir), "-D", str(data_dir), "-U", "postgres", "-A", "trust", "-N"]
    return Command([*argv, *([f"--wal-segsize={segment_size_mb}"] if segment_size_mb else [])], user=user)


def postgres(
    data_dir: Path, settings: Mapping[str, str], *, bin_dir: Path | None = None, user: str | None = None
) -> Command:
    """The server itself, in the foreground; `settings` win over its configuration files."""
    argv = [program("postgres", bin_dir), "-D", str(data_dir)]
    for name, value in settings.items():
        argv += ["-c", f"{name}={value}"]
    return Command(argv, user=user, cwd=data_dir)


def pg_ctl(data_dir: Path, verb: str, *, bin_dir: Path | None = None, user: str | None = None) -> Command:
    return Command([program("pg_ctl", bin_dir), "-D", str(data_dir), "-w", verb], user=user, cwd=data_dir)


def pg_ctl_start(
    data_dir: Path, log: Path, settings: Mapping[str, str], *, bin_dir: Path | None = None, user: str | None = None
) -> Command:
    """Start the server in a session of its own and wait until it answers, however long its recovery takes; `settings`
    win over its configuration files, for this start."""
    plain = pg_ctl(data_dir, "start", bin_dir=bin_dir, user=user)
    options = ["-o", " ".join(f"-c {name}={value}" for name, value in settings.items())] if settings else []
    return replace(plain, argv=[*plain.argv[:-1], "-t", _PATIENCE, "-l", str(log), *options, "start"])


def pg_checksums(data_dir: Path, *, bin_dir: Path | None = None, user: str | None = None) -> Command:
    """Compare every page of a server that was stopped with its checksum. Exits 1 when one differs."""
    return Command([program("pg_checksums", bin_dir), "--check", "-D", str(data_dir)], user=user, cwd=data_dir)


def pg_verifybackup(data_dir: Path, manifest: Path, *, bin_dir: Path | None = None, user: str | None = None) -> Command:
    """Compare files with the `backup_manifest` that they came with; the WAL lies elsewhere."""
    argv = [program("pg_verifybackup", bin_dir), "--no-parse-wal", "--manifest-path", str(manifest), str(data_dir)]
    return Command(argv, user=user, cwd=data_dir)


def pg_amcheck(connection: ServerConnection, *, jobs: int, unique: bool, bin_dir: Path | None = None) -> Command:
    """Check tables and B-trees of every database, and that each row is in each index; the extension is installed where
    it is missing, without firing event triggers. Whatever ends a question looks like damage, so no timeout of the
    source does. With -v each relation is named on standard error; what is damaged is
    said on standard output. Exits 2 then."""
    argv = [program("pg_amcheck", bin_dir), "--all", "--heapallindexed", "--parent-check", "--install-missing"]
    argv += [f"--jobs={jobs}", "--verbose", "--no-password", *(["--checkunique"] if unique else [])]
    argv += ["--host", connection.host, "--port", str(connection.port), "--username", connection.user]
    settings = (
        "session_replication_role=replica",
        "default_transaction_read_only=off",
        "statement_timeout=0",
        "lock_timeout=0",
    )
    return Command(argv, env={"PGOPTIONS": " ".join(f"-c {setting}" for setting in settings)})


def as_typed(command: Command) -> str:
    """What a person types for it; root does it as the server's account."""
    as_user = ["runuser", "-u", command.user, "--"] if command.user else []
    return shlex.join([*as_user, *command.argv])


def recorded_settings(controldata: str) -> dict[str, str]:
    """What a control file knows of the server's configuration, from pg_controldata's output."""
    names = {"max_prepared_xacts": "max_prepared_transactions", "max_locks_per_xact": "max_locks_per_transaction"}
    return {names.get(name, name): value for name, value in _RECORDED.findall(controldata)}


def cluster_state(controldata: str) -> tuple[str, Timeline]:
    """How a server was left (`shut down`, `in production`, …) and on which timeline. Raises `ValueError`."""
    state, timeline = _STATE.search(controldata), _TIMELINE.search(controldata)
    if state is None or timeline is None:
        raise ValueError("pg_controldata does not say how the server was left")
    return state[1], Timeline(int(timeline[1]))


def library_dirs(bin_dir: Path | None) -> list[Path]:
    """Where a server's loadable libraries may lie, relative to its programs."""
    found = shutil.which("postgres") if bin_dir is None else str(bin_dir / "postgres")
    if found is None:
        return []
    home = Path(found).resolve().parent.parent
    return [home / "lib", home / "lib" / "postgresql", home / "lib64", home / "lib64" / "postgresql"]


def _conninfo(target: ReceiverTarget, application_name: str) -> str:
    parts = {
        "host": target.host,
        "port": str(target.port),
        "user": target.user,
        "application_name": application_name,
        # A peer that vanished without a word is noticed within half a minute.
        "keepalives_idle": "10",
        "keepalives_interval": "5",
        "keepalives_count": "3",
    }
    return " ".join(f"{name}={_quoted(value)}" for name, value in parts.items())


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
