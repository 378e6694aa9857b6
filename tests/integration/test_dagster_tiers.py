"""Copies, scrubs, expiry and recovery windows in Dagster's runs, on a real backup in three stores of this machine."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from assets.integrity import OF_COPIES
from dr_pipelines import operations
from dr_pipelines.backed_up import replicas
from dr_pipelines.definitions import build_definitions
from dr_pipelines.embedded.postgres import EmbeddedPostgres
from dr_pipelines.plan import load_plan
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.resources import SiteResource
from dr_pipelines.site import Site
from tests.support.live import Live

TIERS = {"primary": "here", "secondary": "there", "archive": "cellar"}


@dataclass
class Place:
    """A plan with one server whose backups go to three folders."""

    base: Path
    instance: dg.DagsterInstance

    @property
    def plan_path(self) -> Path:
        return self.base / "plan.yaml"

    @property
    def site(self) -> Site:
        return Site(load_plan(self.plan_path))

    @property
    def definitions(self) -> dg.Definitions:
        return build_definitions(self.plan_path, retries=dg.RetryPolicy(max_retries=0))

    def write_plan(self, port: int) -> None:
        server = {
            "connection": {"host": "127.0.0.1", "port": port, "user": "postgres"},
            "schedule": {"full": "daily", "incremental": "hourly"},
            "storage": TIERS,
        }
        storage = {store: {"type": "local", "path": str(self.base / store)} for store in TIERS.values()}
        plan = {"version": 1, "name": "one", "state_dir": str(self.base / "state"), "storage": storage}
        self.plan_path.write_text(yaml.dump({**plan, "encryption": "none", "databases": {"shop": server}}))

    def run(self, job: str, partition: str | None = None, **config: Any) -> dg.ExecuteInProcessResult:
        return self.definitions.resolve_job_def(job).execute_in_process(
            partition_key=partition, instance=self.instance, raise_on_error=False, run_config=config or None
        )

    def copies_due(self) -> dg.SensorResult:
        """A tick of the replication sensor."""
        context = dg.build_sensor_context(self.instance, repository_def=self.definitions.get_repository_def())
        sensor = self.definitions.get_sensor_def("shop_replication")
        answer = sensor(context, site=SiteResource(plan_path=str(self.plan_path)))
        assert isinstance(answer, dg.SensorResult)
        return answer

    def copy_all(self) -> list[dg.ExecuteInProcessResult]:
        """What the daemon would launch for the sensor."""
        results = []
        for request in self.copies_due().run_requests or []:
            assert request.job_name is not None
            results.append(self.run(request.job_name, request.tags.get("dagster/partition")))
        return results

    def packs(self, tier: str) -> list[Path]:
        return sorted((self.base / TIERS[tier]).glob("servers/shop/backups/*/packs/*"))


def verdicts(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    return {found.check_name: found.passed for found in result.get_asset_check_evaluations()}


def metadata(result: dg.ExecuteInProcessResult, node: str) -> dict[str, Any]:
    (made,) = result.asset_materializations_for_node(node)
    return {name: entry.value for name, entry in made.metadata.items()}


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.fixture
def place(postgres18: EmbeddedPostgres, tmp_path: Path) -> Iterator[Place]:
    with dg.DagsterInstance.ephemeral() as instance:
        made = Place(tmp_path, instance)
        made.write_plan(postgres18.port)
        for tier in TIERS:
            made.site.repository("shop", tier).initialise()
        live = Live(postgres18, made.site.repository("shop", "primary"), made.base / "state")
        with live.streaming():
            live.take(BackupKind.FULL)
            live.take(BackupKind.INCREMENTAL)
            postgres18.psql("SELECT pg_logical_emit_message(true, 'fill', 'x'); SELECT pg_switch_wal()")
        yield made


def test_the_life_of_a_copy(place: Place) -> None:
    """Copied by the sensor, looked at, damaged, repaired, expired, and shown."""
    results = place.copy_all()
    assert [result.success for result in results] == [True] * len(results)
    assert not (place.copies_due().run_requests or [])
    for tier, packs in {"secondary": 2, "archive": 1}.items():  # the archive is sent fulls only
        assert len(place.packs(tier)) == packs
    today = f"{datetime.now(UTC):%Y-%m-%d}"

    again = place.run("shop_secondary_full_backup", today)
    assert verdicts(again) == dict.fromkeys(["replica_is_current", *OF_COPIES], True)
    assert metadata(again, "shop__secondary_full_backup")["objects"] == 0

    flip(place.packs("secondary")[0])
    scrubbed = place.run("shop_secondary_scrub")
    assert scrubbed.success
    assert verdicts(scrubbed) == {
        "objects_match_their_digests": True,
        "lock_is_in_force": True,
        "locks_hold": True,
        "bucket_is_as_planned": True,
    }
    said = metadata(scrubbed, "shop__secondary_scrub")
    assert (said["faults"], said["read"]) == (1, said["objects"])
    assert place.packs("secondary")[0].read_bytes() == place.packs("primary")[0].read_bytes()

    place.packs("secondary")[0].unlink()
    assert verdicts(place.run("shop_secondary_full_backup", today))["replica_equals"]  # it is copied again

    windows = place.run("shop_recovery_windows")
    assert windows.success
    assert verdicts(windows) == {"recovery_window_is_kept": True}
    shown = metadata(windows, "shop__recovery_windows")
    assert shown["chart"].startswith("![recovery windows](data:image/svg+xml;base64,")
    assert "secondary" in shown["windows"]


def test_expiry_shows_its_plan_and_stops_while_an_incident_is_open(place: Place) -> None:
    place.copy_all()
    expired = place.run("shop_expiry")
    assert expired.success
    assert verdicts(expired) == {"retention_is_applied": True}
    shown = metadata(expired, "shop__retention_plan")
    assert shown["primary_lets_go"] == 0
    assert "daily" in shown["primary"]
    opened = operations.open_incident(place.site, reason="someone deletes things", by="test")
    frozen = place.run("shop_expiry")
    assert frozen.success
    assert verdicts(frozen) == {"retention_is_applied": False}
    assert "someone deletes things" in metadata(frozen, "shop__expiry")["primary_frozen"]
    operations.close_incident(place.site, opened.id, by="test")
    assert verdicts(place.run("shop_expiry")) == {"retention_is_applied": True}


def test_expiry_proves_a_backup_where_nothing_else_did(place: Place) -> None:
    def proofs() -> list[str]:
        marks = place.site.read_only_repository("shop", "primary").catalog("shop").marks
        return sorted(proof.kind for marked in marks.values() for proof in marked.proofs)

    assert verdicts(place.run("shop_expiry")) == {"retention_is_applied": True}
    assert proofs() == ["verify"]
    assert place.run("shop_expiry").success
    assert proofs() == ["verify"]  # a fresh one is enough


def test_one_tier_that_is_down_delays_only_itself(place: Place) -> None:
    (place.base / TIERS["archive"]).rename(place.base / "unplugged")
    requests = place.copies_due().run_requests or []
    assert {request.job_name for request in requests} >= {"shop_secondary_full_backup"}
    assert all("archive" not in str(request.job_name) for request in requests)
    told = {event.asset_key.path[-1]: event for event in place.copies_due().asset_events}
    assert told["secondary_full_backup"].passed
    assert not told["archive_full_backup"].passed
    assert "cannot be seen" in (told["archive_full_backup"].description or "")
    assert all(result.success for result in place.copy_all())
    refused = place.run("shop_archive_full_backup", f"{datetime.now(UTC):%Y-%m-%d}")
    assert not refused.success
    (place.base / "unplugged").rename(place.base / TIERS["archive"])
    assert [result.success for result in place.copy_all()] == [True]


def test_a_partition_without_a_backup_is_refused(place: Place) -> None:
    result = place.run("shop_secondary_full_backup", "2026-01-01")
    (failed,) = (event for event in result.all_events if event.is_step_failure)
    assert "no full backup" in str(failed.step_failure_data)
    assert not place.packs("secondary")


def test_what_the_plan_sends_has_a_job_and_expiry_follows_it(place: Place) -> None:
    asked = load_plan(place.plan_path).databases["shop"]
    sent = {f"shop_{tier}_{thing}" for tier, thing in replicas(asked)}
    names = {job.name for job in place.definitions.get_repository_def().get_all_jobs()}
    assert sent == {
        "shop_secondary_full_backup",
        "shop_secondary_incremental_backup",
        "shop_secondary_wal_archive",
        "shop_archive_full_backup",
        "shop_archive_wal_archive",
    }
    assert sent < names
    assert place.definitions.get_sensor_def("shop_expiry").default_status is dg.DefaultSensorStatus.RUNNING
