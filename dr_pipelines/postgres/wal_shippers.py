"""The shippers of one stream together: what every required tier holds, and what may leave the spool.

What does not belong here: how one tier is shipped to (`wal_ship`), the server, the receiver.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from dr_pipelines.clock import Clock
from dr_pipelines.lsn import Lsn, Timeline
from dr_pipelines.postgres.wal_resume import Position
from dr_pipelines.postgres.wal_ship import Shipper, Tier
from dr_pipelines.postgres.wal_spool import Spool
from dr_pipelines.postgres.wal_status import StreamStatus, TierStatus

_LAST_SHIPPING = 60.0  # seconds that the tiers get at the end


class Shippers:
    """One a tier, each in a thread of its own."""

    def __init__(self, tiers: Sequence[Tier], spool: Spool, *, clock: Clock, open_every: float) -> None:
        self._spool, self._clock = spool, clock
        self._all = [Shipper(tier, spool, clock=clock, open_every=open_every) for tier in tiers]
        self._required = [shipper for shipper in self._all if shipper.tier.required]

    @contextmanager
    def running(self) -> Iterator[None]:
        """They ship until the block ends, then once more."""
        done = threading.Event()
        threads = [
            threading.Thread(target=shipper.run, args=(done,), name=f"ship-{shipper.tier.name}", daemon=True)
            for shipper in self._all
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            done.set()
            deadline = self._clock.monotonic() + _LAST_SHIPPING
            for thread in threads:
                thread.join(max(0.0, deadline - self._clock.monotonic()))

    def remember(self, last: StreamStatus) -> None:
        """How far the tiers were when the last stream ended."""
        for shipper in self._all:
            if (tier := last.tiers.get(shipper.tier.name)) is not None:
                shipper.remember(last.system_id, tier)

    def reached(self) -> Position | None:
        """What every required tier has that was ever shipped to; None when there is none."""
        shipped = [shipper.shipped for shipper in self._required]
        ends = [(at.timeline, at.lsn) for at in shipped if at.timeline is not None and at.lsn is not None]
        return min(ends, default=None)

    def held(self, system_id: str, timeline: Timeline) -> Lsn | None:
        """Up to where all required tiers hold this timeline; None while one of them has nothing of it."""
        shipped = [shipper.shipped for shipper in self._required]
        ends = [at.lsn for at in shipped if (at.system_id, at.timeline) == (system_id, timeline) and at.lsn is not None]
        return min(ends) if ends and len(ends) == len(self._required) else None

    def free(self) -> None:
        """Let go from the spool of what every required tier holds."""
        if not self._required:
            return
        for system in self._spool.systems():
            held = {file.name for file in system.files() if all(shipper.holds(file) for shipper in self._required)}
            system.free(held)

    def late(self) -> dict[str, int]:
        """Required tiers that have not all of the spool, with the bytes that they lack."""
        files = self._spool.files()
        return {shipper.tier.name: lag for shipper in self._required if (lag := shipper.lag_bytes(files))}

    def hurry(self) -> None:
        """Ship open segments with the next look: the receiver stopped, so it may be the last that is seen of them."""
        for shipper in self._all:
            shipper.hurry()

    def status(self) -> dict[str, TierStatus]:
        files = self._spool.files()
        return {shipper.tier.name: shipper.status(files) for shipper in self._all}
