"""`make bench`: what proving a backup costs beside taking it, and how long Dagster's code location takes to load.

A backup's own time is that of taking it without its facts. To it belong the facts of its source, the integrity checks
of the backup and of its copy, and the expectations of its manifest and catalog, all as a plan has them that says
nothing of it. Expectations are judged in a process that stays, as the code location is: what loading Great Expectations
costs there, once, is shown apart, and so is what a table costs whose rows are summed because a data class names it. A
validation restores the backup: it is another thing, and its phases are shown apart.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TypeVar

import yaml
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from assets.integrity import OF_BACKUPS, OF_COPIES
from benchmarks.database import build
from dr_pipelines import operations
from dr_pipelines.checks import CheckResult
from dr_pipelines.embedded.postgres import EmbeddedPostgres, bin_dir, open_folder, os_user
from dr_pipelines.plan import load_plan
from dr_pipelines.postgres.source_facts import WantedFacts, facts_seconds, take_facts
from dr_pipelines.progress import Silent
from dr_pipelines.repository.encryption import generate_identity
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.site import Site
from tests.support.live import CLOCK, Live

SERVER = "shop"
FACTS, SUMMED = WantedFacts(), WantedFacts(checksums=("public.accounts",))
LOADING = "loading Great Expectations, once in the life of the code location"
SUMS = "facts, with one of the two tables summed"
CHECKS = ("facts of the source", "integrity of the backup", "integrity of its copy", "expectations")
LOAD = """
import sys, time
began = time.perf_counter()
import dr_pipelines.definitions as location
location.defs()
took = time.perf_counter() - began
print(took, *(name for name in ("great_expectations", "pandas") if name in sys.modules))
"""
EXPECT = """
import sys
from pathlib import Path
from dr_pipelines.operations import judge_catalog
from dr_pipelines.plan import load_plan
from dr_pipelines.site import Site
print("ready", flush=True)
for plan in sys.stdin:
    found = judge_catalog(Site(load_plan(Path(plan.strip()))), "shop", "primary")
    print(*(f"{name}={check.verdict.name}" for name, check in found.items()), flush=True)
