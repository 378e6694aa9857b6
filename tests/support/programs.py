"""`dr wal stream` as a process, and a plan for it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from dr_pipelines.clock import SystemClock
from dr_pipelines.embedded.postgres import EmbeddedPostgres, bin_dir, os_user
from dr_pipelines.postgres.wal_status import StreamStatus, read_status
from tests.support.forked import Forked

CLOCK = SystemClock()


def write_plan(
    folder: Path, server: EmbeddedPostgres, *, secondary: Mapping[str, Any] | None = None, state_dir: str = "state"
) -> Path:
    """A plan with the server `shop`; its primary tier is a local directory, WAL goes to the `secondary` too."""
    (folder / "disk").mkdir()
    stores: dict[str, Any] = {"disk": {"type": "local", "path": "disk"}}
    tiers = {"primary": "disk"}
    if secondary is not None:
        stores["away"], tiers["secondary"] = dict(secondary), "away"
    shop = {
        "connection": {"host": "127.0.0.1", "port": server.port},
        "schedule": {"full": "daily", "incremental": "hourly"},
        "storage": tiers,
        "wal": {"ship_open_every": "1 second", "tiers": list(tiers)},
        "bin_dir": str(bin_dir(server.version)),
        "os_user": os_user(),
    }
    plan = {
        "version": 1,
        "name": "test",
        "state_dir": state_dir,
        "storage": stores,
        "encryption": "none",
        "databases": {"shop": {name: value for name, value in shop.items() if value is not None}},
    }
    path = folder / "plan.yaml"
    path.write_text(yaml.dump(plan))
    return path


class StreamProgram:
    """`dr wal stream shop`, running. Kill or stop it before the test ends: it is a context manager for that."""

    def __init__(self, plan: Path, **env: str) -> None:
        self._status = plan.parent / "state" / "shop" / "stream.json"
        self._process = Forked(["wal", "stream", "shop"], {**os.environ, "DR_PLAN": str(plan), **env})

    def __enter__(self) -> StreamProgram:
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()

    def until(self, wanted: Callable[[StreamStatus], bool]) -> StreamStatus:
        """Until this very process says so."""
        for _ in range(1200):
            status = read_status(self._status)
            if status is not None and status.pid == self._process.pid and wanted(status):
                return status
            assert not self._process.ended(), self._said()
            CLOCK.wait(0.05)
        raise AssertionError(f"not reached: {read_status(self._status)}")

    def until_streaming(self) -> StreamStatus:
        return self.until(lambda status: status.state == "streaming")

    def stop(self) -> tuple[int, str]:
        """SIGTERM; the exit code and what it printed."""
        self._process.signal(signal.SIGTERM)
        return self._process.code(), self._said()

    def kill(self) -> None:
        """SIGKILL, to it alone."""
        self._process.kill()

    def _said(self) -> str:
        return self._process.stdout + self._process.stderr
