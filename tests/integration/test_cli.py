"""The main job through the `dr` command alone: stream, back up, lose the server, look, restore."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from dr_pipelines.clock import SystemClock
from dr_pipelines.embedded.postgres import EmbeddedPostgres, bin_dir, os_user
from dr_pipelines.postgres.wal_status import read_status
from tests.support.forked import DR, dr

CLOCK = SystemClock()


def _write_plan(folder: Path, server: EmbeddedPostgres) -> dict[str, str]:
    """The environment in which `dr` finds the plan."""
    (folder / "disk").mkdir()
    shop: dict[str, Any] = {
        "connection": {"host": "127.0.0.1", "port": server.port},
        "schedule": {"full": "daily", "incremental": "hourly"},
        "storage": {"primary": "disk"},
        "wal": {"ship_open_every": "1 second"},
        "bin_dir": str(bin_dir(18)),
        "os_user": os_user(),
    }
    plan = {
        "version": 1,
        "name": "test",
        "state_dir": "state",
        "storage": {"disk": {"type": "local", "path": "disk"}},
        "encryption": "none",
        "databases": {"shop": shop},
    }
    (folder / "plan.yaml").write_text(yaml.dump(plan))
    return {**os.environ, "DR_PLAN": str(folder / "plan.yaml")}


def _answer(env: dict[str, str], *argv: str, code: int = 0) -> Any:
    """The one JSON document of a command that ends with `code`."""
    done = dr(*argv, "--json", env=env)
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


def _on_a_terminal(env: dict[str, str], columns: int, *argv: str) -> list[str]:
    """The lines that a person sees, without colours."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(ours, (40, columns))
    with subprocess.Popen([DR, *argv], env={**env, "TERM": "xterm"}, stdin=theirs, stdout=theirs, stderr=theirs):
        os.close(theirs)
        said = b""
        with suppress(OSError):  # the terminal closes with the program
            while piece := os.read(ours, 65536):
                said += piece
    os.close(ours)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said.decode()).replace("\r", "\n").splitlines()


@contextmanager
def _streaming(env: dict[str, str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / "stream.log").open("wb") as log:
        process = subprocess.Popen([DR, "wal", "stream", "shop"], env=env, stdout=log, stderr=log)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(90)


def _until_synchronous(server: EmbeddedPostgres) -> None:
    server.psql("ALTER SYSTEM SET synchronous_standby_names = 'FIRST 1 (dr_shop)'")
    server.psql("SELECT pg_reload_conf()")
    for _ in range(600):
        standby = server.server.standby("dr_shop")
        if standby is not None and standby.sync_state == "sync":
            return
        CLOCK.wait(0.05)
    raise AssertionError("the stream did not become synchronous")


def test_the_main_job_by_commands_alone(postgres18: EmbeddedPostgres, folder: Path) -> None:
    server, env = postgres18, _write_plan(folder, postgres18)
    server.psql("CREATE TABLE orders (id int PRIMARY KEY)")
    _answer(env, "repository", "init")
    with _streaming(env, folder) as stream:
        _until_synchronous(server)
        full = _answer(env, "backup", "shop", "--full")
        assert full["kind"] == "full"
        server.psql("INSERT INTO orders SELECT generate_series(1, 100)")
        incremental = _answer(env, "backup", "shop", "--incremental")
        assert incremental["parent"] == full["label"]
        server.psql("INSERT INTO orders VALUES (101)")
        (state,) = _answer(env, "status")
        assert state["stream"]["sync_state"] == "sync"
        assert state["warnings"] == []
        server.destroy()
        stream.send_signal(signal.SIGTERM)
        assert stream.wait(90) == 0
    status = read_status(folder / "state" / "shop" / "stream.json")
    assert status is not None
    assert status.state == "stopped"

    listed = [backup["label"] for backup in _answer(env, "list", "shop")["backups"]]
    assert listed == [full["label"], incremental["label"]]
    seen = _on_a_terminal(env, 80, "list", "shop")
    rows = [line for line in seen if re.match(r"\d{8}T", line)]
    assert [row.split()[0] for row in rows] == listed
    assert all(len(row) <= 80 for row in rows)
    assert any(re.match(r"contents .* MB, .*/s", line) for line in _on_a_terminal(env, 80, "verify", "shop"))
    assert {check["verdict"] for check in _answer(env, "verify", "shop", "latest")} == {"pass"}
    assert [*folder.glob(f"disk/servers/shop/backups/{listed[-1]}/proofs/verify.*.pass.*.json")]
    scrubbed = _answer(env, "scrub", "primary")["check"]
    assert scrubbed["verdict"] == "pass" and scrubbed["details"]["read"] == scrubbed["details"]["objects"] > 10

    target = folder / "restored"
    seen = _answer(env, "restore", "shop", "--to", str(target), "--preview")
    assert seen["newest_commit"] is not None
    assert not target.exists()
    report = _answer(env, "restore", "shop", "--to", str(target))
    assert report["seconds"] == sum(report["phases"].values())
    restored = EmbeddedPostgres(target)
    restored.start()
    try:
        assert restored.psql("SELECT count(*) FROM orders") == "101"
    finally:
        restored.kill()

    assert _answer(env, "restore", "shop", "--to", str(target), code=30)["exit_code"] == 30

    pack = next((folder / "disk").glob(f"**/{incremental['label']}/packs/000000*"))
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.write_bytes(data)
    verdicts = {check["name"]: check["verdict"] for check in _answer(env, "verify", "shop", "latest", code=41)}
    assert verdicts["objects_match_sha256"] == "fail"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_a_backup_leaves_no_backup(
    postgres18: EmbeddedPostgres, folder: Path, number: signal.Signals
) -> None:
    env = _write_plan(folder, postgres18)
    # Bytes that do not compress, more than one pack: the signal comes when the first pack is there.
    (postgres18.data_dir / "noise").write_bytes(os.urandom(160 << 20))
    _answer(env, "repository", "init")
    process = subprocess.Popen([DR, "backup", "shop", "--json"], env=env, stdout=subprocess.PIPE, text=True)
    while not list((folder / "disk").glob("**/packs/*")):
        assert process.poll() is None
        CLOCK.wait(0.005)
    process.send_signal(number)
    told, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert json.loads(told)["exit_code"] == 128 + number
    assert not list((folder / "disk").glob("**/manifest.json"))
    assert postgres18.psql("SELECT count(*) FROM pg_stat_replication") == "0"


def test_a_backup_without_any_wal_says_that_it_needs_some(postgres18: EmbeddedPostgres, folder: Path) -> None:
    env = _write_plan(folder, postgres18)
    _answer(env, "repository", "init")
    done = dr("backup", "shop", env=env)
    assert done.returncode == 0
    assert "no WAL of shop is on primary yet" in done.stderr
    refused = _answer(env, "restore", "shop", "--to", str(folder / "restored"), "--preview", code=30)
    assert "become consistent" in refused["error"]
    assert "dr status" in refused["hint"]
