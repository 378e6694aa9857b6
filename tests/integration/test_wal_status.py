"""What `dr status` and `dr wal stream` say when something is wrong with the stream, each from a real state."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from dr_pipelines import operations
from dr_pipelines.clock import FixedClock, SystemClock
from dr_pipelines.commands import Command, Runner, runs_as_root
from dr_pipelines.embedded.postgres import EmbeddedPostgres, bin_dir
from dr_pipelines.embedded.stores import EmbeddedS3
from dr_pipelines.errors import CommandFailed, DrError
from dr_pipelines.plan import load_plan
from dr_pipelines.postgres.server import ServerConnection
from dr_pipelines.progress import Silent
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.repository.repository import Repository
from dr_pipelines.site import Site
from tests.conftest import MakePostgres
from tests.support import streams
from tests.support.programs import StreamProgram, write_plan

CLOCK = SystemClock()


def site_of(plan: Path) -> Site:
    site = Site(load_plan(plan))
    site.repository("shop", "primary").initialise()
    return site


def warnings(site: Site) -> tuple[str, ...]:
    return operations.status(site)[0].warnings


def until_warned(site: Site, *words: str) -> None:
    """Until exactly these warnings are there, each found by words in it, in order."""
    for _ in range(600):
        said = warnings(site)
        if len(said) == len(words) and all(word in warning for word, warning in zip(words, said, strict=True)):
            return
        CLOCK.wait(0.05)
    raise AssertionError(f"wanted {words}, found {warnings(site)}")


@contextmanager
def streaming(site: Site) -> Iterator[None]:
    stop = threading.Event()

    def run() -> None:
        with contextlib.suppress(DrError):  # that not everything could be shipped is said in the status
            operations.stream_wal(site, "shop", stop, lambda line: None)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def until_shipped(site: Site, server: EmbeddedPostgres) -> None:
    """Everything that is on the server's disk now."""
    end = server.server.flush_lsn()
    for _ in range(600):
        tier = operations.status(site)[0].tiers[0]
        if tier.wal_end is not None and tier.wal_end >= end:
            return
        CLOCK.wait(0.05)
    raise AssertionError(f"not shipped: {operations.status(site)}")


def take_full(site: Site) -> None:
    operations.take_backup(site, "shop", BackupKind.FULL, Silent())


def test_status_says_what_is_wrong_with_the_stream(postgres18: EmbeddedPostgres, folder: Path) -> None:
    server, site = postgres18, site_of(write_plan(folder, postgres18))
    assert any("no WAL stream has run on this host: run `dr wal stream shop`" in said for said in warnings(site))
    with streaming(site):
        take_full(site)
        until_warned(site, "the plan wants synchronous WAL and the stream is async")
        server.psql("ALTER SYSTEM SET synchronous_standby_names = 'FIRST 1 (dr_shop)'")
        server.psql("SELECT pg_reload_conf()")
        until_warned(site)
    until_warned(site, "the WAL stream was stopped: run `dr wal stream shop`", "the stream is not connected")
    insert = [str(bin_dir(18) / "psql"), "-X", "-d", server.conninfo, "-c", "CREATE TABLE t ()"]
    commit = Runner().start(Command(insert))
    until_warned(site, "was stopped", "is not connected", "1 commits wait for the WAL stream: run `dr wal stream shop`")
    with streaming(site):
        assert commit.wait(60) == 0
        until_warned(site)
        later = FixedClock(CLOCK.now() + timedelta(minutes=2))
        assert "the WAL stream has been silent for" in warnings(Site(site.plan, clock=later))[0]
        server.kill()
        until_warned(site, "the WAL stream is waiting: ", "the stream is not connected", "whether commits wait cannot")


def test_a_role_that_may_not_see_whether_the_stream_is_synchronous_is_told(
    postgres18: EmbeddedPostgres, local_repository: Repository, folder: Path
) -> None:
    server = postgres18
    server.psql("CREATE ROLE streamer LOGIN REPLICATION")
    with streams.streaming(ServerConnection("127.0.0.1", server.port, "streamer"), local_repository, folder) as running:
        blind = running.until(lambda status: "grant it pg_monitor" in (status.last_error or ""))
        assert (blind.state, blind.sync_state) == ("streaming", None)
        server.psql("CREATE TABLE t AS SELECT 1 AS id")
        end = running.until_shipped(server).received_lsn
        running.until(lambda _: end <= server.server.slot("dr_shop_held").restart_lsn)  # type: ignore[operator, union-attr]
        server.psql("GRANT pg_monitor TO streamer")
        seen = running.until(lambda status: status.last_error is None and status.lag_bytes == 0)
        assert seen.sync_state == "async"


