"""The plan: what is accepted, and that each mistake is named by its YAML path."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from dr_pipelines.errors import PlanError, SecretMissing
from dr_pipelines.plan import load_plan
from dr_pipelines.plan.consistency import missing_secrets
from dr_pipelines.plan.explain import SECRET_FIELDS
from dr_pipelines.plan.model import Plan, plan_schema

EXAMPLE = Path(__file__).parents[2] / "dr_plan.yaml"
RECIPIENT = "age1wypxncaxwfkapmvz3a8sxvm2040sg6ynfgjldp3phn4qky0dca0sefqwcd"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DR_RECIPIENT", RECIPIENT)


def _changed(tmp_path: Path, old: str, new: str) -> Path:
    text = EXAMPLE.read_text()
    assert old in text
    path = tmp_path / "plan.yaml"
    path.write_text(text.replace(old, new, 1))
    return path


def test_the_example_holds_every_number_of_the_written_plan() -> None:
    plan = load_plan(EXAMPLE)
    shop = plan.databases["shop"]
    assert (shop.schedule.full.text, shop.schedule.incremental.text) == ("daily", "hourly")  # type: ignore[union-attr]
    assert (shop.retention.daily, shop.retention.weekly, shop.retention.monthly) == (7, 4, 12)
    assert dict(shop.storage.items()) == {
        "primary": "supabase-backups",
        "secondary": "aws-s3-backup",
        "archive": "azure-cold-storage",
    }
    assert plan.file_storage["assets"].retention == timedelta(days=90)
    assert plan.file_storage["user_uploads"].retention == timedelta(days=30)
    rto = {name: system.rto for group in plan.systems.values() for name, system in group.items()}
    assert rto == {
        "database": timedelta(hours=1),
        "api_services": timedelta(hours=2),
        "user_auth": timedelta(minutes=30),
        "admin_portal": timedelta(hours=4),
        "reporting": timedelta(hours=8),
        "analytics": timedelta(hours=12),
    }
    assert [data.rpo for data in plan.data_classes.values()] == [
        timedelta(0),
        timedelta(minutes=5),
        timedelta(hours=1),
        timedelta(hours=4),
    ]
    assert len(plan.recovery.procedures["database"]) == 7
    assert len(plan.recovery.procedures["file_storage"]) == 6
    assert [len(steps) for steps in plan.recovery.scenarios.values()] == [7, 6, 7]
    assert (len(plan.testing.monthly), len(plan.testing.quarterly)) == (4, 4)


def test_json_blocks_of_a_written_plan_paste_in(tmp_path: Path) -> None:
    document: Any = YAML(typ="safe").load(EXAMPLE.read_text())
    document["databases"]["shop"]["schedule"] = json.loads(
        '{"full": "daily", "incremental": "hourly", "transaction_logs": "continuous"}'
    )
    document["systems"] = json.loads('{"critical_systems": {"database": "1 hour", "user_auth": "30 minutes"}}')
    document["data_classes"] = json.loads('{"transaction_data": "0 minutes", "user_data": "5 minutes"}')
    path = tmp_path / "plan.yaml"
    path.write_text(json.dumps(document))  # JSON is YAML
    plan = load_plan(path)
    assert plan.systems["critical_systems"]["user_auth"].rto == timedelta(minutes=30)
    assert plan.data_classes["transaction_data"].rpo == timedelta(0)


@pytest.mark.parametrize(
    ("old", "new", "path", "says"),
    [
        ("daily: 7 days", "dayly: 7 days", "databases.shop.retention.dayly (line", "did you mean 'daily'"),
        ("full: daily", "full: fortnightly", "databases.shop.schedule.full", "not a schedule"),
        ("full: daily", 'full: "0 0 30 2 *"', "databases.shop.schedule.full", "never comes due"),
        ("incremental: hourly", "incremental: weekly", "databases.shop.schedule", "more often than fulls"),
        ("weekly: 4 weeks", "weekly: 4 days", "databases.shop.retention.weekly", "number of weeks"),
        ("type: local", "type: lokal", "storage.azure-cold-storage", "'s3', 'azure', 'local'"),
        ("rto: 1 hour", "rto: sometime", "systems.critical_systems.database.rto", "not a duration"),
        ("primary: supabase-backups", "primary: supa", "databases.shop.storage.primary", "'supa' is not under storage"),
        (
            "secondary: aws-s3-backup",
            "secondary: supabase-backups",
            "databases.shop.storage",
            "two tiers name one store",
        ),
        ("synchronous: true", "synchronous: false", "data_classes.transaction_data.rpo", "promise less"),
        ("[database, user_auth]", "[api_services]", "systems", "in a circle"),
        ("name: shop", "name: shop\nname: x", "line 6", "is there twice"),
        ("${ENV:DR_RECIPIENT}", "age1nonsense", "encryption.recipients[0]", "not an age recipient"),
        ("rto: 1 hour", "rto: 7 dayz", "systems.critical_systems.database.rto (line", "found '7 dayz'"),
        ("rto: 1 hour", "rto: -1 hour", "systems.critical_systems.database.rto (line", "not a duration"),
        ("name: shop", "\tname: shop", "line 5", "not YAML"),
        (
            "databases:",
            "databases:\n  a-b: &a {connection: {host: a}, schedule: {full: daily}, storage: {primary: "
            "supabase-backups}}\n  a_b: {<<: *a, connection: {host: b}}",
            "databases.a_b",
            "only by - and _",
        ),
        (
            "databases:",
            "databases:\n  other: {connection: {host: 127.0.0.1}, schedule: {full: daily}, storage: "
            "{primary: supabase-backups}}",
            "databases.shop.connection",
            "every PostgreSQL server once",
        ),
    ],
)
def test_a_mistake_is_named_by_its_path(tmp_path: Path, old: str, new: str, path: str, says: str) -> None:
    with pytest.raises(PlanError) as refused:
        load_plan(_changed(tmp_path, old, new))
    assert path in str(refused.value)
    assert says in str(refused.value)
    assert refused.value.hint


def test_a_secret_written_out_is_refused_and_not_repeated(tmp_path: Path) -> None:
    path = _changed(tmp_path, "secret_access_key: ${ENV:DR_AWS_SECRET_ACCESS_KEY}", "secret_access_key: hunter2")
    with pytest.raises(PlanError) as refused:
        load_plan(path)
    assert "storage.aws-s3-backup.secret_access_key" in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_two_tiers_in_one_bucket_are_refused(tmp_path: Path) -> None:
    text = (
        EXAMPLE.read_text().replace("127.0.0.1:9002", "127.0.0.1:9001").replace("-aws-s3-backup}", "-supabase-backups}")
    )
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    with pytest.raises(PlanError, match=r"storage\.aws-s3-backup .*same place"):
        load_plan(path)


def test_backing_up_a_supabase_project_into_itself_is_refused(tmp_path: Path) -> None:
    text = EXAMPLE.read_text().replace("${ENV:DR_SHOP_HOST:-127.0.0.1}", "db.abcdef.supabase.co")
    text = text.replace(
        "${ENV:DR_SUPABASE_ENDPOINT:-http://127.0.0.1:9001}", "https://abcdef.supabase.co/storage/v1/s3"
    )
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    with pytest.raises(PlanError, match="use another project"):
        load_plan(path)


def test_encryption_is_a_decision(tmp_path: Path) -> None:
    document: Any = YAML(typ="safe").load(EXAMPLE.read_text())
    path = tmp_path / "plan.yaml"
    document["encryption"] = "none"
    path.write_text(json.dumps(document))
    assert load_plan(path).encryption is None
    document["encryption"] = None
    path.write_text(json.dumps(document))
    with pytest.raises(PlanError, match="encryption"):
        load_plan(path)


def test_secrets_are_looked_up_late_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DR_AWS_SECRET_ACCESS_KEY", raising=False)
    plan = load_plan(EXAMPLE)
    assert "storage.aws-s3-backup.secret_access_key" in [mistake.path for mistake in missing_secrets(plan)]
    store: Any = plan.storage["aws-s3-backup"]
    with pytest.raises(SecretMissing, match="DR_AWS_SECRET_ACCESS_KEY"):
        store.secret_access_key.reveal()
    monkeypatch.setenv("DR_AWS_SECRET_ACCESS_KEY", "hunter2")
    assert store.secret_access_key.reveal() == "hunter2"
    assert "hunter2" not in f"{plan!r}{plan.model_dump_json()}"


def test_the_schema_covers_every_section() -> None:
    schema = Plan.model_json_schema()
    assert set(schema["properties"]) == set(Plan.model_fields)
    assert {"password", "secret_access_key", "identity"} <= SECRET_FIELDS


def test_no_plan_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="there is no plan at"):
        load_plan(tmp_path / "absent.yaml")


def test_an_empty_plan_and_one_that_is_no_mapping_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    for text, says in (("", "is empty"), ("# only a remark\n", "is empty"), ("- a\n", "a plan is a mapping")):
        path.write_text(text)
        with pytest.raises(PlanError, match=says):
            load_plan(path)


def test_a_recipient_that_is_not_set_fails_only_where_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DR_RECIPIENT")
    plan = load_plan(EXAMPLE)
    assert "encryption.recipients[0]" in [mistake.path for mistake in missing_secrets(plan)]
    assert plan.encryption is not None
    with pytest.raises(SecretMissing, match="DR_RECIPIENT"):
        plan.encryption.public_keys()


def test_the_example_validates_against_the_schema() -> None:
    document = YAML(typ="safe").load(EXAMPLE.read_text())
    jsonschema.validate(document, plan_schema())
    jsonschema.validate({**document, "encryption": "none"}, plan_schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**document, "databasse": {}}, plan_schema())
