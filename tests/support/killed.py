"""Commands of `dr` on tiers that are buckets of a real S3 server, killed or stopped at one write of their work."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dr_pipelines.embedded.stores import EmbeddedS3, S3Access
from dr_pipelines.storage.local import LocalStore
from tests.support.estate import plan_with
from tests.support.forked import Forked
from tests.support.gate import Gate, gate_before


@dataclass
class Tiers:
    """Each a bucket, whose folder is in `stores`; all of them behind one gate. `folder`: of the plan, with this host's
    state."""

    folder: Path
    gate: Gate
    env: Mapping[str, str]
    stores: Mapping[str, Path]

    def store(self, tier: str = "primary") -> LocalStore:
        """What is there, past the server."""
        return LocalStore(self.stores[tier], tier)

    def run(self, *argv: str, code: int = 0) -> list[str]:
        """What it wrote, in order, when nothing disturbs it; it ends with this exit code."""
        self.gate.opens()
        done = self._start(argv)
        assert done.code() == code, done.stdout + done.stderr
        return [*self.gate.writes]

    def kill(self, *argv: str, write: int | None = None, read: int | None = None) -> None:
        """SIGKILL when it asks for its nth write, or read, which is not done."""
        self.gate.opens(closing_at=write, at_read=read)
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


Written = Callable[[Mapping[str, Mapping[str, Any]]], dict[str, Any]]
"""A plan from its stores, which are named like the tiers."""


@contextmanager
def serving(folder: Path, begun: Path, tiers: Sequence[str] = ("primary",)) -> Iterator[Tiers]:
    """A new `folder` with a copy of `begun`, which has the folders of the buckets."""
    with serving_each(folder, begun, tiers) as [made]:
        yield made


@contextmanager
def serving_each(
    folder: Path, begun: Path, tiers: Sequence[str], *, cases: int = 1, written: Written = plan_with
) -> Iterator[list[Tiers]]:
    """So many copies, each with a plan of its own, behind one server. In the folder `state` of `begun` is what the host
    remembers."""
    for case in range(cases):
        for tier in tiers:
            shutil.copytree(begun / tier, folder / "s3" / f"{case}-{tier}")
        shutil.copytree(begun / "state", folder / f"{case}" / "state") if (begun / "state").exists() else None
    server = EmbeddedS3(folder / "s3")
    server.start()
    try:
        with gate_before(server.port) as gate:
            yield [_case(folder, case, tiers, gate, server.access, written) for case in range(cases)]
    finally:
        server.stop()


def _case(folder: Path, case: int, tiers: Sequence[str], gate: Gate, access: S3Access, written: Written) -> Tiers:
    place = {"type": "s3", "profile": "generic", "endpoint": gate.endpoint}
    place |= {"access_key_id": "${ENV:S3_KEY}", "secret_access_key": "${ENV:S3_SECRET}"}
    where = folder / f"{case}"
    where.mkdir(exist_ok=True)
    (where / "plan.yaml").write_text(yaml.dump(written({t: {**place, "bucket": f"{case}-{t}"} for t in tiers})))
    keys = {"S3_KEY": access.access_key_id, "S3_SECRET": access.secret_access_key}
    env = {**os.environ, **keys, "DR_PLAN": str(where / "plan.yaml")}
    return Tiers(where, gate, env, {tier: folder / "s3" / f"{case}-{tier}" for tier in tiers})


def spread(count: int, points: int) -> list[int]:
    """So many of the numbers to `count`, which is the last of them; not the first, before which nothing is done."""
    return sorted({1 + (count - 1) * point // points for point in range(1, points + 1)})
