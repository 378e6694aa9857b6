"""What a merged chain says of visibility is true: rows that were deleted stay deleted, whatever reads them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from dr_pipelines.commands import Command, Runner
from dr_pipelines.embedded.postgres import bin_dir, os_user
from dr_pipelines.postgres import backup_manifest
from dr_pipelines.postgres.restore_plan import RecoveryTarget
from dr_pipelines.postgres.visibility import forget_settled
from dr_pipelines.repository.fetch import fetch_verified
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.repository.repository import Repository
from tests.conftest import MakePostgres
from tests.support.live import Live

_BY_INDEX_ONLY = "SELECT count(*) FROM {} WHERE id BETWEEN 1 AND 100"


def test_rows_deleted_since_the_full_stay_deleted_for_index_only_scans(
    make_postgres: MakePostgres, local_repository: Repository, folder: Path
) -> None:
    server = make_postgres(18, summarize_wal="on", autovacuum="off")
    live = Live(server, local_repository, folder / "state")
    with live.streaming():
        server.psql("CREATE TABLE items (id int PRIMARY KEY, note text)")
        server.psql("INSERT INTO items SELECT g, repeat('x', 200) FROM generate_series(1, 4000) g")
        server.psql("CREATE TABLE vacuumed (LIKE items INCLUDING ALL)")
        server.psql("INSERT INTO vacuumed TABLE items")
        server.psql("CREATE TABLE shrinks AS SELECT g AS id FROM generate_series(1, 9000) g")
        server.psql("VACUUM (FREEZE, ANALYZE)")
        live.take(BackupKind.FULL)
        server.psql("DELETE FROM vacuumed WHERE id <= 30")
        server.psql("VACUUM (FREEZE, INDEX_CLEANUP ON) vacuumed")
        middle = live.take(BackupKind.INCREMENTAL)
        server.psql("DELETE FROM vacuumed WHERE id > 30 AND id <= 60")
        server.psql("DELETE FROM items WHERE id <= 60")
        server.psql("SELECT id FROM items WHERE id = 3000 FOR UPDATE")  # takes back that all are frozen, and no more
        server.psql("TRUNCATE shrinks")
        newest = live.take(BackupKind.INCREMENTAL)
        server.psql("SELECT pg_switch_wal()")
        (vacuumed, items) = (server.psql(f"SELECT pg_relation_filepath('{name}')") for name in ("vacuumed", "items"))
    sent = [*files_of(local_repository, middle)]
    assert f"{vacuumed}_vm" in sent and f"{items}_vm" not in sent  # whole: vacuum logs the map's only page
    assert f"{vacuumed}_vm" not in files_of(local_repository, newest)
    with live.scratch(folder / "copy", newest.label) as copy:
        copy.settle_at(RecoveryTarget("lsn", newest.stop_lsn, inclusive=False))
        checked = Runner().run(
            Command([str(bin_dir() / "pg_checksums"), "--check", "-D", str(copy.data_dir)], user=os_user())
        )
        assert "Bad checksums:  0" in checked.stdout
        asked = copy.start()
        for name in ("items", "vacuumed"):
            query = _BY_INDEX_ONLY.format(name)
            assert "Index Only Scan" in str(asked.ask(f"EXPLAIN {query}"))
            assert asked.ask(query) == [(40,)]


def files_of(repository: Repository, backup: BackupManifest) -> Collection[str]:
    told = repository.codec.decode(fetch_verified(repository.store, backup.backup_manifest))
    return backup_manifest.parse(told).files


def test_a_map_that_came_whole_settles_what_came_before_it() -> None:
    changed = {"base/5/1": {3}, "base/5/1.1": None, "base/5/1_vm": None, "base/5/2": {4}, "base/5/11": {5}}
    forget_settled(changed, ["base/5/1_vm", "base/5/INCREMENTAL.2_vm", "base/5/INCREMENTAL.1"])
    assert changed == {"base/5/1_vm": None, "base/5/2": {4}, "base/5/11": {5}}
