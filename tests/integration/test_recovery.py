"""The main job on real parts: full, incrementals and WAL of a live server; the server is killed; it is restored."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dr_pipelines.clock import SystemClock
from dr_pipelines.commands import Runner
from dr_pipelines.embedded.postgres import EmbeddedPostgres, bin_dir, os_user
from dr_pipelines.errors import RestoreError, TargetInUse
from dr_pipelines.lsn import Lsn
from dr_pipelines.postgres import tools
from dr_pipelines.postgres.restore import RestoreReport, RestoreRequest, preview, restore
from dr_pipelines.postgres.restore_plan import RecoveryTarget, UseIncrementals
from dr_pipelines.postgres.take import take_backup
from dr_pipelines.postgres.wal_checks import wal_has_no_gap
from dr_pipelines.postgres.wal_ship import Tier
from dr_pipelines.postgres.wal_stream import WalStream
from dr_pipelines.progress import Silent
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.repository.repository import Repository

CLOCK = SystemClock()


@contextmanager
def streaming(server: EmbeddedPostgres, repository: Repository, state: Path) -> Iterator[None]:
    """`dr wal stream` as a thread; what is there is shipped when it stops."""
    target = tools.ReceiverTarget(host="127.0.0.1", port=server.port, user="postgres", password=None, sslmode="prefer")
    stream = WalStream(
        "shop",
        server.server,
        lambda spool: tools.pg_receivewal(
            target, directory=spool, slot="dr_shop", synchronous=True, bin_dir=bin_dir(server.version)
        ),
        [Tier("primary", functools.partial(repository.wal, "shop"))],
        slot="dr_shop",
        directory=state,
        clock=CLOCK,
        runner=Runner(),
        ship_open_every=0.2,
    )
    stop = threading.Event()
    thread = threading.Thread(target=stream.run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def until_synchronous(server: EmbeddedPostgres) -> None:
    server.psql("ALTER SYSTEM SET synchronous_standby_names = 'FIRST 1 (dr_shop)'")
    server.psql("SELECT pg_reload_conf()")
    for _ in range(400):
        standby = server.server.standby("dr_shop")
        if standby is not None and standby.sync_state == "sync":
            return
        CLOCK.wait(0.05)
    raise AssertionError("the stream did not become synchronous")


def take(server: EmbeddedPostgres, repository: Repository, kind: BackupKind, state: Path) -> BackupManifest:
    taken = take_backup(server.server, repository, "shop", kind, state_dir=state, clock=CLOCK, progress=Silent())
    assert isinstance(taken, BackupManifest)
    return taken


def _restore(
    repository: Repository, target_dir: Path, target: RecoveryTarget, use: UseIncrementals = "auto"
) -> RestoreReport:
    request = RestoreRequest("shop", target_dir, target, use_incrementals=use, bin_dir=bin_dir(18), os_user=os_user())
    return restore(request, [repository], clock=CLOCK, runner=Runner(), progress=Silent())


@contextmanager
def _running(data_dir: Path) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(data_dir)
    server.start()
    try:
        yield server
    finally:
        server.kill()


def test_a_killed_server_comes_back_with_every_acknowledged_commit(
    postgres18: EmbeddedPostgres, local_repository: Repository, folder: Path
) -> None:
    server, repository, state = postgres18, local_repository, folder / "state"
    server.psql("CREATE TABLE orders (id bigint PRIMARY KEY, note text)")
    server.psql("CREATE TABLE doomed AS SELECT g AS id FROM generate_series(1, 1000) g")
    with streaming(server, repository, state / "shop"):
        until_synchronous(server)
        full = take(server, repository, BackupKind.FULL, state)
        acknowledged = []
        for number in range(1, 31):
            server.psql(f"INSERT INTO orders SELECT {number}, repeat('x', 500)")
            acknowledged.append(number)
            if number in (10, 20):
                taken = take(server, repository, BackupKind.INCREMENTAL, state)
                assert taken.kind is BackupKind.INCREMENTAL, taken.kind_reason
                assert taken.provisional  # PostgreSQL 18.4
        before = Lsn.parse(server.psql("SELECT pg_current_wal_insert_lsn()"))
        server.psql("DROP TABLE doomed")
        server.psql("INSERT INTO orders VALUES (31, 'last')")
        acknowledged.append(31)
        server.destroy()

    check = wal_has_no_gap(repository, "shop", repository.backups("shop"))
    assert check.passed, check.summary

    request = RestoreRequest("shop", folder / "never", bin_dir=bin_dir(18), os_user=os_user())
    seen = preview(request, [repository], runner=Runner())
    assert seen.chain == (full.label,)  # provisional incrementals give way to full and WAL
    assert seen.newest_commit is not None
    assert not (folder / "never").exists()

    for use, length in (("auto", 1), ("always", 3)):
        report = _restore(repository, folder / f"latest-{use}", RecoveryTarget(), use)  # type: ignore[arg-type]
        assert len(report.chain) == length
        assert report.timeline.id == 2
        with _running(report.data_dir) as recovered:
            rows = recovered.psql("SELECT id FROM orders ORDER BY id").split()
            assert [int(row) for row in rows] == acknowledged
            assert recovered.psql("SELECT to_regclass('doomed') IS NULL") == "t"
            assert recovered.psql("SHOW archive_mode") == "off"
            assert recovered.psql("SHOW synchronous_standby_names") == ""

    report = _restore(repository, folder / "before", RecoveryTarget("lsn", before), "always")
    with _running(report.data_dir) as recovered:
        assert recovered.psql("SELECT count(*) FROM doomed") == "1000"
        assert recovered.psql("SELECT max(id) FROM orders") == "30"

    with pytest.raises(TargetInUse):
        _restore(repository, folder / "before", RecoveryTarget())
    with pytest.raises(RestoreError, match="newest WAL"):
        _restore(repository, folder / "beyond", RecoveryTarget("lsn", Lsn(before.value + (1 << 40))))
    assert not (folder / "beyond").exists()
    assert not (folder / "beyond.partial").exists()


def test_a_damaged_link_gives_way_to_the_full_and_its_wal(
    postgres18: EmbeddedPostgres, local_repository: Repository, folder: Path
) -> None:
    server, repository, state = postgres18, local_repository, folder / "state"
    server.psql("CREATE TABLE orders AS SELECT g AS id FROM generate_series(1, 1000) g")
    with streaming(server, repository, state / "shop"):
        until_synchronous(server)
        take(server, repository, BackupKind.FULL, state)
        server.psql("INSERT INTO orders VALUES (1001)")
        incremental = take(server, repository, BackupKind.INCREMENTAL, state)
        server.psql("INSERT INTO orders VALUES (1002)")
        server.destroy()
    pack = next(Path(repository.store.root).glob(f"**/{incremental.label}/packs/000000*"))  # type: ignore[attr-defined]
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.write_bytes(data)
    report = _restore(repository, folder / "restored", RecoveryTarget(), "always")
    assert len(report.chain) == 1
    assert any(incremental.label in note and "cannot be used" in note for note in report.notes)
    with _running(report.data_dir) as recovered:
        assert recovered.psql("SELECT count(*) FROM orders") == "1002"
