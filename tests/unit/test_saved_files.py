"""What is kept of a stopped server comes back to the byte, whatever happened to its files since."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dr_pipelines.postgres.saved_files import SavedFiles


@pytest.fixture
def server(tmp_path: Path) -> Path:
    """A data directory with a tablespace elsewhere."""
    folder, space = tmp_path / "data", tmp_path / "space"
    for name in ("base/5", "pg_wal", "pg_tblspc", "empty"):
        (folder / name).mkdir(parents=True)
    (space / "PG_18").mkdir(parents=True)
    (folder / "pg_tblspc" / "16400").symlink_to(space)
    (folder / "base/5/1").write_bytes(b"one")
    (folder / "base/5/2").write_bytes(b"two")
    (folder / "pg_wal/000A").write_bytes(b"wal of A")
    (space / "PG_18/7").write_bytes(b"seven")
    return folder


def contents(folder: Path) -> dict[str, bytes | str]:
    """Of files, links and folders, those behind links too."""
    found: dict[str, bytes | str] = {}
    for here, folders, files in os.walk(folder, followlinks=True):
        for name in (*folders, *files):
            path = Path(here, name)
            kind = str(path.readlink()) if path.is_symlink() else "folder"
            found[str(path.relative_to(folder))] = path.read_bytes() if path.is_file() else kind
    return found


def test_everything_comes_back(server: Path, tmp_path: Path) -> None:
    kept = SavedFiles(server, tmp_path / "saved")
    before = contents(server)
    assert kept.save()
    for _ in range(2):  # once more from the same
        with (server / "base/5/1").open("r+b") as file:  # in place, as PostgreSQL writes
            file.write(b"O")
        (server / "base/5/2").unlink()
        (server / "base/6").mkdir()
        (server / "base/6/3").write_bytes(b"three")
        (server / "pg_wal/000A").rename(server / "pg_wal/000B")  # as it recycles WAL
        (server / "empty").rmdir()
        (server / "pg_tblspc/16400/PG_18/7").unlink()
        (server / "pg_tblspc/16400").unlink()
        created = tmp_path / "created"
        (created / "PG_18/5").mkdir(parents=True)
        (created / "PG_18/5/9").write_bytes(b"nine")
        (server / "pg_tblspc/16500").symlink_to(created)
        kept.bring_back()
        assert contents(server) == before
        assert not [*created.iterdir()], "as empty as replay must find it when it creates the tablespace again"


def test_what_is_kept_moves_on_and_only_what_changed_is_copied(server: Path, tmp_path: Path) -> None:
    (server / "base/5/large").write_bytes(bytes(1 << 20))
    kept = SavedFiles(server, tmp_path / "saved")
    assert kept.save()
    first = kept.copied
    (server / "base/5/1").write_bytes(b"ONE")
    (server / "base/5/2").unlink()
    moved_on = contents(server)
    assert kept.save()
    assert kept.copied - first <= 3, "or nothing, where files can share blocks"
    (server / "base/5/1").write_bytes(b"later")
    kept.bring_back()
    assert contents(server) == moved_on
    assert kept.copied - first <= 6


def test_what_shares_a_size_and_was_replaced_is_noticed(server: Path, tmp_path: Path) -> None:
    kept = SavedFiles(server, tmp_path / "saved")
    assert kept.save()
    path = server / "base/5/1"
    old = path.stat()
    (server / "new").write_bytes(b"eno")
    (server / "new").rename(path)
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))
    kept.bring_back()
    assert path.read_bytes() == b"one"
