"""Backups in Dagster's runs on a real server; the checks and sensors really read the store."""

import os
import re
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import dagster as dg
import pytest
import yaml
from dagster._core.execution.plan.objects import UserFailureData

from assets.integrity import OF_BACKUPS
from assets.partitions import daily, partition_of
from dr_pipelines.backed_up import of_server
from dr_pipelines.definitions import build_definitions
from dr_pipelines.embedded.postgres import EmbeddedPostgres
from dr_pipelines.metadata import asset_key
from dr_pipelines.plan import load_plan
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.repository import Repository
from dr_pipelines.resources import SiteResource
from dr_pipelines.site import Site
from dr_pipelines.storage.local import LocalStore
from sensors.expectations import expectations_sensor
from tests.support.live import Live

DAILY = daily(date(2026, 1, 1))
FULL, WAL = asset_key("shop", "full_backup"), asset_key("shop", "wal_archive")


class Place:
    """A plan with one server and a local store, and the Dagster instance that runs it."""

    def __init__(self, base: Path, port: int, instance: dg.DagsterInstance, tries: int = 2) -> None:
        self.store, self.state, self.instance = base / "store", base / "state", instance
        self.plan_path = base / "plan.yaml"
        server = {
            "connection": {"host": "127.0.0.1", "port": port, "user": "postgres"},
            "schedule": {"full": "daily"},
            "storage": {"primary": "disk"},
        }
        storage = {"disk": {"type": "local", "path": str(self.store)}}
        plan = {"version": 1, "name": "one", "state_dir": str(self.state), "storage": storage}
        self.plan_path.write_text(yaml.dump({**plan, "encryption": "none", "databases": {"shop": server}}))
        self.definitions = build_definitions(self.plan_path, retries=dg.RetryPolicy(max_retries=tries, delay=0.2))

    @property
    def repository(self) -> Repository:
        return Repository(LocalStore(self.store, "disk"), Codec(1), "primary")

    def backup(self, run_id: str | None = None) -> dg.ExecuteInProcessResult:
        job = self.definitions.resolve_job_def("shop_full_backup")
        key = partition_of(DAILY, datetime.now(UTC))
        return job.execute_in_process(partition_key=key, instance=self.instance, raise_on_error=False, run_id=run_id)

    def refusal(self, retried: int) -> UserFailureData:
        """What a person reads of a failed run, whose first words must be ours however often it was tried."""
        result = self.backup()
        assert not result.success
        assert len([event for event in result.all_events if event.is_step_up_for_retry]) == retried
        (failed, *_) = (event for event in result.all_events if event.is_step_failure)
        told = failed.step_failure_data
        assert told.user_failure_data is not None
        assert told.error is not None
        assert told.error.message.startswith(
            f"dagster._core.definitions.events.Failure: {told.user_failure_data.description}"
        )
        assert told.error.cause is None
        return told.user_failure_data

    def check(self, key: dg.AssetKey, *names: str, **launched: Any) -> dg.ExecuteInProcessResult:
        """Checks alone, as the button in the UI runs them; `tags` and `run_config` as its launchpad gives them."""
        selection = dg.AssetSelection.checks(*(dg.AssetCheckKey(key, name) for name in names))
        only = dg.define_asset_job("only", selection)
        definitions = dg.Definitions.merge(self.definitions, dg.Definitions(jobs=[only]))
        job = definitions.resolve_job_def("only")
        return job.execute_in_process(instance=self.instance, raise_on_error=False, **launched)

    def tick(self, sensor: str, cursor: str | None = None) -> dg.SensorResult:
        """One tick of a sensor: its answer, as the function gives it."""
        context = dg.build_sensor_context(
            self.instance, cursor=cursor, repository_def=self.definitions.get_repository_def()
        )
        answer = self.definitions.get_sensor_def(sensor)(context, site=SiteResource(plan_path=str(self.plan_path)))
        assert isinstance(answer, dg.SensorResult)
        return answer


@pytest.fixture
def place(postgres18: EmbeddedPostgres, tmp_path: Path) -> Iterator[Place]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Place(tmp_path, postgres18.port, instance)


