"""`dr wal stream` on real servers: promotions, lost slots, kills, tiers that are down, hung servers."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from dr_pipelines.commands import Command, Runner
from dr_pipelines.embedded.postgres import EmbeddedPostgres, bin_dir, give, open_folder, os_user
from dr_pipelines.errors import StoreUnavailable
from dr_pipelines.lsn import Lsn
from dr_pipelines.postgres.restore import restore
from dr_pipelines.postgres.restore_plan import RecoveryTarget
from dr_pipelines.postgres.restore_request import RestoreRequest
from dr_pipelines.postgres.server import ServerConnection
from dr_pipelines.postgres.wal_checks import wal_has_no_gap
from dr_pipelines.postgres.wal_ship import Tier
from dr_pipelines.progress import Silent
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.repository import Repository
from dr_pipelines.storage.local import LocalStore
from tests.conftest import MakePostgres
from tests.support.streams import (
    CLOCK,
    insert,
    restored_ids,
    standby_of,
    streaming,
    take_full,
    tier_of,
    until_replayed,
)


@pytest.fixture(scope="module")
def shared() -> Iterator[EmbeddedPostgres]:
    """A server for the tests that need no new one, with a table `t`; slots of the tests before may be there."""
    base = open_folder("dr-test-pg-")
    server = EmbeddedPostgres(base / "data", initdb=("--wal-segsize=1",))
    server.start()
    server.psql("CREATE TABLE t (id int, note text)")
    yield server
    server.kill()
    shutil.rmtree(base)


@pytest.mark.parametrize(
    ("version", "ahead"),
    [(18, False), (18, True), (16, False)],
    ids=["in step", "stream ahead of the switch", "PostgreSQL 16"],
)
def test_the_stream_follows_a_promotion(
    make_postgres: MakePostgres, local_repository: Repository, folder: Path, version: int, *, ahead: bool
) -> None:
    old, state = make_postgres(version), folder / "state"
    old.psql("CREATE TABLE t (id int, note text)")
    new = standby_of(old, folder)
    try:
        with streaming(old, local_repository, state / "shop") as running:
            running.until_shipped(old)
            take_full(old, local_repository, state)
            insert(old, 1, 2)
            until_replayed(old, new)
            if ahead:  # what the standby never got is on the old timeline, over a segment's end
                new.psql("ALTER SYSTEM SET primary_conninfo = ''")
                new.psql("SELECT pg_reload_conf()")
                while old.psql("SELECT count(*) FROM pg_stat_replication") != "1":
                    CLOCK.wait(0.05)
                insert(old, 98)
                old.psql("SELECT pg_switch_wal()")
                insert(old, 99)
            running.until_shipped(old)
        assert running.error is None
        old.destroy()
        new.psql("SELECT pg_promote()")
        insert(new, 3)
        with streaming(new, local_repository, state / "shop") as running:
            running.until_shipped(new)
            new.psql("SELECT pg_switch_wal()")
            insert(new, 4)
            status = running.until_shipped(new)
        assert running.error is None
        assert status.gap is None
        assert status.timeline is not None and status.timeline.id == 2
    finally:
        new.kill()
    check = wal_has_no_gap(local_repository, "shop", local_repository.backups("shop"))
    assert check.passed, check.summary
    assert check.details["timeline"] == 2
    assert restored_ids(local_repository, folder / "restored", version) == [1, 2, 3, 4]


def test_a_standby_is_streamed_asynchronously_and_through_its_promotion(
    postgres18: EmbeddedPostgres, local_repository: Repository, folder: Path
) -> None:
    primary, state = postgres18, folder / "state"
    primary.psql("CREATE TABLE t (id int, note text)")
    standby = standby_of(primary, folder)
    try:
        with streaming(standby, local_repository, state / "shop") as running:
            until_replayed(primary, standby)
            assert running.until_shipped(standby).sync_state == "async"
            take_full(standby, local_repository, state)
            insert(primary, 1)
            primary.psql("SELECT pg_switch_wal()")
            insert(primary, 2)
            until_replayed(primary, standby)
            running.until_shipped(standby)
            primary.destroy()
            standby.psql("SELECT pg_promote()")
            insert(standby, 3)
            status = running.until(lambda status: status.timeline is not None and status.timeline.id == 2)
            status = running.until_shipped(standby)
            assert status.gap is None and status.timeline is not None and status.timeline.id == 2
    finally:
        standby.kill()
    assert restored_ids(local_repository, folder / "restored") == [1, 2, 3]


def test_a_server_that_went_back_on_its_own_timeline_is_refused(
    postgres18: EmbeddedPostgres, local_repository: Repository, folder: Path
) -> None:
    server, state = postgres18, folder / "shop"
    server.psql("CREATE TABLE t (id int, note text)")
    server.stop()
    copy = folder / "copy"
    shutil.copytree(server.data_dir, copy)
    server.start()
    with streaming(server, local_repository, state) as running:
        insert(server, 1, 2, 3)
        held = running.until_shipped(server).received_lsn
    server.destroy()
    shutil.copytree(copy, server.data_dir)
    give(server.data_dir)
    server.start()
    shutil.rmtree(state / "spool")  # what was shipped is remembered without it
    with streaming(server, local_repository, state) as running:
        status = running.until(lambda status: status.last_error is not None)
        assert f"{held} was received before: it went back without a new timeline" in str(status.last_error)
        assert server.psql("SELECT count(*) FROM pg_replication_slots") == "0"


@pytest.mark.parametrize("how", ["lost", "dropped"])
def test_wal_that_the_server_removed_is_a_gap_until_a_new_full(
    make_postgres: MakePostgres, local_repository: Repository, folder: Path, how: str
) -> None:
    server = make_postgres(18, max_wal_size="2MB", min_wal_size="2MB", wal_keep_size="0")
    state = folder / "state"
    server.psql("CREATE TABLE t (id int, note text)")
    with streaming(server, local_repository, state / "shop", synchronous=False) as running:
        running.until_shipped(server)
        take_full(server, local_repository, state)
        insert(server, 1)
        running.until_shipped(server)
    if how == "dropped":
        server.psql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
    else:  # only now: a receiver on a busy machine may be that far behind
        server.psql("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
        server.psql("SELECT pg_reload_conf()")
    for _ in range(8):
        insert(server, 2)
        server.psql("SELECT pg_switch_wal()")
        server.psql("CHECKPOINT")
    if how == "lost":
        assert server.psql("SELECT wal_status FROM pg_replication_slots WHERE slot_name = 'dr_shop'") == "lost"
    server.psql("ALTER SYSTEM SET max_slot_wal_keep_size = -1")  # one gap is enough
    server.psql("SELECT pg_reload_conf()")
    with streaming(server, local_repository, state / "shop", synchronous=False) as running:
        gap = running.until(lambda status: status.gap is not None).gap
        assert gap is not None and gap.start is not None and gap.end is not None and gap.start < gap.end
        insert(server, 3)
        server.psql("SELECT pg_switch_wal()")
        insert(server, 4)
        running.until_shipped(server)
        check = wal_has_no_gap(local_repository, "shop", local_repository.backups("shop"))
        assert not check.passed, check.summary
        assert check.details["missing_count"] > 0
        take_full(server, local_repository, state)
        running.until_shipped(server)
        check = wal_has_no_gap(local_repository, "shop", local_repository.backups("shop"))
        assert check.passed, check.summary
        assert "missing" in check.summary
    with streaming(server, local_repository, state / "shop", synchronous=False) as running:
        assert running.until_shipped(server).gap == gap


def test_a_lost_spool_is_received_again(
    postgres18: EmbeddedPostgres, local_repository: Repository, folder: Path
) -> None:
    server, state = postgres18, folder / "state" / "shop"
    server.psql("CREATE TABLE t (id int, note text)")
    down = Repository(LocalStore(folder / "absent", "absent"), local_repository.codec, "primary")
    with streaming(server, local_repository, state) as running:
        running.until_shipped(server)
        take_full(server, local_repository, folder / "state")
    with streaming(server, down, state) as running:
        insert(server, 1)
        server.psql("SELECT pg_switch_wal()")
        insert(server, 2)
        end = server.server.flush_lsn()
        running.until(lambda status: status.received_lsn is not None and status.received_lsn >= end)
    assert isinstance(running.error, StoreUnavailable)  # stopped, and not everything is shipped
    shutil.rmtree(state / "spool")
    with streaming(server, local_repository, state) as running:
        assert running.until_shipped(server).gap is None
    check = wal_has_no_gap(local_repository, "shop", local_repository.backups("shop"))
    assert check.passed, check.summary
    assert restored_ids(local_repository, folder / "restored") == [1, 2]


def test_another_cluster_is_refused(
    shared: EmbeddedPostgres, make_postgres: MakePostgres, local_repository: Repository, folder: Path
) -> None:
    first, second = shared, make_postgres()
    with streaming(first, local_repository, folder / "shop") as running:
        mine = running.until_shipped(first).system_id
    with streaming(second, local_repository, folder / "shop") as running:
        status = running.until(lambda status: status.last_error is not None)
        assert "another cluster answers as shop" in str(status.last_error)
        assert status.system_id == mine
    assert local_repository.wal_system_ids("shop") == [mine]
    assert second.psql("SELECT count(*) FROM pg_replication_slots") == "0"


def test_the_stream_comes_back_after_every_kill(
    shared: EmbeddedPostgres, local_repository: Repository, folder: Path
) -> None:
    server = shared
    server.stop()
    with streaming(server, local_repository, folder / "shop") as running:
        running.until(lambda status: status.state == "waiting" and status.last_error is not None)
        server.start()
        first = running.until_shipped(server)
        assert first.receiver_pid is not None
        psutil.Process(first.receiver_pid).kill()
        running.until(lambda status: status.receiver_pid not in (None, first.receiver_pid))
        running.until_shipped(server)
        server.kill()
        running.until(lambda status: status.state == "waiting")
        server.start()
        assert running.until_shipped(server).gap is None


def test_one_tier_down_stops_no_other_and_frees_nothing(
    shared: EmbeddedPostgres, local_repository: Repository, codec: Codec, folder: Path, tmp_path: Path
) -> None:
    server = shared
    away = Repository(LocalStore(tmp_path / "away", "away"), codec, "secondary")

    def open_away(system_id: str) -> object:
        away.check_format()
        return away.wal("shop", system_id)

    tiers = [tier_of(local_repository), Tier("secondary", open_away)]  # type: ignore[arg-type]
    with streaming(server, tiers, folder / "shop") as running:
        for number in range(3):
            insert(server, number)
            server.psql("SELECT pg_switch_wal()")
        end = server.server.flush_lsn()
        status = running.until(
            lambda status: (
                status.tiers["primary"].lag_bytes == 0
                and status.received_lsn is not None
                and status.received_lsn >= end
                and status.tiers["secondary"].last_error is not None
            )
        )
        assert (status.tiers["secondary"].lag_bytes or 0) > 2 << 20
        assert status.system_id is not None
        held = local_repository.wal("shop", status.system_id).segments(status.timeline)  # type: ignore[arg-type]
        spool = running.stream.spool.system(status.system_id)
        assert {stored.segment for stored in held} <= {file.segment for file in spool.files()}
        away.initialise()
        running.until_shipped(server)
        assert away.wal("shop", status.system_id).ranges() == local_repository.wal("shop", status.system_id).ranges()
        running.until(lambda _: sum(file.whole for file in spool.files()) == 1)


def test_a_hung_server_stops_neither_status_nor_shipping(
    shared: EmbeddedPostgres, local_repository: Repository, folder: Path
) -> None:
    server = shared
    with streaming(server, local_repository, folder / "shop", patience=1.0) as running:
        running.until_shipped(server)
        postmaster = psutil.Process(int((server.data_dir / "postmaster.pid").read_text().split()[0]))
        stopped = [postmaster, *postmaster.children()]
        for process in stopped:
            process.suspend()
        try:
            status = running.until(lambda status: "did not answer" in (status.last_error or ""))
            assert status.sync_state is None
            running.until(lambda later: later.updated_at > status.updated_at)
        finally:
            for process in stopped:
                process.resume()
        running.until_shipped(server)


def test_the_password_is_in_no_argument_list(
    shared: EmbeddedPostgres, local_repository: Repository, folder: Path
) -> None:
    server = shared
    server.psql("CREATE ROLE streamer LOGIN SUPERUSER PASSWORD 'not to be seen'")
    hba = server.data_dir / "pg_hba.conf"
    rules = "host all,replication streamer 127.0.0.1/32 scram-sha-256\n"
    hba.write_text(rules + hba.read_text())
    server.psql("SELECT pg_reload_conf()")
    right = ServerConnection("127.0.0.1", server.port, "streamer", password="not to be seen")
    wrong = ServerConnection("127.0.0.1", server.port, "streamer", password="wrong")
    with streaming(wrong, local_repository, folder / "shop") as running:
        running.until(lambda status: "password authentication failed" in (status.last_error or ""))
    with streaming(right, local_repository, folder / "shop") as running:
        status = running.until_shipped(server)
        assert status.receiver_pid is not None
        assert not any("not to be seen" in part for part in psutil.Process(status.receiver_pid).cmdline())


def restore_in_place(server: EmbeddedPostgres, repository: Repository, target: Lsn) -> None:
    """Started when this returns."""
    server.destroy()
    request = RestoreRequest(
        "shop", server.data_dir, RecoveryTarget("lsn", target), bin_dir=bin_dir(18), os_user=os_user()
    )
    restore(request, [repository], clock=CLOCK, runner=Runner(), progress=Silent())
    server.start()


@pytest.mark.parametrize("spool", ["kept", "lost", "lost, and the WAL removed"])
def test_a_restore_in_place_to_an_earlier_point_is_followed(
    postgres18: EmbeddedPostgres, local_repository: Repository, folder: Path, spool: str
) -> None:
    server, state = postgres18, folder / "state"
    server.psql("CREATE TABLE t (id int, note text)")
    with streaming(server, local_repository, state / "shop") as running:
        running.until_shipped(server)
        take_full(server, local_repository, state)
        insert(server, 1)
        target = server.server.flush_lsn()
        for number in (97, 98, 99):  # over segments' ends, beyond the target
            insert(server, number)
            server.psql("SELECT pg_switch_wal()")
        running.until_shipped(server)
    restore_in_place(server, local_repository, target)
    insert(server, 2)
    if spool != "kept":
        shutil.rmtree(state / "shop" / "spool")
    if removed := "removed" in spool:
        for _ in range(3):
            server.psql("SELECT pg_switch_wal()")
            server.psql("CHECKPOINT")
            insert(server, 3)
    with streaming(server, local_repository, state / "shop") as running:
        if removed:
            gap = running.until(lambda status: status.gap is not None).gap
            assert gap is not None and gap.start is not None and gap.end is not None and gap.start <= gap.end
            running.until_shipped(server)
            assert not wal_has_no_gap(local_repository, "shop", local_repository.backups("shop")).passed
            take_full(server, local_repository, state)
        assert running.until_shipped(server).gap == (gap if removed else None)
    check = wal_has_no_gap(local_repository, "shop", local_repository.backups("shop"))
    assert check.passed, check.summary
    if not removed:
        assert restored_ids(local_repository, folder / "restored") == [1, 2]


def test_commits_that_wait_for_the_stream_are_counted(
    shared: EmbeddedPostgres, local_repository: Repository, folder: Path
) -> None:
    server = shared
    server.psql("ALTER SYSTEM SET synchronous_standby_names = 'FIRST 1 (dr_shop)'")
    server.psql("SELECT pg_reload_conf()")
    argv = [str(bin_dir(18) / "psql"), "-X", "-d", server.conninfo, "-c", "INSERT INTO t VALUES (1, '')"]
    commit = Runner().start(Command(argv))
    while server.server.waiting_commits() != 1:
        CLOCK.wait(0.05)
    with streaming(server, local_repository, folder / "shop"):
        assert commit.wait(60) == 0
        assert server.server.waiting_commits() == 0
        server.psql("ALTER SYSTEM RESET synchronous_standby_names")
        server.psql("SELECT pg_reload_conf()")
