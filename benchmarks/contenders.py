"""Those who back up and restore in the benchmark: this project, PostgreSQL's own tools with zstd and age, pgBackRest."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from dr_pipelines.clock import SystemClock
from dr_pipelines.commands import Command, Runner
from dr_pipelines.embedded.postgres import EmbeddedPostgres, bin_dir, give, os_user
from dr_pipelines.errors import CommandFailed
from dr_pipelines.postgres import backup_manifest
from dr_pipelines.postgres.take import take_backup
from dr_pipelines.postgres.unpack import Link, sync_tree, unpack_chain
from dr_pipelines.progress import Silent
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.encryption import Identity
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.repository.repository import Repository
from dr_pipelines.storage.local import LocalStore


def _run(script: str, **env: str) -> str:
    return Runner().run(Command(["bash", "-euo", "pipefail", "-c", script], env=env)).stdout


def folder_size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


class PeakMemory:
    """The most memory that this process has held while something was done. Source: Linux manual, proc_pid_status(5)."""

    def __init__(self) -> None:
        self.bytes = 0

    @contextmanager
    def measured(self) -> Iterator[None]:
        Path("/proc/self/clear_refs").write_text("5")  # what came before does not count
        yield
        kilobytes = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        assert kilobytes is not None
        self.bytes = max(self.bytes, int(kilobytes[1]) * 1024)


class Ours:
    name = "dr"

    def __init__(self, server: EmbeddedPostgres, base: Path, identity: Identity | None) -> None:
        self._server, self._base = server, base
        keys = ((str(identity.recipient),), (identity.reveal(),)) if identity else ((), ())
        self._repository = Repository(LocalStore(base / "dr", "bench"), Codec(1, *keys), "primary")
        self._repository.initialise()
        self._chain: list[BackupManifest] = []
        self._ours = self._main = self._servers = 0.0
        self._fulls = 0
        self.taking, self.restoring = PeakMemory(), PeakMemory()

    def full(self) -> None:
        ours, main, servers = time.process_time(), time.thread_time(), self._server_cpu()
        self._chain = [self._take(BackupKind.FULL)]
        self._fulls += 1
        self._ours += time.process_time() - ours
        self._main += time.thread_time() - main
        self._servers += self._server_cpu() - servers

    def incremental(self) -> None:
        self._chain.append(self._take(BackupKind.INCREMENTAL))

    def stored(self) -> int:
        return self._chain[-1].stored_size

    def restore(self, target: Path, *, incrementals: bool) -> None:
        """Checked, merged and on disk, as a restore does it; a server is not started."""
        target.mkdir()
        chain = self._chain if incrementals else self._chain[:1]
        with self.restoring.measured():
            unpack_chain([self._link(taken) for taken in chain], target, advance=lambda count: None)
            sync_tree(target)

    def overhead(self, client: float) -> str:
        """Python runs for long only in the thread that reads the server's stream; the others wait in C. What it takes
        beyond `client`, the CPU seconds that pg_basebackup needs to read the same, is the overhead."""
        total = self._ours + self._servers
        return (
            f"a full takes {self._ours / self._fulls:.1f} s of CPU here and {self._servers / self._fulls:.1f} s in the "
            f"server; reading the stream {self._main / self._fulls:.1f} s, pg_basebackup {client:.1f} s: "
            f"overhead {(self._main - client * self._fulls) / total:.0%}"
        )

    def _take(self, kind: BackupKind) -> BackupManifest:
        state, clock = self._base / "state", SystemClock()
        server = self._server.server
        with self.taking.measured():
            taken = take_backup(
                server, self._repository, "bench", kind, state_dir=state, clock=clock, progress=Silent()
            )
        assert isinstance(taken, BackupManifest) and taken.kind is kind, taken
        return taken

    def _link(self, taken: BackupManifest) -> Link:
        stored = b"".join(self._repository.store.open(taken.backup_manifest.key))
        told = backup_manifest.parse(self._repository.codec.decode(stored))
        return Link(taken, self._repository.open_archive(taken), told)

    def _server_cpu(self) -> float:
        """Of the server and of those children that ended."""
        times = [
            p.cpu_times()
            for p in psutil.process_iter(["cmdline"])
            if str(self._server.data_dir) in (p.info["cmdline"] or [])
        ]
        return sum(t.user + t.system + t.children_user + t.children_system for t in times)


class PostgresTools:
    """`pg_basebackup` through `zstd -1 -T2` (and `age`), restored by `tar` and `pg_combinebackup`."""

    name = "pg_basebackup, zstd"

    def __init__(self, server: EmbeddedPostgres, base: Path, identity: Identity | None) -> None:
        self._server, self._folder, self._bin = server, base / "tools", bin_dir()
        self._folder.mkdir(parents=True)
        self._seal = f"| age -r {identity.recipient}" if identity else ""
        self._open = f"age -d -i {self._folder}/identity" if identity else "cat"
        if identity:
            (self._folder / "identity").write_text(identity.reveal())
        self._count = 0

    def full(self) -> None:
        for old in self._folder.glob("backup*"):
            old.unlink()
        self._count = 0
        self._backup("")

    def incremental(self) -> None:
        self._count += 1
        manifest = f"{self._folder}/manifest"
        _run(f"{self._open} {self._newest(self._count - 1)} | zstd -dc | tar -xO backup_manifest > {manifest}")
        self._backup(f"--incremental={manifest}")

    def stored(self) -> int:
        return self._newest(self._count).stat().st_size

    def restore(self, target: Path, *, incrementals: bool) -> None:
        staged = [target] if not incrementals else [self._folder / f"plain{n}" for n in range(self._count + 1)]
        for number, folder in enumerate(staged):
            folder.mkdir()
            _run(f"{self._open} {self._newest(number)} | zstd -dc | tar -x -C {folder}")
        if incrementals:
            _run(f"{self._bin}/pg_combinebackup -o {target} {' '.join(map(str, staged))}")
            for folder in staged:
                shutil.rmtree(folder)

    def client_cpu(self) -> float:
        """CPU seconds of pg_basebackup alone while it reads a full."""
        before = os.times()
        _run(f"{self._take()} > /dev/null")
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    def _newest(self, number: int) -> Path:
        return self._folder / f"backup{number}"

    def _backup(self, options: str) -> None:
        _run(
            f"{self._take(options)} | zstd -1 -T2 -q {self._seal} > {self._newest(self._count)}; sync {self._newest(self._count)}"
        )

    def _take(self, options: str = "") -> str:
        address = f"-h 127.0.0.1 -p {self._server.port} -U postgres"
        return f"{self._bin}/pg_basebackup {address} -D - -Ft -X none -c fast --no-sync {options}"


class ClientZstd:
    """pg_basebackup that compresses by itself; fulls only. The embedded one is built without zstd."""

    name = "client-zstd"

    def __init__(self, program: str, server: EmbeddedPostgres, base: Path) -> None:
        self._program, self._server, self._folder = program, server, base / "client-zstd"

    @staticmethod
    def refusal(program: str, server: EmbeddedPostgres, base: Path) -> str | None:
        """Why it cannot take part; None when it can."""
        trial = base / "trial"
        trial.mkdir()
        try:
            ClientZstd(program, server, trial).full()
        except CommandFailed as error:
            return f"it says {error}"
        finally:
            shutil.rmtree(trial)
        return None

    def full(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        address = f"-h 127.0.0.1 -p {self._server.port} -U postgres"
        _run(f"{self._program} {address} -D {self._folder} -Ft -X none -c fast -Z client-zstd:level=1,workers=2")

    def stored(self) -> int:
        return folder_size(self._folder)


class PgBackRest:
    """Level 1 zstd, two processes, block incremental and bundling; AES where it is to be encrypted."""

    name = "pgBackRest"

    def __init__(self, program: str, server: EmbeddedPostgres, base: Path, *, encrypted: bool) -> None:
        self._folder = base / "pgbackrest"
        self._folder.mkdir(parents=True)
        self._config = self._folder / "pgbackrest.conf"
        cipher = ["repo1-cipher-type=aes-256-cbc", "repo1-cipher-pass=benchmark"] if encrypted else []
        lines = [
            "[global]", f"repo1-path={self._folder}/repo", "repo1-bundle=y", "repo1-block=y", *cipher,
            "compress-type=zst", "compress-level=1", "process-max=2", "archive-check=n", "archive-copy=n",
            "start-fast=y", "log-level-console=error", "log-level-file=off", f"log-path={self._folder}",
            f"lock-path={self._folder}/lock", f"spool-path={self._folder}/spool",
            "[bench]", f"pg1-path={server.data_dir}", f"pg1-port={server.port}",
            "pg1-user=postgres", "pg1-database=postgres",
        ]  # fmt: skip
        self._config.write_text("\n".join([*lines, ""]))
        give(self._folder)
        self._program = program
        self._do("stanza-create")

    @staticmethod
    def refusal(program: str, server: EmbeddedPostgres, base: Path) -> str | None:
        """Why it cannot take part; None when it can."""
        try:
            PgBackRest(program, server, base / "trial", encrypted=False)
        except CommandFailed as error:
            return f"it says {error}"
        finally:
            shutil.rmtree(base / "trial", ignore_errors=True)
        return None

    def full(self) -> None:
        self._do("backup", "--type=full")

    def incremental(self) -> None:
        self._do("backup", "--type=incr")

    def stored(self) -> int:
        return folder_size(
            max(path for path in (self._folder / "repo/backup/bench").iterdir() if path.name[0].isdigit())
        )

    def restore(self, target: Path, *, incrementals: bool) -> None:
        target.mkdir()
        give(target)
        newest = max(path.name for path in (self._folder / "repo/backup/bench").iterdir() if path.name[0].isdigit())
        label = newest if incrementals else newest.partition("_")[0]
        self._do("restore", f"--set={label}", "--type=none", f"--pg1-path={target}")

    def _do(self, verb: str, *options: str) -> None:
        argv = [self._program, "--config", str(self._config), "--stanza=bench", *options, verb]
        Runner().run(Command(argv, user=os_user(), env={"PGHOST": "127.0.0.1"}))
