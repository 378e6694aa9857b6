"""Exposure of a real server with a real stream: 0 is said only while commits wait; otherwise what the stores say. In
Dagster the same, as checks and as alarms."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from dr_pipelines.checks import Verdict
from dr_pipelines.clock import SystemClock
from dr_pipelines.definitions import build_definitions
from dr_pipelines.embedded.postgres import EmbeddedPostgres, bin_dir, os_user
from dr_pipelines.objectives.judgement import Objective
from dr_pipelines.operations import Objectives, objectives, validate_backup
from dr_pipelines.plan import load_plan
from dr_pipelines.progress import Silent
from dr_pipelines.resources import SiteResource
from dr_pipelines.site import Site
from tests.support.streams import Running, insert, streaming, take_full

HOUR = timedelta(hours=1)


class _Later(SystemClock):
    def now(self) -> datetime:
        return super().now() + HOUR


class Place:
    """A plan with one server, two tiers and four promises."""

    def __init__(self, base: Path, server: EmbeddedPostgres) -> None:
        self.base, self.server, self.path = base, server, base / "plan.yaml"
        tiers = {"primary": "here", "secondary": "there"}
        plan: dict[str, Any] = {
            "version": 1, "name": "one", "state_dir": str(base / "state"), "encryption": "none",
            "storage": {store: {"type": "local", "path": str(base / store)} for store in tiers.values()},
            "databases": {"shop": {
                "connection": {"host": "127.0.0.1", "port": server.port},
                "schedule": {"full": "daily", "incremental": "hourly"},
                "storage": tiers, "bin_dir": str(bin_dir(18)), "os_user": os_user(),
                "wal": {"ship_open_every": "1 second"},
            }},
            "data_classes": {"payments": {"rpo": "0 minutes", "server": "shop"},
                             "users": {"rpo": "5 minutes", "server": "shop"}},
            "systems": {"critical": {"database": {"rto": "1 hour", "server": "shop"}, "auth": "30 minutes"}},
        }  # fmt: skip
        self.path.write_text(yaml.dump(plan))
        for tier in tiers:
            self.site().repository("shop", tier).initialise()

    def site(self, clock: SystemClock | None = None) -> Site:
        return Site(load_plan(self.path), clock=clock)

    def synchronous(self, names: str, running: Running) -> None:
        self.server.psql(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
        self.server.psql("SELECT pg_reload_conf()")
        running.until(lambda status: (status.sync_state == "sync") is bool(names))

    def validate(self) -> float:
        """Returns how long the restore took, in seconds."""
        report = validate_backup(self.site(), "shop", "latest", "primary", Silent())
        assert report.validation.verdict is not Verdict.FAIL, report.check.summary
        return report.validation.recovery_seconds


def lines(found: Objectives) -> dict[str, Objective]:
    return {line.promise.name: line for line in found.lines}


def test_nothing_is_said_to_be_lost_only_while_commits_wait(postgres18: EmbeddedPostgres, folder: Path) -> None:
    place = Place(folder, postgres18)
    repository = place.site().repository("shop", "primary")
    postgres18.psql("CREATE TABLE t (id int PRIMARY KEY, filler text)")
    with streaming(postgres18, repository, folder / "state" / "shop") as running:
        place.synchronous("FIRST 1 (dr_shop)", running)
        no_base = lines(objectives(place.site()))["payments"]
        assert (no_base.verdict, no_base.unknown) == (Verdict.FAIL, "everything")  # WAL alone restores nothing
        take_full(postgres18, repository, folder / "state")
        insert(postgres18, 1, 2)
        found = lines(objectives(place.site()))
        assert (found["payments"].verdict, found["payments"].measured) == (Verdict.PASS, 0.0)
        assert found["users"].verdict is Verdict.PASS
        # A tier is a moment behind, and never said to lose nothing.
        assert found["users"].measured is not None and 0 < found["users"].measured < 10
        _in_dagster(place)

        place.synchronous("", running)
        asynchronous = lines(objectives(place.site()))["payments"]
        assert asynchronous.verdict is Verdict.FAIL and "dr_shop is async" in asynchronous.summary
        assert asynchronous.measured is not None and 0 < asynchronous.measured < 10
        before = datetime.now(UTC)
        insert(postgres18, 3)
        running.until_shipped(postgres18)
        after = datetime.now(UTC)

    idle = objectives(place.site(_Later()))
    assert lines(idle)["users"].verdict is Verdict.PASS  # an hour without a commit, and everything is on the tier
    insert(postgres18, 4)
    behind = objectives(place.site(_Later()))
    told = {exposure.place: exposure for exposure in behind.exposures["shop"]}
    assert told["stream"].seconds is None and "no stream dr_shop is connected" in told["stream"].how
    until = told["primary"].recoverable_until
    assert until is not None and before <= until <= after and "its newest commit" in told["primary"].how
    for name in ("payments", "users"):
        assert lines(behind)[name].verdict is Verdict.FAIL
        assert lines(behind)[name].measured == pytest.approx(3600, abs=60)
    assert told["secondary"].at_least is None and told["secondary"].seen  # nothing was ever copied there

    postgres18.kill()
    unasked = lines(objectives(place.site()))
    assert unasked["payments"].verdict is Verdict.NOT_PROVEN and "could not be asked" in unasked["payments"].summary
    assert unasked["payments"].measured is not None and unasked["payments"].measured > 0
    assert unasked["users"].verdict is Verdict.PASS  # by what the stores say


def _in_dagster(place: Place) -> None:
    """A run shows the numbers; the sensor tells what changed since its last look, and nothing twice."""
    definitions = build_definitions(place.path, retries=dg.RetryPolicy(max_retries=0))
    with dg.DagsterInstance.ephemeral() as instance:
        result = definitions.resolve_job_def("shop_objectives").execute_in_process(instance=instance)
        passed = {found.check_name: found.passed for found in result.get_asset_check_evaluations()}
        assert passed == {
            "rpo_of_payments_is_met": True,
            "rpo_of_users_is_met": True,
            "rto_of_database_is_met": False,
            "rto_of_auth_is_met": False,
        }
        (made,) = result.asset_materializations_for_node("shop__objectives")
        assert made.metadata["rpo_exposure_seconds_payments"].value == 0.0
        assert "never measured" in str(made.metadata["objectives"].value)

        sensor, cursor, news, took = definitions.get_sensor_def("shop_objectives"), None, [], 0.0
        for measured in (False, True, True):
            if measured and len(news) == 1:
                took = place.validate()
            context = dg.build_sensor_context(instance, cursor=cursor, repository_def=definitions.get_repository_def())
            answer = sensor(context, site=SiteResource(plan_path=str(place.path)))
            assert isinstance(answer, dg.SensorResult)
            cursor = answer.cursor
            news.append({event.check_name: event.passed for event in answer.asset_events})
        assert news == [passed, {"rto_of_database_is_met": True}, {}]
        assert lines(objectives(place.site()))["database"].measured == pytest.approx(took)
        assert json.loads(cursor or "")["rto_of_auth_is_met"] == "fail"
