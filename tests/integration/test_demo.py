"""The demo, on a small shop: every step is the real one."""

import contextlib
import io
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from dr_pipelines.clock import SystemClock
from dr_pipelines.embedded.__main__ import UI_PORT
from dr_pipelines.embedded.demo import run_demo, summary
from dr_pipelines.embedded.home import Home
from dr_pipelines.embedded.postgres import EmbeddedPostgres, give
from dr_pipelines.errors import UsageError
from dr_pipelines.postgres.wal_status import read_status


def segments() -> set[str]:
    """Ids of the System V shared memory of this machine."""
    return {line.split()[1] for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]}


@pytest.mark.timeout(600)  # a dozen programs, one after the other
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
    the_ui_goes_on_with_it(home)
    home.clean()
    assert not home.path.exists()


def the_ui_goes_on_with_it(home: Home) -> None:
    """Dagster answers where it was said, though that is not its own port; WAL of the recovered shop is streamed; and
    Ctrl-C leaves nothing behind."""
    said = home.path.with_name("ui.log")
    with said.open("wb") as output, socket.socket() as neighbour:
        with contextlib.suppress(OSError):  # somebody else's UI does as well
            neighbour.bind(("127.0.0.1", UI_PORT))
            neighbour.listen()
        process = subprocess.Popen([sys.executable, "-c", UI, home.path], stdout=output, stderr=output)
        try:
            until(lambda: answers(said) and streams(home), process)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)
    assert f"127.0.0.1:{UI_PORT}/" not in said.read_text()
    left = [
        found for found in psutil.process_iter(["cmdline"]) if f"{home.path}/" in " ".join(found.info["cmdline"] or ())
    ]
    assert not left


UI = """
import signal, sys
from pathlib import Path
from rich.console import Console
from dr_pipelines.embedded.__main__ import ui
from dr_pipelines.embedded.home import Home
signal.signal(signal.SIGINT, signal.default_int_handler)
ui(Home(Path(sys.argv[1])), Console(soft_wrap=True))
"""


def until(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    clock = SystemClock()
    deadline = clock.monotonic() + 120
    while not condition():
        assert process.poll() is None
        assert clock.monotonic() < deadline
        clock.wait(0.1)


def answers(said: Path) -> bool:
    address = re.search(r"http://127[^ ]+/asset-groups", said.read_text())
    with contextlib.suppress(OSError):
        return address is not None and urllib.request.urlopen(address[0], timeout=5).status == 200
    return False


def streams(home: Home) -> bool:
    status = read_status(home.stream_status)
    return status is not None and status.state == "streaming"


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