def test_status_says_that_wal_was_lost_until_a_full_is_taken(make_postgres: MakePostgres, folder: Path) -> None:
    server = make_postgres(18, max_wal_size="2MB", min_wal_size="2MB")
    site = site_of(write_plan(folder, server))
    with streaming(site):
        take_full(site)
        until_warned(site, "the stream is async")
    server.psql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
    for _ in range(4):
        server.psql("SELECT pg_logical_emit_message(true, 'x', 'x'), pg_switch_wal()")
        server.psql("CHECKPOINT")
    with streaming(site):
        until_warned(site, "take a full now with `dr backup shop --full`", "the stream is async")
        take_full(site)
        until_warned(site, "the stream is async")


def test_a_tier_without_its_secret_stops_no_other_and_is_shipped_to_once_it_is_there(
    postgres18: EmbeddedPostgres, s3_server: EmbeddedS3, folder: Path
) -> None:
    server, access = postgres18, s3_server.access
    away = {"type": "s3", "endpoint": access.endpoint, "bucket": "bucket", "access_key_id": "${ENV:DR_TEST_KEY}"}
    away["secret_access_key"] = "${ENV:DR_TEST_SECRET}"
    plan = write_plan(folder, server, secondary=away)
    site = site_of(plan)
    with StreamProgram(plan) as stream:
        server.psql("CREATE TABLE t AS SELECT 1 AS id")
        server.psql("SELECT pg_switch_wal()")
        end = server.server.flush_lsn()
        status = stream.until(
            lambda status: (
                status.received_lsn is not None
                and status.received_lsn >= end
                and status.tiers["primary"].lag_bytes == 0
                and status.tiers["secondary"].last_error is not None
            )
        )
        assert "DR_TEST_KEY" in str(status.tiers["secondary"].last_error)
        assert any("the stream to secondary is in trouble" in said for said in warnings(site))
        code, said = stream.stop()
        assert code == 10
        assert "bytes not on secondary" in said and "dr wal stream shop" in said
        assert "UTC: streaming, async\n" in said and "UTC: secondary: " in said
    secrets = {"DR_TEST_KEY": access.access_key_id, "DR_TEST_SECRET": access.secret_access_key}
    with pytest.MonkeyPatch.context() as environment:
        for name, value in secrets.items():
            environment.setenv(name, value)
        opened = Site(load_plan(plan))
        opened.repository("shop", "secondary").initialise()
        with StreamProgram(plan) as stream:
            stream.until(lambda status: status.state == "streaming" and status.tiers["secondary"].lag_bytes == 0)
            assert stream.stop()[0] == 0
        held = [
            opened.repository("shop", tier).wal("shop", status.system_id or "") for tier in ("primary", "secondary")
        ]
    assert held[0].ranges() == held[1].ranges() != []


def test_status_says_that_the_disk_of_the_spool_is_full(postgres18: EmbeddedPostgres, folder: Path) -> None:
    server, state = postgres18, folder / "state"
    state.mkdir()
    if not runs_as_root():
        pytest.skip("only root can mount a small tmpfs")
    try:
        Runner().run(Command(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(state)]))
    except CommandFailed as error:
        pytest.skip(f"no tmpfs can be mounted here: {error.message}")
    site = site_of(write_plan(folder, server))
    try:
        with streaming(site):
            take_full(site)
            until_warned(site, "the stream is async")
            ballast = state / "ballast"
            while server.server.standby("dr_shop") is not None:  # until it has no room for the next segment
                with ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
                    while file.write(bytes(4096)):
                        pass
                server.psql("SELECT pg_logical_emit_message(true, 'x', repeat('x', 100000)), pg_switch_wal()")
            later = Site(site.plan, clock=FixedClock(CLOCK.now() + timedelta(minutes=2)))
            said = warnings(later)
            assert f"the disk of {state / 'shop' / 'spool'} is full" in said[0]
            assert not any("silent" in warning for warning in said)
            ballast.unlink()
            until_shipped(site, server)
            until_warned(site, "the stream is async")
        assert operations.wal_has_no_gap(site, "shop").passed
    finally:
        Runner().run(Command(["umount", "-l", str(state)]))