def checks_of(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    return {evaluation.check_name: evaluation for evaluation in result.get_asset_check_evaluations()}


def the_evaluation(answer: dg.SensorResult) -> dg.AssetCheckEvaluation:
    (found,) = (event for event in answer.asset_events if isinstance(event, dg.AssetCheckEvaluation))
    return found


def evaluations_of(answer: dg.SensorResult) -> dict[str, dg.AssetCheckEvaluation]:
    return {event.check_name: event for event in answer.asset_events if isinstance(event, dg.AssetCheckEvaluation)}


def test_a_backup_with_its_metadata_and_checks_that_notice_what_is_deleted(
    place: Place, postgres18: EmbeddedPostgres
) -> None:
    place.repository.initialise()
    live = Live(postgres18, place.repository, place.state)
    with live.streaming():
        result = place.backup()
        for _ in range(4):
            postgres18.psql("SELECT pg_logical_emit_message(true, 'fill', 'x'); SELECT pg_switch_wal()")
    assert result.success
    (materialized,) = result.asset_materializations_for_node("shop__full_backup")
    said = materialized.metadata
    assert said["bytes"].value > said["stored_bytes"].value > 0
    assert said["label"].value in said["summary"].value
    assert " MB" in said["summary"].value
    checks = checks_of(result)
    assert {name: check.passed for name, check in checks.items()} == dict.fromkeys(
        ["backup_is_there", "everything_is_covered", *OF_BACKUPS], True
    )
    assert checks["manifest_is_complete"].metadata["label"].value == said["label"].value

    seen = place.tick("shop_wal_archive")
    assert the_evaluation(seen).passed
    (reached,) = (event for event in seen.asset_events if isinstance(event, dg.AssetMaterialization))
    assert reached.asset_key == WAL
    again = place.tick("shop_wal_archive", seen.cursor)
    assert not again.asset_events

    segments = sorted(path for path in place.store.rglob("wal/*/*/*/*") if "partial" not in path.name)
    segments[-2].unlink()
    gap = the_evaluation(place.tick("shop_wal_archive", seen.cursor))
    assert not gap.passed
    assert "missing" in (gap.description or "")

    lost = next(place.store.rglob("packs/*"))
    lost.unlink()
    checked = place.check(FULL, "manifest_is_complete")
    (incomplete,) = checked.get_asset_check_evaluations()
    assert not incomplete.passed
    assert incomplete.severity is dg.AssetCheckSeverity.ERROR
    assert "1 of 7 objects missing" in (incomplete.description or "")
    assert incomplete.metadata["missing"].value == str(lost.relative_to(place.store))
    assert "wrong_size" not in incomplete.metadata
    assert not checked.success  # it blocks


def test_a_check_looks_at_the_partition_that_it_is_launched_for(place: Place, postgres18: EmbeddedPostgres) -> None:
    place.repository.initialise()
    live = Live(postgres18, place.repository, place.state)
    with live.streaming():
        result = place.backup()
        today = result.asset_materializations_for_node("shop__full_backup")[0].metadata["label"].value
    lost = next(place.store.rglob(f"{today}/packs/*"))
    lost.unlink()
    key, names = partition_of(DAILY, datetime.now(UTC)), ("manifest_is_complete", "objects_match_sha256")
    config = {"ops": {"shop_full_backup_integrity": {"config": {"partition": key}}}}
    for launched in ({"tags": {"dagster/partition": key}}, {"run_config": config}, {}):
        found = checks_of(place.check(FULL, *names, **launched))
        assert {name: check.passed for name, check in found.items()} == dict.fromkeys(names, False)
        assert found["manifest_is_complete"].metadata["label"].value == today
    config["ops"]["shop_full_backup_integrity"]["config"]["partition"] = "2026-01-05"
    elsewhere = checks_of(place.check(FULL, *names, run_config=config))
    assert {"2026-01-05" in (check.description or "") for check in elsewhere.values()} == {True}
    with live.streaming():  # a damaged one does not keep the next from being taken
        again = place.backup()
    assert len(place.repository.backups("shop")) == 2
    taken = again.asset_materializations_for_node("shop__full_backup")[0].metadata["label"].value
    complete = checks_of(again)["manifest_is_complete"]
    assert (complete.passed, complete.metadata["label"].value) == (True, taken)


def test_a_server_that_is_down_is_said_first_and_tried_again(place: Place, postgres18: EmbeddedPostgres) -> None:
    place.repository.initialise()
    postgres18.stop()
    error = place.refusal(retried=2)
    assert "127.0.0.1" in (error.description or "").splitlines()[0]
    assert error.metadata["error"].value == "ServerUnavailable"
    assert error.metadata["exit_code"].value == 20


def test_a_server_that_comes_back_is_backed_up_in_the_same_run(postgres18: EmbeddedPostgres, tmp_path: Path) -> None:
    run_id = str(uuid4())
    with tempfile.TemporaryDirectory() as home, dg.DagsterInstance.local_temp(home) as instance:
        place = Place(tmp_path, postgres18.port, instance, tries=60)
        place.repository.initialise()
        postgres18.stop()

        def bring_back() -> None:
            while not instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.STEP_UP_FOR_RETRY).records:
                if over.wait(0.05):
                    return
            postgres18.start()

        over, helper = threading.Event(), threading.Thread(target=bring_back)
        helper.start()
        result = place.backup(run_id)
        over.set()
        helper.join()
        assert result.success
        assert len(place.repository.backups("shop")) == 1


def test_a_backup_that_a_person_terminates_is_not_taken_again(tmp_path: Path) -> None:
    """The server takes the connection and says nothing; then the run is interrupted, as the UI's button does it."""
    run_id = str(uuid4())
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        tempfile.TemporaryDirectory() as home,
        dg.DagsterInstance.local_temp(home) as instance,
    ):
        silent.settimeout(60)
        place = Place(tmp_path, silent.getsockname()[1], instance)
        place.repository.initialise()

        def interrupt() -> None:
            silent.accept()
            os.kill(os.getpid(), signal.SIGINT)

        helper = threading.Thread(target=interrupt)
        helper.start()
        result = place.backup(run_id)
        helper.join()
        assert not result.success
        assert not instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.STEP_UP_FOR_RETRY).records


