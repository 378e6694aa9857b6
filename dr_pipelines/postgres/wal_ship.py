"""Brings the spool's files to one tier. Each tier has its own shipper and thread: an outage of one delays no other.

What does not belong here: which files may be freed (`wal_shippers` asks every required tier) and the receiver.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from dr_pipelines.clock import Clock
from dr_pipelines.errors import DrError
from dr_pipelines.lsn import Lsn, Timeline
from dr_pipelines.postgres.wal_spool import Spool, SpoolFile, SystemSpool
from dr_pipelines.postgres.wal_status import TierStatus
from dr_pipelines.repository.wal import WalArchive

_LOOK_EVERY = 0.5  # seconds between two looks for closed segments
_LONGEST_PAUSE = 30.0  # seconds between two tries while the tier is down


@dataclass(frozen=True)
class Tier:
    """Where WAL goes. `archive_of(system_id)` gives the tier's WAL archive, or raises and is asked again with the next
    pass. The spool is freed only of what every `required` tier holds."""

    name: str
    archive_of: Callable[[str], WalArchive]
    required: bool = True


@dataclass(frozen=True)
class Shipped:
    """How far a tier is: everything up to `lsn` on `timeline` that the spool had is there."""

    system_id: str | None = None
    timeline: Timeline | None = None
    lsn: Lsn | None = None
    updated_at: datetime | None = None
    last_error: str | None = None


class Shipper:
    """Ships to one tier: histories first, then whole segments and open ones in order; the first trouble ends a pass, so
    what is held has no gap that the spool had not."""

    def __init__(self, tier: Tier, spool: Spool, *, clock: Clock, open_every: float) -> None:
        self.tier = tier
        self._spool = spool
        self._clock = clock
        self._open_every = open_every
        self._lock = threading.Lock()
        self._shipped = Shipped()
        self._held: dict[str, Lsn] = {}  # file name -> the end that the tier has of it
        self._histories: set[tuple[str, Timeline]] = set()
        self._archives: dict[str, WalArchive] = {}
        self._open_due = 0.0
        self._hurry = threading.Event()

    @property
    def shipped(self) -> Shipped:
        with self._lock:
            return self._shipped

    def remember(self, system_id: str | None, last: TierStatus) -> None:
        """How far the tier was when the last stream ended."""
        with self._lock:
            self._shipped = Shipped(system_id, last.timeline, last.shipped_lsn, last.updated_at)

    def status(self, files: Iterable[SpoolFile]) -> TierStatus:
        """`files` are all that lie in the spool."""
        shipped = self.shipped
        return TierStatus(
            required=self.tier.required,
            timeline=shipped.timeline,
            shipped_lsn=shipped.lsn,
            lag_bytes=self.lag_bytes(files),
            last_error=shipped.last_error,
            updated_at=shipped.updated_at,
        )

    def holds(self, file: SpoolFile) -> bool:
        """Whether the tier has all WAL of this file, as far as the file goes now."""
        with self._lock:
            held = self._held.get(file.name)
        return held is not None and held >= file.end

    def lag_bytes(self, files: Iterable[SpoolFile]) -> int:
        """How much of the WAL in these files the tier has not."""
        with self._lock:
            held = dict(self._held)
        return sum(max(0, file.end - held.get(file.name, file.segment.start)) for file in files)

    def hurry(self) -> None:
        """Ship the open segment with the next look."""
        self._hurry.set()

    def run(self, stop: threading.Event) -> None:
        """Ship until `stop`, then once more."""
        pause = _LOOK_EVERY
        while not self._clock.wait(pause, stop):
            pause = _LOOK_EVERY if self.ship() else min(_LONGEST_PAUSE, max(1.0, pause * 2))
        self.hurry()
        self.ship()

    def ship(self) -> bool:
        """One pass. False when the tier gave trouble, which `shipped.last_error` then names."""
        open_too = self._open_is_due()
        try:
            for system in self._spool.systems():
                self._ship_system(system, open_too)
        except FileNotFoundError:
            if open_too:
                self._hurry.set()
            return True  # the receiver closed or the stream freed a file during the pass: the next look sees it anew
        except DrError as error:
            self._failed(f"{error.message} ({error.hint.rstrip('.')})" if error.hint else error.message, open_too)
            return False
        except Exception as error:  # noqa: BLE001 - a shipper that dies in silence would be the worst of all ends
            self._failed(f"{type(error).__name__}: {error}", open_too)
            return False
        with self._lock:
            self._shipped = replace(self._shipped, last_error=None, updated_at=self._clock.now())
        return True

    def _open_is_due(self) -> bool:
        now = self._clock.monotonic()
        if not self._hurry.is_set() and now < self._open_due:
            return False
        self._hurry.clear()
        self._open_due = now + self._open_every
        return True

    def _failed(self, message: str, open_too: bool) -> None:
        if open_too:
            self._hurry.set()
        with self._lock:
            self._shipped = replace(self._shipped, last_error=message)

    def _ship_system(self, system: SystemSpool, open_too: bool) -> None:
        archive = self._archive(system.system_id)
        for timeline in system.histories():
            self._ship_history(archive, system, timeline)
        files = system.files()
        whole = {file.segment for file in files if file.whole}
        for file in files:
            if not file.whole and file.segment in whole:
                self._hold(file)  # its whole came just before and holds all of it
            elif file.whole or open_too:
                self._ship_file(archive, system, file)
        self._forget_all_but(system, files)

    def _archive(self, system_id: str) -> WalArchive:
        if system_id not in self._archives:
            self._archives[system_id] = self.tier.archive_of(system_id)
        return self._archives[system_id]

    def _ship_history(self, archive: WalArchive, system: SystemSpool, timeline: Timeline) -> None:
        if (system.system_id, timeline) not in self._histories:
            archive.put_history(timeline, system.read_history(timeline))
            self._histories.add((system.system_id, timeline))

    def _ship_file(self, archive: WalArchive, system: SystemSpool, file: SpoolFile) -> None:
        if self.holds(file):
            return
        if file.whole:
            archive.put_segment(file.segment, file.read())
            archive.drop_partials(file.segment)
        else:
            archive.put_partial(file.segment, file.end, file.read())
        self._hold(file)
        with self._lock:
            self._shipped = replace(
                self._shipped,
                system_id=system.system_id,
                timeline=file.segment.timeline,
                lsn=file.end,
                updated_at=self._clock.now(),
            )

    def _hold(self, file: SpoolFile) -> None:
        with self._lock:
            self._held[file.name] = file.end

    def _forget_all_but(self, system: SystemSpool, files: list[SpoolFile]) -> None:
        names, prefix = {file.name for file in files}, str(system.directory)
        with self._lock:
            self._held = {n: end for n, end in self._held.items() if n in names or not n.startswith(prefix)}
