"""The comparison of incrementals as an asset, and the full that is taken when it failed."""

from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest
import yaml

from dr_pipelines.definitions import build_definitions
from dr_pipelines.resources import SiteResource
from tests.support.estate import Estate, plan_with


@pytest.fixture
def plan_path(tmp_path: Path) -> Path:
    path = tmp_path / "plan.yaml"
    stores = {"primary": {"type": "local", "path": str(tmp_path / "primary")}}
    path.write_text(yaml.dump(plan_with(stores, state_dir=str(tmp_path / "state"))))
    return path


def store(estate: Estate, plan_path: Path) -> None:
    estate.write_to(plan_path.parent / "primary")


def tick(plan_path: Path) -> dg.RunRequest | dg.SkipReason:
    sensor = build_definitions(plan_path).get_sensor_def("shop_unequal_chain")
    found = sensor(dg.build_sensor_context(), site=SiteResource(plan_path=str(plan_path)))
    assert isinstance(found, dg.RunRequest | dg.SkipReason)
    return found


def test_a_wrong_incremental_asks_for_a_full_until_there_is_one(plan_path: Path) -> None:
    estate = Estate()
    estate.work(1, 1)
    full = estate.back_up()
    wrong = estate.back_up(full)
    store(estate, plan_path)
    assert isinstance(tick(plan_path), dg.SkipReason)
    estate.prove(wrong, "equivalence", good=False)
    store(estate, plan_path)
    asked = tick(plan_path)
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    assert isinstance(asked, dg.RunRequest)
    assert asked.run_key == f"shop:full_backup:after:{full.label}:{today}"
    assert asked.tags["dagster/partition"] == today
    estate.back_up()
    store(estate, plan_path)
    assert isinstance(tick(plan_path), dg.SkipReason)


def test_a_comparison_that_failed_or_could_not_be_made_is_no_pass(plan_path: Path) -> None:
    estate = Estate()
    estate.work(1, 1)
    full = estate.back_up()
    store(estate, plan_path)
    found = compared(plan_path)
    assert (found.passed, found.metadata["verdict"].value) == (False, "not proven")
    wrong = estate.back_up(full)
    estate.prove(wrong, "equivalence", good=False)
    store(estate, plan_path)
    found = compared(plan_path)
    assert (found.passed, found.metadata["verdict"].value) == (False, "fail")
    assert wrong.label in str(found.description)


def compared(plan_path: Path) -> dg.AssetCheckEvaluation:
    job = build_definitions(plan_path).resolve_job_def("shop_incremental_equivalence")
    with dg.DagsterInstance.ephemeral() as instance:
        result = job.execute_in_process(instance=instance, raise_on_error=False)
    (found,) = result.get_asset_check_evaluations()
    return found
