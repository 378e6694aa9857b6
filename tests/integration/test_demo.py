"""The demo, on a small shop: every step is the real one."""

import io
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from dr_pipelines.embedded.demo import run_demo, summary
from dr_pipelines.embedded.home import Home
from dr_pipelines.embedded.postgres import EmbeddedPostgres, give
from dr_pipelines.errors import UsageError


def segments() -> set[str]:
    """Ids of the System V shared memory of this machine."""
    return {line.split()[1] for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]}


def test_the_demo_loses_a_server_and_nothing_else(folder: Path) -> None:
    home, said = Home(folder / "demo"), io.StringIO()
    console = Console(file=said, width=80)
    outcome = run_demo(home, console, scale=0.05)
    console.print(summary(outcome))
    assert outcome.good, said.getvalue()
    assert outcome.acknowledged > 0
    assert outcome.recovered >= outcome.acknowledged
    assert outcome.rows_before_drop == 10_000
    assert f"{outcome.acknowledged:,}" in said.getvalue()
    home.clean()
    assert not home.path.exists()


def test_cleaning_ends_what_a_killed_demo_left_and_nothing_else(folder: Path) -> None:
    home, other = Home(folder / "demo"), folder / "demolished"
    for place in (home.path, other):
        place.mkdir()
    sleep = [sys.executable, "-c", "import signal; print(flush=True); signal.pause()"]
    home.data_dir.parent.mkdir()
    give(home.data_dir.parent)
    server = EmbeddedPostgres(home.data_dir)
    server.start()
    segment = (home.data_dir / "postmaster.pid").read_text().splitlines()[6].split()[1]
    assert segment in segments()
    by_argument = subprocess.Popen([*sleep, f"{home.path}/data"], stdout=subprocess.PIPE)
    by_environment = subprocess.Popen(sleep, env={"DAGSTER_HOME": f"{home.path}/dagster"}, stdout=subprocess.PIPE)
    stranger = subprocess.Popen([*sleep, f"{other}/data"], stdout=subprocess.PIPE)
    try:
        for process in (by_argument, by_environment, stranger):
            assert process.stdout is not None
            process.stdout.readline()
        home.clean()
        assert not psutil.pid_exists(by_argument.pid)
        assert not psutil.pid_exists(by_environment.pid)
        assert stranger.poll() is None
        assert segment not in segments()
    finally:
        server.kill()
        for process in (by_argument, by_environment, stranger):
            process.kill()
            process.wait()


def test_one_demo_at_a_time_and_no_trace_of_the_lock(folder: Path) -> None:
    home = Home(folder / "demo")
    with home.locked():
        with pytest.raises(UsageError, match="another demo"), home.locked():
            pass
        home.remove()
    assert not list(folder.iterdir())
    with home.locked():
        pass
