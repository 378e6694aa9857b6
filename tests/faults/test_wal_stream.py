"""The stream when things break at the worst moment: a store that fails at every call, a stream that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import yaml

from dr_pipelines.clock import SystemClock
from dr_pipelines.embedded.postgres import EmbeddedPostgres, bin_dir
from dr_pipelines.lsn import Lsn, Timeline, WalSegment
from dr_pipelines.postgres.wal_ship import Shipper, Tier
from dr_pipelines.postgres.wal_spool import Spool
from dr_pipelines.postgres.wal_status import StreamStatus, read_status
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.wal import WalArchive
from dr_pipelines.storage.base import ObjectStore
from dr_pipelines.storage.local import LocalStore
from tests.support.faulty_store import FaultyStore
from tests.unit.test_wal_pages import record, wal

DR = Path(sys.executable).with_name("dr")
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


def _until(path: Path, wanted: int | None) -> StreamStatus:
    """Until the stream of another process than `wanted` says that it streams."""
    for _ in range(600):
        status = read_status(path)
        if status is not None and status.state == "streaming" and status.pid != wanted:
            return status
        CLOCK.wait(0.05)
    raise AssertionError(f"no stream: {read_status(path)}")


def test_a_killed_streams_receiver_does_not_block_the_next_one(postgres18: EmbeddedPostgres, folder: Path) -> None:
    (folder / "disk").mkdir()
    plan = {
        "version": 1,
        "name": "test",
        "state_dir": "state",
        "storage": {"disk": {"type": "local", "path": "disk"}, "away": {"type": "local", "path": "away"}},
        "encryption": "none",
        "databases": {
            "shop": {
                "connection": {"host": "127.0.0.1", "port": postgres18.port},
                "schedule": {"full": "daily", "incremental": "hourly"},
                "storage": {"primary": "disk"},
                "bin_dir": str(bin_dir(18)),
            }
        },
    }
    (folder / "plan.yaml").write_text(yaml.dump(plan))
    env = {**os.environ, "DR_PLAN": str(folder / "plan.yaml")}
    subprocess.run([DR, "repository", "init"], env=env, check=True, capture_output=True, timeout=60)
    argv, path = [DR, "wal", "stream", "shop"], folder / "state" / "shop" / "stream.json"
    first = subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL)
    second: subprocess.Popen[bytes] | None = None
    try:
        before = _until(path, None)
        first.kill()
        first.wait()
        assert before.receiver_pid is not None and psutil.pid_exists(before.receiver_pid)
        path.write_text(before.model_copy(update={"receiver_pid": None}).model_dump_json())  # not put down yet
        second = subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL)
        after = _until(path, before.pid)
        assert after.receiver_pid != before.receiver_pid
        assert after.gap is None
        second.send_signal(signal.SIGTERM)
        assert second.wait(90) == 0
    finally:
        for process in (first, second):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()
