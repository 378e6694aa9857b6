"""The break-glass guide's own commands, with stock tools and no import of ours in the restore."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dr_pipelines.commands import Command, Runner
from dr_pipelines.embedded.postgres import bin_dir, give
from dr_pipelines.errors import CommandFailed
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.repository.repository import Repository
from tests.conftest import MakePostgres
from tests.support.archives import tree
from tests.support.live import Live, running

GUIDE = Path(__file__).parents[2] / "docs" / "break-glass.md"


def _commands(guide: Path) -> list[str]:
    """A guide's `sh` blocks."""
    return re.findall(r"```sh\n(.*?)```", guide.read_text(), re.DOTALL)


@pytest.mark.skipif(shutil.which("age") is None, reason="the age program is not installed")
@pytest.mark.skipif(shutil.which("zstd") is None, reason="the zstd program is not installed")
def test_the_guide_restores(
    make_postgres: MakePostgres, local_repository: Repository, identity: tuple[str, str], folder: Path
) -> None:
    """A full, and a chain that `pg_combinebackup` merges; with a tablespace, and WAL to the last commit."""
    server = make_postgres(18, summarize_wal="on")
    (folder / "space").mkdir()
    give(folder / "space")
    server.psql(f"CREATE TABLESPACE space LOCATION '{folder / 'space'}'")
    server.psql("CREATE TABLE orders (id int PRIMARY KEY) TABLESPACE space")
    server.psql("INSERT INTO orders SELECT g FROM generate_series(1, 1000) g")
    live = Live(server, local_repository, folder / "state")
    with live.streaming():
        full = live.take(BackupKind.FULL)
        server.psql("INSERT INTO orders VALUES (1001)")
        incremental = live.take(BackupKind.INCREMENTAL)
        assert incremental.parent == full.label, incremental.kind_reason
        server.psql("INSERT INTO orders VALUES (1002)")
        server.destroy()
    shutil.rmtree(folder / "space")

    root = Path(local_repository.store.root) / "servers" / "shop"  # type: ignore[attr-defined]
    (folder / "identity.txt").write_text(identity[0] + "\n")
    variables = {
        "IDENTITY": str(folder / "identity.txt"),
        "BACKUPS": str(root / "backups"),
        "WAL": str(next((root / "wal").iterdir())),
        "PATH": f"{bin_dir(18)}:/usr/local/bin:/usr/bin:/bin",
    }

    def follow(commands: list[str], label: str, target: Path) -> Path:
        script = "\n".join(commands)
        Runner().run(Command(["sh", "-euc", script], env=variables | {"TARGET": str(target), "LABEL": label}))
        return target

    for backup in (full, incremental):
        target = follow(_commands(GUIDE), backup.label, folder / f"restored-{backup.label}")
        _assert_by_hand_it_is_the_same(backup, target, root, follow)
        places = [Path(f"{target}.{ending}") for ending in ("wal", "tablespaces")]
        if backup is incremental:
            assert not [*target.rglob("*_vm")], "merged visibility maps may promise too much"
        for path in (target, *places):
            give(path)
        with running(target) as recovered:
            assert recovered.psql("SELECT count(*) FROM orders") == "1002"
            assert recovered.psql("SHOW archive_mode") == "off"
            location = recovered.psql("SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'space'")
            assert Path(location).parent == places[1]
            assert list(Path(location).iterdir())
        for path in (target, *places):
            shutil.rmtree(path)

    pack = Path(local_repository.store.root) / incremental.archive.packs[0].key  # type: ignore[attr-defined]
    pack.write_bytes(pack.read_bytes()[:-1])
    with pytest.raises(CommandFailed, match="damaged or not complete"):
        follow(_commands(GUIDE), incremental.label, folder / "damaged")
    assert not (folder / "damaged").exists()


def _assert_by_hand_it_is_the_same(
    backup: BackupManifest, target: Path, root: Path, follow: Callable[[list[str], str, Path], Path]
) -> None:
    """The README beside the backup writes out what restore.sh does; only the settings for recovery come after."""
    by_hand = target.with_name(f"by-hand-{backup.label}")
    readme = root / "backups" / backup.label / "break-glass" / "README.md"
    _, _, script, tablespaces, _ = _commands(readme)
    follow([script, tablespaces], backup.label, by_hand)
    settings = ["postgresql.auto.conf", "recovery.signal", "backup_manifest"]
    for ending in ("", ".tablespaces"):
        assert tree(Path(f"{by_hand}{ending}"), settings) == tree(Path(f"{target}{ending}"), settings)
    assert [path.is_symlink() for path in (by_hand / "pg_tblspc").iterdir()] == [True]