def test_a_tier_that_is_no_repository_is_not_tried_again(place: Place) -> None:
    error = place.refusal(retried=0)
    assert "dr repository init" in str(error.metadata["hint"].value)


def test_a_store_that_is_down_proves_nothing_and_keeps_the_sensors_alive(place: Place) -> None:
    place.store.write_text("no directory")
    for sensor in ("shop_wal_archive", "shop_backups_due"):
        answer = place.tick(sensor)
        evaluation = the_evaluation(answer)
        assert not evaluation.passed
        assert evaluation.metadata["verdict"].value == "not proven"
        assert re.search("could not be (checked|read)", evaluation.description or "")
        assert place.tick(sensor, answer.cursor).asset_events in (None, [])


def test_a_sensor_holds_a_backup_against_expectations_and_a_person_can(
    place: Place, postgres18: EmbeddedPostgres
) -> None:
    place.repository.initialise()
    assert place.tick("shop_expectations").skip_reason == dg.SkipReason("no new backup")
    live = Live(postgres18, place.repository, place.state)
    with live.streaming():
        assert place.backup().success
    answer = place.tick("shop_expectations")
    checks = evaluations_of(answer)
    assert {name: (check.passed, check.metadata.get("verdict")) for name, check in checks.items()} == {
        "manifest_meets_expectations": (True, None),
        "catalog_meets_expectations": (True, None),
        # A first backup has nothing before it to be held against.
        "size_is_as_usual": (False, dg.MetadataValue.text("not proven")),
    }
    (newest,) = place.instance.fetch_materializations(FULL, limit=1).records
    assert not answer.run_requests
    for check in checks.values():
        assert check.severity is dg.AssetCheckSeverity.ERROR
        assert check.target_materialization_data is not None
        assert check.target_materialization_data.storage_id == newest.storage_id
    seen = checks["manifest_meets_expectations"].metadata
    table = seen["expectations"].value
    assert isinstance(table, str)
    assert table.startswith("| of | expectation | column | observed | expected | result |\n|")
    assert "every digest is a SHA-256 | sha256 | all of" in table
    assert (place.store / str(seen["document"].value)).read_text().startswith("<!doctype html>")
    assert not place.tick("shop_expectations", answer.cursor).asset_events

    next(place.store.rglob("packs/*")).unlink()
    job = place.definitions.resolve_job_def("shop_full_backup_expectations")
    by_hand = checks_of(job.execute_in_process(instance=place.instance, raise_on_error=False))
    assert "every object is in the store" in (by_hand["manifest_meets_expectations"].description or "")
    assert [*checks_of(place.check(FULL, "size_is_as_usual"))] == ["size_is_as_usual"]


def test_a_backup_that_could_not_be_judged_is_judged_when_its_store_is_back(
    place: Place, postgres18: EmbeddedPostgres
) -> None:
    place.repository.initialise()
    assert place.backup().success
    aside = place.store.rename(place.store.with_name("aside"))
    answer = place.tick("shop_expectations")
    for check in evaluations_of(answer).values():
        assert check.metadata["verdict"].value == "not proven"
        assert "could not be checked" in (check.description or "")
    again = place.tick("shop_expectations", answer.cursor)
    assert not again.asset_events  # it was told
    aside.rename(place.store)
    assert evaluations_of(place.tick("shop_expectations", again.cursor))["manifest_meets_expectations"].passed


class Hanging(SiteResource):
    """A site that opens when it is let."""

    def site(self) -> Site:
        assert OPEN.wait(60)
        return super().site()


OPEN = threading.Event()


def test_a_store_that_hangs_holds_no_tick_and_is_told_and_loses_nothing(
    place: Place, postgres18: EmbeddedPostgres
) -> None:
    place.repository.initialise()
    assert place.backup().success
    sensor = expectations_sensor(of_server("shop", load_plan(place.plan_path).databases["shop"]), patience=0.05)
    site = Hanging(plan_path=str(place.plan_path))

    def tick(cursor: str | None) -> dg.SensorResult:
        answer = sensor(dg.build_sensor_context(place.instance, cursor=cursor), site=site)
        assert isinstance(answer, dg.SensorResult)
        return answer

    OPEN.clear()
    first = tick(None)
    assert not first.asset_events  # it may be only slow
    second = tick(first.cursor)
    told = evaluations_of(second)
    assert {check.metadata["verdict"].value for check in told.values()} == {"not proven"}
    assert "have not answered" in (told["catalog_meets_expectations"].description or "")
    answer = tick(second.cursor)
    assert not answer.asset_events
    OPEN.set()
    while not answer.asset_events:
        answer = tick(answer.cursor)
    assert evaluations_of(answer)["manifest_meets_expectations"].passed
    assert not tick(answer.cursor).asset_events
