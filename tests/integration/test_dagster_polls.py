"""Polls in Dagster: the sensor really looks at rows of a server, and asks for runs that really copy."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets.partitions import hourly, partition_of
from dr_pipelines.definitions import build_definitions
from dr_pipelines.embedded.postgres import EmbeddedPostgres
from dr_pipelines.metadata import asset_key
from dr_pipelines.objectives.polls import Polls
from dr_pipelines.operations import list_snapshots, poll, restore_files
from dr_pipelines.operations.polls import remember
from dr_pipelines.operations.turns import turn
from dr_pipelines.progress import Silent
from dr_pipelines.repository.due import Window, newest_due, snapshot_is_there
from dr_pipelines.resources import SiteResource
from dr_pipelines.site import Site
from tests.support.shop import Shop

KEY = asset_key("docs", "poll")


class Place:
    """The shop of the rows, its plan in Dagster, and what the sensor was told last."""

    def __init__(self, shop: Shop, instance: dg.DagsterInstance) -> None:
        self.shop, self.instance = shop, instance
        self.plan_path = shop.plan_file(poll="30 seconds", prefix="")
        self.definitions = build_definitions(self.plan_path, retries=dg.RetryPolicy(max_retries=0))
        self.cursor: str | None = None

    @property
    def site(self) -> Site:
        return self.shop.site(poll="30 seconds", prefix="")

    def tick(self, sensor: str = "docs_poll") -> dg.SensorResult:
        context = dg.build_sensor_context(
            self.instance, cursor=self.cursor, repository_def=self.definitions.get_repository_def()
        )
        answer = self.definitions.get_sensor_def(sensor)(context, site=SiteResource(plan_path=str(self.plan_path)))
        assert isinstance(answer, dg.SensorResult)
        if sensor == "docs_poll":
            self.cursor = answer.cursor
        return answer

    def run(self, job: str = "docs_poll", partition: str | None = None) -> dg.ExecuteInProcessResult:
        return self.definitions.resolve_job_def(job).execute_in_process(
            partition_key=partition, instance=self.instance, raise_on_error=False
        )

    def add(self, path: str, content: str = "content") -> None:
        """A file, and its row: paths are those of the file set."""
        self.shop.add(path, content)
        self.shop.server.psql(f"UPDATE docs.files SET \"Path\" = 'store/{path}' WHERE \"Path\" = '{path}'")


@pytest.fixture
def place(rows_server: EmbeddedPostgres, tmp_path: Path) -> Iterator[Place]:
    shop = Shop(rows_server, tmp_path)
    shop.make_table()
    shop.site().repository("docs", "primary").initialise()
    with dg.DagsterInstance.ephemeral() as instance:
        made = Place(shop, instance)
        made.add("a")
        yield made


def said(event: dg.AssetMaterialization | dg.AssetObservation) -> dict[str, Any]:
    return {name: entry.value for name, entry in event.metadata.items()}


def copied(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    assert result.success
    (made,) = result.asset_materializations_for_node("docs__poll")
    return said(made)


def test_what_is_polled_is_an_asset_of_its_own_in_the_pool_of_the_snapshots(place: Place) -> None:
    graph = place.definitions.get_repository_def().asset_graph
    node, snapshots = graph.get(KEY), graph.get(asset_key("docs", "snapshot"))
    assert node.pools == snapshots.pools == {"files_docs"}
    assert node.group_name == snapshots.group_name
    assert node.metadata["promised_rpo"] == snapshots.metadata["promised_rpo"] == "1 hour"
    assert node.metadata["rows"] == "docs.files on shop"
    sensor = place.definitions.get_sensor_def("docs_poll")
    assert sensor.minimum_interval_seconds == 30
    taken = place.definitions.resolve_job_def("docs_snapshot").asset_layer.asset_graph.get_all_asset_keys()
    assert KEY not in taken
    without = build_definitions(place.shop.plan_file(prefix=""))
    assert KEY not in without.get_repository_def().asset_graph.get_all_asset_keys()


def test_a_change_is_copied_by_a_run_and_nothing_by_none(place: Place) -> None:
    first = place.tick()
    assert len(first.run_requests or []) == 1  # nothing is known: everything is to be copied
    assert copied(place.run())["files"] == 1
    still = place.tick()
    [seen] = still.asset_events
    assert isinstance(seen, dg.AssetObservation) and not still.run_requests
    assert (said(seen)["changed_paths"], said(seen)["looks"]) == (0, 1)
    assert 0 <= said(seen)["rpo_exposure_seconds"] < 60
    again = place.tick()
    assert not again.asset_events and not again.run_requests and "nothing changed" in str(again.skip_reason)
    place.shop.change("a", "second")
    place.shop.server.psql("UPDATE docs.files SET bytes = 6, sha256 = encode(sha256('second'), 'hex')")
    place.add("new")
    [request] = place.tick().run_requests or []
    assert request.run_key != (first.run_requests or [])[0].run_key
    run = place.run()
    told = copied(run)
    assert (told["changed_paths"], told["new_files"], told["changed_files"]) == (2, 1, 1)
    assert 0 < told["rpo_exposure_seconds"] < 60
    assert [(one.check_name, one.passed) for one in run.get_asset_check_evaluations()] == [("rows_are_polled", True)]
    (place.shop.files / "store/a").write_text("third")
    restore_files(place.site, "docs", told["label"], place.shop.folder / "back", Silent())
    assert (place.shop.folder / "back/store/a").read_text() == "second"


def test_no_poll_is_asked_for_beside_another_or_a_snapshot(place: Place) -> None:
    with turn(place.site, "docs", Silent()):
        waits = place.tick()
    assert not waits.run_requests and "under way" in str(waits.skip_reason)
    job = place.definitions.resolve_job_def("docs_poll")
    run = place.instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    busy = place.tick()
    assert not busy.run_requests and "the last poll is started" in str(busy.skip_reason)
    place.instance.report_run_failed(run)
    failed = place.tick()
    assert not failed.run_requests and "two minutes" in str(failed.skip_reason)


def test_rows_that_are_not_polled_alarm_though_no_sensor_looks(place: Place) -> None:
    def alarm() -> dg.AssetCheckEvaluation:
        events = place.tick("docs_backups_due").asset_events
        [found] = [one for one in events if isinstance(one, dg.AssetCheckEvaluation) and one.asset_key == KEY]
        return found

    assert not alarm().passed
    poll(place.site, "docs", Silent())
    assert alarm().passed
    place.shop.server.psql("ALTER TABLE docs.files RENAME TO gone")
    broken = place.tick()
    assert not broken.run_requests and "does not exist" in str(broken.skip_reason)
    assert alarm().passed  # for some intervals
    hour = timedelta(hours=1)
    remember(place.site, "docs", Polls(datetime.now(UTC) - hour, datetime.now(UTC) - hour))
    assert "the plan says every 30 seconds" in str(alarm().description)
    place.tick()
    late = alarm()
    assert not late.passed and "does not exist" in str(late.description)


def test_snapshots_say_what_a_loss_would_have_cost_and_polls_are_none(place: Place) -> None:
    def snapshot() -> dict[str, Any]:
        [since] = {one.partitions_def for one in [graph.get(asset_key("docs", "snapshot"))]}
        assert since is not None
        run = place.run("docs_snapshot", partition_of(hourly(place.site.file_set("docs").since), datetime.now(UTC)))
        (made,) = run.asset_materializations_for_node("docs__snapshot")
        return said(made)

    graph = place.definitions.get_repository_def().asset_graph
    assert "rpo_exposure_seconds" not in snapshot()
    assert 0 < snapshot()["rpo_exposure_seconds"] < 60
    place.add("new")
    polled = poll(place.site, "docs", Silent()).snapshot
    assert polled is not None
    now = datetime.now(UTC)
    due = newest_due("* * * * *", timedelta(hours=1), Window.HOUR, now + timedelta(minutes=15))
    assert not snapshot_is_there([polled], due, now=now).passed
    assert snapshot_is_there(list_snapshots(place.site, "docs").snapshots, due, now=now).passed
