"""`dr files restore` of a file set, as a person reads it."""

from __future__ import annotations

import os
from pathlib import Path

import yaml

from tests.support import forked


def test_one_file_is_one_file(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a").write_text("a")
    plan = {
        "version": 1, "name": "test", "encryption": "none", "state_dir": "state",
        "storage": {"disk": {"type": "local", "path": "disk"}},
        "file_storage": {"docs": {
            "schedule": "daily", "retention": "30 days", "storage": {"primary": "disk"},
            "source": {"type": "directory", "path": "docs"},
        }},
    }  # fmt: skip
    (tmp_path / "plan.yaml").write_text(yaml.dump(plan))

    def dr(*argv: str) -> str:
        done = forked.dr(*argv, env={**os.environ, "DR_PLAN": str(tmp_path / "plan.yaml")}, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        return " ".join(done.stdout.split())

    dr("repository", "init")
    dr("files", "snapshot", "docs")
    assert "would restore 1 file, 1 byte " in dr("files", "restore", "docs", "latest", "out", "--preview")
    assert "restored 1 file, 1 byte, 0 directories, 0 links" in dr("files", "restore", "docs", "latest", "out")
