"""Restored copies against what their source said of itself: the same is proven, what differs is named."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dr_pipelines.checks import CheckResult, Verdict
from dr_pipelines.clock import SystemClock
from dr_pipelines.embedded.postgres import EmbeddedPostgres, open_folder
from dr_pipelines.operations import find_uncovered
from dr_pipelines.plan import Plan
from dr_pipelines.plan.validation import ValidationPlan
from dr_pipelines.postgres.restore_plan import RecoveryTarget
from dr_pipelines.postgres.scratch import ScratchServer
from dr_pipelines.postgres.server import Server
from dr_pipelines.postgres.source_facts import WantedFacts, take_facts
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.repository.repository import Repository
from dr_pipelines.repository.source_facts import DatabaseFacts, SourceFacts, TableFacts, encode_facts
from dr_pipelines.site import Site
from dr_pipelines.storage.local import LocalStore
from dr_pipelines.validation.consistency import source_is_matched
from dr_pipelines.validation.fidelity import catalogue_is_matched
from dr_pipelines.validation.subject import RestoredCopy
from dr_pipelines.validation.suite import AT_FACTS
from dr_pipelines.validation.validate import read_facts
from tests.support.live import CLOCK, Live
from tests.support.rich import CHANGED, CHANGES, SECRET, make_rich

CHECKS = (source_is_matched, catalogue_is_matched)
WANTED = WantedFacts(checksums=("shop.*", "public.*"))


@dataclass
class Place:
    """A rich server that was backed up, what it said then, and what it said after it was changed."""

    live: Live
    full: BackupManifest
    facts: SourceFacts
    changed: SourceFacts

    def facts_now(self, wanted: WantedFacts = WANTED, server: Server | None = None) -> SourceFacts:
        return facts_of(server or self.live.server.server, wanted)


def facts_of(server: Server, wanted: WantedFacts = WANTED, clock: SystemClock = CLOCK) -> SourceFacts:
    """As of now, without a backup."""
    return take_facts(server, wanted, after=server.flush_lsn(), label="facts", system_id="1", seconds=20, clock=clock)


def subject(copy: ScratchServer, facts: SourceFacts | None) -> RestoredCopy:
    return RestoredCopy(copy, facts, ValidationPlan(), datetime.now(UTC))


def stand(copy: ScratchServer, facts: SourceFacts) -> None:
    assert facts.lsn is not None
    copy.replay_to(RecoveryTarget("lsn", facts.lsn, inclusive=False))


def told(backup: BackupManifest, live: Live) -> SourceFacts:
    found = read_facts(live.repository, backup)
    assert found is not None
    return found


def differences(result: CheckResult) -> list[str]:
    return [found["what"] for found in result.details["differences"]]


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    base = open_folder("dr-test-facts-")
    server = EmbeddedPostgres(base / "pg" / "data", initdb=("--wal-segsize=1",))
    repository = Repository(LocalStore(base / "repository", "primary"), Codec(1), "primary")
    repository.initialise()
    server.start()
    try:
        make_rich(server)
        live = Live(server, repository, base / "state")
        with live.streaming():
            full = live.take(BackupKind.FULL, WANTED)
            server.psql("INSERT INTO shop.customers (name) VALUES ('too late'); TRUNCATE shop.lines")
            server.psql(CHANGES)
            changed = facts_of(server.server)
        yield Place(live, full, told(full, live), changed)
    finally:
        server.kill()
        shutil.rmtree(base, ignore_errors=True)


@pytest.fixture(scope="module")
def copy(place: Place) -> Iterator[ScratchServer]:
    base = open_folder("dr-test-copy-")
    with place.live.scratch(base / "copy", place.full.label) as made:
        stand(made, place.facts)
        yield made
    shutil.rmtree(base, ignore_errors=True)


# --- the same -----------------------------------------------------------------------------------------------


def test_a_copy_has_the_data_and_the_catalogue_of_its_source(place: Place, copy: ScratchServer) -> None:
    assert not place.facts.trouble
    data, catalogue, baseline = (check(subject(copy, place.facts)) for check in AT_FACTS)
    assert {data.verdict, catalogue.verdict, baseline.verdict} == {Verdict.PASS}, (data, catalogue, baseline)
    # 50 customers, 500 orders, 301 lines in two partitions and once more through their parent, the odd table, the pages
    # of large objects, and the two rows of the other database.
    assert data.details["rows"] == 50 + 500 + 2 * 301 + 2 + 1 + 2
    assert data.details["checksums"] == data.details["tables"] == 8
    assert data.details["unlogged"] == ["postgres: shop.cache"]
    assert data.details["sequences"] == 3
    looked_at = {kind for kind, count in catalogue.details["objects"].items() if count}
    assert looked_at >= {"policy", "extension", "role", "membership", "setting", "subscription", "published table"}
    assert "replication slot" not in looked_at  # the stream's: no backup has it


def test_facts_hold_no_secret(place: Place) -> None:
    assert SECRET.encode() not in encode_facts(place.facts)
    assert place.facts.cluster["role password"]["clerk"] == "scram-sha-256"
    assert place.facts.cluster["setting"]["shop.token of clerk"] == "is set"
    assert "SCRAM" not in encode_facts(place.facts).decode()


def test_what_others_need_of_facts(place: Place) -> None:
    shop = place.facts.database("postgres")
    assert shop is not None and place.facts.database("second") is not None
    tables = {table.full_name: table for table in shop.tables}
    orders = tables["shop.orders"]
    assert (orders.rows, orders.primary_key, orders.foreign_keys[0].table) == (500, ("id",), "customers")
    newest = {column.name: column.newest for column in orders.columns}
    assert newest["at"] == datetime(2026, 1, 1, 8, 20, tzinfo=UTC)
    assert tables["shop.lines"].rows == 301
    assert {column.name: column.newest for column in tables["shop.lines_rest"].columns}["day"] == datetime(
        2027, 3, 28, tzinfo=UTC
    )  # and not infinity
    owned = {found.name: found.owned_by for found in shop.sequences}
    assert owned["orders_id_seq"] == ("shop", "orders", "id")


# --- what differs -------------------------------------------------------------------------------------------


def test_every_change_of_a_catalogue_is_named(place: Place, copy: ScratchServer) -> None:
    # As if the source had been at its backup what it became later.
    now = {found.name: found for found in place.changed.databases}
    databases = tuple(found.model_copy(update={"objects": now[found.name].objects}) for found in place.facts.databases)
    other = place.facts.model_copy(update={"databases": databases, "cluster": place.changed.cluster})
    result = catalogue_is_matched(subject(copy, other))
    assert result.verdict is Verdict.FAIL
    found = differences(result)
    for change in CHANGED:
        expected = change.replace("is missing", "is")
        assert any(expected in what for what in found), (change, found)
    assert result.name == "catalogue_is_matched" and "more" in result.summary
    reworded = catalogue_is_matched(subject(copy, other.model_copy(update={"questions": "those of another release"})))
    assert reworded.verdict is Verdict.NOT_PROVEN and "another release of dr" in reworded.summary


def of_table(facts: SourceFacts, full_name: str, **changes: object) -> SourceFacts:
    """The facts with another word of one table."""

    def changed(table: TableFacts) -> TableFacts:
        return table.model_copy(update=changes) if table.full_name == full_name else table

    def of(database: DatabaseFacts) -> DatabaseFacts:
        return database.model_copy(update={"tables": tuple(changed(table) for table in database.tables)})

    return facts.model_copy(update={"databases": tuple(of(database) for database in facts.databases)})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rows": 499}, "has 500 rows, the source had 499"),
        ({"checksum": "100% 500 1"}, "rows of table shop.orders differ"),
        ({"name": "lost"}, "table shop.lost is not there"),
    ],
)
def test_other_data_is_proven_wrong(place: Place, copy: ScratchServer, changes: dict[str, object], said: str) -> None:
    result = source_is_matched(subject(copy, of_table(place.facts, "shop.orders", **changes)))
    assert (result.verdict, said in result.summary) == (Verdict.FAIL, True), result


def test_a_transaction_that_ended_meanwhile_leaves_a_difference_in_doubt(place: Place, copy: ScratchServer) -> None:
    def unsure(database: DatabaseFacts) -> DatabaseFacts:
        xmin = int(database.snapshot.split(":")[0]) - 1
        return database.model_copy(update={"snapshot": f"{xmin}:{xmin + 1}:{xmin}"})

    facts = of_table(place.facts, "shop.orders", rows=499)
    facts = facts.model_copy(update={"databases": tuple(unsure(database) for database in facts.databases)})
    result = source_is_matched(subject(copy, facts))
    assert result.verdict is Verdict.NOT_PROVEN
    assert "has 500 rows, the source had 499, but transaction" in result.summary
    same = place.facts.model_copy(update={"databases": tuple(unsure(found) for found in place.facts.databases)})
    assert source_is_matched(subject(copy, same)).passed  # the same is the same


@pytest.mark.parametrize("check", CHECKS)
def test_nothing_is_proven_without_facts_or_in_another_place(
    place: Place, copy: ScratchServer, check: Callable[[RestoredCopy], CheckResult]
) -> None:
    without = check(subject(copy, None))
    assert (without.verdict, "no facts" in without.summary) == (Verdict.NOT_PROVEN, True)
    elsewhere = check(subject(copy, place.changed))
    assert (elsewhere.verdict, "the copy stands at" in elsewhere.summary) == (Verdict.NOT_PROVEN, True)
    lacking = place.facts.model_copy(update={"trouble": {"third": "no right to connect"}})
    unseen = check(subject(copy, lacking))
    assert (unseen.verdict, "no right to connect" in unseen.summary) == (Verdict.NOT_PROVEN, True)
    empty = place.facts.model_copy(
        update={
            "cluster": {},
            "databases": tuple(
                found.model_copy(update={"tables": (), "objects": {}}) for found in place.facts.databases
            ),
            "trouble": {"postgres data": "", "second data": ""} if check is source_is_matched else {},
        }
    )
    assert check(subject(copy, empty)).verdict is Verdict.NOT_PROVEN


def test_another_collation_library_is_named_with_what_to_do(place: Place, copy: ScratchServer) -> None:
    cluster = {**place.facts.cluster, "collation version": {"database second": "153.14"}}
    result = catalogue_is_matched(subject(copy, place.facts.model_copy(update={"cluster": cluster})))
    assert result.verdict is Verdict.NOT_PROVEN  # the backup is as good as it was
    assert "153.14" in result.summary and "ALTER DATABASE second REFRESH COLLATION VERSION" in result.summary


def test_what_a_plan_does_not_cover(place: Place, folder: Path) -> None:
    live = place.live
    site = Site(
        Plan.model_validate(
            {
                "version": 1, "name": "test", "state_dir": str(live.state), "encryption": "none",
                "storage": {"disk": {"type": "local", "path": str(folder)}},
                "databases": {
                    "shop": {
                        "connection": {"host": "127.0.0.1", "port": live.server.port},
                        "schedule": {"full": "daily"},
                        "storage": {"primary": "disk"},
                    }
                },
                "data_classes": {"orders": {"rpo": "0 minutes", "server": "shop", "tables": ["shop.*", "public.lost"]}},
            }
        ),
        stores={"disk": live.repository.store},
    )  # fmt: skip
    found = find_uncovered(site, "shop")
    assert found.verdict is Verdict.FAIL
    assert found.details["new"] == ["schema new of postgres"]
    assert found.details["tables_of_no_data_class"] == ["public.only_here of second"]
    assert found.details["named_and_nowhere"] == ["public.lost"]


def test_a_truncated_table_and_one_that_cannot_be_read_are_found(place: Place, folder: Path) -> None:
    emptied, lost = (
        place.live.server.psql(f"SELECT pg_relation_filepath('{name}')")
        for name in ("shop.orders", """shop."odd ""name%" """)
    )
    with place.live.scratch(folder / "copy", place.full.label) as damaged:
        (damaged.data_dir / emptied).write_bytes(b"")
        (damaged.data_dir / lost).unlink()
        stand(damaged, place.facts)
        result = source_is_matched(subject(damaged, place.facts))
    assert result.verdict is Verdict.FAIL
    unreadable, truncated = differences(result)
    assert truncated == "postgres: table shop.orders has 0 rows, the source had 500"
    assert 'shop.odd "name% cannot be read' in unreadable and "could not open file" in unreadable
