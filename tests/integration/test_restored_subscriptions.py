"""A subscriber is restored: the copy must leave the publisher alone, also when it is let out."""

from __future__ import annotations

from pathlib import Path

from dr_pipelines.clock import SystemClock
from dr_pipelines.embedded.postgres import EmbeddedPostgres
from dr_pipelines.postgres.neutralise import BEGIN, END, NOTES_FILE
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.repository.repository import Repository
from tests.conftest import MakePostgres
from tests.support.live import Live, running

CLOCK = SystemClock()


def until(server: EmbeddedPostgres, question: str, answer: str) -> None:
    for _ in range(600):
        if server.psql(question, "shop") == answer:
            return
        CLOCK.wait(0.05)
    raise AssertionError(f"{question} is {server.psql(question, 'shop')!r}, never {answer!r}")


def test_a_restored_subscriber_does_not_take_the_place_of_the_live_one(
    make_postgres: MakePostgres, local_repository: Repository, folder: Path
) -> None:
    publisher, subscriber = make_postgres(wal_level="logical"), make_postgres()
    for server in (publisher, subscriber):
        server.psql("CREATE DATABASE shop")
        server.psql("CREATE TABLE orders (id int PRIMARY KEY)", "shop")
    publisher.psql("CREATE PUBLICATION all_orders FOR TABLE orders", "shop")
    conninfo = publisher.conninfo.replace("dbname=postgres", "dbname=shop")
    subscriber.psql(f"CREATE SUBSCRIPTION \"From shop\" CONNECTION '{conninfo}' PUBLICATION all_orders "
                    "WITH (slot_name = from_shop)", "shop")  # fmt: skip
    # A trigger that would reach outside as soon as a command is run.
    subscriber.psql("CREATE FUNCTION reach() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'reached'; END$$; "
                    "CREATE EVENT TRIGGER reach ON ddl_command_start EXECUTE FUNCTION reach()", "shop")  # fmt: skip
    publisher.psql("INSERT INTO orders VALUES (1)", "shop")
    until(subscriber, "SELECT count(*) FROM orders", "1")
    live = Live(subscriber, local_repository, folder / "state")
    with live.streaming():
        live.take(BackupKind.FULL)
        subscriber.kill()
    until(publisher, "SELECT active FROM pg_replication_slots", "f")

    report = live.restore(folder / "restored")
    named = "subscription From shop of database shop, slot from_shop: disabled"
    assert named in report.notes
    assert named in (report.data_dir / NOTES_FILE).read_text()
    publisher.psql("INSERT INTO orders VALUES (2)", "shop")
    for let_out in (False, True):
        if let_out:
            _let_out(report.data_dir)
        with running(report.data_dir) as restored:
            assert restored.psql("SELECT subenabled FROM pg_subscription") == "f"
            launcher = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'logical replication launcher'"
            until(restored, launcher, "1" if let_out else "0")
            assert publisher.psql("SELECT active FROM pg_replication_slots") == "f"
            assert publisher.psql("SELECT count(*) FROM pg_stat_replication") == "0"
            assert restored.psql("SELECT count(*) FROM orders", "shop") == "1"
            if let_out:
                # What the report says of going on in its place is true; and the test can see a connection.
                restored.psql(
                    'SET synchronous_commit = local; SET event_triggers = off; ALTER SUBSCRIPTION "From shop" ENABLE',
                    "shop",
                )
                until(restored, "SELECT count(*) FROM orders", "2")
                until(publisher, "SELECT active FROM pg_replication_slots", "t")


def _let_out(data_dir: Path) -> None:
    """As dr_restored.txt says."""
    path = data_dir / "postgresql.auto.conf"
    before, _, rest = path.read_text().partition(BEGIN)
    path.write_text(before + rest.partition(END)[2])
