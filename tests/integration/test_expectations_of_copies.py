"""Expectations over a real server: the baseline that is made from facts, and suites of the operator's own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dr_pipelines.checks import CheckResult, Verdict
from dr_pipelines.embedded.postgres import EmbeddedPostgres, open_folder
from dr_pipelines.lsn import Lsn
from dr_pipelines.operations import validate_backup
from dr_pipelines.plan import Plan
from dr_pipelines.plan.validation import ValidationPlan
from dr_pipelines.postgres.server import Server, ServerConnection
from dr_pipelines.progress import Silent
from dr_pipelines.repository.source_facts import (
    ColumnFacts,
    DatabaseFacts,
    ForeignKeyFacts,
    SequenceFacts,
    SourceFacts,
    TableFacts,
)
from dr_pipelines.site import Site
from dr_pipelines.storage.base import read_all
from dr_pipelines.validation import suite
from dr_pipelines.validation.baseline import baseline_is_met
from dr_pipelines.validation.own_expectations import own_expectations_are_met
from dr_pipelines.validation.subject import KeepPage
from tests.support.lived import Lived

AT = datetime(2026, 1, 20, 12, tzinfo=UTC)
ODD = """odd "na%me" :x {y}"""
QUOTED = '"odd ""na%me"" :x {y}"'
CONTENT = f"""
CREATE TABLE customers (id int PRIMARY KEY, email text NOT NULL);
CREATE TABLE orders (id serial PRIMARY KEY, customer_id int REFERENCES customers, total numeric(10,2),
                     at timestamptz NOT NULL);
CREATE TABLE {QUOTED} ("a:b" int, "c%" text, PRIMARY KEY ("a:b", "c%"));
CREATE TABLE nothing_yet (id int PRIMARY KEY);
CREATE UNLOGGED TABLE cache (id int);
INSERT INTO customers SELECT g, 'person' || g || '@example.com' FROM generate_series(1, 50) g;
INSERT INTO orders (customer_id, total, at)
    SELECT 1 + g % 50, g, timestamptz '2026-01-20 12:00Z' - g * interval '1 minute' FROM generate_series(0, 199) g;
