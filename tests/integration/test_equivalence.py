"""Full and incrementals merged are what full and WAL are, whatever a server wrote; and when a block is missing from an
incremental, that is seen, named, and never restored."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path

import pytest

from dr_pipelines import operations
from dr_pipelines.checks import Verdict
from dr_pipelines.embedded.postgres import EmbeddedPostgres, bin_dir, os_user
from dr_pipelines.errors import IntegrityError
from dr_pipelines.operations.equivalence import EquivalenceReport
from dr_pipelines.plan import Plan
from dr_pipelines.postgres.merge import IncrementalMember
from dr_pipelines.postgres.restore_request import RestoreRequest
from dr_pipelines.postgres.trust import chain_to_replace
from dr_pipelines.progress import Silent
from dr_pipelines.repository.catalog import Catalog
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.repository.marks import Marks
from dr_pipelines.site import Site
from dr_pipelines.storage.base import read_all
from tests.conftest import MakePostgres
from tests.support.archives import incremental, repack
from tests.support.estate import plan_with
from tests.support.live import Live

_BEFORE = """
CREATE TABLE items (id bigserial PRIMARY KEY, k int, note text, tags int[], at point) WITH (fillfactor = 80);
CREATE INDEX ON items (k); CREATE INDEX ON items USING hash (k); CREATE INDEX ON items USING gin (tags);
CREATE INDEX ON items USING gist (at); CREATE INDEX ON items USING spgist (at); CREATE INDEX ON items USING brin (id);
CREATE TABLE long (id int, body text); ALTER TABLE long ALTER body SET STORAGE EXTERNAL;
CREATE TABLE shrinks (id int, note text); CREATE TABLE emptied (id int); CREATE UNLOGGED TABLE unlogged (id int);
CREATE SEQUENCE by_seven INCREMENT 7; CREATE SEQUENCE around MAXVALUE 40 CYCLE;
INSERT INTO items (k, note, tags, at)
  SELECT g % 500, md5(g::text), ARRAY[g % 17, g % 31], point(g % 97, g % 89) FROM generate_series(1, 12000) g;
