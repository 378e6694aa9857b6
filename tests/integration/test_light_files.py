"""What a snapshot every hour loads: a program that is slow to start is one that is not run often."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
HEAVY = (
    "pandas", "psycopg", "boto3", "azure", "dagster", "great_expectations", "matplotlib",
    # Less each, and much together.
    "asyncio", "croniter", "tenacity", "rich.console", "yaml",
    "dr_pipelines.postgres", "dr_pipelines.repository.wal", "dr_pipelines.storage.bucket",
)  # fmt: skip
SNAPSHOT = f"""
import sys
from dr_pipelines.cli import main
sys.argv = ["dr", "files", "snapshot", "docs"]
try:
    main()
finally:
    print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)
"""
LOADED = """
import os
import dr_pipelines.cli.app, dr_pipelines.cli.file_restores, numpy
from dr_pipelines.plan.values import Model
from dr_pipelines.repository.manifest import Record
built = [kind.__name__ for base in (Model, Record) for kind in base.__subclasses__() if kind.__pydantic_complete__]
print(built, len(os.listdir("/proc/self/task")))
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


def test_loading_builds_no_model_and_starts_no_thread() -> None:
    env = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", LOADED], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[] 1"
