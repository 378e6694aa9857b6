"""The main job, shown: back up a server under load, lose it, and get every acknowledged commit back."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from dr_pipelines.clock import Clock, SystemClock
from dr_pipelines.commands import Process
from dr_pipelines.embedded import assets, shop
from dr_pipelines.embedded.home import SERVER, Home
from dr_pipelines.embedded.postgres import EmbeddedPostgres
from dr_pipelines.embedded.stores import EmbeddedS3
from dr_pipelines.errors import BackupFailed, CommandFailed
from dr_pipelines.postgres.wal_status import read_status

SETTINGS = {"summarize_wal": "on", "max_wal_size": "2GB", "checkpoint_timeout": "10min"}
ORDERS_BETWEEN_STEPS = 500
"""Commits that the load makes before the demo goes on to its next step."""
FILES = "assets"
"""The file set."""
PRIMARY_BUCKET = "supabase-backups"
WHOLE = "from the loss on"
"""The phase that is all the others together."""
PARTITION = "dagster/partition"
"""Dagster's tag of a run's partition."""
PATIENCE = 60.0
"""Seconds that any one condition is waited for."""


@dataclass
class Outcome:
    """What the demo measured. Times in seconds."""

    acknowledged: int = 0
    recovered: int = 0
    lost: int = 0
    rows_before_drop: int | None = None
    files_lost: int = 0
    files_damaged: int = 0
    files_back: bool = False
    """Whether every file was again what it had been."""
    checks: int = 0
    """That the restored full passed."""
    phases: dict[str, float] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        return self.acknowledged > 0 and self.lost == 0 and bool(self.rows_before_drop) and self.files_back


class Demo:
    """One run. Whatever it starts is registered on `stack`, which stops it, also on Ctrl-C."""

    def __init__(
        self, home: Home, env: Mapping[str, str], stack: ExitStack, console: Console, *, scale: float = 1.0
    ) -> None:
        self._scale = scale
        self._home, self._env, self._stack, self._console = home, env, stack, console
        self._clock: Clock = SystemClock()
        self._started = self._clock.monotonic()
        self._outcome = Outcome()
        self._postgres = EmbeddedPostgres(home.data_dir, settings=SETTINGS, port=int(env["DR_SHOP_PORT"]))
        self._load = shop.WriteLoad(self._postgres.conninfo, home.acknowledged)

    def run(self) -> Outcome:
        self._say("starting PostgreSQL 18 and filling the shop")
        self._stack.callback(self._postgres.kill)
        self._postgres.start()
        shop.fill(self._postgres.conninfo, self._scale)
        self._say(f"the shop has {shop.size(self._postgres.conninfo) / 1e6:.0f} MB of users, orders and payments")
        self._say("starting two S3 stores, the repository in them and the WAL stream in synchronous mode")
        stores = self._stack.enter_context(self._home.stores(self._env))
        self._call("repository init", "dr", "repository", "init")
        stream = self._start_stream()
        self._take_backups()
        self._take_snapshots()
        self._copy_backups()
        self._prove_the_full()
        lsn = self._drop_a_table()
        lost_at = self._lose_the_server()
        self._end_stream(stream)
        self._recover_latest(lost_at)
        self._lose_the_primary_store(stores[PRIMARY_BUCKET])
        self._recover_before_drop(lsn)
        self._lose_files()
        return self._outcome

    def _start_stream(self) -> Process:
        stream = self._start("wal stream", "dr", "wal", "stream", SERVER)
        self._stack.callback(stream.stop)
        self._wait("the WAL stream to receive", lambda: self._stream_state() == "streaming", stream)
        self._postgres.psql("ALTER SYSTEM SET synchronous_standby_names = 'FIRST 1 (dr_shop)'")
        self._postgres.psql("SELECT pg_reload_conf()")
        in_step = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"
        self._wait("the WAL stream to be synchronous", lambda: self._postgres.psql(in_step) == "1", stream)
        return stream

    def _take_backups(self) -> None:
        day = self._clock.now().strftime("%Y-%m-%d")
        self._say("taking a full backup in a Dagster run")
        self._materialize("full_backup", day)
        self._say("starting a write load of 6 customers; each writes down what was acknowledged")
        self._stack.callback(self._load.stop)
        self._load.start()
        for which in ("first", "second"):
            self._wait_for_orders()
            self._say(f"taking the {which} incremental under load in a Dagster run ({self._load.count} orders so far)")
            self._materialize("incremental_backup", self._clock.now().strftime("%Y-%m-%d-%H:00"))

    def _take_snapshots(self) -> None:
        said = f"taking a snapshot of the shop's {assets.COUNT} files in a Dagster run"
        self._say(f"{said}, and another after some changed")
        assets.fill(self._home.assets)
        self._materialize("snapshot", self._clock.now().strftime("%Y-%m-%d"), of=FILES)
        assets.change(self._home.assets)
        taken = json.loads(self._call("second snapshot", "dr", "files", "snapshot", FILES, "--json"))
        counts = taken["counts"]
        self._say(f"the second read {counts['new'] + counts['changed']} of {counts['files']} files")

    def _copy_backups(self) -> None:
        self._say("copying backups and files to the other tiers, from store to store, proven on the way")
        self._call("replicate", "dr", "replicate")

    def _prove_the_full(self) -> None:
        full = next((self._home.path / "state" / SERVER / "backup_manifests").glob("*-full")).name
        self._say(f"restoring {full} from the secondary tier alone, to prove it")
        said = self._call("validate", "dr", "validate", SERVER, "--label", full, "--tier", "secondary", "--json")
        proof = json.loads(said)
        self._outcome.checks = sum(check["verdict"] == "pass" for check in proof["checks"]) - len(
            proof["check"]["details"].get("skipped", [])
        )
        self._say(f"{proof['check']['summary']}")

    def _drop_a_table(self) -> str:
        self._wait_for_orders()
        lsn = shop.drop_archive(self._postgres.conninfo)
        self._say(f"a bad transaction drops the table payments_archive, right after LSN {lsn}; customers go on")
        self._wait_for_orders()
        return lsn

    def _lose_the_server(self) -> float:
        """Returns the moment of the loss, on the clock's monotonic counter."""
        self._postgres.kill()
        lost_at = self._clock.monotonic()
        shutil.rmtree(self._home.data_dir)
        self._say(f"SIGKILL in the middle of the load after {self._load.count} orders; its data directory is deleted")
        self._load.stop()
        return lost_at

    def _end_stream(self, stream: Process) -> None:
        with _Timed(self._clock, self._outcome.phases, "ship the last WAL"):
            self._wait("the WAL stream to ship what it holds", self._everything_shipped, stream)
            stream.stop(PATIENCE)

    def _recover_latest(self, lost_at: float) -> None:
        self._say("recovering to the latest point from the object store alone")
        report = self._restore("restore latest", self._home.recovered, "--tier", "primary")
        self._outcome.phases |= {f"restore: {name}": seconds for name, seconds in report["phases"].items()}
        recovered = EmbeddedPostgres(self._home.recovered)
        self._stack.callback(recovered.stop)
        with _Timed(self._clock, self._outcome.phases, "start"):
            recovered.start()
        whole, parts = self._clock.monotonic() - lost_at, sum(self._outcome.phases.values())
        self._outcome.phases |= {"starting programs, deleting": whole - parts, WHOLE: whole}
        acknowledged = {int(line) for line in self._home.acknowledged.read_text().split()}
        there = shop.orders_of_load(recovered.conninfo)
        self._outcome.acknowledged, self._outcome.recovered = len(acknowledged), len(there)
        self._outcome.lost = len(acknowledged - there)
        self._say(f"recovered: {len(there)} orders are there, {self._outcome.lost} acknowledged ones are lost")
        recovered.stop()

    def _lose_the_primary_store(self, store: EmbeddedS3) -> None:
        store.stop()
        self._say("the primary object store is lost too")

    def _recover_before_drop(self, lsn: str) -> None:
        self._say(f"recovering a second copy to LSN {lsn}, before the table was dropped, from the secondary tier alone")
        self._restore("restore before drop", self._home.before_drop, "--lsn", lsn, "--tier", "secondary")
        copy = EmbeddedPostgres(self._home.before_drop)
        self._stack.callback(copy.stop)
        copy.start()
        self._outcome.rows_before_drop = shop.rows_of_archive(copy.conninfo)
        copy.stop()

    def _lose_files(self) -> None:
        before = assets.digests(self._home.assets)
        self._outcome.files_lost, self._outcome.files_damaged = assets.lose(self._home.assets)
        said = f"{self._outcome.files_lost} files are deleted, {self._outcome.files_damaged} are overwritten with zeros"
        self._say(f"{said}; bringing them back from the secondary tier alone")
        where = ("--tier", "secondary", "--overwrite")
        self._call("restore files", "dr", "files", "restore", FILES, "latest", str(self._home.assets), *where)
        self._outcome.files_back = assets.digests(self._home.assets) == before

    # --- what the steps are made of ---

    def _restore(self, name: str, target: Path, *arguments: str) -> dict[str, Any]:
        said = self._call(name, "dr", "restore", SERVER, "--to", str(target), *arguments, "--json")
        report: dict[str, Any] = json.loads(said)
        return report

    def _materialize(self, asset: str, partition: str, of: str = SERVER) -> None:
        """By its job, which runs the checks that belong to a backup; expectations are judged by a sensor."""
        self._call(
            f"dagster {asset}",
            *("dagster", "job", "execute", "-m", "dr_pipelines.definitions", "-j", f"{of}_{asset}"),
            *("--tags", json.dumps({PARTITION: partition})),
        )

    def _call(self, name: str, *argv: str) -> str:
        """Run one of the project's programs to its end; what it printed. Its log is `logs/<name>.log`."""
        process = self._start(name, *argv)
        try:
            code = process.wait()
        except BaseException:
            process.signal(signal.SIGINT)  # it cleans up by itself
            if process.wait(PATIENCE) is None:
                process.stop()
            raise
        if code != 0:
            raise CommandFailed(
                f"{' '.join(argv)} ended with exit code {code}:\n{self._tail(name)}",
                hint=f"All that it said is in {self._home.logs}.",
            )
        return self._home.output(name).read_text()

    def _start(self, name: str, *argv: str) -> Process:
        return self._home.start(self._env, name, *argv)

    def _tail(self, name: str) -> str:
        said = "".join(file.read_text() for file in (self._home.log(name), self._home.output(name)) if file.exists())
        return "\n".join(said.splitlines()[-25:])

    def _wait_for_orders(self) -> None:
        wanted = self._load.count + ORDERS_BETWEEN_STEPS
        self._wait(f"{ORDERS_BETWEEN_STEPS} more orders", lambda: self._load.count >= wanted)

    def _wait(self, what: str, condition: Callable[[], bool], process: Process | None = None) -> None:
        deadline = self._clock.monotonic() + PATIENCE
        while not condition():
            if process is not None and process.returncode is not None:
                raise CommandFailed(f"waiting for {what}: the program ended\n{self._tail('wal stream')}")
            if self._clock.monotonic() > deadline:
                raise BackupFailed(f"waited {PATIENCE:.0f} seconds for {what}", hint=f"See {self._home.logs}.")
            self._clock.wait(0.1)

    def _stream_state(self) -> str | None:
        status = read_status(self._home.stream_status)
        return None if status is None else status.state

    def _everything_shipped(self) -> bool:
        """The stream knows that the server is gone, and every tier holds what was received."""
        status = read_status(self._home.stream_status)
        return (
            status is not None
            and status.state == "waiting"
            and bool(status.tiers)
            and all(tier.lag_bytes == 0 for tier in status.tiers.values() if tier.required)
        )

    def _say(self, text: str) -> None:
        self._console.print(f"[dim]{self._clock.monotonic() - self._started:6.1f} s[/]  {text}", highlight=False)


