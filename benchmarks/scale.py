"""A tier with a million objects: from its listing to recovery windows and a retention plan, in seconds and memory.

Two years of WAL with gaps and a promotion, and a few hundred backups. The store has its listing ready, so what is measured
is ours; that it has counts for the memory, as the answer of a real store would. It goes through the wrappers that every
store has. Nothing waits for anything, so the time that counts is the processor's: machines are shared.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from dr_pipelines.clock import FixedClock
from dr_pipelines.lsn import Lsn, Timeline, WalSegment
from dr_pipelines.plan.policies import RetentionPlan
from dr_pipelines.postgres.tier_view import view_tier, windows_of
from dr_pipelines.repository import layout
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.layout import BackupKind, BackupLayout, WalLayout, label_for
from dr_pipelines.repository.manifest import BackupManifest, StoredObject, encode
from dr_pipelines.repository.repository import Repository
from dr_pipelines.retention.planner import plan_tier
from dr_pipelines.retention.view import view_of
from dr_pipelines.storage.base import Body, ObjectInfo
from dr_pipelines.storage.memory import MemoryStore
from dr_pipelines.storage.wrappers import ReadOnly, Retrying

T = TypeVar("T")
OBJECTS = 1_000_000
MOST_SECONDS, MOST_BYTES = 10.0, 1 << 30
NOW = datetime(2026, 11, 26, tzinfo=UTC)
YEARS = timedelta(days=730)
FULLS, INCREMENTALS = 104, 200
PACKS = {BackupKind.FULL: 200, BackupKind.INCREMENTAL: 8}
SIZE = 16 << 20
SYSTEM = WalLayout("shop", "7000000000000000001")
GAPS = 100
SHA = f"{1:064x}"


class TwoYears(MemoryStore):
    """WAL is only listed; manifests can be read. `wal` segments: every one but the first of each of `GAPS` stretches, on
    timeline 1 and from the middle on on timeline 2."""

    def __init__(self) -> None:
        super().__init__("primary", FixedClock(NOW))
        self.put(layout.REPOSITORY, Body.of(b'{"format": 1, "id": "0"}'))
        self.put(SYSTEM.description, Body.of(b'{"segment_size": %d}' % SIZE))
        self._listed: list[ObjectInfo] = []
        backups = [*_backups()]
        there = sum(len(backup.objects) + 1 for backup in backups)
        self.wal = OBJECTS - there - 4 + GAPS
        for backup in backups:
            placed = _placed(backup, self.wal)
            self.put(placed.layout.manifest, Body.of(encode(placed)))
            self._listed += (ObjectInfo(o.key, o.size, placed.finished_at) for o in placed.objects)
        history = f"1\t{Lsn(self.wal // 2 * SIZE + 1000)}\tpromoted\n".encode()
        archive = Repository(self, Codec(1), "primary").wal("shop", SYSTEM.system_id, SIZE)
        archive.put_history(Timeline(2), history)
        self._listed += self._segments()

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        yield from sorted(super().list(prefix), key=lambda info: info.key)
        yield from (info for info in self._listed if info.key.startswith(prefix))

    def _segments(self) -> Iterator[ObjectInfo]:
        began, each = NOW - YEARS, YEARS / self.wal
        for number in range(self.wal):
            if number % (self.wal // GAPS) != 0 or number == 0:
                timeline, (log, segment) = 1 + (number >= self.wal // 2), divmod(number, (1 << 32) // SIZE)
                name = f"{timeline:08X}{log:08X}{segment:08X}"
                key = f"{SYSTEM.prefix}{timeline:08X}/{log:08X}/{name}.{SHA}.zst"
                yield ObjectInfo(key, SIZE // 3, began + each * number)


def _backups() -> Iterator[BackupManifest]:
    """A full every week, and an incremental every hour of the last days."""
    week = YEARS / FULLS
    last = None
    for number in range(FULLS):
        last = _backup(NOW - YEARS + week * (number + 0.5), BackupKind.FULL, None)
        yield last
    for hour in range(INCREMENTALS):
        at = NOW - timedelta(hours=INCREMENTALS - hour) * 0.4
        last = _backup(at, BackupKind.INCREMENTAL, last.label if last else None)
        yield last


def _backup(at: datetime, kind: BackupKind, parent: str | None) -> BackupManifest:
    keys = BackupLayout("shop", label_for(at, kind))
    packs = tuple(
        StoredObject(key=keys.pack(number, ".zst"), size=1 << 24, sha256=SHA) for number in range(PACKS[kind])
    )
    one = StoredObject(key=keys.index(".zst"), size=100, sha256=SHA)
    return BackupManifest.model_validate(
        dict(
            server="shop", label=keys.label, kind=kind, asked_kind=kind, parent=parent, started_at=at, finished_at=at,
            tool_version="0", taken_on="here", system_id=SYSTEM.system_id, postgres_version="18.4",
            postgres_version_num=180004, segment_size=SIZE, block_size=8192, data_checksums=True, timeline=1,
            start_lsn="0/0", stop_lsn="0/0", encoding={"level": 1},
            archive={"size": len(packs) << 26, "pack_size": 1 << 26, "packs": packs},
            backup_manifest=StoredObject(key=keys.backup_manifest(".zst"), size=100, sha256=SHA), index=one,
        )
    )  # fmt: skip


def _placed(backup: BackupManifest, segments: int) -> BackupManifest:
    """Where WAL was when it was taken."""
    number = int((backup.started_at - (NOW - YEARS)) / YEARS * segments)
    segment = WalSegment(Timeline(1 + (number >= segments // 2)), number, SIZE)
    where = {"timeline": segment.timeline, "start_lsn": segment.start + 40, "stop_lsn": segment.start + 4000}
    return backup.model_copy(update=where)


def main() -> int:
    """Ends with 1 when it takes more than it may."""
    store = TwoYears()
    repository = Repository(ReadOnly(Retrying(store, FixedClock(NOW))), Codec(1), "primary")
    console, began = Console(width=120), (time.monotonic(), time.process_time())

    def timed(what: str, call: Callable[[], T]) -> T:
        since, cpu = time.monotonic(), time.process_time()
        answer = call()
        console.print(f"{what:<38} {time.monotonic() - since:6.2f} s ({time.process_time() - cpu:.2f} s of processor)")
        return answer

    (system,) = timed("listing, catalog, WAL, windows", lambda: windows_of(view_tier(repository, "shop")))
    here = timed("listing, catalog, WAL, for retention", lambda: view_of(repository, "shop"))
    plan = timed("retention planned", lambda: plan_tier(here, RetentionPlan(), NOW))
    wal = here.wal[SYSTEM.system_id]
    freed = timed("WAL that may go", lambda: sum(1 for _ in wal.unneeded(plan.needs[SYSTEM.system_id])))
    took, seconds, most = time.monotonic() - began[0], time.process_time() - began[1], _peak()
    console.print(
        f"{OBJECTS:,} objects: {len(system.windows)} windows, {len(system.gaps)} gaps; {len(plan.expire)} of "
        f"{len(plan.decisions)} backups and {freed:,} WAL segments may go"
    )
    console.print(
        f"{seconds:.1f} s of processor of at most {MOST_SECONDS:.0f} ({took:.1f} s on the clock), "
        f"{most >> 20} MiB of at most {MOST_BYTES >> 20}"
    )
    return 0 if seconds <= MOST_SECONDS and most <= MOST_BYTES else 1


def _peak() -> int:
    """The most memory that this process ever had, in bytes."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM"))


if __name__ == "__main__":
    sys.exit(main())
