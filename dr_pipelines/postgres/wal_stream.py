"""The WAL stream of one server: a supervised receiver, one shipper a tier, two slots, a status file.

Order that everything rests on: the receiver has flushed WAL before the server's commit returns (synchronous); a file
leaves the spool, and `<slot>_held` moves, only after every required tier holds it. What does not belong here: how a
file is shipped (`wal_ship`), what the spool holds (`wal_spool`), from where a receiver goes on (`wal_start`).

Source: PostgreSQL manual, pg_receivewal.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dr_pipelines.clock import Clock
from dr_pipelines.commands import Command, Process, Runner
from dr_pipelines.errors import DrError, ServerMisconfigured, StoreUnavailable, UsageError
from dr_pipelines.lsn import Lsn, Timeline
from dr_pipelines.postgres.wal_receiver import end_orphans, ending
from dr_pipelines.postgres.wal_resume import Position
from dr_pipelines.postgres.wal_ship import Tier
from dr_pipelines.postgres.wal_shippers import Shippers
from dr_pipelines.postgres.wal_slots import PatientServer, StreamedServer, ensure_slots, held_slot
from dr_pipelines.postgres.wal_spool import Spool, SystemSpool
from dr_pipelines.postgres.wal_start import arrange_start, require_not_behind
from dr_pipelines.postgres.wal_status import Gap, State, StreamStatus, news, read_status, write_status

_POLL = 0.1
_LONGEST_BACKOFF = 5.0  # commits may be waiting for us
_UNSEEN = "the role may not see whether the stream is synchronous: grant it pg_monitor"
_LONG_ENOUGH = 10.0  # seconds after which a receiver counts as having run well


@dataclass
class _Now:
    """What the status file says next."""

    state: State = "starting"
    system: SystemSpool | None = None
    timeline: Timeline | None = None
    receiver_pid: int | None = None
    sync_state: str | None = None
    server_lsn: Lsn | None = None
    last_error: str | None = None
    gap: Gap | None = None
    pinned: str | None = None  # the system id of the server that this stream belongs to
    known: Position | None = None  # what the tiers had before our start


class WalStream:
    """`dr wal stream SERVER`. `directory` is the server's state directory (`spool/`, `stream.json` below it);
    `receiver(spool_directory, major)` builds the command of the receiver for a server of that major version, with
    `slot` as slot and application name; `tell` hears a sentence whenever something changes. Seconds: between two puts
    of the open segment, between two looks at the receiver, and how long the server has to answer."""

    def __init__(
        self,
        name: str,
        server: StreamedServer,
        receiver: Callable[[Path, int], Command],
        tiers: Sequence[Tier],
        *,
        slot: str,
        directory: Path,
        clock: Clock,
        runner: Runner,
        tell: Callable[[str], None] = lambda said: None,
        ship_open_every: float = 5.0,
        look_every: float = 1.0,
        patience: float = 5.0,
    ) -> None:
        self._name, self._server, self._receiver, self._slot = name, PatientServer(server, patience), receiver, slot
        self._look_every = look_every
        self._directory, self._clock, self._runner, self._tell = directory, clock, runner, tell
        self.spool = Spool(directory / "spool")
        self.status_path = directory / "stream.json"
        self._shippers = Shippers(tiers, self.spool, clock=clock, open_every=ship_open_every)
        self._now = _Now()
        self._held_at: Lsn | None = None
        self._told: StreamStatus | None = None

    def run(self, stop: threading.Event) -> None:
        """Stream until `stop`; then end the receiver, ship what is there and return.

        Raises `UsageError` when another stream of this server runs here, and `StoreUnavailable` when what is in the
        spool could not be shipped at the end: it stays there for the next start.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        with self._alone():
            self._tell(f"streaming WAL of {self._name}; its state is in {self.status_path}")
            self._remember_last_time()
            with self._shippers.running():
                backoff = _POLL
                while not stop.is_set():
                    ran = self._receive(stop)
                    backoff = _POLL if ran > _LONG_ENOUGH else min(_LONGEST_BACKOFF, backoff * 2)
                    self._wait(backoff, stop)
            self._now.state = "stopped"
            self._free_and_write_status()
            self._require_shipped()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with (self._directory / "stream.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UsageError(
                    f"another WAL stream of server {self._name} runs on this host",
                    hint="see `dr status`; end the other one first, or leave it running.",
                ) from error
            yield

    def _remember_last_time(self) -> None:
        end_orphans(self.spool.root)
        last = read_status(self.status_path)
        if last is None:
            return
        self._now.gap, self._now.pinned = last.gap, last.system_id
        self._shippers.remember(last)
        self._now.known = self._shippers.reached()

    def _require_shipped(self) -> None:
        if late := self._shippers.late():
            said = ", ".join(f"{lag} bytes not on {tier}" for tier, lag in late.items())
            raise StoreUnavailable(
                f"stopped with WAL that is not shipped: {said}",
                hint=f"it lies in {self.spool.root}; see `dr status`, then run `dr wal stream {self._name}` again.",
            )

    # --- one life of the receiver ------------------------------------------------------------------------------

    def _receive(self, stop: threading.Event) -> float:
        """Prepare, start the receiver and stay with it until it ends. Gives the seconds that it ran."""
        log = self._directory / "receiver.log"
        try:
            system, process = self._start(log)
        except DrError as error:
            self._now.state, self._now.last_error = "waiting", _sentence(error)
            return 0.0
        except OSError as error:
            self._now.state, self._now.last_error = "waiting", f"the spool: {error.strerror or error}"
            return 0.0
        started = self._clock.monotonic()
        self._now.receiver_pid = process.pid
        self._stay(process, stop)
        self._now.receiver_pid, self._now.sync_state, self._now.server_lsn = None, None, None
        self._shippers.hurry()
        if not stop.is_set():
            self._ended(system, process, log.read_text(errors="replace"))
        return self._clock.monotonic() - started

    def _start(self, log: Path) -> tuple[SystemSpool, Process]:
        facts, timeline = self._server.facts(), self._server.current_timeline()
        self._require_own(facts.system_id)
        system = self.spool.system(facts.system_id)
        self._now.system, self._now.timeline, self._now.pinned = system, timeline, facts.system_id
        system.remove_unpadded(facts.segment_size)
        require_not_behind(self._server, facts, self._name, timeline, system.received() or self._now.known)
        self._prepare(system, timeline, facts.segment_size)
        with log.open("wb") as errors:
            return system, self._runner.start(self._receiver(system.directory, facts.major), stderr=errors)

    def _prepare(self, system: SystemSpool, timeline: Timeline, segment_size: int) -> None:
        """The slots, and a spool from which the receiver goes on so that nothing is missing."""
        main, held, gap = ensure_slots(self._server, self._slot, now=self._clock.now())
        if gap is not None and system.is_empty() and self._now.known is None:
            self._lose(system, gap)
        lost_before = self._now.gap.end if self._now.gap is not None else None

        def after_the_gap(lsn: Lsn | None) -> bool:
            return lsn is not None and (lost_before is None or lsn >= lost_before)

        arrange_start(
            self._server,
            system,
            timeline,
            segment_size,
            slot_at=main.restart_lsn,
            held=held.restart_lsn if after_the_gap(held.restart_lsn) else None,
            known=self._now.known if self._now.known and after_the_gap(self._now.known[1]) else None,
        )

    def _require_own(self, system_id: str) -> None:
        if self._now.pinned not in (None, system_id):
            raise ServerMisconfigured(
                f"another cluster answers as {self._name}: system {system_id} instead of {self._now.pinned}",
                hint=f"mend databases.{self._name}.connection; if the server was made anew on purpose, move "
                f"{self.status_path} away, start the stream again and take a full.",
            )

    def _stay(self, process: Process, stop: threading.Event) -> None:
        self._write_status()
        while process.returncode is None:
            if stop.is_set():
                process.stop()
                return
            self._tick()
            waited = 0.0
            while waited < self._look_every and process.returncode is None and not self._clock.wait(_POLL, stop):
                waited += _POLL

    def _ended(self, system: SystemSpool, process: Process, said: str) -> None:
        end = ending(said, process.returncode)
        self._now.state, self._now.last_error = "waiting", end.reason
        if end.wal_removed:
            self._start_anew(system, end.reason)

    def _start_anew(self, system: SystemSpool, reason: str) -> None:
        """The server has not what comes next: put the spool aside, go on from what it has, and say so. With a new slot:
        the old one may ask for what is gone, as a receiver's first report moves it back to where that started."""
        try:
            if self._server.slot(self._slot) is not None:
                self._server.drop_slot(self._slot)
            made = self._server.create_slot(self._slot)
            self._lose(system, Gap(reason=reason, end=made.restart_lsn, at=self._clock.now()))
        except DrError as error:
            self._now.last_error = error.message

    def _lose(self, system: SystemSpool, gap: Gap) -> None:
        last = system.received() or self._now.known
        start = last[1] if last is not None else None
        if start is not None and gap.end is not None:
            start = min(start, gap.end)  # it may be ahead of where the server went back to
        self._now.gap = gap.model_copy(update={"start": start})
        self._now.known = None  # the way from there is what was lost
        system.set_aside()
        self._write_status()

    # --- every second --------------------------------------------------------------------------------------------

    def _wait(self, seconds: float, stop: threading.Event) -> None:
        self._free_and_write_status()
        self._clock.wait(seconds, stop)

    def _tick(self) -> None:
        try:
            standby = self._server.standby(self._slot)
            self._now.sync_state = standby.sync_state if standby is not None else None
            self._now.server_lsn = standby.server_lsn if standby is not None else None
            self._now.state = "waiting" if standby is None else "streaming"
            if standby is not None:
                self._now.last_error = None if standby.sync_state else _UNSEEN
            self._advance_held()
        except DrError as error:
            self._now.sync_state, self._now.server_lsn, self._now.last_error = None, None, _sentence(error)
        self._free_and_write_status()

    def _advance_held(self) -> None:
        """Tell the server that the required tiers hold everything up to here."""
        system, received = self._now.system, self._received()
        if system is None or received is None:
            return
        held = self._shippers.held(system.system_id, received[0])
        if held is not None and held != self._held_at:
            self._server.advance_slot(held_slot(self._slot), held)
            self._held_at = held

    def _free_and_write_status(self) -> None:
        self._shippers.free()
        self._write_status()

    def _received(self) -> Position | None:
        return self._now.system.received() if self._now.system is not None else None

    def _write_status(self) -> None:
        now, received = self._now, self._received()
        status = StreamStatus(
            server=self._name,
            pid=os.getpid(),
            receiver_pid=now.receiver_pid,
            state=now.state,
            system_id=now.pinned,
            timeline=received[0] if received is not None else now.timeline,
            received_lsn=received[1] if received is not None else None,
            lag_bytes=max(0, now.server_lsn - received[1]) if now.server_lsn and received is not None else None,
            sync_state=now.sync_state,
            last_error=now.last_error,
            gap=now.gap,
            updated_at=self._clock.now(),
            tiers=self._shippers.status(),
        )
        for said in news(self._told, status):
            self._tell(said)
        self._told = status
        # With a full disk it stays as it was, and `dr status` looks at the disk; shipping is what makes room.
        with contextlib.suppress(OSError):
            write_status(self.status_path, status)


def _sentence(error: DrError) -> str:
    return f"{error.message} ({error.hint.rstrip('.')})" if error.hint else error.message