class _Timed:
    """Adds the time of a block to `phases`."""

    def __init__(self, clock: Clock, phases: dict[str, float], name: str) -> None:
        self._clock, self._phases, self._name = clock, phases, name

    def __enter__(self) -> None:
        self._began = self._clock.monotonic()

    def __exit__(self, *error: object) -> None:
        self._phases[self._name] = self._clock.monotonic() - self._began


def run_demo(home: Home, console: Console, *, scale: float = 1.0) -> Outcome:
    """Everything is stopped when this returns or raises; the home stays, for `make ui`. `scale` is the shop's size:
    1 is about 200 MB."""
    env = home.prepare()
    with ExitStack() as stack:
        return Demo(home, env, stack, console, scale=scale).run()


def summary(outcome: Outcome) -> Table:
    table = Table(title="A lost server, recovered", show_header=False, title_justify="left")
    table.add_row("acknowledged commits", f"{outcome.acknowledged:,}")
    flying = outcome.recovered - outcome.acknowledged + outcome.lost
    table.add_row("recovered commits", f"{outcome.recovered:,}" + (f" ({flying} in flight)" if flying else ""))
    table.add_row("lost", f"[{'green' if outcome.lost == 0 else 'red'}]{outcome.lost}[/]")
    rpo = "0 s: nothing acknowledged is lost" if outcome.lost == 0 else "[red]more than 0 s[/]"
    table.add_row("RPO, measured", rpo)
    phases = dict(outcome.phases)
    table.add_row("RTO, measured", f"{phases.pop(WHOLE):.1f} s until it answered again")
    for name, seconds in phases.items():
        table.add_row(f"  {name}", f"{seconds:.1f} s")
    rows = outcome.rows_before_drop
    table.add_row("full, proven by a restore", f"{outcome.checks} checks passed")
    table.add_row("dropped table, from the secondary", f"{rows:,} rows" if rows else "[red]not there[/]")
    back = "all back, equal to the byte" if outcome.files_back else "[red]not all back[/]"
    table.add_row("files deleted, overwritten", f"{outcome.files_lost}, {outcome.files_damaged}: {back}")
    return table
