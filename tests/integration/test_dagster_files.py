"""Snapshots of file sets in Dagster's runs, on directories of this machine; checks and sensors really read stores."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets.integrity import OF_SNAPSHOT_COPIES, OF_SNAPSHOTS
from assets.partitions import daily, hourly, partition_of
from dr_pipelines import operations
from dr_pipelines.definitions import build_definitions
from dr_pipelines.metadata import asset_key
from dr_pipelines.plan import load_plan
from dr_pipelines.progress import Silent
from dr_pipelines.resources import SiteResource
from dr_pipelines.site import Site

ROOT = Path(__file__).parents[2]
DAILY, HOURLY = daily(date(2026, 1, 1)), hourly(date(2026, 1, 1))
UPLOADS = asset_key("user-uploads", "snapshot")
FILES = 40


class Place:
    """A plan with two file sets that go to two folders, and the Dagster instance that runs it."""

    def __init__(self, base: Path, instance: dg.DagsterInstance) -> None:
        self.base, self.instance = base, instance
        self.plan_path, self.files = base / "plan.yaml", base / "uploads"
        for number in range(FILES):
            (self.files / f"{number % 3}").mkdir(parents=True, exist_ok=True)
            (self.files / f"{number % 3}" / f"{number}.txt").write_text(f"{number} " * 1000)
        source = {"type": "directory", "path": str(self.files)}
        tiers = {"primary": "here", "secondary": "there"}
        plan = {
            "version": 1, "name": "files", "state_dir": str(base / "state"), "encryption": "none",
            "storage": {store: {"type": "local", "path": str(base / store)} for store in tiers.values()},
            "file_storage": {
                "user-uploads": {"schedule": "hourly", "retention": "30 days", "source": source, "storage": tiers},
                "assets": {"schedule": "daily", "retention": "90 days", "source": source,
                           "storage": {"primary": "here"}},
                "promised": {"schedule": "daily", "retention": "90 days"},
            },
        }  # fmt: skip
        self.plan_path.write_text(json.dumps(plan))
        self.definitions = build_definitions(self.plan_path, retries=dg.RetryPolicy(max_retries=0))

    @property
    def site(self) -> Site:
        return Site(load_plan(self.plan_path))

    def run(self, job: str, partition: str | None = None) -> dg.ExecuteInProcessResult:
        return self.definitions.resolve_job_def(job).execute_in_process(
            partition_key=partition, instance=self.instance, raise_on_error=False
        )

    def snapshot(self) -> dg.ExecuteInProcessResult:
        return self.run("user_uploads_snapshot", partition_of(HOURLY, datetime.now(UTC)))

    def tick(self, sensor: str, cursor: str | None = None) -> dg.SensorResult:
        context = dg.build_sensor_context(
            self.instance, cursor=cursor, repository_def=self.definitions.get_repository_def()
        )
        answer = self.definitions.get_sensor_def(sensor)(context, site=SiteResource(plan_path=str(self.plan_path)))
        assert isinstance(answer, dg.SensorResult)
        return answer


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with dg.DagsterInstance.ephemeral() as instance:
        made = Place(tmp_path, instance)
        for name in ("here", "there"):
            made.site.repository("user-uploads", {"here": "primary", "there": "secondary"}[name]).initialise()
        yield made


def verdicts(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    return {found.check_name: found.passed for found in result.get_asset_check_evaluations()}


def metadata(result: dg.ExecuteInProcessResult, node: str) -> dict[str, Any]:
    (made,) = result.asset_materializations_for_node(node)
    return {name: entry.value for name, entry in made.metadata.items()}


def evaluations(answer: dg.SensorResult) -> dict[str, dg.AssetCheckEvaluation]:
    return {event.check_name: event for event in answer.asset_events if isinstance(event, dg.AssetCheckEvaluation)}


def test_every_file_set_that_is_backed_up_has_its_own_assets(place: Place) -> None:
    repository = place.definitions.get_repository_def()
    graph = repository.asset_graph
    assert {key.path[0] for key in graph.get_all_asset_keys()} == {"user-uploads", "assets"}
    assert graph.get(UPLOADS).partitions_def == HOURLY
    assert graph.get(asset_key("assets", "snapshot")).partitions_def == DAILY
    assert graph.get(UPLOADS).group_name == "user_uploads_file_backups"
    assert graph.get(UPLOADS).pools == {"files_user_uploads"}
    assert graph.get(UPLOADS).freshness_policy == dg.FreshnessPolicy.time_window(fail_window=timedelta(minutes=90))
    things = {key.path[1] for key in graph.get_all_asset_keys() if key.path[0] == "user-uploads"}
    scrubs = {"primary_scrub", "secondary_scrub"}
    assert things == {"snapshot", "secondary_snapshot", "retention_plan", "expiry", *scrubs}
    checks = {key.name for key in graph.asset_check_keys if key.asset_key == UPLOADS}
    assert checks == {*OF_SNAPSHOTS, "snapshot_is_there", "changes_are_usual", "snapshot_meets_expectations"}
    copied = {key.name for key in graph.asset_check_keys if key.asset_key.path[-1] == "secondary_snapshot"}
    assert copied == {*OF_SNAPSHOT_COPIES, "replica_is_current"}
    # One to take, one for each tier to scrub, one for canaries.
    assert len(repository.schedule_defs) == 4 + 3
    # Due, expiry and expectations; and copies of the one that is copied.
    assert len(repository.sensor_defs) == 4 + 3


def test_a_snapshot_its_copy_its_retention_and_scrub(place: Place) -> None:
    first = place.snapshot()
    assert first.success
    said = metadata(first, "user_uploads__snapshot")
    assert (said["files"], said["new_files"], said["changed_files"]) == (FILES, FILES, 0)
    assert said["read_bytes"] == said["new_bytes"] == said["bytes"] > said["stored_bytes"] > 0
    assert f"dr files restore user-uploads {said['label']}" in said["summary"]
    passed = {*OF_SNAPSHOTS, "snapshot_is_there", "changes_are_usual"}
    assert verdicts(first) == dict.fromkeys(passed, True)
    due = place.tick("user_uploads_replication")
    [request] = due.run_requests or []
    assert request.job_name == "user_uploads_secondary_snapshot"
    copy = place.run(request.job_name, request.tags["dagster/partition"])
    assert verdicts(copy) == dict.fromkeys([*OF_SNAPSHOT_COPIES, "replica_is_current"], True)
    assert metadata(copy, "user_uploads__secondary_snapshot")["labels"] == said["label"]
    assert not place.tick("user_uploads_replication").run_requests
    kept = place.run("user_uploads_expiry")
    assert verdicts(kept) == {"retention_is_applied": True}
    assert metadata(kept, "user_uploads__retention_plan")["secondary_keeps"] == 1
    assert verdicts(place.run("user_uploads_secondary_scrub"))["objects_match_their_digests"]


def test_the_sensors_say_what_is_missing_and_what_is_not_as_expected(place: Place) -> None:
    late = evaluations(place.tick("user_uploads_backups_due"))["snapshot_is_there"]
    assert not late.passed and "there is none at all" in (late.description or "")
    assert place.tick("user_uploads_expectations").skip_reason == dg.SkipReason("no new snapshot")
    assert place.snapshot().success
    assert evaluations(place.tick("user_uploads_backups_due"))["snapshot_is_there"].passed
    judged = place.tick("user_uploads_expectations")
    assert evaluations(judged)["snapshot_meets_expectations"].passed, judged
    assert not place.tick("user_uploads_expectations", judged.cursor).asset_events


def test_an_unusual_snapshot_alarms_until_it_is_accepted(place: Place) -> None:
    assert place.snapshot().success
    for path in [*place.files.glob("*/*")][: FILES // 2]:
        path.with_name(f"{path.name}.locked").write_bytes(os.urandom(path.stat().st_size))
        path.unlink()
    attacked = place.snapshot()
    label = metadata(attacked, "user_uploads__snapshot")["label"]
    assert not verdicts(attacked)["changes_are_usual"]
    assert verdicts(attacked)["snapshot_is_complete"]
    time.sleep(1.1 - datetime.now(UTC).microsecond / 1e6)  # labels and proofs are of a second
    assert not verdicts(place.snapshot())["changes_are_usual"]
    operations.accept_snapshot(place.site, "user-uploads", label, reason="a test", by="me")
    assert verdicts(place.snapshot())["changes_are_usual"]


def test_what_is_not_there_whole_fails_its_check_and_stops_what_follows(place: Place) -> None:
    assert place.snapshot().success
    next((place.base / "here").glob("files/user-uploads/archives/*/*")).unlink()
    key = dg.AssetCheckKey(UPLOADS, "snapshot_is_complete")
    only = dg.define_asset_job("only", dg.AssetSelection.checks(key))
    job = dg.Definitions.merge(place.definitions, dg.Definitions(jobs=[only])).resolve_job_def("only")
    result = job.execute_in_process(instance=place.instance, raise_on_error=False)
    assert not result.success  # it blocks: nothing is copied in its run
    assert verdicts(result) == {"snapshot_is_complete": False}


def test_another_partition_than_that_of_now_takes_nothing(place: Place) -> None:
    result = place.run("user_uploads_snapshot", partition_of(HOURLY, datetime.now(UTC) - timedelta(days=1)))
    assert not result.success
    assert not operations.list_snapshots(place.site, "user-uploads").snapshots


def test_the_table_of_a_large_set_is_judged_quickly_and_what_is_wrong_is_found(place: Place) -> None:
    from dr_pipelines.files.columns import columns_of
    from dr_pipelines.files.table import with_columns
    from dr_pipelines.repository.snapshot_manifest import Counts
    from dr_pipelines.validation.expectations import run_over_columns
    from dr_pipelines.validation.file_suite import snapshot_suite

    taken = operations.take_snapshot(place.site, "user-uploads", Silent())
    archive = taken.archives[0]
    sizes = {archive.name: archive.size}

    def columns_for(rows: int) -> dict[str, Any]:
        return {
            "path": [f"{number}".encode() for number in range(rows)], "type": ["file"] * rows, "size": [1] * rows,
            "mtime_ns": [10**18] * rows, "sha256": [bytes(32)] * rows, "archive": [archive.name] * rows,
            "offset": [512] * rows,
        }  # fmt: skip

    def judge(columns: dict[str, Any]) -> dict[str, str]:
        rows = len(columns["path"])
        manifest = taken.model_copy(update={"counts": Counts(files=rows, bytes=rows)})
        found = columns_of(with_columns(columns), sizes)
        result = run_over_columns(snapshot_suite(manifest, found, datetime.now(UTC)), found, named_by="path")
        return {one.says: one.result for one in result.outcomes}

    began = time.monotonic()
    assert set(judge(columns_for(200_000)).values()) == {"met"}
    assert time.monotonic() - began < 60
    columns = columns_for(100)
    columns["path"][1] = columns["path"][0]
    columns["sha256"][2] = None
    columns["archive"][3] = "20260101T000000Z-000000"
    columns["offset"][4] = archive.size
    columns["size"][5] = -1
    columns["mtime_ns"][6] = 10**19 // 2
    wrong = {says for says, result in judge(columns).items() if result != "met"}
    assert wrong == {
        "no path is there twice", "every file that could be read has a SHA-256",
        "every content is in an archive that the manifest names", "every content lies within its archive",
        "no file has a negative size", "sizes add up to what the manifest counts", "no file is of the future",
    }  # fmt: skip


def test_rows_that_point_at_files_are_held_against_them_every_hour(place: Place) -> None:
    plan = json.loads(place.plan_path.read_text())
    plan["databases"] = {
        "shop": {"connection": {"host": "127.0.0.1", "port": 1}, "schedule": {"full": "daily"},
                 "storage": {"primary": "here"}},
    }  # fmt: skip
    uploads = {"documents": {"server": "shop", "table": "public.documents", "path": "path"}}
    plan["file_storage"]["user-uploads"]["references"] = uploads
    place.plan_path.write_text(json.dumps(plan))
    place.definitions = build_definitions(place.plan_path)
    repository = place.definitions.get_repository_def()
    assert dg.AssetCheckKey(UPLOADS, "references_match") in repository.asset_graph.asset_check_keys
    assert repository.get_schedule_def("user_uploads_references_schedule").cron_schedule == "25 * * * *"
    taken = place.definitions.resolve_job_def("user_uploads_snapshot").asset_layer.asset_graph.asset_check_keys
    assert "references_match" not in {key.name for key in taken}
    [answer] = place.run("user_uploads_references").get_asset_check_evaluations()
    assert answer.check_name == "references_match" and not answer.passed
    assert answer.metadata["verdict"].value == "not proven"  # no server answers


def test_loading_stays_light_with_file_sets(place: Place) -> None:
    heavy = ("great_expectations", "boto3", "azure.storage.blob", "psycopg", "pandas", "pyarrow", "numpy")
    load = (
        "import sys; from dr_pipelines.definitions import build_definitions, default_plan_path; "
        "build_definitions(default_plan_path()).get_repository_def(); "
        f"print([module for module in {heavy} if module in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", load], cwd=ROOT, env={**os.environ, "DR_PLAN": str(place.plan_path)},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "[]"
