"""The mapping of tablespaces as a person types it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dr_pipelines.errors import RestoreError, UsageError
from dr_pipelines.postgres.backup_manifest import ManifestFile
from dr_pipelines.postgres.restore_target import require_room
from dr_pipelines.postgres.tablespaces import bytes_by_place, parse_mapping
from dr_pipelines.repository.manifest import Tablespace


def test_as_pg_basebackup_takes_it() -> None:
    assert parse_mapping(["/old=/new", "16384=/other"]) == {"/old": Path("/new"), "16384": Path("/other")}
    assert parse_mapping([r"/o\=ld=/n\=ew"]) == {"/o=ld": Path("/n=ew")}
    assert parse_mapping(["/old=here"]) == {"/old": Path.cwd() / "here"}


@pytest.mark.parametrize("text", ["/old", "=/new", "/old=", "/a=/b=/c", ""])
def test_what_is_no_mapping_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not a tablespace mapping"):
        parse_mapping([text])


def test_each_place_needs_room_for_its_own_files() -> None:
    files = [
        ManifestFile(path, size, "NONE", "")
        for path, size in (("base/5/1", 1), ("pg_tblspc/7/PG_18/5/2", 20), ("pg_tblspc/8/PG_18/5/3", 300), ("x", 4000))
    ]
    locations = {Tablespace(oid=7, location="/was"): Path("/seven")}
    assert bytes_by_place(files, locations, Path("/base")) == {Path("/base"): 4301, Path("/seven"): 20}


def test_a_disk_that_is_too_small_is_named(tmp_path: Path) -> None:
    """What goes to one disk counts together; the directories need not be there."""
    free = shutil.disk_usage(tmp_path).free
    require_room({tmp_path / "a" / "b": 1, tmp_path: 1})
    with pytest.raises(RestoreError, match=f"{tmp_path} has .* MiB free, and the restore needs"):
        require_room({tmp_path / "a": free * 2 // 3, tmp_path / "b": free * 2 // 3})
