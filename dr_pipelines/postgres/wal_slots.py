"""The stream's two slots on the server, and from where the receiver has to start so that nothing is missing.

`<slot>` follows what is flushed on this host. `<slot>_held` follows what every required tier holds, so that a lost
host loses nothing that the server still has. What does not belong here: processes and stores.
"""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from dr_pipelines.lsn import Lsn, Timeline, WalSegment
from dr_pipelines.postgres.wal_spool import SystemSpool
from dr_pipelines.postgres.wal_status import Gap


class Facts(Protocol):
    """Who the server is."""

    @property
    def system_id(self) -> str: ...

    @property
    def timeline(self) -> Timeline: ...

    @property
    def segment_size(self) -> int: ...


class Slot(Protocol):
    """A physical slot. `lost`: the server removed WAL that it needed."""

    @property
    def restart_lsn(self) -> Lsn | None: ...

    @property
    def lost(self) -> bool: ...


class Standby(Protocol):
    """What the server says of a connected receiver."""

    @property
    def sync_state(self) -> str: ...


class StreamedServer(Protocol):
    """What the stream asks of a server. Raises only errors of `dr_pipelines.errors`."""

    def facts(self) -> Facts: ...

    def slot(self, name: str) -> Slot | None: ...

    def create_slot(self, name: str) -> Slot:
        """A permanent physical slot that keeps WAL from now on."""
        ...

    def drop_slot(self, name: str) -> None: ...

    def advance_slot(self, name: str, to: Lsn) -> None: ...

    def standby(self, application_name: str) -> Standby | None: ...


def held_slot(slot: str) -> str:
    return f"{slot}_held"


def ensure_slots(server: StreamedServer, slot: str, *, now: datetime) -> tuple[Slot, Slot, Gap | None]:
    """Both slots, made where they are missing; a slot that lost its WAL is made anew, and that is a gap."""
    main, gap = _ensure(server, slot, now)
    held, _ = _ensure(server, held_slot(slot), now)
    return main, held, gap


def _ensure(server: StreamedServer, name: str, now: datetime) -> tuple[Slot, Gap | None]:
    found = server.slot(name)
    if found is not None and not found.lost:
        return found, None
    if found is None:
        return server.create_slot(name), None
    server.drop_slot(name)
    made = server.create_slot(name)
    reason = f"the server removed WAL that slot {name} still needed (max_slot_wal_keep_size)"
    return made, Gap(reason=reason, end=made.restart_lsn, at=now)


def seed_start(
    system: SystemSpool, main: Slot, known: list[Lsn | None], *, timeline: Timeline, segment_size: int
) -> Lsn | None:
    """With an empty spool the receiver would start where its slot is, which is where a lost spool was. Make it start
    at the oldest of `known` positions instead, and say where; None when its slot is right."""
    positions = [lsn for lsn in known if lsn is not None]
    start = min(positions, default=None)
    if start is None or main.restart_lsn is None or start >= main.restart_lsn or not system.is_empty():
        return None
    system.seed(WalSegment.containing(start, timeline, segment_size))
    return start
