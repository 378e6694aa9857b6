"""`make bench`: full, incremental and restore of a database of mixed data, beside PostgreSQL's own tools, as ratios.

Machines differ and are shared: only the ratios within one run mean anything. pgBackRest is not compared yet.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from dr_pipelines.clock import SystemClock
from dr_pipelines.commands import Command, Runner
from dr_pipelines.embedded.postgres import EmbeddedPostgres, bin_dir, open_folder
from dr_pipelines.postgres import backup_manifest
from dr_pipelines.postgres.take import take_backup
from dr_pipelines.postgres.unpack import Link, unpack_chain
from dr_pipelines.progress import Silent
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.encryption import generate_identity
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.repository.repository import Repository
from dr_pipelines.storage.local import LocalStore

INCREMENTALS = 6


def build(server: EmbeddedPostgres, megabytes: int) -> None:
    """Half pgbench-like rows that compress well, half random text and documents that do not."""
    rows = megabytes * 2000
    server.psql(
        f"CREATE TABLE accounts AS SELECT g AS id, g % 100 AS branch, 0 AS balance, repeat(' ', 84) AS filler "
        f"FROM generate_series(1, {rows * 2}) g"
    )
    server.psql(
        f"CREATE TABLE documents AS SELECT gen_random_uuid() AS id, md5(g::text) || md5((g + 1)::text) AS body, "
        f"jsonb_build_object('n', g, 'k', md5((g * 7)::text)) AS facts FROM generate_series(1, {rows}) g"
    )
    server.psql("ALTER TABLE accounts ADD PRIMARY KEY (id)")
    server.psql("ALTER TABLE documents ADD PRIMARY KEY (id)")
    server.psql("CHECKPOINT")


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Wall seconds and CPU seconds of this process."""
    wall, cpu = time.monotonic(), time.process_time()
    call()
    return time.monotonic() - wall, time.process_time() - cpu


def unpack(repository: Repository, chain: list[BackupManifest], target: Path) -> None:
    links = [
        Link(m, repository.open_archive(m), backup_manifest.parse(
            repository.codec.decode(b"".join(repository.store.open(m.backup_manifest.key)))))
        for m in chain
    ]  # fmt: skip
    target.mkdir()
    unpack_chain(links, target, advance=lambda count: None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1500, help="size of the database, about")
    megabytes = parser.parse_args().megabytes
    base = open_folder("dr-bench-")
    server = EmbeddedPostgres(base / "data", settings={"summarize_wal": "on", "max_wal_size": "4GB"})
    table = Table("what", "wall", "CPU of ours", "stored", "ratio", title=f"about {megabytes} MB, PostgreSQL 18")
    try:
        server.start()
        build(server, megabytes // 2)
        _measure(server, base, table)
    finally:
        server.destroy()
        shutil.rmtree(base, ignore_errors=True)
    Console().print(table)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    Console().print(f"peak memory of this process, taking and restoring: {decimal(peak)}")


def _measure(server: EmbeddedPostgres, base: Path, table: Table) -> None:
    identity = generate_identity()
    stream = f"{bin_dir()}/pg_basebackup -h 127.0.0.1 -p {server.port} -U postgres -D - -Ft -X none -c fast"
    piped = base / "piped"
    piped_age = f"{stream} | zstd -1 -T2 -q | age -r {identity.recipient} > {piped}"
    for recipients in ((), (str(identity.recipient),)):
        secret = "encrypted" if recipients else "plain"
        repository = Repository(
            LocalStore(base / f"repository-{secret}", secret), Codec(1, recipients, (identity.reveal(),)), "primary"
        )
        repository.initialise()

        def take(kind: BackupKind, repository: Repository = repository, secret: str = secret) -> BackupManifest:
            taken = take_backup(
                server.server, repository, "bench", kind,
                state_dir=base / f"state-{secret}", clock=SystemClock(), progress=Silent(),
            )  # fmt: skip
            assert isinstance(taken, BackupManifest)
            return taken

        command = piped_age if recipients else f"{stream} | zstd -1 -T2 -q > {piped}"
        other, _ = timed(lambda command=command: Runner().run(Command(["bash", "-o", "pipefail", "-c", command])))  # type: ignore[misc]
        table.add_row(
            f"pg_basebackup | zstd -1 -T2{' | age' if recipients else ''}",
            f"{other:.1f} s",
            "",
            decimal(piped.stat().st_size),
            "1.00",
        )
        wall, cpu = timed(lambda: take(BackupKind.FULL))
        full = repository.backups("bench")[-1]
        table.add_row(
            f"full, {secret}", f"{wall:.1f} s", f"{cpu:.1f} s", decimal(full.stored_size), f"{wall / other:.2f}"
        )
        for number in range(INCREMENTALS):
            server.psql(f"UPDATE accounts SET balance = balance + 1 WHERE id % 20000 = {number}")
            wall_incremental, cpu = timed(lambda: take(BackupKind.INCREMENTAL))
        chain = repository.backups("bench")
        table.add_row(
            f"incremental, {secret}",
            f"{wall_incremental:.1f} s",
            f"{cpu:.1f} s",
            decimal(chain[-1].stored_size),
            f"{wall_incremental / wall:.2f} of the full",
        )
        back, cpu = timed(lambda: unpack(repository, chain[:1], base / f"full-{secret}"))
        table.add_row(f"restore of the full, {secret}", f"{back:.1f} s", f"{cpu:.1f} s", "", f"{back / other:.2f}")
        back, cpu = timed(lambda: unpack(repository, chain, base / f"chain-{secret}"))
        table.add_row(
            f"restore of the full and {INCREMENTALS} incrementals, {secret}",
            f"{back:.1f} s",
            f"{cpu:.1f} s",
            "",
            f"{back / other:.2f}",
        )


if __name__ == "__main__":
    main()
