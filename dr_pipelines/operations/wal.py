"""The WAL stream."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from pathlib import Path

from dr_pipelines.commands import Command
from dr_pipelines.postgres import tools
from dr_pipelines.postgres.wal_ship import Tier
from dr_pipelines.postgres.wal_stream import WalStream
from dr_pipelines.repository.wal import WalArchive
from dr_pipelines.site import Site


def stream_wal(site: Site, server: str, stop: threading.Event, tell: Callable[[str], None] = lambda said: None) -> None:
    """`dr wal stream`: returns when `stop` is set and everything is shipped; `tell` hears what changes meanwhile.
    Raises what `WalStream.run` raises."""
    plan, connection, slot = site.plan_of(server), site.server(server).connection, site.slot(server)
    target = tools.ReceiverTarget(
        connection.host, connection.port, connection.user, connection.password, connection.sslmode
    )

    def receiver(spool: Path, major: int) -> Command:
        programs = site.bin_dir(server, major)
        return tools.pg_receivewal(
            target, directory=spool, slot=slot, synchronous=plan.wal.synchronous, bin_dir=programs
        )

    def archive(tier: str, system_id: str) -> WalArchive:
        repository = site.repository(server, tier)
        repository.check_format()
        return repository.wal(server, system_id)

    # Opened by their shippers, one by one: a tier that cannot be opened must not stop the others.
    tiers = [Tier(tier, functools.partial(archive, tier)) for tier in plan.wal.tiers]
    WalStream(
        server,
        site.server(server),
        receiver,
        tiers,
        slot=slot,
        directory=site.state_dir / server,
        clock=site.clock,
        runner=site.runner,
        tell=tell,
        ship_open_every=plan.wal.ship_open_every.total_seconds(),
    ).run(stop)
