"""Commands of `dr` on tiers that are buckets of a real S3 server, killed or stopped at one write of their work."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dr_pipelines.embedded.stores import EmbeddedS3
from dr_pipelines.storage.local import LocalStore
from tests.support.estate import plan_with
from tests.support.forked import Forked
from tests.support.gate import Gate, gate_before


@dataclass
class Tiers:
    """Each a bucket, whose folder lies in `folder`; all of them behind one gate."""

    folder: Path
    gate: Gate
    env: Mapping[str, str]

    def store(self, tier: str = "primary") -> LocalStore:
        """What is there, past the server."""
        return LocalStore(self.folder / "s3" / tier, tier)

    def run(self, *argv: str, code: int = 0) -> list[str]:
        """What it wrote, in order, when nothing disturbs it; it ends with this exit code."""
        self.gate.opens()
        done = self._start(argv)
        assert done.code() == code, done.stdout + done.stderr
        return [*self.gate.writes]

    def kill(self, *argv: str, write: int) -> None:
        """SIGKILL when it asks for its nth write, which is not done."""
        self.gate.opens(closing_at=write)
        process = self._start(argv)
        self.gate.until_closed(process)
        process.kill()
        assert process.code() == -signal.SIGKILL

    def interrupt(self, *argv: str, write: int, down: bool = False) -> int:
        """Ctrl-C when it asks for its nth write; what it asks for until it has heard that is done, or with `down` is
        refused from a moment later on. The exit code."""
        self.gate.opens(closing_at=write)
        process = self._start(argv)
        self.gate.until_closed(process)
        process.signal(signal.SIGINT)
        while not process.ended(0.1):
            self.gate.breaks() if down else self.gate.let_through()
        return process.code()

    def _start(self, argv: Sequence[str]) -> Forked:
        return Forked(argv, self.env)


@contextmanager
def serving(folder: Path, begun: Path, tiers: Sequence[str] = ("primary",), **plan: Any) -> Iterator[Tiers]:
    """A new `folder` with a copy of `begun`, which has the folders of the buckets; `plan` as `plan_with` takes it."""
    shutil.copytree(begun, folder / "s3")
    server = EmbeddedS3(folder / "s3")
    server.start()
    try:
        with gate_before(server.port) as gate:
            keys = {"access_key_id": "${ENV:S3_KEY}", "secret_access_key": "${ENV:S3_SECRET}"}
            place = {"type": "s3", "profile": "generic", "endpoint": gate.endpoint, **keys}
            written = plan_with({tier: {**place, "bucket": tier} for tier in tiers}, **plan)
            (folder / "plan.yaml").write_text(yaml.dump(written))
            env = {"S3_KEY": server.access.access_key_id, "S3_SECRET": server.access.secret_access_key}
            yield Tiers(folder, gate, {**os.environ, **env, "DR_PLAN": str(folder / "plan.yaml")})
    finally:
        server.stop()


def spread(count: int, points: int) -> list[int]:
    """So many of the numbers to `count`, which is the last of them; not the first, before which nothing is done."""
    return sorted({1 + (count - 1) * point // points for point in range(1, points + 1)})
