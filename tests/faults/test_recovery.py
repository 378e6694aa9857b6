"""Restores that are killed, that have no room or the wrong key, and WAL that ends too early, on a server in Debian's
layout (its configuration lies outside of its data directory) with a tablespace."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from dr_pipelines.clock import SystemClock
from dr_pipelines.commands import Command, Runner
from dr_pipelines.embedded.postgres import EmbeddedPostgres, bin_dir, free_port, give, open_folder, os_user
from dr_pipelines.errors import CommandFailed, RestoreError, TargetUnreachable
from dr_pipelines.lsn import Timeline
from dr_pipelines.postgres.restore import RestoreRequest, restore
from dr_pipelines.progress import Silent
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.encryption import generate_identity
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.repository.repository import Repository
from dr_pipelines.storage.base import ObjectInfo
from dr_pipelines.storage.local import LocalStore
from tests.support.faulty_store import FaultyStore
from tests.support.forked import Forked
from tests.support.live import Live

CLOCK = SystemClock()
ROWS = "30000"


@dataclass
class Lost:
    """A server that is gone, and what is left of it: a repository and a plan. `live` names what a restore needs."""

    live: Live
    base: Path

    def start(self, target: Path, *more: str, plan: str = "plan.yaml") -> Forked:
        env = {**os.environ, "DR_PLAN": str(self.base / plan)}
        return Forked(["restore", "shop", "--to", target, "--json", *more], env)

    def answer(self, target: Path, *more: str, code: int = 0, plan: str = "plan.yaml") -> Any:
        process = self.start(target, *more, plan=plan)
        assert process.code() == code, process.stdout + process.stderr
        return json.loads(process.stdout)

    def restore(
        self, target: Path, repository: Repository | None = None, progress: Silent | None = None, **options: Any
    ) -> None:
        request = RestoreRequest("shop", target, bin_dir=bin_dir(), os_user=os_user(), **options)
        repositories = [repository or self.live.repository]
        restore(request, repositories, clock=CLOCK, runner=Runner(), progress=progress or Silent())


@pytest.fixture(scope="module")
def lost(identity: tuple[str, str]) -> Iterator[Lost]:
    base = open_folder("dr-test-lost-")
    server = EmbeddedPostgres(base / "data", settings={"fsync": "off"}, initdb=("--wal-segsize=1",))
    server.create()
    process = Runner().start(_debian_layout(server, base / "etc"))
    repository = Repository(LocalStore(base / "disk", "primary"), Codec(1, (identity[1],), (identity[0],)), "primary")
    repository.initialise()
    live = Live(server, repository, base / "state")
    _write_plan(base, server, identity)
    (base / "space").mkdir()
    give(base / "space")
    try:
        _until(lambda: _answers(server))
        with live.streaming():
            server.psql(f"CREATE TABLESPACE fast LOCATION '{base / 'space'}'")
            server.psql("CREATE TABLE old (t text) TABLESPACE fast")
            server.psql("INSERT INTO old SELECT repeat(md5(i::text), 50) FROM generate_series(1, 5000) i")
            live.take(BackupKind.FULL)
            server.psql(f"CREATE TABLE orders AS SELECT i AS id, repeat('x', 700) FROM generate_series(1, {ROWS}) i")
            process.stop()
        yield Lost(live, base)
    finally:
        process.stop()
        shutil.rmtree(base, ignore_errors=True)


def _debian_layout(server: EmbeddedPostgres, etc: Path) -> Command:
    """Moves the configuration to `etc`; the command that starts the server with it."""
    etc.mkdir()
    for name in ("postgresql.conf", "pg_hba.conf", "pg_ident.conf"):
        shutil.move(server.data_dir / name, etc / name)
    with (etc / "postgresql.conf").open("a") as conf:
        conf.write(f"data_directory = '{server.data_dir}'\nhba_file = '{etc}/pg_hba.conf'\n")
        conf.write(f"ident_file = '{etc}/pg_ident.conf'\nmax_connections = 137\nmax_prepared_transactions = 3\n")
    give(etc)
    arguments = ["-c", f"config_file={etc / 'postgresql.conf'}", "-p", str(server.port)]
    return Command([str(bin_dir() / "postgres"), *arguments, "-c", "unix_socket_directories="], user=os_user())


def _write_plan(base: Path, server: EmbeddedPostgres, identity: tuple[str, str]) -> None:
    (base / "key").write_text(identity[0])
    (base / "other.key").write_text(generate_identity().reveal())
    shop: dict[str, Any] = {
        "connection": {"host": "127.0.0.1", "port": server.port},
        "schedule": {"full": "daily"},
        "storage": {"primary": "disk"},
        "bin_dir": str(bin_dir()),
        "os_user": os_user(),
    }
    plan = {
        "version": 1,
        "name": "test",
        "state_dir": "state",
        "storage": {"disk": {"type": "local", "path": "disk"}},
        "encryption": {"recipients": [identity[1]], "identity": f"${{FILE:{base / 'key'}}}"},
        "databases": {"shop": shop},
    }
    (base / "plan.yaml").write_text(yaml.dump(plan))


def _answers(server: EmbeddedPostgres) -> bool:
    try:
        return server.psql("SELECT 1") == "1"
    except CommandFailed:
        return False


def _until(happened: Callable[[], object]) -> None:
    for _ in range(20_000):
        if happened():
            return
        CLOCK.wait(0.003)
    raise AssertionError("it never happened")


def _content(path: Path) -> str:
    """`stopping` of a file that is gone already."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return "stopping"