"""
T = TypeVar("T")


class CodeLocation:
    """A process in which expectations are judged, one backup after the other."""

    def __init__(self, plan: Path) -> None:
        self._plan = plan
        self._process = subprocess.Popen(
            [sys.executable, "-c", EXPECT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._answer()

    def judge(self) -> None:
        assert self._process.stdin is not None
        print(self._plan, file=self._process.stdin, flush=True)
        answer = self._answer()
        # The first backups have too few before them to say what size is usual.
        assert "FAIL" not in answer and "manifest_meets_expectations=PASS" in answer, answer

    def end(self) -> None:
        self._process.communicate()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


class Bench:
    """One server, its two tiers, and the seconds of each step, one a round."""

    def __init__(self, base: Path, server: EmbeddedPostgres) -> None:
        self.base, self.server = base, server
        self.plan_file = base / "plan.yaml"
        self.plan_file.write_text(yaml.dump(_plan(base, server)))
        self.site = Site(load_plan(self.plan_file))
        for tier in self.site.tiers(SERVER):
            self.site.repository(SERVER, tier).initialise()
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.location = CodeLocation(self.plan_file)
        self.counted: list[bool] = []

    def time(self, what: str, call: Callable[[], T]) -> T:
        began = time.monotonic()
        result = call()
        self.seconds[what].append(time.monotonic() - began)
        return result

    def median(self, what: str) -> float:
        return statistics.median(self.seconds[what])

    def round(self) -> BackupManifest:
        began = time.monotonic()
        taken = operations.take_backup(self.site, SERVER, BackupKind.FULL, Silent())
        assert isinstance(taken, BackupManifest)
        with_facts = time.monotonic() - began
        self.time(CHECKS[0], lambda: self._facts(FACTS, taken, facts_seconds(with_facts)))
        # Taking tells its facts too, and says nothing of how long that took.
        self.seconds["the backup"].append(with_facts - self.seconds[CHECKS[0]][-1])
        self._integrity(CHECKS[1], operations.check_backup, taken.label, "primary", OF_BACKUPS)
        operations.replicate(self.site, SERVER, "secondary", Silent())
        self._integrity(CHECKS[2], operations.check_replica, taken.label, "secondary", OF_COPIES)
        if LOADING not in self.seconds:
            self.time(LOADING, self.location.judge)
        self.time(CHECKS[3], self.location.judge)
        self.time(SUMS, lambda: self._facts(SUMMED, taken, facts_seconds(with_facts)))
        return taken

    def _integrity(
        self, what: str, check: Callable[..., list[CheckResult]], label: str, tier: str, promises: Collection[str]
    ) -> None:
        """Those that Dagster runs after the backup, and after its copy."""
        sample = self.site.plan_of(SERVER).validation.sample
        found = self.time(what, lambda: check(self.site, SERVER, label, tier, Silent(), sample=sample, only=promises))
        assert {result.name for result in found if result.passed} == {*promises}, found

    def _facts(self, wanted: WantedFacts, taken: BackupManifest, seconds: float) -> None:
        """As much time as taking gives them."""
        server = self.site.server(SERVER)
        after, system = server.flush_lsn(), taken.system_id
        told = take_facts(server, wanted, after=after, label="bench", system_id=system, seconds=seconds, clock=CLOCK)
        if wanted is FACTS:
            self.counted += [table.rows is not None for database in told.databases for table in database.tables]


def _plan(base: Path, server: EmbeddedPostgres) -> dict[str, object]:
    identity = generate_identity()
    (base / "identity.txt").write_text(identity.reveal())
    tiers = ("primary", "secondary")
    return {
        "version": 1, "name": "bench", "state_dir": str(base / "state"),
        "encryption": {"recipients": [str(identity.recipient)], "identity": f"${{FILE:{base}/identity.txt}}"},
        "storage": {tier: {"type": "local", "path": str(base / tier)} for tier in tiers},
        "databases": {SERVER: {
            "connection": {"host": "127.0.0.1", "port": server.port, "user": "postgres"},
            "schedule": {"full": "daily"},
            "storage": {tier: tier for tier in tiers},
            "bin_dir": str(bin_dir(server.version)),
            "validation": {"amcheck": False},
            **({"os_user": user} if (user := os_user()) else {}),
        }},
    }  # fmt: skip


def _python(code: str, plan: Path, *arguments: str) -> str:
    """In a process of its own, as a run and a code location are."""
    env = {**os.environ, "DR_PLAN": str(plan)}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], env=env, capture_output=True, text=True, check=True
    ).stdout


def shown(bench: Bench, size: str, rounds: int) -> Table:
    table = Table("what", "seconds", "of the backup", title=f"{size}, encrypted, medians of {rounds}")
    own = bench.median("the backup")
    for what in ("the backup", *CHECKS):
        table.add_row(what, f"{bench.median(what):.2f}", f"{bench.median(what) / own:.2f}")
    whole = sum(bench.median(what) for what in CHECKS)
    table.add_section()
    table.add_row("all that proves it, without a restore", f"{whole:.2f}", f"{whole / own:.2f}")
    table.add_section()
    counted, tables = sum(bench.counted), len(bench.counted)
    table.caption = f"all tables counted in every round: {'yes' if counted == tables else f'{counted} of {tables}'}"
    for what in (SUMS, LOADING):
        table.add_row(what, f"{bench.median(what):.2f}", f"{bench.median(what) / own:.2f}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1500, help="size of the database, about")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    base = open_folder("dr-bench-")
    console = Console(width=150)
    server = EmbeddedPostgres(base / "data", settings={"summarize_wal": "on", "max_wal_size": "8GB"})
    try:
        server.start()
        build(server, asked.megabytes)
        size = decimal(int(server.psql("SELECT sum(pg_database_size(oid)) FROM pg_database")))
        bench = Bench(base, server)
        live = Live(server, bench.site.repository(SERVER, "primary"), base / "stream")
        with live.streaming():
            for _ in range(asked.rounds):
                taken = bench.round()
        bench.location.end()
        if live.stream_trouble is not None:
            raise live.stream_trouble
        console.print(shown(bench, size, asked.rounds))
        report = operations.validate_backup(bench.site, SERVER, taken.label, "primary", Silent())
        phases = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in report.validation.phases.items())
        console.print(f"a validation, which restores it: {phases}; {report.check.verdict.value}")
        for _ in range(asked.rounds):
            took, *libraries = _python(LOAD, bench.plan_file).split()
            bench.seconds["load"].append(float(took))
        console.print(
            f"the code location loads in {bench.median('load'):.1f} s, with {', '.join(libraries) or 'neither'} "
            "of Great Expectations and pandas"
        )
    finally:
        server.destroy()
        shutil.rmtree(base, ignore_errors=True)


if __name__ == "__main__":
    main()
