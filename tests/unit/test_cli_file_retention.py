"""`dr retention` and `dr keep` of a file set, as a person or a program calls them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from dr_pipelines.clock import FixedClock
from dr_pipelines.commands import Completed
from tests.support import forked
from tests.support.estate import write_to
from tests.support.file_estate import RULES, SET, FileEstate

Dr = Callable[..., Completed]


@pytest.fixture
def dr(tmp_path: Path) -> Dr:
    """Seven daily snapshots, the last of them an hour old."""
    estate = FileEstate(FixedClock(datetime.now(UTC) - timedelta(days=7, hours=1)))
    for _ in range(7):
        estate.clock.advance(timedelta(days=1))
        estate.take()
    write_to(estate.store, tmp_path / "disk")
    (tmp_path / "files").mkdir()
    plan = {
        "version": 1, "name": "test", "state_dir": "state", "encryption": "none", "databases": {},
        "storage": {"disk": {"type": "local", "path": "disk"}},
        "file_storage": {
            SET: {**RULES, "source": {"type": "directory", "path": "files"}, "storage": {"primary": "disk"}}
        },
    }  # fmt: skip
    (tmp_path / "plan.yaml").write_text(yaml.dump(plan))

    def run(*argv: str, code: int = 0) -> Completed:
        done = forked.dr(*argv, env={**os.environ, "DR_PLAN": str(tmp_path / "plan.yaml")}, cwd=tmp_path)
        assert done.returncode == code, done.stdout + done.stderr
        return done

    return run


def test_snapshots_are_let_go_kept_and_brought_back(dr: Dr) -> None:
    (told,) = json.loads(dr("retention", "plan", "--json").stdout)
    assert (told["name"], told["thing"], told["tier"]) == (SET, "snapshot", "primary")
    oldest, *_ = labels = [decision["label"] for decision in told["decisions"]]
    shown = dr("retention", "plan", SET, "--tier", "disk").stdout
    assert f"{oldest}: older than 4 days" in shown
    assert "how much of it is dead was not looked at: " in shown  # tables of the estate are noise
    assert f"{oldest} is kept for ever on primary" in dr("keep", oldest, "--forever", "--reason", "audit").stdout
    done = dr("retention", "apply", SET).stdout
    assert f"{labels[1]} is expired" in done
    assert "2 snapshots expired; 0 snapshots and 0 archives pruned" in done
    assert f"`dr retention undo {SET} --tier primary`" in done
    assert f"{labels[1]} is there again" in dr("retention", "undo", SET).stdout
    assert f"no snapshot of {SET} on primary is to come back" in dr("retention", "undo", SET).stdout
    assert f"{oldest} is released on primary" in dr("keep", oldest, "--release").stdout


def test_labels_that_nobody_has_are_told_by_what_they_are(dr: Dr) -> None:
    missing = dr("keep", "20200101T000000Z-snapshot", "--forever", "--reason", "x", code=12).stderr
    assert "no snapshot" in missing and "dr files list" in missing
    assert "no backup" in dr("keep", "20200101T000000Z-full", "--forever", "--reason", "x", code=12).stderr
    assert "nothing in the plan" in dr("retention", "plan", "--tier", "nowhere", code=2).stderr


def test_an_incident_freezes_the_stores_of_file_sets(dr: Dr) -> None:
    dr("incident", "open", "--reason", "a disk is gone")
    assert f"nothing goes: {SET} on primary; incident" in dr("retention", "apply", code=40).stderr
