"""The main job on real parts: full, incrementals and WAL of a live server; the server is killed; it is restored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dr_pipelines.commands import Runner
from dr_pipelines.embedded.postgres import EmbeddedPostgres
from dr_pipelines.errors import RestoreError, StoreUnavailable, TargetInUse
from dr_pipelines.lsn import Lsn
from dr_pipelines.postgres.restore import restore
from dr_pipelines.postgres.restore_plan import RecoveryTarget
from dr_pipelines.postgres.restore_preview import preview
from dr_pipelines.postgres.wal_checks import wal_has_no_gap
from dr_pipelines.progress import Silent
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.repository.repository import Repository
from tests.support.faulty_store import FaultyStore
from tests.support.live import CLOCK, Live, running


def test_a_killed_server_comes_back_with_every_acknowledged_commit(
    postgres18: EmbeddedPostgres, local_repository: Repository, folder: Path
) -> None:
    server, repository = postgres18, local_repository
    live = Live(server, repository, folder / "state")
    server.psql("CREATE TABLE orders (id bigint PRIMARY KEY, note text)")
    server.psql("CREATE TABLE doomed AS SELECT g AS id FROM generate_series(1, 1000) g")
    with live.streaming():
        full = live.take(BackupKind.FULL)
        acknowledged = []
        for number in range(1, 31):
            server.psql(f"INSERT INTO orders SELECT {number}, repeat('x', 500)")
            acknowledged.append(number)
            if number in (10, 20):
                taken = live.take(BackupKind.INCREMENTAL)
                assert taken.kind is BackupKind.INCREMENTAL, taken.kind_reason
                assert taken.provisional  # PostgreSQL 18.4
        before = Lsn.parse(server.psql("SELECT pg_current_wal_insert_lsn()"))
        server.psql("DROP TABLE doomed")
        server.psql("INSERT INTO orders VALUES (31, 'last')")
        acknowledged.append(31)
        server.destroy()

    check = wal_has_no_gap(repository, "shop", repository.backups("shop"))
    assert check.passed, check.summary

    seen = preview(live.request(folder / "never"), [repository], runner=Runner(), progress=Silent())
    assert seen.chain == (full.label,)  # provisional incrementals give way to full and WAL
    assert seen.newest_commit is not None
    assert not (folder / "never").exists()

    for use, length in (("auto", 1), ("always", 3)):
        report = live.restore(folder / f"latest-{use}", RecoveryTarget(), use)  # type: ignore[arg-type]
        assert len(report.chain) == length
        assert report.timeline.id == 2
        with running(report.data_dir) as recovered:
            rows = recovered.psql("SELECT id FROM orders ORDER BY id").split()
            assert [int(row) for row in rows] == acknowledged
            assert recovered.psql("SELECT to_regclass('doomed') IS NULL") == "t"
            assert recovered.psql("SHOW archive_mode") == "off"
            assert recovered.psql("SHOW synchronous_standby_names") == ""

    report = live.restore(folder / "before", RecoveryTarget("lsn", before), "always")
    with running(report.data_dir) as recovered:
        assert recovered.psql("SELECT count(*) FROM doomed") == "1000"
        assert recovered.psql("SELECT max(id) FROM orders") == "30"

    with pytest.raises(TargetInUse):
        live.restore(folder / "before", RecoveryTarget())
    with pytest.raises(RestoreError, match="newest WAL"):
        live.restore(folder / "beyond", RecoveryTarget("lsn", Lsn(before.value + (1 << 40))))
    assert not (folder / "beyond").exists()
    assert not (folder / "beyond.partial").exists()


def test_what_only_the_spool_has_is_recovered_too(
    postgres18: EmbeddedPostgres, local_repository: Repository, folder: Path
) -> None:
    """The tier goes down, commits are acknowledged on, then server and stream are lost: they are in the spool alone."""
    server, store = postgres18, FaultyStore(local_repository.store)
    live = Live(server, Repository(store, local_repository.codec, "primary"), folder / "state")
    server.psql("CREATE TABLE orders (id bigint PRIMARY KEY)")
    with live.streaming():
        live.take(BackupKind.FULL)
        store.fail_at, store.stays_down = store.calls + 1, True
        for number in range(1, 6):
            server.psql(f"INSERT INTO orders VALUES ({number})")
        server.psql("SELECT pg_switch_wal()")
        server.psql("INSERT INTO orders VALUES (6)")
        server.destroy()
    assert isinstance(live.stream_trouble, StoreUnavailable)

    spool = live.state / "shop" / "spool"
    request = replace(live.request(folder / "restored"), spool=spool)
    seen = preview(request, [local_repository], runner=Runner(), progress=Silent())
    assert any("comes from this host's spool" in note for note in seen.notes)
    report = restore(request, [local_repository], clock=CLOCK, runner=Runner(), progress=Silent())
    assert report.reached_lsn == seen.reachable_end
    with running(report.data_dir) as recovered:
        assert recovered.psql("SELECT string_agg(id::text, ' ' ORDER BY id) FROM orders") == "1 2 3 4 5 6"


def test_a_damaged_link_gives_way_to_the_full_and_its_wal(
    postgres18: EmbeddedPostgres, local_repository: Repository, folder: Path
) -> None:
    server, repository = postgres18, local_repository
    live = Live(server, repository, folder / "state")
    server.psql("CREATE TABLE orders AS SELECT g AS id FROM generate_series(1, 1000) g")
    with live.streaming():
        live.take(BackupKind.FULL)
        server.psql("INSERT INTO orders VALUES (1001)")
        incremental = live.take(BackupKind.INCREMENTAL)
        server.psql("INSERT INTO orders VALUES (1002)")
        server.destroy()
    pack = next(Path(repository.store.root).glob(f"**/{incremental.label}/packs/000000*"))  # type: ignore[attr-defined]
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.write_bytes(data)
    report = live.restore(folder / "restored", RecoveryTarget(), "always")
    assert len(report.chain) == 1
    assert any(incremental.label in note and "cannot be used" in note for note in report.notes)
    with running(report.data_dir) as recovered:
        assert recovered.psql("SELECT count(*) FROM orders") == "1002"
