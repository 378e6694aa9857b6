"""Validations in Dagster's runs: launched by the sensor in turn, shown, and alarmed about."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from dr_pipelines import operations
from dr_pipelines.checks import passed
from dr_pipelines.definitions import build_definitions
from dr_pipelines.repository.marks import put_proof
from dr_pipelines.resources import SiteResource
from tests.support.lived import Lived

FULL = "shop_validated_full_backup"


@dataclass
class Place:
    """A server's two tiers, copied for a test, and a Dagster instance."""

    life: Lived
    instance: dg.DagsterInstance

    def write_plan(self, **validation: Any) -> None:
        self.plan_path.write_text(yaml.dump(self.life.plan(validation=validation)))

    @property
    def plan_path(self) -> Path:
        return self.life.base / "plan.yaml"

    @property
    def definitions(self) -> dg.Definitions:
        return build_definitions(self.plan_path, retries=dg.RetryPolicy(max_retries=0))

    def tick(self) -> dg.SensorResult:
        context = dg.build_sensor_context(self.instance, repository_def=self.definitions.get_repository_def())
        answer = self.definitions.get_sensor_def("shop_validation")(
            context, site=SiteResource(plan_path=str(self.plan_path))
        )
        assert isinstance(answer, dg.SensorResult)
        return answer

    def run(self, job: str | None, partition: str, config: Any = None) -> dg.ExecuteInProcessResult:
        return self.definitions.resolve_job_def(str(job)).execute_in_process(
            partition_key=partition, instance=self.instance, raise_on_error=False, run_config=config
        )

    def launch(self, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
        return self.run(request.job_name, request.tags["dagster/partition"], request.run_config)


@pytest.fixture
def place(lived: Lived) -> Iterator[Place]:
    with dg.DagsterInstance.ephemeral() as instance:
        made = Place(lived, instance)
        made.write_plan(incrementals="100 %")
        yield made


def verdicts(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    return {found.check_name: found.passed for found in result.get_asset_check_evaluations()}


def shown(result: dg.ExecuteInProcessResult, thing: str) -> dict[str, Any]:
    (made,) = result.asset_materializations_for_node(f"shop__validated_{thing}")
    return {name: entry.value for name, entry in made.metadata.items()}


def test_the_sensor_restores_the_full_from_one_tier_and_what_follows_from_the_other(place: Place) -> None:
    fresh = place.tick()
    assert not fresh.run_requests  # its WAL may be on its way
    assert f"{place.life.full} waits for primary" in str(fresh.skip_reason)
    for label in (place.life.full, place.life.incremental):
        place.life.age(label, timedelta(minutes=10))

    (request,) = place.tick().run_requests or []
    assert (request.job_name, str(request.run_key).split(":")[2:4]) == (FULL, [place.life.full, "primary"])
    result = place.launch(request)
    assert result.success
    assert verdicts(result)["restores_and_validates"]
    told = shown(result, "full_backup")
    assert told["tier"] == "primary" and told["rto_seconds"] > 0 and told["fetch_mb_per_second"] > 0
    assert {"plan_seconds", "fetch_seconds", "write_seconds", "start_seconds", "replay_seconds"} <= set(told)
    assert "data_was_seen" in told["checks"] and told["evidence"].startswith("evidence/")

    (request,) = place.tick().run_requests or []
    assert str(request.run_key).split(":")[2:4] == [place.life.incremental, "secondary"]
    result = place.launch(request)
    assert result.success
    assert shown(result, "incremental_backup")["chain"] == f"{place.life.full}, {place.life.incremental}"
    assert not place.tick().run_requests


def test_a_failing_verdict_is_a_failed_check_and_no_failed_run(place: Place) -> None:
    for pack in place.life.packs(place.life.full):
        data = bytearray(pack.read_bytes())
        data[len(data) // 2] ^= 1
        pack.write_bytes(data)
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    config = {"ops": {"shop__validated_full_backup": {"config": {"tier": "primary"}}}}
    result = place.run(FULL, today, config)
    assert result.success
    assert verdicts(result) == {"restores_and_validates": False, "fulls_are_proven_in_time": False}
    assert shown(result, "full_backup")["verdict"] == "fail"
    assert "rto_seconds" not in shown(result, "full_backup")
    (event,) = place.tick().asset_events
    assert isinstance(event, dg.AssetCheckEvaluation)
    assert (event.check_name, event.passed) == ("fulls_are_proven_in_time", False)

    nothing = place.run(FULL, "2026-01-02")
    (failed,) = (event for event in nothing.all_events if event.is_step_failure)
    assert "full backup that was begun in 2026-01-02" in str(failed.step_failure_data)


def test_a_full_that_nobody_restored_in_time_is_an_alarm_until_somebody_does(place: Place) -> None:
    place.life.age(place.life.full, timedelta(days=2))
    (event,) = place.tick().asset_events
    assert isinstance(event, dg.AssetCheckEvaluation)
    assert not event.passed and "within 1 day" in str(event.description)
    backup = place.life.repository().backup("shop", place.life.full)
    seen, store = passed("restores_and_validates", ""), place.life.repository().store
    put_proof(store, backup.layout, "validate", seen, at=datetime.now(UTC), tier="primary", run="t")
    (event,) = place.tick().asset_events
    assert isinstance(event, dg.AssetCheckEvaluation) and event.passed


def test_a_tier_that_is_down_stops_no_validation_from_another(place: Place) -> None:
    for label in (place.life.full, place.life.incremental):
        place.life.age(label, timedelta(minutes=10))
    (place.life.base / "secondary").rename(place.life.base / "unplugged")
    state = operations.look_at_validations(place.life.site(), "shop")
    assert [(one.backup.label, one.tier) for one in state.ready] == [(place.life.full, "primary")]
