"""The code location as Dagster sees it: loaded by its own command, launched as its API launches."""

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.schedule_definition import ScheduleExecutionData

from assets.partitions import daily, hourly, partition_of
from dr_pipelines.definitions import build_definitions
from dr_pipelines.errors import AccessDenied
from dr_pipelines.metadata import asset_key, failure
from dr_pipelines.resources import SiteResource

ROOT = Path(__file__).parents[2]
DAILY, HOURLY = daily(date(2026, 1, 1)), hourly(date(2026, 1, 1))
SERVERS = ("shop", "crm-eu", "ledger")


@pytest.fixture
def plan_path(tmp_path: Path) -> Path:
    """Three servers; every secret is missing, no store or server answers."""
    path = tmp_path / "plan.yaml"
    server: dict[str, Any] = {
        "connection": {"host": "127.0.0.1", "port": 1, "password": "${ENV:DR_TEST_ABSENT_PASSWORD}"},
        "schedule": {"full": "daily", "incremental": "hourly"},
        "storage": {"primary": "bucket"},
    }
    store = {
        "type": "s3",
        "endpoint": "http://127.0.0.1:1",
        "bucket": "backups",
        "access_key_id": "${ENV:DR_TEST_ABSENT_ID}",
        "secret_access_key": "${ENV:DR_TEST_ABSENT_KEY}",
    }
    member = {"name": "Lead", "role": "lead", "reach": ["+00 000", "incidents@three.example"]}
    databases = {
        name: {**server, "connection": {**server["connection"], "port": port}} for port, name in enumerate(SERVERS, 1)
    }
    plan = {
        **{"version": 1, "name": "three", "storage": {"bucket": store}, "encryption": "none", "databases": databases},
        "data_classes": {"users": {"rpo": "5 minutes", "server": "shop"}, "reports": "1 hour"},
        "systems": {"critical": {"database": {"rto": "1 hour", "server": "shop"}}},
        "communication": {"internal": {"response_team": [member]}},
    }
    path.write_text(yaml.dump(plan, Dumper=_NoAnchors))
    return path


