"""What is on a server and not in its plan is named; what could not be seen is not covered."""

from __future__ import annotations

from datetime import UTC, datetime

from dr_pipelines.checks import CheckResult, Verdict
from dr_pipelines.lsn import Lsn
from dr_pipelines.postgres.inventory import DatabaseInventory, Inventory
from dr_pipelines.repository.source_facts import DatabaseFacts, SourceFacts
from dr_pipelines.validation.coverage import everything_is_covered

SHOP = DatabaseInventory(
    frozenset({"public", "shop"}),
    frozenset({"plpgsql"}),
    {"shop.orders": "shop.orders", "shop.lines": "shop.lines", "shop.lines_2026": "shop.lines"},
)
NOW = Inventory({"app": SHOP}, frozenset({"pg_default"}))
TOLD = SourceFacts(
    system_id="1",
    databases=(
        DatabaseFacts(
            name="app", lsn=Lsn(1), snapshot="3:3:", taken_at=datetime(2026, 11, 26, tzinfo=UTC),
            objects={"schema": {"public": "", "shop": ""}, "extension": {"plpgsql": "1.0"}},
        ),
    ),
    cluster={"tablespace": {"pg_default": ""}},
)  # fmt: skip


def judged(
    now: Inventory = NOW, told: SourceFacts | None = TOLD, tables: tuple[str, ...] = ("shop.orders", "shop.lines")
) -> CheckResult:
    return everything_is_covered(now, told, tables, why_not_told="no backup has facts", file_sets=["uploads"])


def test_all_is_known() -> None:
    found = judged()
    assert found.verdict is Verdict.PASS
    assert found.summary == "3 tables of 1 database, each in a data class; 1 file set is not looked at"
    assert judged(tables=()).summary.startswith("3 tables of 1 database, and no data class names tables")
    assert judged(tables=("shop.*",)).passed


def test_what_is_new_is_named() -> None:
    app = DatabaseInventory(SHOP.schemas | {"new"}, SHOP.extensions | {"postgis"}, SHOP.tables)
    empty = DatabaseInventory(frozenset({"public"}), frozenset(), {})
    found = judged(Inventory({"app": app, "second": empty}, NOW.tablespaces | {"fast"}))
    assert found.verdict is Verdict.FAIL
    assert found.details["new"] == [
        "tablespace fast",
        "schema new of app",
        "extension postgis of app",
        "database second",
    ]


def test_tables_without_a_data_class_and_names_without_a_table() -> None:
    found = judged(tables=("shop.orders", "shop.customers"))
    assert found.verdict is Verdict.FAIL
    assert found.details["tables_of_no_data_class"] == ["shop.lines of app", "shop.lines_2026 of app"]
    assert found.details["named_and_nowhere"] == ["shop.customers"]
    assert "in no data class: shop.lines of app" in found.summary


def test_what_cannot_be_seen_is_not_proven() -> None:
    unseen = judged(Inventory(NOW.databases, NOW.tablespaces, {"third": "no right to connect"}))
    assert (unseen.verdict, "third: no right to connect" in unseen.summary) == (Verdict.NOT_PROVEN, True)
    untold = judged(told=None)
    assert (untold.verdict, "no backup has facts" in untold.summary) == (Verdict.NOT_PROVEN, True)
    assert judged(told=None, tables=("shop.orders",)).verdict is Verdict.FAIL