INSERT INTO shrinks SELECT g, repeat('s', 200) FROM generate_series(1, 4000) g;
INSERT INTO emptied SELECT generate_series(1, 3000)
"""
# Between the backups: each a transaction of its own.
_WORK = (
    "INSERT INTO items (k, note, tags, at) SELECT g, 'new', ARRAY[g % 5], point(g % 7, g % 3) "
    "FROM generate_series(1, 1500) g",
    "UPDATE items SET note = note || '.' WHERE id % 40 = 1",  # in place of the row, where there is room
    "UPDATE items SET k = k + 1 WHERE id % 200 = 2",
    "DELETE FROM items WHERE id % 90 = 3",
    "BEGIN; UPDATE items SET note = 'never' WHERE id % 300 = 4; ROLLBACK",
    "BEGIN; SELECT FROM items WHERE id < 50 FOR UPDATE; SAVEPOINT a; DELETE FROM items WHERE id = 9; ROLLBACK TO a; "
    "COMMIT",
    "INSERT INTO long SELECT g, repeat(md5(g::text), 300) FROM generate_series(1, 30) g",
    "DELETE FROM shrinks WHERE id > 1000",
    "VACUUM (TRUNCATE) shrinks",
    "TRUNCATE emptied",
    "INSERT INTO emptied SELECT generate_series(1, 2000)",
    "SELECT nextval('by_seven'), nextval('around') FROM generate_series(1, 45)",
    "SELECT count(*) FROM items WHERE k = 7",  # hints
    "INSERT INTO unlogged SELECT generate_series(1, 100)",
    "VACUUM items",
    "UPDATE items SET note = 'after the vacuum' WHERE id % 500 = 5",
    "CREATE INDEX ON long USING hash (id)",
    "INSERT INTO shrinks SELECT g, repeat('g', 200) FROM generate_series(1, 900) g",
)


@dataclass
class Shop:
    site: Site
    live: Live
    server: EmbeddedPostgres

    def prove(self, **asked: str) -> EquivalenceReport:
        return operations.prove_incrementals(self.site, "shop", Silent(), **asked)

    def catalog(self, tier: str) -> Catalog:
        return self.site.bare_repository("shop", tier).catalog("shop")

    def verdicts(self, tier: str) -> dict[str, str]:
        """Of comparisons, by label."""
        found = {label: marks.equivalence() for label, marks in self.catalog(tier).marks.items()}
        return {label: seen.verdict for label, seen in found.items() if seen is not None}

    def work(self) -> None:
        for statement in _WORK:
            self.server.psql(statement)


@pytest.fixture
def shop(make_postgres: MakePostgres, folder: Path) -> Shop:
    server = make_postgres(18, summarize_wal="on", autovacuum="off", shared_buffers="4MB", fsync="off")
    stores = {tier: {"type": "local", "path": str(folder / tier)} for tier in ("primary", "secondary")}
    plan = plan_with(
        stores,
        state_dir=str(folder / "state"),
        connection={"host": "127.0.0.1", "port": server.port, "user": "postgres"},
        bin_dir=str(bin_dir()),
        **({"os_user": os_user()} if os_user() else {}),
    )
    site = Site(Plan.model_validate(plan))
    for tier in stores:
        site.bare_repository("shop", tier).initialise()
    return Shop(site, Live(server, site.repository("shop", "primary"), folder / "state"), server)


def test_incrementals_are_what_wal_gives_until_a_block_is_missing(shop: Shop) -> None:
    live = shop.live
    with live.streaming():
        shop.server.psql(_BEFORE)
        shop.server.psql("VACUUM (FREEZE, ANALYZE)")
        full = live.take(BackupKind.FULL)
        shop.work()
        first = live.take(BackupKind.INCREMENTAL)
        shop.work()
        second = live.take(BackupKind.INCREMENTAL)
        assert (first.parent, second.parent) == (full.label, first.label), second.kind_reason
        assert second.provisional
        shop.server.psql("SELECT pg_switch_wal()")
    report = shop.prove()
    assert report.check.verdict is Verdict.PASS, report.check
    assert report.chain == (full.label, first.label, second.label)
    seen = report.check.details
    assert seen["relations"] > 300 and seen["pages"] > 2000 and seen["unlogged"] == 1
    assert seen["masked"] > 100  # what a server changes without WAL is no difference
    assert shop.verdicts("primary") == {second.label: "pass"}
    assert report.evidence is not None
    kept = json.loads(read_all(shop.site.store("primary"), report.evidence))
    assert (kept["verdict"], kept["details"]["pages"]) == ("pass", seen["pages"])

    with live.streaming():
        shop.server.psql("UPDATE items SET note = 'lost' WHERE id BETWEEN 5000 AND 5010")
        third = live.take(BackupKind.INCREMENTAL)
        shop.server.psql("SELECT pg_switch_wal()")
    third, block = _without_a_block(shop, third)
    operations.replicate(shop.site, "shop", "secondary", Silent())
    report = shop.prove(label=third.label)
    assert report.check.verdict is Verdict.FAIL
    assert any(
        found.startswith("public.items in postgres: block") and str(block) in found
        for found in report.check.details["differences"]
    ), report.check.details["differences"]
    # What the earlier comparison vouches for stays in use; the rest is used on no tier.
    assert report.marked == {"primary": (third.label,), "secondary": (third.label,)}
    for tier in ("primary", "secondary"):
        assert shop.verdicts(tier)[third.label] == "fail"
        assert third.label not in {backup.label for backup in shop.catalog(tier).usable}
    chain = operations.preview_restore(shop.site, _somewhere(), Silent()).chain
    assert third.label not in chain
    with pytest.raises(IntegrityError, match="not to give what its full gives with WAL"):
        operations.preview_restore(shop.site, _somewhere(label=third.label), Silent())

    assert chain_to_replace(shop.catalog("primary")) is not None
    again = shop.prove(label=third.label)  # known already: nothing is restored for it
    assert (again.check.verdict, again.phases) == (Verdict.FAIL, None)
    with live.streaming():
        fourth = live.take(BackupKind.INCREMENTAL)
        fifth = live.take(BackupKind.INCREMENTAL)
    assert fourth.kind is BackupKind.FULL and third.label in str(fourth.kind_reason)
    assert (fifth.kind, fifth.parent) == (BackupKind.INCREMENTAL, fourth.label)
    assert chain_to_replace(shop.catalog("primary")) is None


def _somewhere(**asked: str) -> RestoreRequest:
    return RestoreRequest("shop", Path("/nowhere/at/all"), **asked)  # type: ignore[arg-type]


def _without_a_block(shop: Shop, backup: BackupManifest) -> tuple[BackupManifest, int]:
    """As PostgreSQL's defects would have it: one changed block of the table is not in the incremental."""
    path = shop.server.psql("SELECT pg_relation_filepath('items')")
    wanted = int(shop.server.psql("SELECT max((ctid::text::point)[0]::int) FROM items WHERE note = 'lost'"))
    folder, _, name = path.rpartition("/")

    def omit(member: str, content: bytes) -> bytes:
        if member != f"{folder}/INCREMENTAL.{name}":
            return content
        reader, size = IncrementalMember(member, 8192), 8192
        held: dict[int, bytes] = {}
        for offset, piece in reader.feed(memoryview(content)):
            for at in range(0, len(piece), size):
                held[(offset + at) // size] = bytes(piece[at : at + size])
        assert held.pop(wanted)
        return incremental(held, struct.unpack_from("=I", content, 8)[0], size)

    return repack(shop.live.repository, backup, omit), wanted


def test_nothing_to_compare_is_not_proven(shop: Shop) -> None:
    report = shop.prove()
    assert report.check.verdict is Verdict.NOT_PROVEN
    assert "there is no incremental" in report.check.summary
    assert Marks().equivalence() is None
