"""Suites that lie where nobody looks are not proven, and not passed over."""

from __future__ import annotations

from pathlib import Path

from dr_pipelines.plan.validation import ValidationPlan
from dr_pipelines.validation.own_expectations import overlooked
from dr_pipelines.validation.suite import whole


def names(plan: ValidationPlan) -> list[str]:
    return [getattr(check, "__name__", "") for check in whole(plan, "shop", ["shop", "stock"]).at_end]


def test_a_folder_with_a_mistyped_name_is_no_reason_to_pass(tmp_path: Path) -> None:
    plan = ValidationPlan(expectations=tmp_path)
    for name in ("shop", "stock"):
        (tmp_path / name / "app").mkdir(parents=True)
        (tmp_path / name / "app" / "public.orders.json").touch()
    (tmp_path / "README.md").touch()
    assert overlooked(plan, ["shop", "stock"]) == []
    assert "no_suite_is_overlooked" not in names(plan) and "own_expectations_are_met" in names(plan)
    (tmp_path / "shop").rename(tmp_path / "shpo")
    assert names(plan)[-1] == "no_suite_is_overlooked"
    assert overlooked(plan, ["shop", "stock"]) == [
        f"{tmp_path / 'shpo' / 'app' / 'public.orders.json'} belongs to no server of the plan"
    ]


def test_a_folder_that_the_plan_names_must_be_there(tmp_path: Path) -> None:
    assert names(ValidationPlan(expectations=tmp_path / "expektations"))[-1] == "no_suite_is_overlooked"
    assert "no_suite_is_overlooked" not in names(ValidationPlan())
