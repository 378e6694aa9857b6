"""The embedded PostgreSQL's programs, as the account that servers run as finds them."""

import os
from pathlib import Path

from dr_pipelines.embedded.postgres import bin_dir, copy_programs


def test_every_account_can_run_the_programs_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        copy_programs(bin_dir().parent, tmp_path / "copy")
    finally:
        os.umask(before)
    modes = {path: path.stat().st_mode & 0o777 for path in (tmp_path / "copy", *(tmp_path / "copy").rglob("*"))}
    assert all(mode & 0o055 == 0o055 for path, mode in modes.items() if path.is_dir())
    assert all(mode & 0o044 == 0o044 for mode in modes.values())
    assert next(mode for path, mode in modes.items() if path.name == "initdb") & 0o011 == 0o011
