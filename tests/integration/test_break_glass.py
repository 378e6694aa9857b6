"""The break-glass guide's own commands, with stock tools and no import of ours in the restore."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from dr_pipelines.commands import Command, Runner
from dr_pipelines.embedded.postgres import EmbeddedPostgres, bin_dir, give
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.repository.repository import Repository
from tests.integration.test_recovery import streaming, take, until_synchronous

GUIDE = Path(__file__).parents[2] / "docs" / "break-glass.md"


def _commands() -> str:
    """The guide's `sh` blocks."""
    return "\n".join(re.findall(r"```sh\n(.*?)```", GUIDE.read_text(), re.DOTALL))


@pytest.mark.skipif(shutil.which("age") is None, reason="the age program is not installed")
@pytest.mark.skipif(shutil.which("zstd") is None, reason="the zstd program is not installed")
@pytest.mark.parametrize("kind", [BackupKind.FULL, BackupKind.INCREMENTAL])
def test_the_guide_restores(
    kind: BackupKind,
    postgres18: EmbeddedPostgres,
    local_repository: Repository,
    identity: tuple[str, str],
    folder: Path,
) -> None:
    server = postgres18
    server.psql("CREATE TABLE orders AS SELECT g AS id FROM generate_series(1, 1000) g")
    with streaming(server, local_repository, folder / "state" / "shop"):
        until_synchronous(server)
        taken = take(server, local_repository, BackupKind.FULL, folder / "state")
        if kind is BackupKind.INCREMENTAL:
            server.psql("INSERT INTO orders VALUES (1001)")
            taken = take(server, local_repository, BackupKind.INCREMENTAL, folder / "state")
        server.psql("INSERT INTO orders VALUES (1002)")
        expected = server.psql("SELECT count(*) FROM orders")
        server.destroy()

    root = Path(local_repository.store.root) / "servers" / "shop"  # type: ignore[attr-defined]
    (folder / "identity.txt").write_text(identity[0] + "\n")
    target = folder / "restored"
    variables = {
        "IDENTITY": str(folder / "identity.txt"),
        "BACKUPS": str(root / "backups"),
        "WAL": str(next((root / "wal").iterdir())),
        "TARGET": str(target),
        "LABEL": taken.label,
        "PATH": f"{bin_dir(18)}:/usr/local/bin:/usr/bin:/bin",
    }
    Runner().run(Command(["sh", "-euc", _commands()], env=variables, timeout=120))

    give(target)
    give(Path(f"{target}.wal"))
    recovered = EmbeddedPostgres(target)
    recovered.start()
    try:
        assert recovered.psql("SELECT count(*) FROM orders") == expected
        assert recovered.psql("SHOW archive_mode") == "off"
    finally:
        recovered.kill()
