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
from dr_pipelines.plan.consistency import missing_secrets, mistakes
from dr_pipelines.plan.explain import SECRET_FIELDS
from dr_pipelines.plan.model import Plan, plan_schema

EXAMPLE = Path(__file__).parents[2] / "dr_plan.yaml"
RECIPIENT = "age1wypxncaxwfkapmvz3a8sxvm2040sg6ynfgjldp3phn4qky0dca0sefqwcd"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DR_RECIPIENT", RECIPIENT)


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


def test_paths_of_a_section_that_is_left_out_are_beside_the_plan_too(tmp_path: Path) -> None:
    document: Any = YAML(typ="safe").load(EXAMPLE.read_text())
    document["databases"]["shop"].pop("validation", None)
    path = tmp_path / "plan.yaml"
    path.write_text(json.dumps(document))
    assert load_plan(path).databases["shop"].validation.expectations == tmp_path / "expectations"


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


@pytest.mark.parametrize(("second", "wrong"), [("bucket: media, prefix: b", False), ("bucket: kept", True)])
def test_files_may_be_read_from_two_folders_of_one_bucket(second: str, wrong: bool) -> None:
    at = "type: s3, endpoint: https://one.example"
    text = f"""
      version: 1
      name: shop
      storage:
        tier: {{{at}, bucket: kept}}
        a: {{{at}, bucket: media, prefix: a}}
        b: {{{at}, {second}}}
      file_storage:
        a: {{schedule: daily, retention: 30 days, source: {{type: bucket, store: a}}, storage: {{primary: tier}}}}
        b: {{schedule: daily, retention: 30 days, source: {{type: bucket, store: b}}, storage: {{primary: tier}}}}
      encryption: none
    """
    plan = Plan.model_validate(YAML(typ="safe").load(text))
    assert [mistake.path for mistake in mistakes(plan)] == (["storage.b"] if wrong else [])


def test_polls_are_kept_until_the_snapshot_that_follows_them() -> None:
    files = {
        "schedule": "daily", "retention": "30 days", "source": {"type": "directory", "path": "/uploads"},
        "storage": {"primary": "disk"}, "poll": "5 minutes", "keep_polls": "12 hours",
        "references": {"rows": {"server": "shop", "table": "public.uploads", "path": "path"}},
    }  # fmt: skip
    plan = {
        "version": 1, "name": "shop", "encryption": "none", "storage": {"disk": {"type": "local", "path": "/disk"}},
        "databases": {"shop": {
            "connection": {"host": "db"}, "schedule": {"full": "daily"}, "storage": {"primary": "disk"},
        }},
        "file_storage": {"uploads": files},
    }  # fmt: skip
    [mistake] = mistakes(Plan.model_validate(plan))
    assert mistake.path == "file_storage.uploads.keep_polls"
    del files["keep_polls"]
    assert not [*mistakes(Plan.model_validate(plan))]


@pytest.mark.parametrize(
    ("poll", "prefix", "wrong"), [("5 minutes", "", False), ("6 minutes", "", True), ("1 minute", "docs", True)]
)
def test_an_rpo_of_files_may_be_as_short_as_polls_that_see_all_of_them(poll: str, prefix: str, wrong: bool) -> None:
    rows = {"server": "shop", "table": "public.uploads", "path": "path", "prefix": prefix}
    plan = {
        "version": 1, "name": "shop", "encryption": "none",
        "storage": {"disk": {"type": "local", "path": "/disk"}},
        "databases": {"shop": {
            "connection": {"host": "db"}, "schedule": {"full": "daily"}, "storage": {"primary": "disk"},
        }},
        "file_storage": {"uploads": {
            "schedule": "hourly", "retention": "30 days", "source": {"type": "directory", "path": "/uploads"},
            "storage": {"primary": "disk"}, "poll": poll, "references": {"rows": rows},
        }},
        "data_classes": {"files": {"rpo": "5 minutes", "file_sets": ["uploads"]}},
    }  # fmt: skip
    found = [mistake.path for mistake in mistakes(Plan.model_validate(plan))]
    assert found == (["data_classes.files.rpo"] if wrong else [])
