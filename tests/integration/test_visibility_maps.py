"""What a merged chain says of visibility is true: rows that were deleted stay deleted, whatever reads them."""

from __future__ import annotations

from pathlib import Path

from dr_pipelines.commands import Command, Runner
from dr_pipelines.embedded.postgres import bin_dir, os_user
from dr_pipelines.postgres.restore_plan import RecoveryTarget
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.repository.repository import Repository
from tests.conftest import MakePostgres
from tests.support.live import Live

_BY_INDEX_ONLY = "SELECT count(*) FROM items WHERE id BETWEEN 1 AND 100"


def test_rows_deleted_since_the_full_stay_deleted_for_index_only_scans(
    make_postgres: MakePostgres, local_repository: Repository, folder: Path
) -> None:
    server = make_postgres(18, summarize_wal="on", autovacuum="off")
    live = Live(server, local_repository, folder / "state")
    with live.streaming():
        server.psql("CREATE TABLE items (id int PRIMARY KEY, note text)")
        server.psql("INSERT INTO items SELECT g, repeat('x', 200) FROM generate_series(1, 4000) g")
        server.psql("CREATE TABLE shrinks AS SELECT g AS id FROM generate_series(1, 9000) g")
        server.psql("VACUUM (FREEZE, ANALYZE)")
        live.take(BackupKind.FULL)
        server.psql("DELETE FROM items WHERE id <= 60")
        server.psql("SELECT id FROM items WHERE id = 3000 FOR UPDATE")  # takes back that all are frozen, and no more
        server.psql("TRUNCATE shrinks")
        newest = live.take(BackupKind.INCREMENTAL)
        server.psql("SELECT pg_switch_wal()")
    with live.scratch(folder / "copy", newest.label) as copy:
        copy.settle_at(RecoveryTarget("lsn", newest.stop_lsn, inclusive=False))
        checked = Runner().run(
            Command([str(bin_dir() / "pg_checksums"), "--check", "-D", str(copy.data_dir)], user=os_user())
        )
        assert "Bad checksums:  0" in checked.stdout
        asked = copy.start()
        assert "Index Only Scan" in str(asked.ask(f"EXPLAIN {_BY_INDEX_ONLY}"))
        assert asked.ask(_BY_INDEX_ONLY) == [(40,)]