def _servers(folder: Path) -> list[psutil.Process]:
    """Whatever runs in a folder below `folder`."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if Path(process.cwd()).is_relative_to(folder):
                found.append(process)
    return found


def _left(target: Path) -> list[str]:
    found = [path.name for path in target.parent.glob(f"{target.name}*") if path.name != f"{target.name}_tablespaces"]
    return found + [str(path) for path in target.parent.glob(f"{target.name}_tablespaces/*/*")]


def test_a_server_with_its_configuration_elsewhere_is_started_as_it_was_recorded(lost: Lost) -> None:
    target, port = lost.base / "debian", free_port()
    report = lost.answer(target, "--start", "--port", str(port), "--socket-dir", str(lost.base))
    try:
        assert report["running"] is True

        def asked(question: str) -> str:
            argv = ["sh", "-c", f"{report['commands']['look at it']} -XAtc {shlex.quote(question)}"]
            return Runner().run(Command(argv)).stdout.strip()

        assert asked("SELECT count(*) FROM orders") == ROWS
        assert asked("SELECT count(*) FROM old") == "5000"
        assert asked("SHOW config_file") == str(target / "postgresql.conf")
        assert asked("SHOW hba_file") == str(target / "pg_hba.conf")
        recorded = "SELECT current_setting('max_connections'), current_setting('max_prepared_transactions')"
        assert asked(recorded) == "137|3"
        where = asked("SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'fast'")
        assert where.startswith(f"{target}_tablespaces/")
        assert not list(lost.base.glob("debian_tablespaces/*/.dr*"))
        assert any("postgresql.conf was not in the backup" in note for note in report["notes"])
        assert "trust" not in (target / "pg_hba.conf").read_text()
    finally:
        Runner().run(Command(["sh", "-c", report["commands"]["stop it"]]))


@pytest.mark.parametrize(
    ("numbers", "seen"),
    [
        ((signal.SIGTERM,), "base"),
        ((signal.SIGINT,), "postmaster.pid"),
        ((signal.SIGTERM, signal.SIGINT), "postmaster.pid"),
    ],
    ids=["unpacking", "replaying", "replaying, twice"],
)
def test_a_signal_leaves_no_server_and_no_files(lost: Lost, numbers: tuple[signal.Signals, ...], seen: str) -> None:
    target = lost.base / "stopped"
    process, partial = lost.start(target), lost.base / "stopped.partial"
    _until(lambda: (partial / seen).exists() or process.ended())
    for number in numbers:
        process.signal(number)
        # The next one comes in the midst of what the first one brought about.
        _until(lambda: "stopping" in _content(partial / "postmaster.pid"))
    assert process.code() == 128 + numbers[0], process.stdout
    assert json.loads(process.stdout)["exit_code"] == 128 + numbers[0]
    assert _left(target) == []
    assert _servers(lost.base) == []


def test_after_a_kill_the_same_command_works_though_a_server_and_a_tablespace_are_left(lost: Lost) -> None:
    target = lost.base / "killed"
    process = lost.start(target)
    pid_file = lost.base / "killed.partial" / "postmaster.pid"
    _until(lambda: pid_file.exists() and pid_file.read_text())
    server = psutil.Process(int(pid_file.read_text().splitlines()[0]))
    # Stopped, its recovery cannot notice that nobody hands it WAL any more: the server outlives the restore.
    _until(lambda: _recovering(server))
    _recovering(server)[0].suspend()
    process.kill()
    assert server.is_running()
    assert not target.exists()
    assert list(lost.base.glob("killed_tablespaces/*/PG_*"))
    assert lost.answer(target)["data_dir"] == str(target)
    assert not server.is_running()
    assert _servers(lost.base) == []
    # Another restore does not take what belongs to this one.
    space = next(lost.base.glob("killed_tablespaces/*"))
    refused = lost.answer(lost.base / "next", "-T", f"{lost.base / 'space'}={space}", code=30)
    assert "not empty" in refused["error"]
    assert list(space.glob("PG_*"))


def _recovering(server: psutil.Process) -> list[psutil.Process]:
    found = []
    for child in server.children():
        with contextlib.suppress(psutil.NoSuchProcess):  # one that has just ended is none, and may be a zombie yet
            if "startup" in " ".join(child.cmdline()):
                found.append(child)
    return found


def test_somebody_elses_key_is_refused_before_anything_is_written(lost: Lost) -> None:
    target = lost.base / "keyless"
    told = lost.answer(target, "--identity", str(lost.base / "other.key"), code=13)
    assert told["hint"]
    assert not list(lost.base.glob("keyless*"))


def test_a_tier_that_cannot_be_opened_is_named_as_its_wal_may_go_further(lost: Lost) -> None:
    plan = yaml.safe_load((lost.base / "plan.yaml").read_text())
    secret = "${ENV:DR_NEVER_SET}"
    cloud = {"type": "s3", "bucket": "cloud", "endpoint": "http://127.0.0.1:1", "region": "here"}
    plan["storage"]["cloud"] = {**cloud, "access_key_id": secret, "secret_access_key": secret}
    plan["databases"]["shop"]["storage"]["secondary"] = "cloud"
    (lost.base / "two.yaml").write_text(yaml.dump(plan))
    seen = lost.answer(lost.base / "looked", "--preview", plan="two.yaml")
    assert any("secondary cannot be opened" in note and "DR_NEVER_SET" in note for note in seen["notes"])


def test_actions_that_make_no_sense_are_wrong_usage(lost: Lost) -> None:
    target = lost.base / "senseless"
    for more in (
        ["--action", "pause"],
        ["--target-action", "stop"],
        ["--immediate", "--action", "shutdown", "--start"],
    ):
        assert lost.answer(target, *more, code=2)["exit_code"] == 2
    assert not list(lost.base.glob("senseless*"))


@pytest.fixture
def small_disk(lost: Lost) -> Iterator[Callable[[int], Path]]:
    """Mounts a tmpfs of so many MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small tmpfs")
    folder = lost.base / "small"
    folder.mkdir()

    def mount(size: int) -> Path:
        try:
            Runner().run(Command(["mount", "-t", "tmpfs", "-o", f"size={size}m", "tmpfs", str(folder)]))
        except CommandFailed as error:
            pytest.skip(f"no tmpfs can be mounted here: {error.message}")
        return folder

    yield mount
    Runner().run(Command(["umount", "-l", str(folder)]), check=False)
    folder.rmdir()


