"""The main job in a few calls: a server, its repository, and this host's state."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from dr_pipelines.clock import SystemClock
from dr_pipelines.commands import Runner
from dr_pipelines.embedded.postgres import EmbeddedPostgres, os_user
from dr_pipelines.errors import DrError
from dr_pipelines.postgres import tools
from dr_pipelines.postgres.restore import RestoreReport, RestoreRequest, restore
from dr_pipelines.postgres.restore_plan import LATEST, RecoveryTarget, UseIncrementals
from dr_pipelines.postgres.scratch import ScratchServer, scratch
from dr_pipelines.postgres.server import Server
from dr_pipelines.postgres.source_facts import WantedFacts
from dr_pipelines.postgres.take import take_backup
from dr_pipelines.postgres.wal_ship import Tier
from dr_pipelines.postgres.wal_stream import WalStream
from dr_pipelines.progress import Silent
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.repository.repository import Repository

CLOCK = SystemClock()
SLOT = "dr_shop"
NOTHING_SUMMED = WantedFacts()


@dataclass
class Live:
    """The server that the plan would call `shop`. Cheap to make; `server` must have been started."""

    server: EmbeddedPostgres
    repository: Repository
    state: Path
    stream_trouble: DrError | None = None
    """What the stream raised at its end."""

    def take(
        self, kind: BackupKind, facts: WantedFacts = NOTHING_SUMMED, server: Server | None = None
    ) -> BackupManifest:
        """From another server than the plan's where one is given: its standby."""
        taken = take_backup(
            server or self.server.server,
            self.repository,
            "shop",
            kind,
            state_dir=self.state,
            clock=CLOCK,
            progress=Silent(),
            facts=facts,
        )
        assert isinstance(taken, BackupManifest)
        return taken

    @contextmanager
    def streaming(self) -> Iterator[None]:
        """`dr wal stream` as a thread, synchronous; what is there is shipped when it stops."""
        stop = threading.Event()
        stream = self._stream()

        def run() -> None:
            try:
                stream.run(stop)
            except DrError as error:
                self.stream_trouble = error

        thread = threading.Thread(target=run)
        thread.start()
        try:
            self._until_synchronous()
            yield
        finally:
            stop.set()
            thread.join()

    def restore(
        self, target_dir: Path, target: RecoveryTarget = LATEST, use_incrementals: UseIncrementals = "auto"
    ) -> RestoreReport:
        return restore(
            self.request(target_dir, target, use_incrementals),
            [self.repository],
            clock=CLOCK,
            runner=Runner(),
            progress=Silent(),
        )

    @contextmanager
    def scratch(self, target_dir: Path, label: str | None = None) -> Iterator[ScratchServer]:
        request = replace(self.request(target_dir), label=label)
        with scratch(request, [self.repository], clock=CLOCK, runner=Runner(), progress=Silent()) as copy:
            yield copy

    def request(
        self, target_dir: Path, target: RecoveryTarget = LATEST, use_incrementals: UseIncrementals = "auto"
    ) -> RestoreRequest:
        return RestoreRequest(
            "shop",
            target_dir,
            target,
            use_incrementals=use_incrementals,
            bin_dir=self.server.programs,
            os_user=os_user(),
        )

    def _stream(self) -> WalStream:
        target = tools.ReceiverTarget("127.0.0.1", self.server.port, "postgres")
        return WalStream(
            "shop",
            self.server.server,
            lambda spool, _: tools.pg_receivewal(
                target, directory=spool, slot=SLOT, synchronous=True, bin_dir=self.server.programs
            ),
            [Tier("primary", functools.partial(self.repository.wal, "shop"))],
            slot=SLOT,
            directory=self.state / "shop",
            clock=CLOCK,
            runner=Runner(),
            ship_open_every=0.2,
        )

    def _until_synchronous(self) -> None:
        self.server.psql(f"ALTER SYSTEM SET synchronous_standby_names = 'FIRST 1 ({SLOT})'")
        self.server.psql("SELECT pg_reload_conf()")
        for _ in range(400):
            standby = self.server.server.standby(SLOT)
            if standby is not None and standby.sync_state == "sync":
                return
            CLOCK.wait(0.05)
        raise AssertionError("the stream did not become synchronous")


@contextmanager
def running(data_dir: Path, version: int = 18) -> Iterator[EmbeddedPostgres]:
    """A restored server, let out for questions."""
    server = EmbeddedPostgres(data_dir, version)
    server.start()
    try:
        yield server
    finally:
        server.kill()
