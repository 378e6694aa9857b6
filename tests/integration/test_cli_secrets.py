"""Keys and secrets through the `dr` command, on a real server with a password and a real store that checks signatures:
what each command needs (invariant 10), and that nothing of it shows up anywhere (invariant 8)."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
import yaml

from dr_pipelines.clock import SystemClock
from dr_pipelines.embedded.postgres import EmbeddedPostgres, bin_dir, open_folder, os_user
from dr_pipelines.embedded.stores import EmbeddedS3, S3Access, free_port
from dr_pipelines.repository.encryption import generate_identity
from tests.support import forked

CLOCK = SystemClock()
TAKING = ("DR_RECIPIENT", "DR_PASSWORD", "DR_S3_ID", "DR_S3_SECRET")
READING = ("DR_IDENTITY", "DR_S3_ID", "DR_S3_SECRET")


class Watch:
    """Looks at the arguments of every process below this one until it is left."""

    def __init__(self) -> None:
        self.seen: set[tuple[str, ...]] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        us = psutil.Process()
        while not self._stop.is_set():
            for process in us.children(recursive=True):
                try:
                    self.seen.add(tuple(process.cmdline()))
                except psutil.Error:
                    continue
            self._stop.wait(0.01)


@dataclass
class Site:
    """A plan whose secrets are all distinctive, with its server, its store, a full, an incremental and WAL. `said` is
    all that `dr` printed, `watch` sees every program that it starts."""

    folder: Path
    server: EmbeddedPostgres
    secrets: dict[str, str]
    watch: Watch
    said: list[str] = field(default_factory=list)

    def env(self, *names: str, **changed: str) -> dict[str, str]:
        """An environment with only these of the secrets."""
        plain = {name: value for name, value in os.environ.items() if not name.startswith("DR_")}
        given = {name: self.secrets[name] for name in names}
        return {**plain, "DR_PLAN": str(self.folder / "plan.yaml"), **given, **changed}

    def dr(self, env: dict[str, str], *argv: str, code: int | None = 0) -> str:
        """What it answered on success, what it complained of otherwise."""
        done = forked.dr(*argv, env=env)
        self.said += [done.stdout, done.stderr]
        assert code is None or done.returncode == code, done.stdout + done.stderr
        return done.stderr if code else done.stdout

    @contextmanager
    def streaming(self) -> Iterator[None]:
        stream = forked.Forked(["wal", "stream", "shop"], self.env(*TAKING))
        try:
            self._until_received()
            yield
        finally:
            stream.signal(signal.SIGTERM)
            stream.code()
            self.said += [stream.stdout, stream.stderr]

    def _until_received(self) -> None:
        """The stream has a slot in use."""
        for _ in range(600):
            if self.server.psql("SELECT count(*) FROM pg_replication_slots WHERE active") != "0":
                return
            CLOCK.wait(0.05)
        raise AssertionError("the stream did not connect")


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    base = open_folder("dr-test-secrets-")
    server = EmbeddedPostgres(base / "data", settings={"summarize_wal": "on"}, initdb=("--wal-segsize=1",))
    identity = generate_identity()
    given = {
        "DR_RECIPIENT": str(identity.recipient),
        "DR_IDENTITY": identity.reveal(),
        "DR_PASSWORD": f"pw{secrets.token_hex(16)}",
        "DR_S3_ID": f"id{secrets.token_hex(16)}",
        "DR_S3_SECRET": f"sk{secrets.token_hex(16)}",
    }
    access = S3Access(f"http://127.0.0.1:{free_port()}", given["DR_S3_ID"], given["DR_S3_SECRET"])
    store = EmbeddedS3(base / "s3", access=access)
    store.create_bucket("bucket")
    try:
        store.start()
        server.start()
        _require_a_password(server, given["DR_PASSWORD"])
        (base / "plan.yaml").write_text(yaml.dump(_plan(server, store)))
        with Watch() as watch:
            made = Site(base, server, given, watch)
            _take(made)
            yield made
    finally:
        server.kill()
        store.stop()
        shutil.rmtree(base, ignore_errors=True)


def _take(site: Site) -> None:
    """All that a backup host does, with no identity at hand (invariant 10 from its other side)."""
    taking = site.env(*TAKING)
    site.dr(taking, "repository", "init")
    with site.streaming():
        full = json.loads(site.dr(taking, "backup", "shop", "--full", "--json"))
        site.server.psql("CREATE TABLE t AS SELECT 1")
        assert json.loads(site.dr(taking, "backup", "shop", "--incremental", "--json"))["parent"] == full["label"]
        site.dr(taking, "--debug", "status", "--json")


def _require_a_password(server: EmbeddedPostgres, password: str) -> None:
    """A role with no more rights than the operator's guide asks for."""
    server.psql(f"CREATE ROLE backup LOGIN REPLICATION PASSWORD '{password}'")
    server.psql("GRANT pg_read_all_settings, pg_monitor TO backup")
    rules = server.data_dir / "pg_hba.conf"
    asked = "".join(f"host {what} backup 127.0.0.1/32 scram-sha-256\n" for what in ("all", "replication"))
    rules.write_text(asked + rules.read_text())
    server.psql("SELECT pg_reload_conf()")