class _Filling(Silent):
    """Somebody else fills the disk when the tablespace's place is made known: after its room was looked at."""

    def __init__(self, disk: Path) -> None:
        self._theirs = disk / "theirs"

    def note(self, text: str) -> None:
        with contextlib.suppress(OSError), self._theirs.open("wb", buffering=0) as file:
            while file.write(bytes(1 << 16)):
                pass


def test_a_disk_that_becomes_full_while_unpacking(lost: Lost, small_disk: Callable[[int], Path]) -> None:
    disk, target = small_disk(16), lost.base / "full"
    with pytest.raises(RestoreError, match="is full") as caught:
        lost.restore(target, progress=_Filling(disk), tablespaces={str(lost.base / "space"): disk / "space"})
    assert caught.value.hint
    assert _left(target) == []
    assert [path.name for path in disk.iterdir()] == ["theirs"]


def test_a_disk_that_becomes_full_during_replay(lost: Lost, small_disk: Callable[[int], Path]) -> None:
    backup = lost.live.repository.backups("shop")[0]
    disk = small_disk((backup.archive.size >> 20) + 8)
    with pytest.raises(RestoreError, match=r"became full|No space left") as caught:
        lost.restore(disk / "full", tablespaces={str(lost.base / "space"): lost.base / "full_space"})
    assert caught.value.hint
    assert list(disk.iterdir()) == []
    assert not (lost.base / "full_space").exists()
    assert _servers(lost.base) == []


class _Vanishing(FaultyStore):
    """Heads of open segments are gone as soon as a restored server runs in `folder`."""

    folder: Path
    gone = False

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        self.gone = self.gone or (self.folder / "postmaster.pid").exists()
        return (found for found in super().list(prefix) if not (self.gone and ".partial" in found.key))


def test_latest_is_refused_when_the_newest_wal_vanishes_meanwhile(lost: Lost) -> None:
    good, target = lost.live.repository, lost.base / "vanishing"
    store = _Vanishing(good.store)
    store.folder = lost.base / "vanishing.partial"
    with pytest.raises(TargetUnreachable, match="gone since"):
        lost.restore(target, Repository(store, good.codec, "primary"))
    assert _left(target) == []


def test_latest_is_refused_when_the_last_record_is_cut_off(lost: Lost) -> None:
    good, target = lost.live.repository, lost.base / "cut"
    shutil.copytree(lost.base / "disk", lost.base / "copy")
    repository = Repository(LocalStore(lost.base / "copy", "primary"), good.codec, "primary")
    archive = repository.wal("shop", good.backups("shop")[0].system_id)
    head = archive.newest_partial(Timeline(1))
    assert head is not None
    data = archive.read_partial(head)[: head.end - head.segment.start]
    (lost.base / "copy" / head.stored.key).unlink()
    archive.put_partial(head.segment, head.end, data[:-80] + bytes(80))
    with pytest.raises(TargetUnreachable, match="goes on until"):
        lost.restore(target, repository)
    assert _left(target) == []
