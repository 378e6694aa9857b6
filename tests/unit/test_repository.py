"""A backup is there whole or not at all, wherever the store fails; WAL comes back as it was put."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime

import pytest

from dr_pipelines.clock import FixedClock
from dr_pipelines.errors import DrError
from dr_pipelines.lsn import Lsn, Timeline, WalSegment
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.layout import wal_damage
from dr_pipelines.repository.manifest import Archive, BackupManifest
from dr_pipelines.repository.repository import Repository
from dr_pipelines.storage.base import Body, ObjectStore
from dr_pipelines.storage.memory import MemoryStore
from tests.support.faulty_store import FaultyStore

_AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
_MIB = 1024 * 1024


def _back_up(store: ObjectStore, codec: Codec) -> None:
    writer = Repository(store, codec, "tier").begin("shop", "full", clock=FixedClock(_AT))
    try:
        manifest = BackupManifest(
            server="shop", label=writer.label, kind="full", asked_kind="full", started_at=_AT, finished_at=_AT,
            tool_version="0", taken_on="here", system_id="1", postgres_version="18", postgres_version_num=180000,
            segment_size=_MIB, block_size=8192, data_checksums=True, timeline=Timeline(1), start_lsn=Lsn(_MIB),
            stop_lsn=Lsn(_MIB + 8), encoding=codec.encoding, archive=Archive(size=0, pack_size=1, packs=()),
            backup_manifest=writer.put_encoded("backup_manifest", b"{}"), index=writer.put_encoded("index", b"[]"),
        )  # fmt: skip
        writer.commit(manifest)
    except BaseException:
        writer.abandon()
        raise


def test_a_failure_at_any_call_leaves_a_whole_backup_or_none(codec: Codec) -> None:
    for stays_down in (False, True):
        call = 0
        while True:
            call += 1
            inner = MemoryStore()
            Repository(inner, codec, "tier").initialise()
            faulty = FaultyStore(inner, fail_at=call, stays_down=stays_down)
            with contextlib.suppress(DrError):
                _back_up(faulty, codec)
            for backup in Repository(inner, codec, "tier").backups("shop"):
                assert all(inner.stat(item.key).size == item.size for item in backup.objects)
            if faulty.calls < call:
                break
        assert len(Repository(inner, codec, "tier").backups("shop")) == 1


def test_two_writers_in_one_second_get_two_labels(codec: Codec) -> None:
    repository = Repository(MemoryStore(), codec, "tier")
    repository.initialise()
    labels = {repository.begin("shop", "full", clock=FixedClock(_AT)).label for _ in range(2)}
    assert len(labels) == 2


@pytest.mark.parametrize("marked", [False, True])
def test_wal_that_is_damaged_is_healed_by_whoever_brings_it_again(marked: bool) -> None:
    """A stream whose spool still has it must not be refused for ever."""
    store, segment, data = MemoryStore(), WalSegment(Timeline(1), 5, 1 << 20), b"w" * (1 << 20)
    wal = Repository(store, Codec(1), "primary").wal("shop", "7")
    wal.put_segment(segment, data)
    wal.put_history(Timeline(2), b"1\t0/500000\tno reason\n")
    keys = [info.key for info in store.list() if not info.key.endswith("wal.json")]
    for key in keys:
        store.put(key, Body.of(b"damaged"), if_absent=False)
        if marked:
            store.put(wal_damage(key), Body.of(b"{}\n"))
    wal.put_segment(segment, data)
    wal.put_history(Timeline(2), b"1\t0/500000\tno reason\n")
    assert wal.read_segment(segment) == data
    assert wal.history(Timeline(2)) == b"1\t0/500000\tno reason\n"
    assert [info.key for info in store.list() if not info.key.endswith("wal.json")] == keys


def test_wal_comes_back(codec: Codec) -> None:
    wal = Repository(MemoryStore(), codec, "tier").wal("shop", "1")
    first = WalSegment.containing(Lsn(_MIB), Timeline(1), _MIB)
    wal.put_segment(first, b"a" * _MIB)
    wal.put_segment(first, b"a" * _MIB)
    wal.put_partial(first.next(), first.end + 512, b"b" * _MIB)
    wal.put_history(Timeline(2), b"history")
    assert wal.read_segment(first) == b"a" * _MIB
    partial = wal.newest_partial(Timeline(1))
    assert partial is not None
    assert wal.read_partial(partial) == (b"b" * 512).ljust(_MIB, b"\0")
    assert wal.history(Timeline(2)) == b"history"
    (found,) = wal.ranges()
    assert (found.start, found.end, found.segments, found.ends_in_partial) == (first.start, first.end + 512, 1, True)