def _plan(server: EmbeddedPostgres, store: EmbeddedS3) -> dict[str, object]:
    bucket = {
        "type": "s3",
        "endpoint": store.access.endpoint,
        "bucket": "bucket",
        "access_key_id": "${ENV:DR_S3_ID}",
        "secret_access_key": "${ENV:DR_S3_SECRET}",
    }
    return {
        "version": 1,
        "name": "test",
        "state_dir": "state",
        "storage": {"bucket": bucket},
        "encryption": {"recipients": ["${ENV:DR_RECIPIENT}"], "identity": "${ENV:DR_IDENTITY}"},
        "databases": {
            "shop": {
                "connection": {
                    "host": "127.0.0.1", "port": server.port, "user": "backup", "password": "${ENV:DR_PASSWORD}",
                },
                "schedule": {"full": "daily", "incremental": "hourly"},
                "storage": {"primary": "bucket"},
                "wal": {"synchronous": False, "ship_open_every": "1 second"},
                "bin_dir": str(bin_dir(18)),
                "os_user": os_user(),
            }
        },
    }  # fmt: skip


def test_recovery_needs_the_tier_the_plan_and_the_identity_alone(site: Site) -> None:
    reading = site.env(*READING)
    assert {check["verdict"] for check in json.loads(site.dr(reading, "verify", "shop", "--json"))} == {"pass"}
    label = json.loads(site.dr(reading, "list", "shop", "--json"))["backups"][-1]["label"]
    assert label in site.dr(reading, "repository", "show", label)
    target = site.folder / "restored"
    seen = json.loads(site.dr(reading, "restore", "shop", "--to", str(target), "--preview", "--json"))
    assert seen["newest_commit"] is not None
    site.dr(reading, "--debug", "restore", "shop", "--to", str(target))
    assert (target / "global" / "pg_control").exists()


def test_without_its_key_each_side_says_what_is_missing(site: Site) -> None:
    assert "DR_RECIPIENT" in site.dr(site.env("DR_PASSWORD", "DR_S3_ID", "DR_S3_SECRET"), "backup", "shop", code=3)
    told = site.dr(site.env(*TAKING), "restore", "shop", "--to", str(site.folder / "keyless"), code=13)
    assert "encryption.identity" in told
    assert not (site.folder / "keyless").exists()


def test_no_secret_in_any_output_argument_object_or_state(site: Site) -> None:
    everything = site.env(*site.secrets)
    site.dr(everything, "store", "check", "primary")
    site.dr(everything, "plan", "check")
    site.dr(everything, "plan", "show", "--json")
    site.dr(everything, "restore", "shop", "--to", str(site.folder / "again"))
    _provoke_errors(site)
    assert {"pg_receivewal", "postgres"} <= {Path(argv[0]).name for argv in site.watch.seen if argv}
    said = "\n".join([*site.said, *(" ".join(argv) for argv in site.watch.seen)]).encode()
    files = [
        path
        for name in ("s3", "state", "again", "restored")
        for path in (site.folder / name).rglob("*")
        if path.is_file()
    ]
    assert len(files) > 1000  # the restored server's too
    for name, secret in site.secrets.items():
        if name != "DR_RECIPIENT":
            assert secret.encode() not in said, name
            assert not [path for path in files if secret.encode() in path.read_bytes()], name


def _provoke_errors(site: Site) -> None:
    """Each secret spoilt in turn: the right one is still most of what the error is about."""
    for name, code in (("DR_PASSWORD", 20), ("DR_S3_SECRET", 10), ("DR_IDENTITY", 13)):
        spoilt = site.env(*site.secrets, **{name: site.secrets[name] + "x"})
        verb = ["backup", "shop"] if name == "DR_PASSWORD" else ["restore", "shop", "--to", str(site.folder / "spoilt")]
        site.dr(spoilt, "--debug", *verb, code=code)
        site.dr(spoilt, *verb, "--json", code=code)
