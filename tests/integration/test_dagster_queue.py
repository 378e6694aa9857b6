"""Runs as the daemon launches them from its queue, on two real servers."""

import contextlib
import json
import socket
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from dr_pipelines.commands import Command, Runner
from dr_pipelines.embedded.home import Home
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.repository.repository import Repository
from dr_pipelines.storage.local import LocalStore
from tests.conftest import MakePostgres

ROOT = Path(__file__).parents[2]
IMPATIENT = """
run_coordinator:
  module: dagster.core.run_coordinator
  class: QueuedRunCoordinator
  config: {dequeue_interval_seconds: 1}
"""
LAUNCH = """mutation ($asked: ExecutionParams!) {
  launchPipelineExecution(executionParams: $asked) { __typename ... on LaunchRunSuccess { run { runId } } }
}"""


class Instance:
    """A Dagster instance made from the template, with its daemon and web server running."""

    def __init__(self, home: Path, port: int) -> None:
        self.home, self.port = home, port

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """One GraphQL call, as the UI makes it. Raises `OSError` while nobody listens."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/graphql",
            json.dumps({"query": query, "variables": variables}).encode(),
            {"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            said: dict[str, Any] = json.load(answer)["data"]
            return said

    def answers(self) -> bool:
        with contextlib.suppress(OSError):
            return bool(self.ask("{ version }"))
        return False

    def launch(self, server: str) -> str:
        location = {"repositoryLocationName": "dr_pipelines", "repositoryName": "__repository__"}
        today = {"key": "dagster/partition", "value": datetime.now(UTC).strftime("%Y-%m-%d")}
        asked = {
            "selector": {**location, "jobName": f"{server}_full_backup"},
            "executionMetadata": {"tags": [today]},
        }
        run_id: str = self.ask(LAUNCH, asked=asked)["launchPipelineExecution"]["run"]["runId"]
        return run_id

    def status(self, run_id: str) -> str:
        query = "query ($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
        status: str = self.ask(query, id=run_id)["runOrError"]["status"]
        return status


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository(LocalStore(tmp_path / "store", "disk"), Codec(1), "primary")
    made.initialise()
    return made


@pytest.fixture
def instance(tmp_path: Path, repository: Repository, make_postgres: MakePostgres) -> Iterator[Instance]:
    """Of a plan with the servers `shop` and `crm`."""
    databases = {
        name: {
            "connection": {"host": "127.0.0.1", "port": make_postgres().port},
            "schedule": {"full": "0 0 1 1 *"},  # nobody else launches
            "storage": {"primary": "disk"},
        }
        for name in ("shop", "crm")
    }
    storage = {"disk": {"type": "local", "path": str(tmp_path / "store")}}
    plan = {"version": 1, "name": "two", "state_dir": str(tmp_path / "state"), "storage": storage}
    (tmp_path / "plan.yaml").write_text(yaml.dump({**plan, "encryption": "none", "databases": databases}))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "dagster.yaml").write_text((ROOT / "deploy" / "dagster.yaml").read_text() + IMPATIENT)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    made = Instance(tmp_path / "home", port)
    argv = [str(Path(sys.executable).with_name("dagster")), "dev", "-w", "workspace.yaml", "-h", "127.0.0.1"]
    env = {"DR_PLAN": str(tmp_path / "plan.yaml"), "DAGSTER_HOME": str(made.home)}
    with (tmp_path / "dagster.log").open("wb") as log:
        process = Runner().start(Command([*argv, "-p", str(port)], env=env, cwd=ROOT), stdout=log, stderr=log)
    try:
        until(made.answers)
        yield made
    finally:
        process.stop(0)  # an orderly end takes it 20 seconds
        Home(tmp_path).end_dagster()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def overlap(one: BackupManifest, other: BackupManifest) -> bool:
    return one.started_at < other.finished_at and other.started_at < one.finished_at


def test_one_server_has_one_backup_at_a_time_and_waits_for_no_other(instance: Instance, repository: Repository) -> None:
    with dg.DagsterInstance.from_config(str(instance.home)) as opened:
        storage, pool = opened.event_log_storage, "postgres_shop"
        storage.initialize_concurrency_limit_to_default(pool)
        assert storage.claim_concurrency_slot(pool, "the-run-before", "full").is_claimed
        shop = [instance.launch("shop") for _ in range(2)]
        crm = instance.launch("crm")
        until(lambda: instance.status(crm) == "SUCCESS")
        assert len(repository.backups("crm")) == 1
        assert not repository.backups("shop")  # its pool is taken, though its runs came first

        storage.free_concurrency_slots_for_run("the-run-before")
        until(lambda: [instance.status(run) for run in shop] == ["SUCCESS"] * 2)
    first, second = repository.backups("shop")
    assert not overlap(first, second)
