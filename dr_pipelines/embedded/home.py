"""Where the demo lives: its folder, its environment and its object stores."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import signal
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

import dr_pipelines
from dr_pipelines.clock import SystemClock
from dr_pipelines.commands import Command, Process, Runner, runs_as_root
from dr_pipelines.embedded.postgres import bin_dir, free_port, give, os_user, own_folder
from dr_pipelines.embedded.stores import EmbeddedS3, S3Access
from dr_pipelines.errors import UsageError
from dr_pipelines.repository.encryption import generate_identity

PROJECT = Path(dr_pipelines.__file__).resolve().parent.parent
SERVER = "shop"
BUCKETS = {"SUPABASE": "supabase-backups", "AWS": "aws-s3-backup"}
"""The plan's object stores, by the name that their environment variables carry."""


@dataclass(frozen=True)
class Home:
    """The demo's folder."""

    path: Path

    @property
    def data_dir(self) -> Path:
        return self.path / "postgres" / "data"

    @property
    def recovered(self) -> Path:
        return self.path / "recovered"

    @property
    def before_drop(self) -> Path:
        return self.path / "before_drop"

    @property
    def acknowledged(self) -> Path:
        return self.path / "acknowledged"

    @property
    def assets(self) -> Path:
        """The shop's files, as the plan's file set `assets` has them."""
        return self.path / "files" / "assets"

    @property
    def uploads(self) -> Path:
        return self.path / "files" / "user_uploads"

    @property
    def stream_status(self) -> Path:
        return self.path / "state" / SERVER / "stream.json"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def _lock_file(self) -> Path:
        return self.path.with_name(f"{self.path.name}.lock")

    @property
    def _env_file(self) -> Path:
        return self.path / "env.json"

    def prepare(self) -> dict[str, str]:
        """An empty home with a new key and new ports; returns the environment that the plan asks for."""
        self.clean()
        for folder in (
            self.data_dir.parent,
            self.path / "state",
            self.path / "dagster",
            self.logs,
            self.assets,
            self.uploads,
        ):
            folder.mkdir(parents=True)
        self.path.chmod(0o755)
        give(self.data_dir.parent)
        shutil.copy(PROJECT / "deploy" / "dagster.yaml", self.path / "dagster")
        identity = generate_identity()
        self._write_secret(self.path / "identity.txt", f"{identity.reveal()}\n")
        env = self._environment(str(identity.recipient))
        self._write_secret(self._env_file, json.dumps(env, indent=2))
        return env

    def load(self) -> dict[str, str]:
        """The environment of the demo that ran last. Raises `UsageError` when none has."""
        try:
            env: dict[str, str] = json.loads(self._env_file.read_text())
        except FileNotFoundError:
            raise UsageError("there is nothing to show yet", hint="Run `make demo` first.") from None
        return env

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One process at a time. Raises `UsageError` when there is another."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._lock_file.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # `remove` may have unlinked the file between the two: a lock on it would keep nobody out.
                if not self._lock_file.exists() or not os.path.samestat(
                    os.fstat(file.fileno()), self._lock_file.stat()
                ):
                    raise BlockingIOError
            except BlockingIOError:
                raise UsageError(
                    f"another demo or UI works in {self.path}", hint="End it with Ctrl-C, then try again."
                ) from None
            yield

    def remove(self) -> None:
        """Clean, and leave no trace: the lock's file goes too, while it is still held."""
        self.clean()
        self._lock_file.unlink(missing_ok=True)

    def clean(self) -> None:
        """Remove the home, and end what a demo that was killed left running in it. Only under the lock."""
        self.end_leftovers()
        shutil.rmtree(self.path, ignore_errors=True)

    def end_leftovers(self) -> None:
        """Programs that name this home in their arguments, or that Dagster started on it."""
        self._end(lambda process: self._is_dagsters(process) or self._names(process))

    def end_dagster(self) -> None:
        """What Dagster leaves running on this home when it ends: runs, and its code servers for some seconds."""
        self._end(self._is_dagsters)

    def _end(self, belongs: Callable[[psutil.Process], bool]) -> None:
        left = [process for process in psutil.process_iter() if process.pid != os.getpid() and belongs(process)]
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                # An immediate shutdown: unlike a killed server, it gives its shared memory back.
                process.send_signal(signal.SIGQUIT if process.name() == "postgres" else signal.SIGKILL)
        _, deaf = psutil.wait_procs(left, timeout=10)
        for process in deaf:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(deaf, timeout=10)

    def _is_dagsters(self, process: psutil.Process) -> bool:
        """By the environment that this home gave it. Not the trackers: they remove the semaphores of what is killed,
        and end by themselves."""
        with contextlib.suppress(psutil.Error):
            inside = self._is_inside(process.environ().get("DAGSTER_HOME", ""))
            return inside and "multiprocessing.resource_tracker" not in " ".join(process.cmdline())
        return False

    def _names(self, process: psutil.Process) -> bool:
        with contextlib.suppress(psutil.Error):
            return any(self._is_inside(word) for word in process.cmdline())
        return False

    def _is_inside(self, path: str) -> bool:
        return path.startswith(f"{self.path}{os.sep}")

    def output(self, name: str) -> Path:
        """What a program said on its standard output."""
        return self.logs / f"{name.replace(' ', '_')}.out"

    def log(self, name: str) -> Path:
        return self.logs / f"{name.replace(' ', '_')}.log"

    def start(self, env: Mapping[str, str], name: str, *argv: str) -> Process:
        """One of the project's programs, in the project's folder; its log is `logs/<name>.log`."""
        # Columns: nobody reads these through a terminal that would cut the lines.
        command = Command([program(argv[0]), *argv[1:]], env={**env, "COLUMNS": "200"}, cwd=PROJECT)
        with self.output(name).open("wb") as output, self.log(name).open("ab") as log:
            return Runner().start(command, stdout=output, stderr=log)

    @contextmanager
    def stores(self, env: Mapping[str, str]) -> Iterator[dict[str, EmbeddedS3]]:
        """The object stores by the plan's names of their buckets, running, on the ports that `env` names."""
        running: dict[str, EmbeddedS3] = {}
        with ExitStack() as stack:
            for name, bucket in BUCKETS.items():
                access = S3Access(*(env[f"DR_{name}_{part}"] for part in _ACCESS))
                store = EmbeddedS3(self.path / "stores" / name.lower(), access=access)
                store.create_bucket(bucket)
                stack.callback(store.stop)
                store.start()
                running[bucket] = store
            yield running

    def _environment(self, recipient: str) -> dict[str, str]:
        env = {
            "DR_PLAN": str(PROJECT / "dr_plan.yaml"),
            "DR_STATE_DIR": str(self.path / "state"),
            "DR_ARCHIVE_DIR": str(self.path / "stores" / "azure-cold-storage"),
            "DR_RECIPIENT": recipient,
            "DR_IDENTITY_FILE": str(self.path / "identity.txt"),
            "DR_SINCE": SystemClock().now().strftime("%Y-%m-%d"),
            "DR_ASSETS_DIR": str(self.assets),
            "DR_UPLOADS_DIR": str(self.uploads),
            "DR_SHOP_HOST": "127.0.0.1",
            "DR_SHOP_PORT": str(free_port()),
            "DR_SHOP_BIN_DIR": str(bin_dir()),
            "DR_SHOP_AMCHECK": "false",  # the embedded PostgreSQL has no contrib
            "DAGSTER_HOME": str(self.path / "dagster"),
            "DAGSTER_DISABLE_TELEMETRY": "1",
        }
        if (account := os_user()) is not None:
            env["DR_SHOP_OS_USER"] = account
        for name in BUCKETS:
            access = (f"http://127.0.0.1:{free_port()}", f"demo-{name.lower()}", secrets.token_hex(16))
            env |= {f"DR_{name}_{part}": value for part, value in zip(_ACCESS, access, strict=True)}
        return env

    @staticmethod
    def _write_secret(path: Path, text: str) -> None:
        path.touch(mode=0o600)
        path.write_text(text)


_ACCESS = ("ENDPOINT", "ACCESS_KEY_ID", "SECRET_ACCESS_KEY")


def program(name: str) -> str:
    """One that this environment has installed."""
    return str(Path(sysconfig.get_path("scripts")) / name)


def home() -> Home:
    """`.demo` in the project; as root a folder that the servers' account can reach wherever the project lies."""
    if not runs_as_root():
        return Home(PROJECT / ".demo")
    mark = hashlib.sha256(str(PROJECT).encode()).hexdigest()[:12]
    return Home(own_folder() / f"demo-{mark}")
