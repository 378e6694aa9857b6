"""What a snapshot every hour loads: a program that is slow to start is one that is not run often."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
HEAVY = ("pandas", "psycopg", "boto3", "azure", "dagster", "great_expectations", "matplotlib")
SNAPSHOT = f"""
import sys
from dr_pipelines.cli import main
sys.argv = ["dr", "files", "snapshot", "docs"]
try:
    main()
finally:
    print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)
"""
INIT = SNAPSHOT.replace('"files", "snapshot", "docs"', '"repository", "init"')


def test_a_snapshot_loads_nothing_that_it_does_not_need(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a").write_text("a")
    plan = {
        "version": 1, "name": "light", "encryption": "none", "state_dir": str(tmp_path / "state"),
        "storage": {"here": {"type": "local", "path": str(tmp_path / "store")}},
        "file_storage": {"docs": {
            "schedule": "daily", "retention": "30 days", "storage": {"primary": "here"},
            "source": {"type": "directory", "path": str(tmp_path / "docs")},
        }},
    }  # fmt: skip
    (tmp_path / "plan.yaml").write_text(yaml.dump(plan))
    env = {**os.environ, "DR_PLAN": str(tmp_path / "plan.yaml")}
    for program in (INIT, SNAPSHOT, SNAPSHOT):
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=True
        )
    assert done.stderr.splitlines()[-1] == "[]"
