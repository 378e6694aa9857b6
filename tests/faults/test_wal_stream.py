"""The stream when things break at the worst moment: a store that fails at every call, a stream that is killed."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import psutil
import psycopg
import pytest

from dr_pipelines import operations
from dr_pipelines.clock import SystemClock
from dr_pipelines.embedded.postgres import EmbeddedPostgres
from dr_pipelines.lsn import Lsn, Timeline, WalSegment
from dr_pipelines.plan import load_plan
from dr_pipelines.postgres.wal_ship import Shipper, Tier
from dr_pipelines.postgres.wal_spool import Spool
from dr_pipelines.progress import Silent
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.repository.wal import WalArchive
from dr_pipelines.site import Site
from dr_pipelines.storage.base import ObjectStore
from dr_pipelines.storage.local import LocalStore
from tests.support.faulty_store import FaultyStore
from tests.support.programs import StreamProgram, write_plan
from tests.support.streams import restored_ids
from tests.unit.test_wal_pages import record, wal

CLOCK = SystemClock()
SIZE = 1 << 20
SYSTEM = "7000000000000000001"
HISTORY = b"1\t0/500000\tno recovery target specified\n"


def _fill(root: Path) -> tuple[Spool, dict[WalSegment, bytes], Lsn]:
    """Two whole segments of timeline 1, its history's successor and the open head of timeline 2."""
    spool = Spool(root)
    folder = spool.system(SYSTEM).directory
    whole = {WalSegment(Timeline(1), number, SIZE): bytes([number]) * SIZE for number in (3, 4)}
    for segment, data in whole.items():
        (folder / segment.name).write_bytes(data)
    (folder / "00000002.history").write_bytes(HISTORY)
    head = WalSegment(Timeline(2), 5, SIZE)
    data, end = wal([record(b"x" * 500)], pages=SIZE // 8192)
    (folder / f"{head.name}.partial").write_bytes(data)
    return spool, whole, head.start + end


def _shipper(store: ObjectStore, codec: Codec, spool: Spool) -> Shipper:
    tier = Tier("primary", lambda system_id: WalArchive(store, codec, "shop", system_id))
    return Shipper(tier, spool, clock=CLOCK, open_every=0)


def _stored(store: ObjectStore) -> set[str]:
    return {info.key for info in store.list("servers/shop/wal/")}


@pytest.mark.parametrize("again", [False, True], ids=["the stream goes on", "the stream is started again"])
@pytest.mark.parametrize("stays_down", [False, True], ids=["one call fails", "the store goes down"])
def test_wherever_the_store_fails_the_archive_holds_everything_once(
    tmp_path: Path, codec: Codec, *, stays_down: bool, again: bool
) -> None:
    fail_at = 0
    while True:
        fail_at += 1
        here = tmp_path / str(fail_at)
        spool, whole, end = _fill(here / "spool")
        inner = LocalStore(here / "store", "primary")
        inner.root.mkdir()
        faulty = FaultyStore(inner, fail_at=fail_at, stays_down=stays_down)
        shipper = _shipper(faulty, codec, spool)
        went_well = shipper.ship()
        healthy = WalArchive(inner, codec, "shop", SYSTEM)
        for file in spool.system(SYSTEM).files():  # what it says it holds is there
            if shipper.holds(file) and file.whole:
                assert healthy.read_segment(file.segment) == whole[file.segment]
        assert went_well or shipper.shipped.last_error
        faulty.fail_at = None
        shipper = _shipper(inner, codec, spool) if again else shipper
        assert shipper.ship() and shipper.ship()
        files = spool.system(SYSTEM).files()
        assert shipper.lag_bytes(files) == 0 and all(shipper.holds(file) for file in files)
        for segment, data in whole.items():
            assert healthy.read_segment(segment) == data
        partial = healthy.newest_partial(Timeline(2))
        assert partial is not None and partial.end == end
        assert healthy.history(Timeline(2)) == HISTORY
        names = [Path(key).name[:24] for key in _stored(inner) if "system" not in Path(key).name]
        assert len(names) == len(set(names))
        if went_well:
            assert fail_at > 8
            return


def test_a_killed_streams_receiver_does_not_block_the_next_one(postgres18: EmbeddedPostgres, folder: Path) -> None:
    plan, path = write_plan(folder, postgres18), folder / "state" / "shop" / "stream.json"
    Site(load_plan(plan)).repository("shop", "primary").initialise()
    with StreamProgram(plan) as first, contextlib.ExitStack() as stack:
        before = first.until_streaming()
        first.kill()
        assert before.receiver_pid is not None and psutil.pid_exists(before.receiver_pid)
        path.write_text(before.model_copy(update={"receiver_pid": None}).model_dump_json())  # not put down yet
        second = stack.enter_context(StreamProgram(plan))
        after = second.until_streaming()
        assert after.receiver_pid != before.receiver_pid
        assert after.gap is None
        assert second.stop()[0] == 0


def test_no_acknowledged_commit_is_lost_when_the_stream_is_killed_under_load_and_then_the_server(
    postgres18: EmbeddedPostgres, folder: Path
) -> None:
    server, plan = postgres18, write_plan(folder, postgres18)
    site = Site(load_plan(plan))
    repository = site.repository("shop", "primary")
    repository.initialise()
    server.psql("CREATE TABLE t (id int, note text)")
    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(StreamProgram(plan))
        stream.until_streaming()
        server.psql("ALTER SYSTEM SET synchronous_standby_names = 'FIRST 1 (dr_shop)'")
        server.psql("SELECT pg_reload_conf()")
        stream.until(lambda status: status.sync_state == "sync")
        operations.take_backup(site, "shop", BackupKind.FULL, Silent())
        load = _Load(server)
        stack.callback(load.join)
        stack.callback(server.kill)
        for receiver_too in (False, True):
            load.until_more()
            status = stream.until_streaming()
            stream.kill()
            if receiver_too:  # left alone, it goes on receiving: those commits have to be shipped too
                assert status.receiver_pid is not None
                psutil.Process(status.receiver_pid).kill()
            else:
                load.until_more()
            stream = stack.enter_context(StreamProgram(plan))
            load.until_more()
        server.destroy()
        load.join()
        code, said = stream.stop()
        assert code == 0 and said.endswith("stopped; what was received is shipped\n")
    restored = restored_ids(repository, folder / "restored")
    assert set(load.acknowledged) <= set(restored)
    assert set(restored) <= {*load.acknowledged, load.acknowledged[-1] + 1}


class _Load:
    """A client that commits one row after the other until the server is gone, and notes what was acknowledged."""

    def __init__(self, server: EmbeddedPostgres) -> None:
        self.acknowledged: list[int] = []
        self._conninfo = server.conninfo
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with contextlib.suppress(psycopg.OperationalError), psycopg.connect(self._conninfo, autocommit=True) as client:
            while True:
                number = len(self.acknowledged) + 1
                client.execute("INSERT INTO t VALUES (%s, repeat('x', 5000))", (number,))
                self.acknowledged.append(number)

    def until_more(self) -> None:
        before = len(self.acknowledged)
        for _ in range(1200):
            if len(self.acknowledged) >= before + 20:
                return
            CLOCK.wait(0.05)
        raise AssertionError(f"no commit returned after {before}")

    def join(self) -> None:
        self._thread.join()
