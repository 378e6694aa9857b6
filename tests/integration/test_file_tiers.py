"""`dr replicate`, `dr verify` and `dr scrub` at a terminal: file sets stand where servers do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.forked import dr


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """A file set on two tiers, with a snapshot on the first."""
    for name in ("one", "two", "docs"):
        (tmp_path / name).mkdir()
    (tmp_path / "docs" / "letter").write_bytes(b"dear all")
    plan = {
        "version": 1, "name": "test", "encryption": "none", "state_dir": str(tmp_path / "state"),
        "storage": {name: {"type": "local", "path": str(tmp_path / name)} for name in ("one", "two")},
        "file_storage": {"docs": {
            "schedule": "hourly", "retention": "30 days",
            "source": {"type": "directory", "path": str(tmp_path / "docs")},
            "storage": {"primary": "one", "secondary": "two"},
        }},
    }  # fmt: skip
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan))
    found = {"DR_PLAN": str(tmp_path / "plan.yaml")}
    for argv in (("repository", "init"), ("files", "snapshot", "docs")):
        assert dr(*argv, env=found).returncode == 0
    return found


def told(env: dict[str, str], *argv: str, code: int = 0) -> Any:
    done = dr(*argv, "--json", env=env)
    assert done.returncode == code, done
    return json.loads(done.stdout)


def test_a_file_set_is_copied_verified_and_scrubbed_by_its_name(env: dict[str, str], tmp_path: Path) -> None:
    [label] = told(env, "replicate")["docs"]["secondary"]["labels"]
    assert "nothing was missing" in dr("replicate", "docs", "--tier", "two", env=env).stdout
    assert "--label goes with one" in dr("replicate", "--label", label, env=env).stderr
    told(env, "verify", "docs", label, "--tier", "two")
    [pack] = (tmp_path / "one" / "files" / "docs" / "archives").rglob("*.zst")
    pack.write_bytes(b"rotten")
    told(env, "verify", "docs", code=41)
    assert "1 was repaired" in dr("scrub", "primary", env=env).stdout
    pack.write_bytes(b"rotten")
    [copy] = (tmp_path / "two" / "files" / "docs" / "archives").rglob("*.zst")
    copy.write_bytes(b"rotten")
    done = dr("scrub", "primary", "--server", "docs", env=env)
    assert done.returncode == 11
    assert f"lost: {label}" in done.stdout
    assert "no server and no file set 'nothing'" in dr("verify", "nothing", env=env).stderr