class _NoAnchors(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        return True


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def test_the_location_loads_by_workspace_file_without_secrets_stores_or_servers(
    plan_path: Path, tmp_path: Path
) -> None:
    (tmp_path / "dagster.yaml").write_text((ROOT / "deploy" / "dagster.yaml").read_text())
    done = subprocess.run(
        [Path(sys.executable).with_name("dagster"), "definitions", "validate", "-w", "workspace.yaml"],
        cwd=ROOT,
        env={**os.environ, "DR_PLAN": str(plan_path), "DAGSTER_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Validation successful" in done.stdout + done.stderr
    assert not (tmp_path / ".telemetry").exists()


def test_loading_stays_light(plan_path: Path) -> None:
    heavy = ("great_expectations", "boto3", "azure.storage.blob", "psycopg", "pandas", "pyarrow")
    load = (
        "import sys; from dr_pipelines.definitions import build_definitions, default_plan_path; "
        "build_definitions(default_plan_path()).get_repository_def(); "
        f"print([module for module in {heavy} if module in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", load],
        cwd=ROOT,
        env={**os.environ, "DR_PLAN": str(plan_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_no_part_that_reports_home_is_installed() -> None:
    """Great Expectations reported through posthog until 1.6; Dagster's own is off in the instance's template."""
    pinned = {line.split("==")[0] for line in (ROOT / "requirements.lock").read_text().splitlines() if "==" in line}
    assert "great-expectations" in pinned
    assert "posthog" not in pinned


def test_three_servers_give_three_sets(plan_path: Path) -> None:
    repository = build_definitions(plan_path).get_repository_def()
    graph = repository.asset_graph
    for server in SERVERS:
        full, incremental, wal = (
            asset_key(server, thing) for thing in ("full_backup", "incremental_backup", "wal_archive")
        )
        assert graph.get(full).partitions_def == DAILY
        assert graph.get(incremental).partitions_def == HOURLY
        assert graph.get(wal).is_external
        for key in (full, incremental, wal):
            assert graph.get(key).group_name == f"{server.replace('-', '_')}_database_backups"
            assert graph.get(key).kinds == {"postgres", "s3"}
            assert graph.get(key).tags["dr/server"] == server
            assert graph.get(key).owners == ["incidents@three.example"]
        late = {key: graph.get(key).freshness_policy for key in (full, incremental, wal)}
        assert late[full] == dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=36))
        assert late[incremental] == dg.FreshnessPolicy.time_window(fail_window=timedelta(minutes=90))
        assert late[wal] is None  # an idle server writes none
        promised = {"schedule": "daily", "bucket": "bucket", "promised_rpo": "5 minutes", "promised_rto": "1 hour"}
        said = {name: value for name, value in graph.get(full).metadata.items() if name in promised}
        assert said == (promised if server == "shop" else {"schedule": "daily", "bucket": "bucket"})
        pools = {graph.get(key).pools and next(iter(graph.get(key).pools)) for key in (full, incremental)}
        assert pools == {f"postgres_{server.replace('-', '_')}"}
        checks = {
            (check.asset_key, check.name) for check in graph.asset_check_keys if check.asset_key.path[0] == server
        }
        of_a_backup = ["manifest_is_complete", "backup_is_there", "chain_is_complete", "objects_match_sha256"]
        of_a_backup += ["contents_match_backup_manifest", "wal_is_continuous", "recipients_are_as_planned"]
        of_a_backup += ["manifest_meets_expectations", "catalog_meets_expectations", "size_is_as_usual"]
        # `reports` is of no server, and must be seen all the same: with the first one of the plan's file.
        objectives = {"shop": ["rpo_of_users_is_met", "rto_of_database_is_met"], "crm-eu": ["rpo_of_reports_is_met"]}
        promised_by = {
            "full_backup": [*of_a_backup, "lock_is_in_force", "everything_is_covered"],
            "incremental_backup": [*of_a_backup, "lock_is_in_force"],
            "primary_scrub": [
                "objects_match_their_digests",
                "locks_hold",
                "bucket_is_as_planned",
                "lock_is_in_force",
            ],
            "recovery_windows": ["recovery_window_is_kept"],
            "expiry": ["retention_is_applied"],
            "validated_full_backup": ["fulls_are_proven_in_time", "restores_and_validates"],
            "validated_incremental_backup": ["restores_and_validates"],
            "incremental_equivalence": ["incrementals_are_equivalent"],
            "wal_archive": ["wal_has_no_gap"],
            "objectives": objectives.get(server, []),
        }
        assert checks == {(asset_key(server, thing), name) for thing, names in promised_by.items() for name in names}
    # Two for backups; one tier to scrub; canary, equivalence and windows. And the objectives of two servers.
    assert len(repository.schedule_defs) == 6 * len(SERVERS) + 2
    assert {schedule.execution_timezone for schedule in repository.schedule_defs} == {"UTC"}
    # With one tier nothing is copied: due, WAL, expiry, validation, a chain to replace, expectations. And objectives.
    assert len(repository.sensor_defs) == 6 * len(SERVERS) + 2


@pytest.mark.parametrize("days", [-2, 1, 20000], ids=["past", "tomorrow", "far future"])
def test_a_partition_that_is_not_now_fails_once_and_says_why(
    plan_path: Path, instance: dg.DagsterInstance, days: int
) -> None:
    key = partition_of(DAILY, datetime.now(UTC) + timedelta(days=days))
    job = build_definitions(plan_path).resolve_job_def("shop_full_backup")
    result = job.execute_in_process(tags={"dagster/partition": key}, instance=instance, raise_on_error=False)
    assert not result.success
    events = [event for event in result.all_events if event.is_step_failure]
    assert not [event for event in result.all_events if event.is_step_up_for_retry]
    error = events[0].step_failure_data.user_failure_data
    assert error is not None and error.description is not None
    assert "only the partition of now" in error.description
    assert "HINT" in error.description


def test_a_missing_secret_fails_the_run_once_with_its_name(plan_path: Path, instance: dg.DagsterInstance) -> None:
    now = datetime.now(UTC)
    job = build_definitions(plan_path).resolve_job_def("crm_eu_incremental_backup")
    result = job.execute_in_process(partition_key=partition_of(HOURLY, now), instance=instance, raise_on_error=False)
    assert not result.success
    assert not [event for event in result.all_events if event.is_step_up_for_retry]
    error = next(event for event in result.all_events if event.is_step_failure).step_failure_data.user_failure_data
    assert error is not None
    assert "DR_TEST_ABSENT" in (error.description or "")
    assert error.metadata["error"].value == "SecretMissing"


class At(SiteResource):
    """A site whose clock stands still."""

    at: str

    def now(self) -> datetime:
        return datetime.fromisoformat(self.at)


def evaluate(plan_path: Path, schedule: str, tick: datetime, now: datetime | None = None) -> ScheduleExecutionData:
    definitions = build_definitions(plan_path)
    repository = definitions.get_repository_def()
    site = At(plan_path=str(plan_path), at=(now or tick).isoformat())
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_schedule_context(
            instance, scheduled_execution_time=tick, repository_def=repository, resources={"site": site}
        )
        return repository.get_schedule_def(schedule).evaluate_tick(context)


def test_schedules_ask_for_the_partition_of_their_tick(plan_path: Path) -> None:
    tick = datetime(2026, 11, 24, 2, 0, tzinfo=UTC)
    for thing, key in (("full_backup", "2026-11-24"), ("incremental_backup", "2026-11-24-02:00")):
        answer = evaluate(plan_path, f"shop_{thing}_schedule", tick, tick + timedelta(seconds=20))
        (request,) = answer.run_requests or ()
        assert request.tags["dagster/partition"] == key
        assert request.run_key == f"shop:{thing}:2026-11-24T02:00"


def test_a_tick_that_was_missed_takes_the_backup_of_now(plan_path: Path) -> None:
    """The daemon was down at 02:00; for that time nothing can be taken any more."""
    tick = datetime(2026, 11, 24, 2, 0, tzinfo=UTC)
    for thing, key in (("full_backup", "2026-11-25"), ("incremental_backup", "2026-11-25-01:00")):
        answer = evaluate(plan_path, f"shop_{thing}_schedule", tick, tick + timedelta(hours=23))
        (request,) = answer.run_requests or ()
        assert request.tags["dagster/partition"] == key


def test_nothing_is_scheduled_before_the_plan_asks_for_it(plan_path: Path) -> None:
    for thing in ("full_backup", "incremental_backup"):
        answer = evaluate(plan_path, f"shop_{thing}_schedule", datetime(2025, 12, 31, 23, 0, tzinfo=UTC))
        assert not answer.run_requests
        assert "since 2026-01-01" in (answer.skip_message or "")


def test_an_error_keeps_its_hint_beside_it() -> None:
    refused = failure(AccessDenied("the store says no", hint="check the key with `dr store check`."))
    assert (refused.description or "").startswith("the store says no")
    assert refused.metadata["hint"].value == "check the key with `dr store check`."


def test_the_template_of_an_instance_limits_backups_and_tells_nobody(tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_text((ROOT / "deploy" / "dagster.yaml").read_text())
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert not instance.telemetry_enabled
        assert not instance.nux_enabled
        assert instance.global_op_concurrency_default_limit == 1
        assert not instance.run_retries_retry_on_asset_or_op_failure
        pool = "postgres_shop"
        instance.event_log_storage.initialize_concurrency_limit_to_default(pool)
        first = instance.event_log_storage.claim_concurrency_slot(pool, "run-1", "full")
        second = instance.event_log_storage.claim_concurrency_slot(pool, "run-2", "incremental")
        assert (first.is_claimed, second.is_claimed) == (True, False)
