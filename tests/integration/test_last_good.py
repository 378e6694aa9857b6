"""Somebody deletes what should have stayed: when the data were last good is found, exactly, and restored."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from shutil import rmtree
from typing import Any

import psycopg
import pytest
import yaml

from dr_pipelines.commands import Command, Runner, runs_as_root
from dr_pipelines.embedded.postgres import EmbeddedPostgres, bin_dir, open_folder, os_user
from dr_pipelines.errors import CheckFailed, NotProven, UsageError
from dr_pipelines.lsn import Lsn
from dr_pipelines.postgres.restore_plan import RecoveryTarget
from dr_pipelines.progress import Silent
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.repository.repository import Repository
from dr_pipelines.storage.local import LocalStore
from dr_pipelines.validation.last_good import LastGood, SearchRequest, find_last_good
from dr_pipelines.validation.questions import (
    Answer,
    Locked,
    Question,
    amcheck_question,
    expectations_question,
    sql_question,
)
from dr_pipelines.validation.touched import TouchedTable
from tests.support import forked
from tests.support.live import CLOCK, Live, running

COMMITS = 48
ORDERS_ARE_THERE = "SELECT count(*) = 10 FROM orders WHERE note = 'old'"
NOTHING_IS_GONE = "SELECT count(*) = 3 FROM labels"


_CORRUPTED = """
CREATE FUNCTION corrupted() RETURNS boolean LANGUAGE plpgsql
AS $$BEGIN RAISE 'invalid page' USING ERRCODE = 'data_corrupted'; END$$
"""


@dataclass
class Accidents:
    """A server's history. Orders are deleted by transaction `deleted`, items truncated by `truncated` while others
    commit, orders spoilt and labels dropped by `spoilt`, after a second full. `before` and `after` are positions
    around an accident, `moments` times between two commits."""

    live: Live
    base: Path
    deleted: int = 0
    truncated: int = 0
    spoilt: int = 0
    locked: Lsn = field(default_factory=lambda: Lsn(0))
    before: dict[int, Lsn] = field(default_factory=dict)
    after: dict[int, Lsn] = field(default_factory=dict)
    moments: list[datetime] = field(default_factory=list)

    def find(self, check: str | Question, **options: Any) -> LastGood:
        question = sql_question(check, "postgres", 20) if isinstance(check, str) else check
        place = self.base / "search"
        place.mkdir(exist_ok=True)
        request = SearchRequest(self.live.request(place / "copy"), {"check": question})
        try:
            return find_last_good(
                replace(request, **options), [self.live.repository], clock=CLOCK, runner=Runner(), progress=Silent()
            )
        finally:
            assert not [*place.iterdir()], "nothing is left"

    def dr(self, *argv: str) -> Any:
        """The answer of a command that goes well."""
        done = forked.dr(*argv, "--json", "--plan", self.base / "plan.yaml")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def accidents() -> Iterator[Accidents]:
    base = open_folder("dr-test-good-")
    server = EmbeddedPostgres(
        base / "data",
        initdb=("--wal-segsize=1",),
        settings={"shared_buffers": "8MB", "fsync": "off", "summarize_wal": "on"},
    )
    server.start()
    for name in ("template0", "template1"):  # two thirds of the files of an empty server
        server.psql(f"ALTER DATABASE {name} IS_TEMPLATE false")
        server.psql(f"DROP DATABASE {name}")
    repository = Repository(LocalStore(base / "store", "primary"), Codec(1), "primary")
    repository.initialise()
    found = Accidents(Live(server, repository, base / "state"), base)
    (base / "plan.yaml").write_text(yaml.dump(_plan(server)))
    try:
        with (
            found.live.streaming(),
            closing(psycopg.connect(f"host=127.0.0.1 port={server.port} user=postgres", autocommit=True)) as session,
            closing(psycopg.connect(f"host=127.0.0.1 port={server.port} user=postgres")) as other,
        ):
            session.execute("CREATE TABLE orders (id int PRIMARY KEY, note text)")
            session.execute("CREATE TABLE items (id int)")
            session.execute("CREATE TABLE labels AS SELECT generate_series(1, 3)")
            session.execute(_CORRUPTED)
            session.execute("INSERT INTO orders SELECT -i, 'old' FROM generate_series(1, 10) i")
            found.live.take(BackupKind.FULL)
            session.execute("INSERT INTO items SELECT generate_series(1, 30)")
            for number in range(COMMITS):
                if number == COMMITS // 3:
                    found.live.take(BackupKind.INCREMENTAL)
                if number == COMMITS // 2:
                    found.deleted = _accident(found, session, "DELETE FROM orders")
                if number == COMMITS - 10:
                    found.truncated = _accident(found, other, "TRUNCATE items", end=False)
                session.execute("INSERT INTO orders VALUES (%s, 'new')", (number,))
                found.moments.append(_one(session, "SELECT clock_timestamp()"))
            found.locked = Lsn.parse(_one(session, "SELECT pg_current_wal_insert_lsn()::text"))
            other.commit()
            # More WAL than it takes to restore a full instead.
            session.execute(
                "CREATE TABLE bulk AS SELECT repeat(sha512(i::text::bytea)::text, 9) FROM generate_series(1, 24000) i"
            )
            session.execute("DROP TABLE bulk")
            found.live.take(BackupKind.FULL)
            for number in range(COMMITS, COMMITS + 8):
                session.execute("INSERT INTO orders VALUES (%s, 'new')", (number,))
                if number == COMMITS + 4:
                    found.spoilt = _accident(
                        found, session, "UPDATE orders SET note = 'spoilt' WHERE id > 40; DROP TABLE labels"
                    )
        server.stop()
        yield found
    finally:
        server.kill()
        rmtree(base, ignore_errors=True)


def _plan(server: EmbeddedPostgres) -> dict[str, Any]:
    shop = {
        "connection": {"host": "127.0.0.1", "port": server.port},
        "schedule": {"full": "daily", "incremental": "hourly"},
        "storage": {"primary": "disk"},
        "bin_dir": str(bin_dir(18)),
        "os_user": os_user(),
    }
    return {
        "version": 1,
        "name": "test",
        "state_dir": "state",
        "storage": {"disk": {"type": "local", "path": "store"}},
        "encryption": "none",
        "databases": {"shop": shop},
    }


def _accident(found: Accidents, session: psycopg.Connection[Any], deed: str, *, end: bool = True) -> int:
    position = "SELECT pg_current_wal_insert_lsn()::text"
    before = Lsn.parse(_one(session, position))
    with session.transaction() if end else session.cursor():
        xid = int(_one(session, "SELECT pg_current_xact_id()::text"))
        with session.transaction():  # a savepoint
            session.execute(deed)
    found.before[xid] = before
    if end:
        found.after[xid] = Lsn.parse(_one(session, position))
    return xid


def _one(session: psycopg.Connection[Any], question: str) -> Any:
    row = session.execute(question).fetchone()
    assert row is not None
    return row[0]


def test_the_transaction_is_found_and_the_restore_before_it_is_good(accidents: Accidents) -> None:
    found = accidents.dr("find-last-good", "--server", "shop", "--check", ORDERS_ARE_THERE)
    bad, good = found["bad"], found["good"]
    assert found["exact"] and bad["xid"] == accidents.deleted
    assert accidents.before[accidents.deleted] <= Lsn.parse(bad["lsn"]) < accidents.after[accidents.deleted]
    assert found["effort"]["restores"] == 2  # of either full: the second lies behind more WAL than is worth replaying
    assert 6 <= len(found["probes"]) <= 2 + 6, "log2 of some 60 commits"
    verdicts = {probe["point"]["lsn"]: probe["good"] for probe in found["probes"]}
    assert verdicts[good["lsn"]] is True and verdicts[bad["lsn"]] is False
    assert found["touched"]["complete"]
    (table,) = found["touched"]["tables"]
    assert table == asdict(TouchedTable("postgres", "public.orders", deleted=10 + COMMITS // 2))

    command = shlex.split(found["restore"].replace("DIR", str(accidents.base / "good")))
    accidents.dr(*command[1:])
    with running(accidents.base / "good") as server:
        assert server.psql(ORDERS_ARE_THERE) == "t"
        assert server.psql("SELECT count(*) FROM orders") == str(10 + COMMITS // 2)
    report = accidents.live.restore(accidents.base / "bad", RecoveryTarget("lsn", Lsn.parse(bad["lsn"])))
    with running(report.data_dir) as server:
        assert server.psql(ORDERS_ARE_THERE) == "f"


def test_a_table_that_is_locked_where_the_copy_stands(accidents: Accidents) -> None:
    """TRUNCATE holds its lock over ten commits of others; on a copy that stands among them it never ends."""
    found = accidents.find("SELECT count(*) > 0 FROM items", since=accidents.moments[COMMITS - 14])
    assert found.bad is not None and found.bad.xid == accidents.truncated
    assert found.good.at is not None and found.good.at > accidents.moments[COMMITS - 2]
    assert found.effort.restores == 2
    assert found.touched is not None
    assert [(table.name, table.removed) for table in found.touched.tables] == [("public.items", True)]


def test_a_newer_backup_is_taken_where_it_is_quicker_than_replay(accidents: Accidents) -> None:
    found = accidents.find(NOTHING_IS_GONE, since=accidents.moments[COMMITS - 2])
    assert found.bad is not None and found.bad.xid == accidents.spoilt
    assert found.effort.restores == 2
    (first,) = [probe for probe in found.probes if not probe.point.inclusive][1:]
    assert first.good, "where the second full is consistent"
    assert found.touched is not None
    orders, labels = found.touched.tables
    assert (orders.name, orders.updated) == ("public.orders", COMMITS + 4 - 40)
    assert (labels.name, labels.removed) == ("public.labels", True)
    assert found.touched.catalog_changes > 0
    assert "does not exist" in next(probe.said for probe in found.probes if probe.point == found.bad)
    assert found.touched.subtransactions == 1


def test_a_disk_without_room_to_keep_files_costs_restores(accidents: Accidents) -> None:
    """As large as one copy, and not as two."""
    place = accidents.base / "search"
    place.mkdir(exist_ok=True)
    mount = Command(["mount", "-t", "tmpfs", "-o", "size=60m,mode=755", "tmpfs", str(place)])
    if not runs_as_root() or Runner().run(mount, check=False).returncode != 0:
        pytest.skip("needs the right to mount a small disk")
    try:
        since, until = accidents.moments[COMMITS // 2 - 4], accidents.moments[COMMITS // 2 + 4]
        found = accidents.find(ORDERS_ARE_THERE, since=since, until=until)
    finally:
        Runner().run(Command(["umount", str(place)]))
    assert found.bad is not None and found.bad.xid == accidents.deleted
    bad = sum(not probe.good for probe in found.probes)
    assert found.effort.restores == 1 + bad, "to begin with, and after each bad point"
    assert found.touched is not None and found.touched.tables[0].name == "public.orders"


def test_a_long_window_is_halved_by_position_before_commits_are_listed(accidents: Accidents) -> None:
    found = accidents.find(ORDERS_ARE_THERE, until=accidents.moments[COMMITS - 1], listed=1 << 18)
    assert found.bad is not None and found.bad.xid == accidents.deleted
    assert any(not probe.point.inclusive for probe in found.probes[1:])


def test_bounds_and_precision(accidents: Accidents) -> None:
    since, until = accidents.moments[COMMITS // 3], accidents.moments[COMMITS // 2 + 3]
    found = accidents.find(ORDERS_ARE_THERE, since=since, until=until, precision=timedelta(hours=1))
    assert found.bad is not None and not found.exact and found.touched is None
    assert [probe.good for probe in found.probes] == [True, False]
    assert found.good.at is not None and found.good.at <= since
    assert found.bad.at is not None and since < found.bad.at <= until
    good = accidents.find(ORDERS_ARE_THERE, since=since, until=accidents.before[accidents.deleted])
    assert good.bad is None and len(good.probes) == 2
    assert good.good.lsn == good.end.lsn < accidents.before[accidents.deleted]


def test_data_that_are_bad_from_the_beginning(accidents: Accidents) -> None:
    with pytest.raises(CheckFailed, match="bad already at the start"):
        accidents.find(ORDERS_ARE_THERE, since=accidents.after[accidents.deleted])


def test_a_check_that_cannot_be_asked_at_the_start(accidents: Accidents) -> None:
    with pytest.raises(UsageError, match=r"cannot be asked at the start.*nowhere") as told:
        accidents.find("SELECT count(*) > 0 FROM nowhere")
    assert "--from" in str(told.value.hint)


def test_what_a_question_says(accidents: Accidents) -> None:
    full = accidents.live.repository.usable_backups("shop")[0]
    with accidents.live.scratch(accidents.base / "asked", full.label) as copy:
        copy.replay_to(RecoveryTarget("immediate"))

        def ask(check: str, timeout: float = 20, dbname: str = "postgres") -> Answer:
            return sql_question(check, dbname, timeout)(copy)

        assert ask(ORDERS_ARE_THERE) == Answer(True, "true")
        assert ask("SELECT count(*) > 10 FROM orders") == Answer(False, "false")
        for refused in (
            ask("SELECT true FROM nowhere"),
            ask("SELECT true", dbname="nowhere"),
            ask("DELETE FROM orders RETURNING true"),
        ):
            assert not refused.good and refused.is_error
        assert ask("SELECT corrupted()") == Answer(False, said=ask("SELECT corrupted()").said), "well asked, and bad"
        for no_answer in ("SELECT 1", "SELECT true FROM orders", "SELECT true, true", "SELECT true WHERE false"):
            with pytest.raises(UsageError, match="boolean"):
                ask(no_answer)
        with pytest.raises(NotProven, match="neither good nor bad"):
            ask("SELECT NULL::boolean")
        with pytest.raises(NotProven, match=r"within 0\.2 s"):
            ask("SELECT pg_sleep(60) IS NULL", 0.2)
        with pytest.raises(NotProven, match="extension amcheck is not in"):
            amcheck_question("postgres", 5)(copy)


def _suite(folder: Path, table: str, *, at_least: int) -> Path:
    """In a file that is named as the operator's own are."""
    kwargs = {"min_value": at_least}
    expectation = {"type": "expect_table_row_count_to_be_between", "kwargs": kwargs}
    path = folder / f"{table}.json"
    path.write_text(json.dumps({"expectations": [expectation]}))
    return path


def test_a_suite_of_expectations_is_a_question_too(accidents: Accidents) -> None:
    full, base = accidents.live.repository.usable_backups("shop")[0], accidents.base
    with accidents.live.scratch(base / "expected", full.label) as copy:
        copy.replay_to(RecoveryTarget("lsn", accidents.before[accidents.deleted]))

        def ask(path: Path) -> Answer:
            return expectations_question(path, "postgres", 20)(copy)

        assert ask(_suite(base, "public.orders", at_least=10)).good
        too_few = ask(_suite(base, "public.orders", at_least=1000))
        assert not too_few.good and "1 of 1 expectation is not met" in too_few.said
        assert not ask(_suite(base, "public.nowhere", at_least=1)).good
        (base / "public.items.json").write_text("{}")
        with pytest.raises(NotProven, match=r"public\.items"):
            ask(base / "public.items.json")
        copy.replay_to(RecoveryTarget("lsn", accidents.locked, inclusive=False))  # where TRUNCATE was open
        with pytest.raises(Locked, match="lock timeout"):
            ask(_suite(base, "public.items", at_least=1))