INSERT INTO {QUOTED} VALUES (1, 'x'), (1, 'y');
"""


def column(name: str, kind: str, newest: datetime | None = None) -> ColumnFacts:
    return ColumnFacts(name=name, type=kind, newest=newest)


CUSTOMERS = TableFacts(
    schema_name="public", name="customers", rows=50, estimated_rows=50, primary_key=("id",), bytes=8192,
    columns=(column("id", "integer"), column("email", "text")),
)  # fmt: skip
ORDERS = TableFacts(
    schema_name="public", name="orders", rows=200, estimated_rows=200, primary_key=("id",), bytes=16384,
    columns=(column("id", "integer"), column("customer_id", "integer"), column("total", "numeric(10,2)"),
             column("at", "timestamp with time zone", AT)),
    foreign_keys=(ForeignKeyFacts(name="orders_customer_id_fkey", columns=("customer_id",), schema_name="public",
                                  table="customers", referred=("id",)),),
)  # fmt: skip
OTHERS = (
    TableFacts(schema_name="public", name=ODD, rows=2, primary_key=("a:b", "c%"),
               columns=(column("a:b", "integer"), column("c%", "text"))),
    TableFacts(schema_name="public", name="nothing_yet", rows=0, columns=(column("id", "integer"),)),
    TableFacts(schema_name="public", name="cache", unlogged=True, columns=(column("id", "integer"),)),
)  # fmt: skip
SEQUENCE = SequenceFacts(
    schema_name="public", name="orders_id_seq", last_value=200, owned_by=("public", "orders", "id")
)


def facts(*tables: TableFacts, name: str = "app", sequences: tuple[SequenceFacts, ...] = (SEQUENCE,)) -> SourceFacts:
    told = DatabaseFacts(
        name=name, lsn=Lsn(1), snapshot="1:1:", taken_at=AT, tables=tables or (CUSTOMERS, ORDERS, *OTHERS),
        sequences=sequences,
    )  # fmt: skip
    return SourceFacts(system_id="1", databases=(told,))


@dataclass(frozen=True)
class Standing:
    """A server that stands for a restored copy."""

    connection: ServerConnection
    facts: SourceFacts | None
    plan: ValidationPlan = field(default_factory=ValidationPlan)
    now: datetime = AT
    promises: Mapping[str, timedelta] = field(default_factory=dict)
    keep_page: KeepPage | None = None
    source: str = "shop"

    def server(self, dbname: str = "postgres") -> Server:
        return Server(replace(self.connection, dbname=dbname))

    def databases(self) -> list[str]:
        rows = self.server().ask("SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate")
        return [str(name) for (name,) in rows]


@pytest.fixture(scope="module")
def shared() -> Iterator[EmbeddedPostgres]:
    """One for all of these tests."""
    base = open_folder("dr-test-pg-")
    server = EmbeddedPostgres(base / "data", 18)
    try:
        server.start()
        server.psql("CREATE DATABASE template_app")
        server.psql(CONTENT, "template_app")
        yield server
    finally:
        server.kill()
        shutil.rmtree(base, ignore_errors=True)


@pytest.fixture
def copy(shared: EmbeddedPostgres) -> Iterator[Standing]:
    """A database of its own for each test."""
    shared.psql("CREATE DATABASE app TEMPLATE template_app")
    yield Standing(shared.server.connection, facts())
    shared.psql("DROP DATABASE app")  # nobody is left connected


def results_of(result: CheckResult, word: str) -> dict[str, str]:
    """What came of each expectation that came out so, with what was observed."""
    return {row["expectation"]: row["observed"] for row in result.details["expectations"] if row["result"] == word}


def broken(result: CheckResult) -> str:
    """The one that is not met."""
    assert result.verdict is Verdict.FAIL, result.summary
    (only,) = results_of(result, "FAILED").items()
    return f"{only[0]}: {only[1]}"


# --- the baseline -------------------------------------------------------------------------------------------


def test_a_copy_that_is_right_meets_the_baseline(shared: EmbeddedPostgres, copy: Standing) -> None:
    pages: dict[str, bytes] = {}

    def keep(what: str, page: bytes) -> str:
        pages[what] = page
        return what

    promised = {"public.orders": timedelta(0), "public.customers": timedelta(minutes=5)}
    shared.psql(f"INSERT INTO {QUOTED} VALUES (2, 'z'); TRUNCATE cache; CREATE TABLE later ()", "app")
    result = baseline_is_met(replace(copy, promises=promised, keep_page=keep))
    assert result.verdict is Verdict.PASS, result.summary
    assert (result.details["tables"], result.details["rows"], result.details["warnings"]) == (5, 253, 0)
    skipped = [row["observed"] for row in result.details["expectations"] if row["result"] == "skipped"]
    assert sorted(skipped) == [
        "it is unlogged: PostgreSQL empties it when it is restored",
        "it was empty when it was backed up",
    ]
    assert results_of(result, "met")["the newest at is behind the newest that was recorded by no second at most"] == "0"
    assert b"orders_customer_id_fkey" in pages["baseline"]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (
            "ALTER TABLE orders DROP CONSTRAINT orders_customer_id_fkey; DELETE FROM customers WHERE id = 7",
            "what customer_id refers to is in public.customers (orders_customer_id_fkey): 4",
        ),
        ("TRUNCATE orders RESTART IDENTITY", "it has no less than 90% of the 200 that were counted: 0"),
        ("DELETE FROM orders WHERE id > 170", "it has no less than 90% of the 200 that were counted: 170"),
        ("SELECT setval('orders_id_seq', 150)", "the sequence public.orders_id_seq is not behind id: -50"),
        (
            "ALTER TABLE orders DROP CONSTRAINT orders_pkey; UPDATE orders SET id = 5 WHERE id IN (6, 7)",
            "no primary key (id) is there twice: 1",
        ),
        (
            "ALTER TABLE orders DROP CONSTRAINT orders_pkey; ALTER TABLE orders ALTER id DROP NOT NULL; "
            "UPDATE orders SET id = NULL WHERE id = 6",
            "no row is without its primary key (id): 1",
        ),
        (
            "ALTER TABLE orders ALTER total TYPE numeric(12,2)",
            "every column is of the type that was recorded: 1 of 10: public.orders.total",
        ),
        ("ALTER TABLE customers DROP email", "every column is there: 1 of 10: public.customers.email"),
    ],
    ids=["orphans", "truncated", "rows lost", "sequence", "twice", "null key", "type", "column"],
)
def test_what_is_wrong_is_named(shared: EmbeddedPostgres, copy: Standing, damage: str, said: str) -> None:
    shared.psql(damage, "app")
    result = baseline_is_met(copy)
    if damage.startswith("TRUNCATE"):
        # Nothing else can be said of a table without rows: neither is met.
        assert results_of(result, "FAILED") == {
            "it has no less than 90% of the 200 that were counted": "0",
            "the sequence public.orders_id_seq is not behind id": "",
        }
    else:
        assert broken(result) == said


def test_a_copy_that_is_an_hour_old(shared: EmbeddedPostgres, copy: Standing) -> None:
    """Every row count is within its tolerance; but of orders only five minutes may be lost."""
    shared.psql("UPDATE orders SET at = at - interval '1 hour'", "app")
    assert baseline_is_met(copy).passed  # nothing was promised
    result = baseline_is_met(replace(copy, promises={"public.orders": timedelta(minutes=5)}))
    assert broken(result) == "the newest at is behind the newest that was recorded by 5 minutes (300 s) at most: 3600"
    assert baseline_is_met(replace(copy, promises={"public.orders": timedelta(hours=2)})).passed


def test_rows_of_what_nothing_is_promised_of_are_shown_only(shared: EmbeddedPostgres, copy: Standing) -> None:
    shared.psql("DELETE FROM orders WHERE id > 9", "app")
    result = baseline_is_met(replace(copy, promises={"public.customers": timedelta(minutes=5)}))
    assert (result.verdict, result.details["warnings"]) == (Verdict.PASS, 1)
    assert results_of(result, "warning") == {"it has no less than 90% of the 200 that were counted": "9"}


def test_tables_and_databases_that_are_missing(shared: EmbeddedPostgres, copy: Standing) -> None:
    shared.psql("DROP TABLE orders", "app")
    result = baseline_is_met(copy)
    assert results_of(result, "FAILED") == {
        f"every {what} is there": "4 of 10: public.orders.at, public.orders.customer_id, public.orders.id, "
        "public.orders.total"
        for what in ("table", "column")
    }
    gone = baseline_is_met(replace(copy, facts=facts(name="gone")))
    assert broken(gone) == "the database is there: there is none of this name"


def test_large_tables_are_judged_by_their_size(shared: EmbeddedPostgres, copy: Standing) -> None:
    large = ORDERS.model_copy(update={"rows": None})
    large_copy = replace(copy, facts=facts(CUSTOMERS, large), promises={"public.orders": timedelta(0)})
    result = baseline_is_met(large_copy)
    assert result.verdict is Verdict.PASS, result.summary
    assert set(results_of(result, "skipped").values()) == {"it is too large to be read whole"}
    assert "the newest at is behind the newest that was recorded by no second at most" in results_of(result, "met")
    shared.psql("TRUNCATE orders", "app")
    failed = results_of(baseline_is_met(large_copy), "FAILED")
    assert failed["it has about 200 rows, by its size"] == "0"


def test_what_could_not_be_seen_is_not_proven(copy: Standing) -> None:
    assert baseline_is_met(replace(copy, facts=None)).verdict is Verdict.NOT_PROVEN
    empty = SourceFacts(system_id="1", databases=())
    assert baseline_is_met(replace(copy, facts=empty)).verdict is Verdict.NOT_PROVEN
    no_tables = DatabaseFacts(name="postgres", lsn=Lsn(1), snapshot="1:1:", taken_at=AT)
    alone = baseline_is_met(replace(copy, facts=SourceFacts(system_id="1", databases=(no_tables,))))
    assert (alone.verdict, alone.details["evaluated"]) == (Verdict.NOT_PROVEN, 0)
    odd_key = ORDERS.model_copy(update={"primary_key": ("id", "no_such_column")})
    unclear = baseline_is_met(replace(copy, facts=facts(CUSTOMERS, odd_key)))
    assert unclear.verdict is Verdict.NOT_PROVEN
    assert "no_such_column does not exist" in unclear.summary


# --- the operator's own -------------------------------------------------------------------------------------

GUIDE = (Path(__file__).parents[2] / "docs" / "operators-guide.md").read_text()


def example(name: str) -> str:
    """A file that the guide shows."""
    after = GUIDE.split(f"`{name}`", 1)[1]
    return after.split("```", 2)[1].split("\n", 1)[1]


@pytest.fixture
def own(copy: Standing, tmp_path: Path) -> Standing:
    (tmp_path / "shop" / "app").mkdir(parents=True)
    return replace(copy, plan=ValidationPlan(expectations=tmp_path))


def write(own: Standing, name: str, text: str) -> None:
    (own.plan.expectations / "shop" / name).write_text(text)


def test_the_suites_that_the_guide_shows_run(shared: EmbeddedPostgres, own: Standing) -> None:
    for name in ("app/public.orders.json", "app/unpaid.sql", "app/unpaid.json", "app/public.customers.py"):
        write(own, name, example(name))
    result = own_expectations_are_met(own)
    assert result.verdict is Verdict.PASS, result.summary
    assert (result.details["suites"], result.details["declared"]) == (3, 6)
    shared.psql(
        "UPDATE orders SET total = -1 WHERE id = 8; UPDATE customers SET email = 'secret word' WHERE id = 3", "app"
    )
    damaged = own_expectations_are_met(own)
    assert results_of(damaged, "FAILED") == {
        "no order costs less than nothing": "1 of 200",
        "e-mail addresses look like ones": "1 of 50",
    }
    assert "secret word" not in str(damaged.details)  # what is somebody's data stays where it is


def test_suites_that_cannot_be_trusted(own: Standing) -> None:
    write(own, "app/public.gone.json", example("app/public.orders.json"))
    assert broken(own_expectations_are_met(own)).startswith("there is a table or view public.gone")
    (own.plan.expectations / "shop" / "app" / "public.gone.json").rename(
        own.plan.expectations / "shop" / "app" / "public.orders.json"
    )
    assert own_expectations_are_met(own).passed
    for name, text, said in (
        ("app/public.customers.json", "{", "public.customers.json is no readable suite"),
        ("app/public.customers.json", '{"expectations": []}', "declares no expectations"),
        ("app/public.customers.json", '{"expectations": [{"type": "expect_magic"}]}', "is no readable suite"),
        ("app/public.customers.py", "1 / 0", "division by zero"),
        ("app/public.customers.py", "sweet = 1", "it defines no `suite`"),
        ("app/lonely.sql", "SELECT 1", "it is no suite, nor the query of one"),
        ("public.orders.json", "{}", "it is no suite, nor the query of one"),
    ):
        write(own, name, text)
        result = own_expectations_are_met(own)
        assert (result.verdict, said in result.summary) == (Verdict.NOT_PROVEN, True), result.summary
        (own.plan.expectations / "shop" / name).unlink()


def test_a_suite_that_saw_nothing_has_not_passed(shared: EmbeddedPostgres, own: Standing) -> None:
    """Great Expectations takes an empty table, and a column of NULLs, for right."""
    write(own, "app/public.orders.json", example("app/public.orders.json"))
    shared.psql("UPDATE orders SET total = NULL", "app")
    assert own_expectations_are_met(own).verdict is Verdict.NOT_PROVEN
    twice = '{"type": "expect_column_values_to_be_unique", "kwargs": {"column": "id"}}'
    write(own, "app/public.orders.json", f'{{"expectations": [{twice}]}}')
    assert own_expectations_are_met(own).passed
    shared.psql("DELETE FROM orders", "app")
    unseen = own_expectations_are_met(own)
    assert (unseen.verdict, "no value was there" in unseen.summary) == (Verdict.NOT_PROVEN, True)
    column_gone = '{"type": "expect_column_values_to_be_unique", "kwargs": {"column": "no_such"}}'
    write(own, "app/public.orders.json", f'{{"expectations": [{column_gone}]}}')
    assert own_expectations_are_met(own).verdict is Verdict.NOT_PROVEN


def test_where_there_are_no_suites_there_is_no_check(own: Standing) -> None:
    assert own_expectations_are_met not in suite.whole(own.plan, "shop").at_end
    assert own_expectations_are_met(own).verdict is Verdict.NOT_PROVEN
    write(own, "app/public.orders.json", "{}")
    assert own_expectations_are_met in suite.whole(own.plan, "shop").at_end
    assert own_expectations_are_met not in suite.whole(own.plan, "other").at_end


# --- in a validation ----------------------------------------------------------------------------------------


def test_a_validation_looks_at_both_and_keeps_their_pages(lived: Lived, tmp_path: Path) -> None:
    """The facts are those that the source told, the server is reached by its private socket."""
    (tmp_path / "shop" / "postgres").mkdir(parents=True)
    there = '{"type": "expect_table_row_count_to_equal", "kwargs": {"value": 4}, "description": "four orders"}'
    (tmp_path / "shop" / "postgres" / "public.orders.json").write_text(f'{{"expectations": [{there}]}}')
    plan = lived.plan(key=False, validation={"expectations": str(tmp_path)})
    plan["data_classes"] = {"orders": {"rpo": "0 minutes", "server": "shop", "tables": ["public.orders"]}}
    stores = {tier: lived.repository(tier).store for tier in ("primary", "secondary")}
    site = Site(Plan.model_validate(plan), stores=stores, identity=lived.keys[0])
    asked = replace(suite.whole(site.plan_of("shop").validation, "shop"), before_start=())
    report = validate_backup(site, "shop", lived.full, "primary", Silent(), suite=asked)
    found = {check.name: check for check in report.checks}
    for name in ("baseline_is_met", "own_expectations_are_met"):
        assert found[name].verdict is Verdict.PASS, found[name].summary
        assert read_all(site.store("primary"), found[name].details["document"]).startswith(b"<!doctype html>")
    assert found["baseline_is_met"].details["rows"] == 2  # as when the full was taken
    seen = [check for check in report.validation.checks if check.name == "own_expectations_are_met"]
    assert seen[0].details["expectations"][0]["expectation"] == "four orders"
