"""Backups of servers that are not ready, that die, or whose store fails: a clear error, and nothing half there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest

from assets.checks import look_for_due_backup
from dr_pipelines.clock import FixedClock
from dr_pipelines.commands import Command, Runner
from dr_pipelines.embedded.postgres import EmbeddedPostgres, bin_dir, os_user
from dr_pipelines.errors import BackupFailed, BackupInterrupted, DrError, ServerMisconfigured, ServerUnavailable
from dr_pipelines.plan.values import Schedule
from dr_pipelines.postgres.server import Server
from dr_pipelines.postgres.take import SealedWal, seal_wal, take_backup
from dr_pipelines.postgres.verify import verify
from dr_pipelines.progress import Silent
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.repository.repository import Repository
from dr_pipelines.storage.base import Body, read_all
from dr_pipelines.storage.memory import MemoryStore
from tests.conftest import MakePostgres
from tests.support.faulty_store import FaultyStore
from tests.support.live import CLOCK, Live, running

FULL, INCREMENTAL = BackupKind.FULL, BackupKind.INCREMENTAL


@pytest.fixture
def repository(codec: Codec) -> Repository:
    made = Repository(MemoryStore(), codec, "primary")
    made.initialise()
    return made


def back_up(
    server: Server, repository: Repository, state: Path, kind: BackupKind = FULL, progress: Silent | None = None
) -> BackupManifest | SealedWal:
    return take_backup(server, repository, "shop", kind, state_dir=state, clock=CLOCK, progress=progress or Silent())


def refused(call: Callable[[], object], error: type[DrError], *words: str) -> None:
    with pytest.raises(error) as caught:
        call()
    assert caught.value.hint, "an error says what to do next"
    for word in words:
        assert word in str(caught.value)


def nothing_of_the_server(repository: Repository) -> bool:
    return not list(repository.store.list("servers/"))


def test_a_server_with_minimal_wal_is_refused(
    make_postgres: MakePostgres, repository: Repository, tmp_path: Path
) -> None:
    server = make_postgres(18, wal_level="minimal", max_wal_senders="0").server
    refused(lambda: back_up(server, repository, tmp_path), ServerMisconfigured, "wal_level=minimal", "replica")
    assert nothing_of_the_server(repository)


def test_who_may_not_back_up_is_told_why(postgres18: EmbeddedPostgres, repository: Repository, tmp_path: Path) -> None:
    """A role without REPLICATION, a wrong password, no line in pg_hba.conf, no server."""
    postgres18.psql("CREATE ROLE clerk LOGIN PASSWORD 'right'")
    here = postgres18.connection
    nobody_known = Server(replace(here, user="nobody_known"))
    refused(lambda: back_up(nobody_known, repository, tmp_path), ServerMisconfigured, "nobody_known", "connection.user")
    clerk = Server(replace(here, user="clerk"))
    refused(clerk.current_timeline, ServerMisconfigured, "permission denied", "REPLICATION")
    refused(clerk.waiting_commits, ServerMisconfigured, "GRANT pg_monitor TO clerk")
    refused(clerk.switch_wal, ServerMisconfigured, "pg_switch_wal", "operators-guide")
    refused(lambda: back_up(clerk, repository, tmp_path), ServerMisconfigured, "clerk", "ALTER ROLE clerk REPLICATION")

    postgres18.psql("ALTER ROLE clerk REPLICATION")
    hba = postgres18.data_dir / "pg_hba.conf"
    rules = ["host postgres clerk 127.0.0.1/32 scram-sha-256", "host all postgres 127.0.0.1/32 trust"]
    hba.write_text("\n".join([*rules, ""]))
    postgres18.psql("SELECT pg_reload_conf()")
    wrong = Server(replace(here, user="clerk", password="wrong"))
    refused(lambda: back_up(wrong, repository, tmp_path), ServerMisconfigured, "password")
    known = Server(replace(here, user="clerk", password="right"))
    refused(lambda: back_up(known, repository, tmp_path), ServerMisconfigured, "replication", "pg_hba.conf")

    nobody = Server(replace(here, port=1))
    refused(lambda: back_up(nobody, repository, tmp_path), ServerUnavailable, "does not answer")
    assert nothing_of_the_server(repository)


def test_a_server_without_a_free_sender_is_asked_again_later(
    make_postgres: MakePostgres, repository: Repository, tmp_path: Path
) -> None:
    server = make_postgres(18, max_wal_senders="1")
    with psycopg.connect(f"{server.conninfo} replication=true"):
        with pytest.raises(ServerUnavailable) as caught:
            back_up(server.server, repository, tmp_path)
        assert "no free WAL sender" in str(caught.value) and caught.value.transient
    assert nothing_of_the_server(repository)
    while server.psql("SELECT count(*) FROM pg_stat_replication") != "0":  # the server is told that its client left
        CLOCK.wait(0.05)
    assert isinstance(back_up(server.server, repository, tmp_path), BackupManifest)


def test_a_server_that_dies_during_a_backup_leaves_nothing(
    postgres18: EmbeddedPostgres, repository: Repository, tmp_path: Path
) -> None:
    class KillsTheServer(Silent):
        def advance(self, count: int) -> None:
            postgres18.kill()

    with pytest.raises(BackupInterrupted) as caught:
        back_up(postgres18.server, repository, tmp_path, progress=KillsTheServer())
    assert caught.value.transient and caught.value.hint
    assert nothing_of_the_server(repository)

    postgres18.start()
    assert isinstance(back_up(postgres18.server, repository, tmp_path), BackupManifest)


@pytest.mark.parametrize("kind", [FULL, INCREMENTAL])
def test_a_damaged_page_fails_the_backup(
    postgres18: EmbeddedPostgres, repository: Repository, tmp_path: Path, kind: BackupKind
) -> None:
    before = [back_up(postgres18.server, repository, tmp_path)] if kind is INCREMENTAL else []
    postgres18.psql("CREATE TABLE orders AS SELECT g AS id FROM generate_series(1, 5000) g")
    path = postgres18.data_dir / postgres18.psql("SELECT pg_relation_filepath('orders')")
    postgres18.stop()
    data = bytearray(path.read_bytes())
    data[8192 + 4000] ^= 0xFF
    path.write_bytes(data)
    postgres18.start()
    words = "damaged pages", f"{path.relative_to(postgres18.data_dir)}", "block 1", "pg_amcheck"
    refused(lambda: back_up(postgres18.server, repository, tmp_path, kind), BackupFailed, *words)
    assert repository.backups("shop") == before


def test_a_store_that_fails_at_any_call_leaves_whole_backups_only(
    postgres18: EmbeddedPostgres, codec: Codec, tmp_path: Path
) -> None:
    """An incremental over a full, with packs, failing at every call once and for good: the full stays whole, the
    incremental is whole or absent, and in the end one succeeds."""
    inner = MemoryStore()
    healthy = Repository(inner, codec, "primary")
    healthy.initialise()
    full = back_up(postgres18.server, healthy, tmp_path)
    assert isinstance(full, BackupManifest)
    for stays_down in (False, True):
        call = 0
        while True:
            call += 1
            faulty = FaultyStore(inner, fail_at=call, stays_down=stays_down)
            with contextlib.suppress(DrError):
                back_up(postgres18.server, Repository(faulty, codec, "primary"), tmp_path, INCREMENTAL)
            backups = healthy.backups("shop")
            assert backups[0] == full
            assert all(inner.stat(item.key).size == item.size for backup in backups for item in backup.objects)
            if faulty.calls < call:
                break
            for info in list(inner.list("servers/")):
                if full.label not in info.key:
                    inner.delete(info.key)
        assert call > 10
        assert backups[-1].parent == full.label
        assert all(check.passed for check in verify(healthy, backups[-1], progress=Silent()))


def test_a_chain_that_cannot_go_on_becomes_a_full_with_the_reason(
    postgres18: EmbeddedPostgres, repository: Repository, tmp_path: Path
) -> None:
    server = postgres18

    def reason() -> str:
        taken = back_up(server.server, repository, tmp_path, INCREMENTAL)
        assert isinstance(taken, BackupManifest)
        assert (taken.kind, taken.asked_kind) == (FULL, INCREMENTAL)
        assert taken.kind_reason is not None
        return taken.kind_reason

    def set_summaries(to: str) -> None:
        server.psql(f"ALTER SYSTEM SET summarize_wal = {to}")
        server.psql("SELECT pg_reload_conf()")

    assert "no backup to build on" in reason()

    set_summaries("off")
    assert "summarize_wal is off" in reason()
    server.psql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS id")
    for _ in range(3):  # what is removed before it was summarized is a gap
        server.psql("SELECT pg_switch_wal()")
        server.psql("CHECKPOINT")
    set_summaries("on")
    assert "WAL summaries are required on timeline 1" in reason()

    (memory,) = (tmp_path / "shop" / "backup_manifests").glob(repository.backups("shop")[-1].label)
    memory.write_bytes(memory.read_bytes()[:-200])  # the disk was full
    assert "could not parse backup manifest" in reason()

    for memory in (tmp_path / "shop" / "backup_manifests").iterdir():
        memory.unlink()
    cannot_read = Repository(repository.store, Codec(1, [str(r) for r in repository.codec.recipients]), "primary")
    taken = back_up(server.server, cannot_read, tmp_path, INCREMENTAL)
    assert isinstance(taken, BackupManifest)
    assert "no longer has the backup_manifest" in (taken.kind_reason or "")

    server.stop()
    Runner().run(Command([str(bin_dir(18) / "pg_checksums"), "--disable", "-D", str(server.data_dir)], user=os_user()))
    server.start()
    assert "data checksums were switched" in reason()

    server.stop()
    (server.data_dir / "standby.signal").touch()
    server.start()
    server.psql("SELECT pg_promote()")
    assert "timeline 2" in reason()


def test_a_promotion_between_the_question_and_the_backup_ends_the_chain(
    postgres18: EmbeddedPostgres, repository: Repository, tmp_path: Path
) -> None:
    class Promotes(Silent):
        def phase(self, name: str, total_bytes: int | None = None) -> None:
            if name == "checkpoint" and postgres18.server.in_recovery():
                postgres18.psql("SELECT pg_promote()")

    postgres18.stop()
    (postgres18.data_dir / "standby.signal").touch()
    postgres18.start()
    back_up(postgres18.server, repository, tmp_path)
    taken = back_up(postgres18.server, repository, tmp_path, INCREMENTAL, Promotes())
    assert isinstance(taken, BackupManifest)
    assert (taken.kind, taken.timeline.id) == (FULL, 2)
    assert taken.kind_reason == "the server is on timeline 2, the newest backup on 1"


def test_below_17_the_hourly_point_is_sealed_wal(
    make_postgres: MakePostgres, local_repository: Repository, folder: Path
) -> None:
    server = make_postgres(16)
    live = Live(server, local_repository, folder / "state")
    server.psql("CREATE TABLE orders AS SELECT g AS id FROM generate_series(1, 100) g")
    first = back_up(server.server, local_repository, live.state, INCREMENTAL)
    assert isinstance(first, BackupManifest)  # WAL alone restores nothing
    assert (first.kind, first.kind_reason) == (FULL, "there is no backup to build on")
    impatient = FixedClock(CLOCK.now())
    refused(
        lambda: seal_wal(server.server, local_repository, "shop", clock=impatient, progress=Silent()),
        BackupFailed,
        "did not reach primary",
        "dr wal stream shop",
    )
    with live.streaming():
        assert isinstance(back_up(server.server, local_repository, live.state), BackupManifest)
        server.psql("INSERT INTO orders VALUES (101)")
        sealed = back_up(server.server, local_repository, live.state, INCREMENTAL)
        assert isinstance(sealed, SealedWal)
        archive = local_repository.wal("shop", sealed.system_id)
        assert max(found.end for found in archive.ranges()) >= sealed.end
        site = SimpleNamespace(read_only_repository=lambda server, tier: local_repository, clock=CLOCK)
        hourly = Schedule(text="hourly", cron="0 * * * *")
        assert look_for_due_backup("shop", INCREMENTAL, hourly)(site).passed
        middle = archive.segments(sealed.timeline)[-2].stored.key
        kept = read_all(local_repository.store, middle)
        local_repository.store.delete(middle)
        gap = look_for_due_backup("shop", INCREMENTAL, hourly)(site)
        assert (gap.name, gap.passed) == ("backup_is_there", False) and "sealed WAL" in gap.summary
        local_repository.store.put(middle, Body.of(kept))
        server.psql("INSERT INTO orders VALUES (102)")
        server.destroy()
    report = live.restore(folder / "restored")
    with running(report.data_dir, 16) as recovered:
        assert recovered.psql("SELECT count(*) FROM orders") == "102"
