"""The table of storage classes: ordered, complete, and overridden by the plan's prices."""

from __future__ import annotations

import pytest

from dr_pipelines.plan.classes import ORDINARY, StoreKind, classes_of, storage_class
from dr_pipelines.plan.consistency import mistakes
from dr_pipelines.plan.model import Plan
from dr_pipelines.plan.stores import PricePlan, S3StorePlan


@pytest.mark.parametrize("kind", ["s3", "azure"])
def test_the_colder_the_cheaper_to_keep_and_the_longer_it_must_stay(kind: StoreKind) -> None:
    classes = classes_of(kind)
    assert classes[0].name == ORDINARY[kind]
    assert [found.keep for found in classes] == sorted((found.keep for found in classes), reverse=True)
    assert [found.minimum_days for found in classes] == sorted(found.minimum_days for found in classes)
    assert all(found.offline == (found.hours > 0) for found in classes)
    assert all(found.urgent_hours <= found.hours for found in classes)


def test_an_object_of_no_named_class_is_in_the_ordinary_one() -> None:
    assert storage_class("s3", None) == classes_of("s3")[0]
    assert storage_class("azure", "GLACIER") is None


def test_the_plan_s_prices_come_before_list_prices() -> None:
    plan = S3StorePlan(type="s3", profile="aws", bucket="backups", prices={"GLACIER": PricePlan(keep=1, read=2)})
    glacier, deep = storage_class("s3", "GLACIER"), storage_class("s3", "DEEP_ARCHIVE")
    assert glacier is not None and deep is not None
    assert plan.price_of(glacier) == PricePlan(keep=1, read=2)
    assert plan.price_of(deep) == PricePlan(keep=deep.keep, read=deep.read)


@pytest.mark.parametrize(
    ("tier", "after", "wrong"),
    [
        ("primary", "7 days", True),
        ("primary", "8 days", False),
        ("secondary", "7 days", True),
        ("archive", "1 day", False),
    ],
)
def test_an_offline_class_is_wrong_only_where_it_makes_recovery_wait(tier: str, after: str, wrong: bool) -> None:
    cold = {
        "type": "s3", "profile": "aws", "bucket": "backups",
        "classes": [{"name": "GLACIER_IR"}, {"name": "GLACIER", "after": after}],
    }  # fmt: skip
    other = "secondary" if tier == "primary" else "primary"
    server = {
        "connection": {"host": "db.example"},
        "schedule": {"full": "daily"},
        "retention": {"daily": "14 days", "window": "7 days"},
        "storage": {tier: "cold", other: "warm"},
    }
    plan = Plan.model_validate(
        {
            "version": 1,
            "name": "shop",
            "storage": {"cold": cold, "warm": {"type": "s3", "profile": "aws", "bucket": "others"}},
            "encryption": "none",
            "databases": {"shop": server},
        }
    )
    assert [mistake.path for mistake in mistakes(plan)] == (["storage.cold.classes[1]"] if wrong else [])
