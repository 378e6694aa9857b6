"""`make bench`: full, incremental and restore of a database of mixed data, beside PostgreSQL's own tools and pgBackRest.

Machines differ and are shared: only the ratios within one run mean anything. Each figure is the median of some rounds,
in which the contenders take turns. pgBackRest is left out, and said to be, where it is not installed or does not know
the server's version.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from benchmarks.contenders import ClientZstd, Ours, PgBackRest, PostgresTools
from dr_pipelines.embedded.postgres import EmbeddedPostgres, open_folder
from dr_pipelines.repository.encryption import generate_identity

INCREMENTALS = 6


class TakesFulls(Protocol):
    """`stored` is the size in bytes of the newest backup."""

    name: str

    def full(self) -> None: ...
    def stored(self) -> int: ...


class Contender(TakesFulls, Protocol):
    """A way to back up and restore."""

    def incremental(self) -> None: ...
    def restore(self, target: Path, *, incrementals: bool) -> None: ...


@dataclass
class Results:
    """Seconds (one a round) and stored bytes, by what was done and by whom."""

    seconds: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    stored: dict[tuple[str, str], int] = field(default_factory=dict)

    def time(self, what: str, who: str, call: Callable[[], None]) -> None:
        began = time.monotonic()
        call()
        self.seconds[what, who].append(time.monotonic() - began)

    def median(self, what: str, who: str) -> float | None:
        times = self.seconds.get((what, who))
        return statistics.median(times) if times else None


def build(server: EmbeddedPostgres, megabytes: int) -> None:
    """Half rows that compress well (pgbench's), half random text and documents that hardly do."""
    rows = megabytes * 2650
    server.psql(
        f"CREATE TABLE accounts AS SELECT g AS id, g % 100 AS branch, 0 AS balance, repeat(' ', 84) AS filler "
        f"FROM generate_series(1, {rows}) g"
    )
    server.psql(
        f"CREATE TABLE documents AS SELECT gen_random_uuid() AS id, md5(g::text) || md5((g + 1)::text) AS body, "
        f"jsonb_build_object('n', g, 'k', md5((g * 7)::text)) AS facts FROM generate_series(1, {rows}) g"
    )
    server.psql("ALTER TABLE accounts ADD PRIMARY KEY (id)")
    server.psql("ALTER TABLE documents ADD PRIMARY KEY (id)")
    server.psql("VACUUM ANALYZE")


def change(server: EmbeddedPostgres, number: int) -> None:
    """Touch about half a percent of the pages."""
    server.psql(f"UPDATE accounts SET balance = balance + 1 WHERE id % 12000 = {number}")
    server.psql("CHECKPOINT")


def measure(
    server: EmbeddedPostgres,
    contenders: list[Contender],
    fulls_only: list[TakesFulls],
    base: Path,
    rounds: int,
    results: Results,
) -> None:
    number = 0
    for turn in range(rounds):
        order = contenders[turn % len(contenders) :] + contenders[: turn % len(contenders)]
        server.psql("CHECKPOINT")
        for taker in (*order, *fulls_only):
            results.time("full", taker.name, taker.full)
            results.stored["full", taker.name] = taker.stored()
        for _ in range(INCREMENTALS):
            number += 1
            change(server, number)
            for one in order:
                results.time("incremental", one.name, one.incremental)
                results.stored["incremental", one.name] = one.stored()
        for what, incrementals in (("restore", False), (f"restore + {INCREMENTALS}", True)):
            for one in order:
                target = base / "target"
                results.time(what, one.name, lambda one=one, i=incrementals, t=target: one.restore(t, incrementals=i))  # type: ignore[misc]
                shutil.rmtree(target)


def table(results: Results, ours: str, others: list[str], title: str) -> Table:
    """Our time and bytes, and how many times those of the others they are."""
    shown = Table("what", "dr", "stored", *(f"of {name}" for name in others), title=title)
    for what in ("full", "incremental", "restore", f"restore + {INCREMENTALS}"):
        mine, stored = results.median(what, ours), results.stored.get((what, ours))
        assert mine is not None
        cells = []
        for name in others:
            theirs, size = results.median(what, name), results.stored.get((what, name))
            ratio = f"{mine / theirs:.2f} x {theirs:.1f} s" if theirs else "-"
            cells.append(f"{ratio}, {stored / size:.2f} x {decimal(size)}" if stored and size else ratio)
        shown.add_row(what, f"{mine:.1f} s", decimal(stored) if stored else "", *cells)
    return shown


def debians(major: int) -> str | None:
    program = Path(f"/usr/lib/postgresql/{major}/bin/pg_basebackup")
    return str(program) if program.exists() else None


def takes_part(
    name: str,
    refusal: Callable[[str, EmbeddedPostgres, Path], str | None],
    program: str | None,
    server: EmbeddedPostgres,
    base: Path,
    console: Console,
) -> bool:
    """Whether it does; why not is said."""
    why = refusal(program, server, base) if program else "it is not installed"
    if why:
        console.print(f"{name} is left out: {why}")
    return not why


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1500, help="size of the database, about")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pgbackrest", default=shutil.which("pgbackrest"), help="the program, when not on the PATH")
    parser.add_argument("--pg-basebackup", default=debians(18), help="one of version 18 with zstd")
    asked = parser.parse_args()
    base = open_folder("dr-bench-")
    console = Console(width=150)
    server = EmbeddedPostgres(base / "data", settings={"summarize_wal": "on", "max_wal_size": "8GB"})
    try:
        server.start()
        build(server, asked.megabytes)
        size = decimal(int(server.psql("SELECT sum(pg_database_size(oid)) FROM pg_database")))
        for identity in (None, generate_identity()):
            secret = "encrypted" if identity else "plain"
            ours, tools = Ours(server, base / secret, identity), PostgresTools(server, base / secret, identity)
            contenders: list[Contender] = [ours, tools]
            fulls_only: list[TakesFulls] = []
            if takes_part("pgBackRest", PgBackRest.refusal, asked.pgbackrest, server, base, console):
                contenders.append(PgBackRest(asked.pgbackrest, server, base / secret, encrypted=identity is not None))
            if not identity and takes_part(
                "client-zstd", ClientZstd.refusal, asked.pg_basebackup, server, base, console
            ):
                fulls_only.append(ClientZstd(asked.pg_basebackup, server, base / secret))
            results = Results()
            measure(server, contenders, fulls_only, base, asked.rounds, results)
            others = [one.name for one in (*contenders[1:], *fulls_only)]
            console.print(table(results, ours.name, others, f"{size}, {secret}, medians of {asked.rounds}"))
            console.print(ours.overhead(tools.client_cpu()))
            taking, restoring = (decimal(peak.bytes) for peak in (ours.taking, ours.restoring))
            console.print(f"peak memory of the process: {taking} taking, {restoring} restoring")
            shutil.rmtree(base / secret)
    finally:
        server.destroy()
        shutil.rmtree(base, ignore_errors=True)


if __name__ == "__main__":
    main()
