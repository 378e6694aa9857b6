"""`dr files` as a person uses it, and without it: the break-glass script in a process that has no `dr_pipelines`."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from dr_pipelines.clock import SystemClock
from dr_pipelines.commands import Command, Completed, Runner
from dr_pipelines.repository.encryption import generate_identity
from tests.support.file_sets import tree
from tests.support.forked import Forked, dr

ALONE = "import runpy, sys; sys.modules['dr_pipelines'] = None; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0])"
CLOCK = SystemClock()


@pytest.fixture
def taken(tmp_path: Path) -> Path:
    """A folder with a plan, its key, its repository and a snapshot of `source`."""
    identity = generate_identity()
    (tmp_path / "key").write_text(identity.reveal())
    source = tmp_path / "source"
    (source / "sub" / "empty").mkdir(parents=True, mode=0o750)
    (source / "sub" / "ünï\ncode").write_bytes(b"u" * 700)
    (source / "zeros").write_bytes(bytes(40 << 20))
    (source / "nothing").write_bytes(b"")
    (source / "link").symlink_to("sub")
    plan = {
        "version": 1, "name": "test", "state_dir": str(tmp_path / "state"),
        "storage": {"disk": {"type": "local", "path": str(tmp_path / "disk")}},
        "encryption": {"recipients": [str(identity.recipient)], "identity": f"${{FILE:{tmp_path}/key}}"},
        "file_storage": {"docs": {
            "schedule": "daily", "retention": "30 days", "storage": {"primary": "disk"},
            "source": {"type": "directory", "path": str(source)},
        }},
    }  # fmt: skip
    (tmp_path / "plan.yaml").write_text(yaml.dump(plan))
    for words in (["repository", "init"], ["files", "snapshot", "docs"]):
        run(tmp_path, *words)
    return tmp_path


def run(folder: Path, *words: str | Path, code: int = 0) -> Completed:
    done = dr("--plan", folder / "plan.yaml", *words)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def test_files_are_lost_and_come_back(taken: Path) -> None:
    before = tree(taken / "source")
    shutil.rmtree(taken / "source" / "sub")
    told = json.loads(run(taken, "files", "diff", "docs", "latest", "live", "--json").stdout)
    assert told["counts"]["removed"] == 3
    report = json.loads(run(taken, "files", "restore", "docs", "latest", taken / "source", "--json").stdout)
    assert (report["files"], report["directories"], report["kept"]) == (1, 2, [])
    assert tree(taken / "source").keys() == before.keys()
    versions = json.loads(run(taken, "files", "versions", "docs", "sub/ünï\ncode", "--json").stdout)
    run(
        taken, "files", "restore", "docs", "latest", taken / "one", "--path", "sub/ünï\ncode",
        "--version", versions[0]["sha256"][:8],
    )  # fmt: skip
    assert (taken / "one" / "sub" / "ünï\ncode").read_bytes() == b"u" * 700
    run(taken, "files", "restore", "docs", "yesterday", taken / "x", code=2)
    pack = next((taken / "disk" / "files" / "docs" / "archives").glob("*/000001*"))
    pack.write_bytes(b"rotten" + pack.read_bytes()[6:])
    failed = run(taken, "files", "restore", "docs", "latest", taken / "rest", code=30)
    assert "zeros" in failed.stderr
    assert {path.name for path in (taken / "rest").iterdir()} == {"sub", "nothing", "link"}


def test_a_killed_restore_leaves_its_target_untouched(taken: Path) -> None:
    run(taken, "files", "restore", "docs", "latest", taken / "old", "--path", "nothing")
    before = tree(taken / "old")
    for target in (taken / "old", taken / "new"):
        process = Forked(["--plan", taken / "plan.yaml", "files", "restore", "docs", "latest", target])
        while not [*taken.glob(f"{target.name}.partial-*/zeros")]:
            assert not process.ended()
            CLOCK.wait(0.001)
        process.kill()
    assert tree(taken / "old") == before
    assert not (taken / "new").exists()
    assert len([*taken.glob("*.partial-*")]) == 2
    for target in (taken / "old", taken / "new"):
        run(taken, "files", "restore", "docs", "latest", target)
        assert tree(target) == tree(taken / "source")
    assert not [*taken.glob("*.partial-*")]


@pytest.mark.skipif(not (shutil.which("age") and shutil.which("zstd")), reason="age or zstd is not installed")
def test_stock_tools_alone_restore_a_snapshot(taken: Path, tmp_path: Path) -> None:
    shutil.copytree(taken / "disk" / "files", tmp_path / "copied" / "files")
    (script,) = (tmp_path / "copied").rglob("break-glass/restore.py")
    assert len(script.read_text().splitlines()) < 130
    assert (script.parent / "README.md").read_text().count(f"{script.parent.parent.name}") >= 2

    def restore(target: Path, code: int = 0) -> Completed:
        argv = [sys.executable, "-c", ALONE, str(script), str(target), str(taken / "key")]
        done = Runner().run(Command(argv, env={"PATH": os.environ["PATH"]}, cwd=tmp_path / "copied"), check=False)
        assert done.returncode == code, done.stderr
        return done

    restore(tmp_path / "target")
    assert tree(tmp_path / "target") == tree(taken / "source")
    pack = next((tmp_path / "copied").rglob("000001.zst.age"))
    pack.write_bytes(pack.read_bytes()[:-1])
    assert "zeros" in restore(tmp_path / "damaged", code=1).stderr
    assert tree(tmp_path / "damaged").keys() == tree(taken / "source").keys() - {b"zeros"}
