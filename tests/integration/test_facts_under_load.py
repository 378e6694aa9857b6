"""Facts of servers that have other work: they are exact under concurrent commits, give way, and cost no backup."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dr_pipelines.checks import CheckResult, Verdict
from dr_pipelines.clock import SystemClock
from dr_pipelines.embedded.postgres import EmbeddedPostgres
from dr_pipelines.errors import CommandFailed
from dr_pipelines.plan.validation import ValidationPlan
from dr_pipelines.postgres.restore_plan import RecoveryTarget
from dr_pipelines.postgres.scratch import ScratchServer
from dr_pipelines.postgres.server import Server, ServerConnection
from dr_pipelines.postgres.session import read_session
from dr_pipelines.postgres.source_facts import WantedFacts, take_facts
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.repository.repository import Repository
from dr_pipelines.repository.source_facts import SourceFacts
from dr_pipelines.validation.consistency import source_is_matched
from dr_pipelines.validation.fidelity import catalogue_is_matched
from dr_pipelines.validation.subject import RestoredCopy
from dr_pipelines.validation.validate import read_facts
from tests.conftest import MakePostgres
from tests.support.live import Live
from tests.support.streams import standby_of, streaming, until_replayed

SUMMED = WantedFacts(checksums=("public.*",))
_WRITERS = 4
_LOOP = """
DO $$ BEGIN
    FOR i IN 1..100000 LOOP
        INSERT INTO orders (writer) VALUES ({writer});
        UPDATE balances SET amount = amount + 1 WHERE id = {writer};
        COMMIT;
    END LOOP;
