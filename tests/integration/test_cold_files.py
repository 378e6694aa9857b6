"""Files brought back by `dr` from tiers whose packs are offline, on S3's and Azure's own rules."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from dr_pipelines import operations
from dr_pipelines.errors import RecallPending
from dr_pipelines.plan import Plan
from dr_pipelines.progress import Silent
from dr_pipelines.repository.layout import Role, role_of
from dr_pipelines.site import Site
from dr_pipelines.storage.azure import AzureStore
from dr_pipelines.storage.base import Availability
from dr_pipelines.storage.local import LocalStore
from tests.support import forked
from tests.support.azure_front import azure_front
from tests.support.cold_files import AZURE, Waiting
from tests.support.file_tiers import DOCS
from tests.support.stores import azurite_container, moto_bucket
from tests.support.strict_s3 import finish_restores, hold_restores


def plan_of(folder: Path, cold: dict[str, Any]) -> dict[str, Any]:
    """The file set `docs` of a folder with two files, its copies at once in an offline class."""
    (folder / "docs").mkdir()
    for name in ("a", "b"):
        (folder / "docs" / name).write_text(name * 1000)
    return {
        "version": 1, "name": "test", "state_dir": str(folder / "state"), "encryption": "none",
        "storage": {"disk": {"type": "local", "path": str(folder / "disk")}, "cold": cold},
        "file_storage": {DOCS: {
            "schedule": "hourly", "retention": "400 days", "storage": {"primary": "disk", "archive": "cold"},
            "source": {"type": "directory", "path": str(folder / "docs")},
            "replication": {"archive": {"send": "everything"}},
        }},
    }  # fmt: skip


def dr(env: dict[str, str], *argv: str | Path, code: int = 0) -> Any:
    """The one JSON document of a command that ends with `code`."""
    done = forked.dr(*argv, "--json", env=env)
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_the_command_says_asks_and_brings_back_what_was_asked_for(strict_s3: str, tmp_path: Path) -> None:
    hold_restores(strict_s3)
    (_, bucket), (client, live) = moto_bucket(strict_s3), moto_bucket(strict_s3)
    s3 = {
        "type": "s3", "profile": "aws", "endpoint": strict_s3, "access_key_id": "${ENV:KEY}",
        "secret_access_key": "${ENV:KEY}",
    }  # fmt: skip
    planned = plan_of(tmp_path, {**s3, "bucket": bucket, "classes": [{"name": "GLACIER"}]})
    planned["storage"]["live"] = {**s3, "bucket": live}
    plan = tmp_path / "plan.yaml"
    plan.write_text(yaml.dump(planned))
    env = {**os.environ, "DR_PLAN": str(plan), "KEY": "testtest"}
    for words in (("repository", "init"), ("files", "snapshot", DOCS), ("replicate", DOCS)):
        done = forked.dr(*words, env=env)
        assert done.returncode == 0, done.stderr
    asked = ("files", "restore", DOCS, "latest", "--tier", "archive", "--path", "a")
    restore, to_bucket = (*asked, tmp_path / "out"), (*asked, "--to-store", "live/out")

    seen = dr(env, *restore, "--preview")
    assert (seen["offline_objects"], seen["offline_tiers"], seen["offline_named"]) == (1, ["archive"], ["a"])
    assert seen["recall_seconds"] == 5 * 3600 and seen["arriving_objects"] == 0
    told = dr(env, *restore, code=31)
    assert "all were asked for just now" in told["error"] and "--wait" in told["hint"]
    assert dr(env, *restore, "--preview")["arriving_objects"] == 1 and not (tmp_path / "out").exists()
    assert "all were asked for before" in dr(env, *to_bucket, code=31)["error"]
    assert "Contents" not in client.list_objects_v2(Bucket=live)
    look = dr(env, "store", "recall", "cold", DOCS, "latest", "--dry-run")
    assert (look["offline_objects"], look["arriving_objects"], look["is_here"]) == (1, 1, False)
    finish_restores(strict_s3)
    assert dr(env, *restore)["files"] == 1
    assert (tmp_path / "out" / "a").read_text() == "a" * 1000
    assert dr(env, *to_bucket)["files"] == 1
    assert client.get_object(Bucket=live, Key="out/a")["Body"].read() == b"a" * 1000
    assert forked.dr("store", "age", "cold", "--server", DOCS, env=env).stdout.startswith("docs on archive: nothing")


def test_blobs_in_the_archive_tier_are_copied_out_waited_for_and_read(azurite_port: int, tmp_path: Path) -> None:
    with azure_front(azurite_port) as front:
        cold = AzureStore(azurite_container(front.endpoint), "cold")
        disk = LocalStore(tmp_path / "disk", "disk")
        clock = Waiting(front.release)
        site = Site(Plan.model_validate(plan_of(tmp_path, AZURE)), clock=clock, stores={"disk": disk, "cold": cold})
        for tier in ("primary", "archive"):
            site.repository(DOCS, tier).initialise()
        operations.take_snapshot(site, DOCS, Silent())
        operations.replicate(site, DOCS, "archive", Silent())
        packs = [info.key for info in cold.list("files/") if role_of(info.key) is Role.BULK]
        assert {cold.stat(key).availability for key in packs} == {Availability.OFFLINE}
        with pytest.raises(RecallPending, match="all were asked for just now"):
            operations.restore_files(site, DOCS, "latest", tmp_path / "out", Silent(), tier="archive", urgent=True)
        assert {cold.stat(key).availability for key in packs} == {Availability.ARRIVING}
        assert front.priorities == ["High"] * len(packs)
        report = operations.restore_files(site, DOCS, "latest", tmp_path / "out", Silent(), tier="archive", wait=True)
        assert (report.files, len(clock.waited)) == (2, 1)
        assert (tmp_path / "out" / "b").read_text() == "b" * 1000
