"""`make bench`: replication from one S3 server to another beside `rclone copy` with its defaults, between the same two.

Both servers are `rclone serve s3` on this machine, so a byte's way is: disk, server, us, server, disk. They keep the MD5
of what is put, as S3 does; without that this server reads a whole object whenever it lists or stats it. Machines differ
and are shared: only the ratios within one run mean anything. Each figure is the median of some rounds, in which the two
take turns, after one of each that is not counted. Ours proves each object's SHA-256 before the last of it is put, and
that the target took it; `rclone copy` compares sizes and MD5s. rclone's start is in its time; our interpreter's is not
in ours. Where both cores are busy with the servers, what decides is the CPU seconds of all: they are shown apart for the
process that copies and for the two servers, and vary less than the time.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from dr_pipelines.clock import SystemClock
from dr_pipelines.commands import Command, Runner
from dr_pipelines.embedded.postgres import open_folder
from dr_pipelines.embedded.stores import EmbeddedS3, rclone
from dr_pipelines.lsn import Lsn, Timeline, WalSegment
from dr_pipelines.operations import replicate
from dr_pipelines.plan import Plan
from dr_pipelines.progress import Silent
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.layout import REPOSITORY, BackupKind, BackupLayout, WalLayout
from dr_pipelines.repository.manifest import Archive, BackupManifest, StoredObject, encode
from dr_pipelines.site import Site
from dr_pipelines.storage.base import Body, ObjectStore
from dr_pipelines.storage.local import LocalStore
from dr_pipelines.storage.open import wrapped
from dr_pipelines.storage.s3 import S3Store, make_client

PACK = 64 * 1024 * 1024
LABEL = "20260102T030405Z-full"
SYSTEM = "7000000000000000001"


def put_packs(store: ObjectStore, count: int, random_bytes: Callable[[int], bytes]) -> None:
    """A full backup of so many packs that do not compress."""
    keys = BackupLayout("shop", LABEL)

    def put(key: str, size: int) -> StoredObject:
        body = Body.of(random_bytes(size))
        store.put(key, body)
        return StoredObject(key=key, size=body.size, sha256=body.sha256)

    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    packs = tuple(put(keys.pack(number, ".zst"), PACK) for number in range(count))
    made = BackupManifest(
        server="shop", label=LABEL, kind=BackupKind.FULL, asked_kind=BackupKind.FULL, started_at=at, finished_at=at,
        tool_version="0", taken_on="bench", system_id=SYSTEM, postgres_version="18", postgres_version_num=180000,
        segment_size=16 << 20, block_size=8192, data_checksums=True, timeline=Timeline(1), start_lsn=Lsn(1 << 24),
        stop_lsn=Lsn((1 << 24) + 8), encoding=Codec(1).encoding,
        archive=Archive(size=count * PACK, pack_size=PACK, packs=packs),
        backup_manifest=put(keys.backup_manifest(".zst"), 4096), index=put(keys.index(".zst"), 4096),
    )  # fmt: skip
    store.put(keys.manifest, Body.of(encode(made)))


def put_wal(store: ObjectStore, count: int, random_bytes: Callable[[int], bytes]) -> None:
    """Segments that compressed to 16 KB to 1 MB each."""
    keys, sizes = WalLayout("shop", SYSTEM), random.Random(1)
    store.put(keys.description, Body.of(b'{"segment_size": 16777216}\n'))
    for number in range(1, count + 1):
        body = Body.of(random_bytes(int(2 ** sizes.uniform(14, 20))))
        store.put(keys.segment(WalSegment(Timeline(1), number), body.sha256, ".zst"), body)


class Servers:
    """A source and a target; buckets are folders."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.source, self.target = (EmbeddedS3(base / name, keep_md5=True) for name in ("source", "target"))

    def __enter__(self) -> Servers:
        self.source.start()
        self.target.start()
        return self

    def cpu(self) -> float:
        """Seconds that both have used so far."""
        return sum(_cpu_of(server.pid) for server in (self.source, self.target))

    def __exit__(self, *exc: object) -> None:
        self.source.stop()
        self.target.stop()

    def fill(self, bucket: str, fill: Callable[[ObjectStore], None]) -> int:
        """Its size in bytes."""
        self.source.create_bucket(bucket)
        store = LocalStore(self.base / "source" / bucket)
        store.put(REPOSITORY, Body.of(b'{"format": 1, "id": "0"}\n'))
        fill(store)
        return sum(info.size for info in store.list())

    def make_targets(self, buckets: list[str]) -> None:
        """Before the server starts: it remembers for a second which there are."""
        for bucket in buckets:
            self.target.create_bucket(bucket)
            LocalStore(self.base / "target" / bucket).put(REPOSITORY, Body.of(b'{"format": 1, "id": "1"}\n'))

    def copy_ours(self, bucket: str, to: str) -> None:
        """With new clients, as a run has."""
        local = {name: {"type": "local", "path": name} for name in ("primary", "secondary")}
        shop = {"connection": {"host": "db"}, "schedule": {"full": "daily"}, "storage": {name: name for name in local}}
        plan = {"version": 1, "name": "bench", "encryption": "none", "storage": local, "databases": {"shop": shop}}
        stores = {"primary": _opened(self.source, bucket), "secondary": _opened(self.target, to)}
        replicate(Site(Plan.model_validate(plan), stores=stores), "shop", "secondary", Silent())

    def copy_rclone(self, bucket: str, to: str) -> None:
        remotes = {
            f"RCLONE_CONFIG_{name}_{key}": value
            for name, server in (("HERE", self.source), ("THERE", self.target))
            for key, value in (
                ("TYPE", "s3"), ("PROVIDER", "Other"), ("ENDPOINT", server.access.endpoint),
                ("ACCESS_KEY_ID", server.access.access_key_id), ("SECRET_ACCESS_KEY", server.access.secret_access_key),
            )
        }  # fmt: skip
        Runner().run(
            Command([rclone(), "copy", "--config", "/dev/null", f"here:{bucket}", f"there:{to}"], secrets=remotes)
        )


