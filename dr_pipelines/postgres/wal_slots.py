"""The stream's two slots on the server, and the server as the stream asks it.

`<slot>` follows what is flushed on this host. `<slot>_held` follows what every required tier holds, so that a lost
host loses nothing that the server still has. What does not belong here: processes and stores.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from datetime import datetime
from typing import Protocol, TypeVar

from dr_pipelines.errors import ServerUnavailable
from dr_pipelines.lsn import Lsn, Timeline
from dr_pipelines.postgres.wal_status import Gap

_T = TypeVar("_T")


class Facts(Protocol):
    """Who the server is."""

    @property
    def system_id(self) -> str: ...

    @property
    def major(self) -> int: ...

    @property
    def segment_size(self) -> int: ...

    @property
    def in_recovery(self) -> bool: ...


class Slot(Protocol):
    """A physical slot. `lost`: the server removed WAL that it needed."""

    @property
    def restart_lsn(self) -> Lsn | None: ...

    @property
    def lost(self) -> bool: ...


class Standby(Protocol):
    """What the server says of a connected receiver."""

    @property
    def sync_state(self) -> str | None: ...

    @property
    def server_lsn(self) -> Lsn | None: ...


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

    def flush_lsn(self) -> Lsn: ...

    def current_timeline(self) -> Timeline: ...

    def timeline_history(self, timeline: Timeline) -> bytes: ...

    def waiting_commits(self) -> int: ...


class PatientServer:
    """Asks a server in a thread of its own and waits `patience` seconds for the answer: a server that hangs must not
    hang the stream. While a question is open, the next ones fail at once."""

    def __init__(self, server: StreamedServer, patience: float = 5.0) -> None:
        self._server, self._patience = server, patience
        self._free = threading.Lock()

    def facts(self) -> Facts:
        return self.ask(self._server.facts)

    def slot(self, name: str) -> Slot | None:
        return self.ask(lambda: self._server.slot(name))

    def create_slot(self, name: str) -> Slot:
        return self.ask(lambda: self._server.create_slot(name))

    def drop_slot(self, name: str) -> None:
        self.ask(lambda: self._server.drop_slot(name))

    def advance_slot(self, name: str, to: Lsn) -> None:
        self.ask(lambda: self._server.advance_slot(name, to))

    def standby(self, application_name: str) -> Standby | None:
        return self.ask(lambda: self._server.standby(application_name))

    def flush_lsn(self) -> Lsn:
        return self.ask(self._server.flush_lsn)

    def current_timeline(self) -> Timeline:
        return self.ask(self._server.current_timeline)

    def timeline_history(self, timeline: Timeline) -> bytes:
        return self.ask(lambda: self._server.timeline_history(timeline))

    def waiting_commits(self) -> int:
        return self.ask(self._server.waiting_commits)

    def ask(self, question: Callable[[], _T]) -> _T:
        """Anything that is asked of the server."""
        if not self._free.acquire(blocking=False):
            raise ServerUnavailable("the server has not answered the last question yet")
        answer: Future[_T] = Future()

        def work() -> None:
            try:
                found = question()
            except BaseException as error:  # noqa: BLE001 - it is raised where the answer is awaited
                self._free.release()
                answer.set_exception(error)
            else:
                self._free.release()
                answer.set_result(found)

        threading.Thread(target=work, name="ask-server", daemon=True).start()
        try:
            return answer.result(self._patience)
        except TimeoutError:
            raise ServerUnavailable(f"the server did not answer within {self._patience:.0f} seconds") from None


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
