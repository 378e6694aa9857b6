"""WAL streams of real servers, in a thread of the test, and what they say of themselves."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dr_pipelines.clock import SystemClock
from dr_pipelines.commands import Command, Runner
from dr_pipelines.embedded.postgres import EmbeddedPostgres, bin_dir, give, os_user
from dr_pipelines.errors import DrError
from dr_pipelines.postgres import tools
from dr_pipelines.postgres.restore import restore
from dr_pipelines.postgres.restore_plan import RecoveryTarget
from dr_pipelines.postgres.restore_request import RestoreRequest
from dr_pipelines.postgres.server import Server, ServerConnection
from dr_pipelines.postgres.take import take_backup
from dr_pipelines.postgres.wal_ship import Tier
from dr_pipelines.postgres.wal_status import StreamStatus, read_status
from dr_pipelines.postgres.wal_stream import WalStream
from dr_pipelines.progress import Silent
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.repository.repository import Repository

CLOCK = SystemClock()


class Running:
    """A stream in a thread, and what it says of itself."""

    def __init__(
        self, server: ServerConnection, tiers: list[Tier], state: Path, *, synchronous: bool, patience: float
    ) -> None:
        target = tools.ReceiverTarget(server.host, server.port, server.user, server.password, server.sslmode)

        def receiver(spool: Path, major: int) -> Command:
            return tools.pg_receivewal(
                target, directory=spool, slot="dr_shop", synchronous=synchronous, bin_dir=bin_dir(major)
            )

        self.stream = WalStream(
            "shop",
            Server(server),
            receiver,
            tiers,
            slot="dr_shop",
            directory=state,
            clock=CLOCK,
            runner=Runner(),
            ship_open_every=0.2,
            look_every=0.2,
            patience=patience,
        )
        self.error: DrError | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.stream.run(self._stop)
        except DrError as error:
            self.error = error

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def status(self) -> StreamStatus | None:
        return read_status(self.stream.status_path)

    def until(self, wanted: Callable[[StreamStatus], bool]) -> StreamStatus:
        for _ in range(600):
            status = self.status()
            if status is not None and status.pid == os.getpid() and wanted(status):
                return status
            CLOCK.wait(0.05)
        raise AssertionError(f"not reached: {self.status()}")

    def until_shipped(self, server: EmbeddedPostgres) -> StreamStatus:
        """Everything that is on the server's disk now is on every required tier."""
        end = server.server.flush_lsn()

        def there(status: StreamStatus) -> bool:
            tiers = [tier for tier in status.tiers.values() if tier.required]
            reached = status.received_lsn is not None and status.received_lsn >= end
            return reached and status.state == "streaming" and all(tier.lag_bytes == 0 for tier in tiers)

        return self.until(there)


@contextmanager
def streaming(
    server: EmbeddedPostgres | ServerConnection,
    tiers: Repository | list[Tier],
    state: Path,
    *,
    synchronous: bool = True,
    patience: float = 5.0,
) -> Iterator[Running]:
    connection = server.connection if isinstance(server, EmbeddedPostgres) else server
    asked = tiers if isinstance(tiers, list) else [tier_of(tiers)]
    running = Running(connection, asked, state, synchronous=synchronous, patience=patience)
    try:
        yield running
    finally:
        running.stop()


def tier_of(repository: Repository) -> Tier:
    return Tier(repository.tier, functools.partial(repository.wal, "shop"))


def take_full(server: EmbeddedPostgres, repository: Repository, state: Path) -> BackupManifest:
    taken = take_backup(
        server.server, repository, "shop", BackupKind.FULL, state_dir=state, clock=CLOCK, progress=Silent()
    )
    assert isinstance(taken, BackupManifest)
    return taken


def restored_ids(repository: Repository, target: Path, version: int = 18) -> list[int]:
    """What a restore to the newest commit gives of the table `t`."""
    request = RestoreRequest("shop", target, RecoveryTarget(), bin_dir=bin_dir(version), os_user=os_user())
    report = restore(request, [repository], clock=CLOCK, runner=Runner(), progress=Silent())
    server = EmbeddedPostgres(report.data_dir, version)
    server.start()
    try:
        return [int(row) for row in server.psql("SELECT id FROM t ORDER BY id").split()]
    finally:
        server.kill()


def insert(server: EmbeddedPostgres, *ids: int) -> None:
    for number in ids:
        server.psql(f"INSERT INTO t VALUES ({number}, repeat('x', 5000))")


def standby_of(server: EmbeddedPostgres, folder: Path) -> EmbeddedPostgres:
    """A streaming standby, started."""
    made = EmbeddedPostgres(folder / "standby", server.version)
    argv = [
        str(bin_dir(server.version) / "pg_basebackup"),
        "-D",
        str(made.data_dir),
        "-R",
        "-X",
        "stream",
        "-c",
        "fast",
    ]
    Runner().run(Command([*argv, "-d", server.conninfo], timeout=60))
    give(made.data_dir)
    made.start()
    return made


def until_replayed(primary: EmbeddedPostgres, standby: EmbeddedPostgres) -> None:
    """Everything that the primary has on its disk now."""
    end = primary.server.flush_lsn()
    while standby.server.flush_lsn() < end:
        CLOCK.wait(0.05)