def _opened(server: EmbeddedS3, bucket: str) -> ObjectStore:
    """As the plan's stores are."""
    client = make_client(
        endpoint=server.access.endpoint,
        region="us-east-1",
        access_key_id=server.access.access_key_id,
        secret_access_key=server.access.secret_access_key,
    )
    return wrapped(S3Store(client, bucket), "", SystemClock())


@dataclass(frozen=True)
class Took:
    """Seconds: on the clock, of CPU in the process that copies, of CPU in the two servers; and of a listing of the
    target afterwards, which is not in `wall`."""

    wall: float
    copying: float
    serving: float
    listing: float


def _cpu_of(pid: int) -> float:
    """Source: proc(5), utime and stime."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _cpu_of_us_and_children() -> float:
    """`rclone copy` is a child that has ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def targets(bucket: str, rounds: int) -> list[str]:
    return [f"{bucket}-{turn}" for turn in range(2 * (rounds + 1))]


def measure(servers: Servers, bucket: str, rounds: int) -> dict[str, list[Took]]:
    """By contender."""
    took: dict[str, list[Took]] = {"dr": [], "rclone copy": []}
    copies = {"dr": servers.copy_ours, "rclone copy": servers.copy_rclone}
    for turn, to in enumerate(targets(bucket, rounds)):
        name = [*copies][(turn + turn // 2) % 2]  # who begins changes
        began, serving, copying = time.monotonic(), servers.cpu(), _cpu_of_us_and_children()
        copies[name](bucket, to)
        ended = time.monotonic()
        used, served = _cpu_of_us_and_children() - copying, servers.cpu() - serving
        listing = sum(1 for _ in _opened(servers.target, to).list()) and time.monotonic() - ended
        took[name].append(Took(ended - began, used, served, listing))
        shutil.rmtree(servers.base / "target" / to)
    return {name: times[1:] for name, times in took.items()}


def median(times: list[Took], what: Callable[[Took], float]) -> float:
    return statistics.median(what(one) for one in times)


def row(times: list[Took], size: int) -> tuple[str, str, str]:
    wall = median(times, lambda one: one.wall)
    cpu = f"{median(times, lambda one: one.copying):.1f} + {median(times, lambda one: one.serving):.1f} s"
    return f"{wall:.1f} s", f"{decimal(int(size / wall))}/s", cpu


def add_rows(shown: Table, what: str, size: int, took: dict[str, list[Took]]) -> None:
    """The ratios are of medians: ours to rclone's."""
    ours, theirs = took.values()
    ratios = [
        median(ours, kind) / median(theirs, kind)
        for kind in (lambda one: one.wall, lambda one: one.copying + one.serving)
    ]
    for name, times in took.items():
        shown.add_row(what, decimal(size), name, *row(times, size), *(f"{ratio:.2f} x" for ratio in ratios))
        what = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packs", type=int, default=12, help="of 64 MiB; with few, starting and ending decide")
    parser.add_argument("--small", type=int, default=2000, help="objects of 16 KB to 1 MB")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    console, base = Console(width=120), open_folder("dr-bench-")
    noise = random.Random(0).randbytes
    try:
        servers = Servers(base)
        sizes = {
            "packs": servers.fill("packs", lambda store: put_packs(store, asked.packs, noise)),
            "small": servers.fill("small", lambda store: put_wal(store, asked.small, noise)),
        }
        for bucket in sizes:
            servers.make_targets(targets(bucket, asked.rounds))
        columns = ("what", "bytes", "by", "time", "rate", "CPU: copying + servers", "dr takes", "of all CPU")
        shown = Table(*columns, title=f"medians of {asked.rounds}")
        with servers:
            for bucket, what in (("packs", f"{asked.packs} packs"), ("small", f"{asked.small} objects")):
                took = measure(servers, bucket, asked.rounds)
                add_rows(shown, what, sizes[bucket], took)
                for name, times in took.items():
                    console.print(f"{name}: {', '.join(f'{one.wall:.2f}' for one in times)}")
                listing = median(took["dr"], lambda one: one.listing)
                console.print(
                    f"in dr's time is a listing of a backup's copy, before its manifest is put (to list the target takes "
                    f"{listing:.2f} s here). rclone copy makes none."
                )
        console.print(shown)
        console.print(f"peak memory: {decimal(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)}")
    finally:
        shutil.rmtree(base, ignore_errors=True)


if __name__ == "__main__":
    main()