END $$
"""


@contextmanager
def load(server: EmbeddedPostgres) -> Iterator[None]:
    """Writers that commit one after another, and each waits for the stream."""

    def write(writer: int) -> None:
        with pytest.raises(CommandFailed, match="terminating connection"):
            server.psql(_LOOP.format(writer=writer))

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(_WRITERS)]
    for thread in threads:
        thread.start()
    try:
        while server.psql("SELECT count(DISTINCT writer) FROM orders") != str(_WRITERS):
            SystemClock().wait(0.01)
        yield
    finally:
        server.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%DO $$%' "
                    "AND pid <> pg_backend_pid()")  # fmt: skip
        for thread in threads:
            thread.join()


def facts_of(
    server: Server, wanted: WantedFacts = SUMMED, *, seconds: float = 10.0, clock: SystemClock | None = None
) -> SourceFacts:
    after = server.flush_lsn()
    return take_facts(
        server, wanted, after=after, label="facts", system_id="1", seconds=seconds, clock=clock or SystemClock()
    )


def told(live: Live, label: str) -> SourceFacts:
    found = read_facts(live.repository, live.repository.backup("shop", label))
    assert found is not None
    return found


def judged(copy: ScratchServer, facts: SourceFacts) -> CheckResult:
    assert facts.lsn is not None
    copy.replay_to(RecoveryTarget("lsn", facts.lsn, inclusive=False))
    return source_is_matched(RestoredCopy(copy, facts, ValidationPlan(), datetime.now(UTC)))


def test_facts_are_exact_while_others_commit(
    postgres18: EmbeddedPostgres, local_repository: Repository, folder: Path
) -> None:
    postgres18.psql("CREATE TABLE orders (id serial PRIMARY KEY, writer int)")
    postgres18.psql("CREATE TABLE balances AS SELECT id, 0 AS amount FROM generate_series(0, 9) id")
    live = Live(postgres18, local_repository, folder / "state")
    with live.streaming():
        full = live.take(BackupKind.FULL)
        with load(postgres18):
            facts = [facts_of(postgres18.server) for _ in range(4)]
            facts.append(facts_of(postgres18.server, seconds=0.001))  # no time: few blocks are summed
    rows = [table.rows for found in facts for table in found.databases[0].tables if table.name == "orders"]
    assert rows == sorted(rows) and rows[0] != rows[-1]  # there was something to miss
    with live.scratch(folder / "copy", full.label) as copy:
        results = [judged(copy, found) for found in facts]
    assert any("public.orders (1 %)" in name for name in results[-1].details["sampled"])
    # Never a false alarm; and where transactions could not be kept apart, they are named.
    assert {result.verdict for result in results} <= {Verdict.PASS, Verdict.NOT_PROVEN}, results
    assert all("transaction" in result.summary for result in results if not result.passed)
    assert sum(result.passed for result in results) >= 3, results


def test_changed_bytes_are_found_by_their_sum(
    make_postgres: MakePostgres, local_repository: Repository, folder: Path
) -> None:
    server = make_postgres(16)  # without checksums of pages
    server.psql("CREATE TABLE notes AS SELECT g AS id, 'a note of ' || g AS note FROM generate_series(1, 100) g")
    path = server.psql("SELECT pg_relation_filepath('notes')")
    live = Live(server, local_repository, folder / "state")
    with live.streaming():
        full = live.take(BackupKind.FULL, SUMMED)
    with live.scratch(folder / "copy", full.label) as copy:
        file = copy.data_dir / path
        file.write_bytes(file.read_bytes().replace(b"a note of 77", b"a note of 78"))
        facts = told(live, full.label)
        result = judged(copy, facts)
        catalogue = catalogue_is_matched(RestoredCopy(copy, facts, ValidationPlan(), datetime.now(UTC)))
    assert not facts.trouble and catalogue.passed
    assert result.verdict is Verdict.FAIL
    assert "postgres: rows of table public.notes differ" in result.summary


def test_facts_of_a_standby(postgres18: EmbeddedPostgres, local_repository: Repository, folder: Path) -> None:
    postgres18.psql("CREATE TABLE orders (id int PRIMARY KEY, at date); INSERT INTO orders VALUES (1, '2026-01-01')")
    standby = standby_of(postgres18, folder)
    live = Live(standby, local_repository, folder / "state")
    try:
        with streaming(standby, local_repository, folder / "state" / "shop", synchronous=False) as stream:
            until_replayed(postgres18, standby)
            full = live.take(BackupKind.FULL, SUMMED)
            postgres18.psql("INSERT INTO orders VALUES (2, '2026-01-02')")  # something behind the position
            until_replayed(postgres18, standby)
            stream.until_shipped(standby)
        facts = told(live, full.label)
        assert facts.in_recovery and not facts.trouble
        with live.scratch(folder / "copy", full.label) as copy:
            result = judged(copy, facts)
            assert (result.verdict, result.details["rows"]) == (Verdict.PASS, 1), result
    finally:
        standby.kill()


def test_a_role_with_few_rights_costs_no_backup_and_proves_nothing(
    postgres18: EmbeddedPostgres, local_repository: Repository, folder: Path
) -> None:
    postgres18.psql("CREATE TABLE orders (id int); INSERT INTO orders VALUES (1)")
    postgres18.psql("CREATE ROLE dr LOGIN REPLICATION IN ROLE pg_monitor")
    live, few = (
        Live(postgres18, local_repository, folder / "state"),
        ServerConnection("127.0.0.1", postgres18.port, "dr"),
    )
    with live.streaming():
        full = live.take(BackupKind.FULL, SUMMED, Server(few))
        postgres18.psql("GRANT pg_read_all_data TO dr")
        enough = live.take(BackupKind.FULL, SUMMED, Server(few))
    facts = told(live, full.label)
    assert "permission denied for table orders" in facts.trouble["postgres data"]
    assert "role password" not in facts.cluster or facts.cluster["role password"]
    with live.scratch(folder / "copy", full.label) as copy:
        assert judged(copy, facts).verdict is Verdict.NOT_PROVEN
        rest = catalogue_is_matched(RestoredCopy(copy, facts, ValidationPlan(), datetime.now(UTC)))
        assert rest.verdict is Verdict.PASS, rest  # what it may see it saw
    assert not told(live, enough.label).trouble


def test_nobody_waits_for_facts_and_facts_wait_for_nobody(postgres18: EmbeddedPostgres) -> None:
    postgres18.psql("CREATE TABLE free (id int); CREATE TABLE held (id int)")
    with read_session(postgres18.server) as reader:
        reader.begin()
        reader.ask("SELECT count(*) FROM public.free")
        # What was read is let go at once: a change of the table does not wait for the end of the transaction.
        postgres18.psql("SET lock_timeout = '1s'; ALTER TABLE free ADD COLUMN more int")

    def hold() -> None:
        with pytest.raises(CommandFailed, match="terminating connection"):
            postgres18.psql("BEGIN; LOCK TABLE held IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(60)")

    holder = threading.Thread(target=hold)
    holder.start()
    held = "FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted AND relation = 'held'::regclass"
    while postgres18.psql(f"SELECT count(*) {held}") != "1":
        SystemClock().wait(0.02)
    facts = facts_of(postgres18.server, WantedFacts())
    postgres18.psql(f"SELECT pg_terminate_backend(pid) {held}")
    holder.join()
    assert "public.held" in facts.trouble["postgres data"] and "lock timeout" in facts.trouble["postgres data"]
    assert {table.name: table.rows for table in facts.databases[0].tables} == {"free": 0, "held": None}


class Emptying(SystemClock):
    """Something happens between the snapshot and the reading: there the time is looked at."""

    def __init__(self, server: EmbeddedPostgres, text: str) -> None:
        super().__init__()
        self._server, self._text = server, text

    def now(self) -> datetime:
        if self._text:
            text, self._text = self._text, ""
            self._server.psql(text)
        return super().now()


def test_a_table_that_is_emptied_while_it_is_read_is_not_told(postgres18: EmbeddedPostgres) -> None:
    postgres18.psql("CREATE TABLE emptied (id int); INSERT INTO emptied VALUES (1); CREATE TABLE other (id int)")
    # TRUNCATE empties a table for every snapshot, those before it too: a count would be one that never was.
    facts = facts_of(postgres18.server, WantedFacts(), clock=Emptying(postgres18, "TRUNCATE emptied"))
    (database,) = facts.databases
    assert {table.name: table.rows for table in database.tables} == {"emptied": None, "other": 0}
    assert not database.stable
    summed = facts_of(postgres18.server, SUMMED, clock=Emptying(postgres18, "TRUNCATE emptied"))
    assert "public.emptied: it was changed while it was read" in summed.trouble["postgres data"]


class Resetting(SystemClock):
    """Something happens between the reading of the sequences and the snapshot: there it is waited."""

    def __init__(self, server: EmbeddedPostgres, text: str) -> None:
        super().__init__()
        self._server, self._text = server, text

    def wait(self, seconds: float, stop: threading.Event | None = None) -> bool:
        if self._text:
            text, self._text = self._text, ""
            self._server.psql(text)
        return super().wait(seconds, stop)


def test_sequences_that_begin_anew_while_they_are_looked_at_are_not_told(postgres18: EmbeddedPostgres) -> None:
    for name in ("staged", "set", "falling", "goes_on"):
        postgres18.psql(f"CREATE SEQUENCE {name} {'INCREMENT -1' if name == 'falling' else ''}")
        postgres18.psql(f"SELECT nextval('{name}') FROM generate_series(1, 100)")
    change = (
        "ALTER SEQUENCE staged RESTART; SELECT nextval('staged') FROM generate_series(1, 200);"
        "SELECT nextval('goes_on'); SELECT setval('set', 7), setval('falling', -7)"
    )
    facts = facts_of(postgres18.server, clock=Resetting(postgres18, change))
    told = {sequence.name: sequence.last_value for sequence in facts.databases[0].sequences}
    assert told == {"staged": None, "set": None, "falling": None, "goes_on": 100}


def test_partitions_on_other_servers_are_not_asked_for(postgres18: EmbeddedPostgres) -> None:
    postgres18.psql(
        "CREATE FOREIGN DATA WRAPPER wrapper; CREATE SERVER far FOREIGN DATA WRAPPER wrapper;"
        "CREATE TABLE sales (year int) PARTITION BY LIST (year);"
        "CREATE TABLE near PARTITION OF sales FOR VALUES IN (2026); INSERT INTO near VALUES (2026), (2026);"
        "CREATE FOREIGN TABLE elsewhere PARTITION OF sales FOR VALUES IN (2025) SERVER far"
    )
    facts = facts_of(postgres18.server, WantedFacts(checksums=("public.sales",)))
    assert not facts.trouble
    tables = {table.name: table for table in facts.databases[0].tables}
    assert (tables["near"].rows, tables["near"].checksum is None) == (2, False)
    assert (tables["sales"].rows, tables["sales"].checksum) == (None, None)


def test_what_is_set_back_or_renamed_meanwhile_is_not_told(postgres18: EmbeddedPostgres) -> None:
    for name in ("back", "on_and_on"):
        postgres18.psql(f"CREATE SEQUENCE {name}; SELECT setval('{name}', 50)")
    postgres18.psql("CREATE TABLE days (day date) PARTITION BY RANGE (day); CREATE ROLE first")
    postgres18.psql("CREATE TABLE days_1 PARTITION OF days DEFAULT; INSERT INTO days VALUES ('2026-01-01')")
    postgres18.psql("ALTER TABLE days OWNER TO first")
    happens = "SELECT setval('back', 3), nextval('on_and_on'); ALTER ROLE first RENAME TO other; TRUNCATE days_1"
    facts = facts_of(postgres18.server, WantedFacts(), clock=Emptying(postgres18, happens))
    (database,) = facts.databases
    assert {found.name: found.last_value for found in database.sequences} == {"back": None, "on_and_on": 50}
    assert {table.name: table.rows for table in database.tables} == {"days": None, "days_1": None}
    assert not database.stable and "changed while they were read" in facts.trouble["cluster"]
