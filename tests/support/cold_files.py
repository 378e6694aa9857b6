"""A file set of a real directory, and a cold tier of it whose packs lie in a class that must be recalled."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from dr_pipelines import operations
from dr_pipelines.clock import FixedClock, SystemClock
from dr_pipelines.files.restore import FilesReport
from dr_pipelines.plan import Plan
from dr_pipelines.progress import Silent
from dr_pipelines.repository.layout import Role, role_of
from dr_pipelines.repository.snapshot_manifest import SnapshotManifest
from dr_pipelines.site import Site
from dr_pipelines.storage.base import Availability, Body, ObjectStore, read_all
from dr_pipelines.storage.local import LocalStore
from dr_pipelines.storage.memory import MemoryStore
from dr_pipelines.storage.wrappers import Forwarding
from tests.support.file_tiers import DOCS, empty
from tests.support.shop import Shop

HOURS = 15
AZURE = {"type": "azure", "account_url": "https://a.example", "container": "cold", "classes": [{"name": "Archive"}]}
COLD = "archive"


@dataclass
class Waiting(SystemClock):
    """Short waits are real; in a long one, of hours of arrival, `arrive` happens instead."""

    arrive: Callable[[], None]
    waited: list[float] = field(default_factory=list)

    def wait(self, seconds: float, stop: threading.Event | None = None) -> bool:
        if seconds < 60:
            return super().wait(seconds, stop)
        self.waited.append(seconds)
        self.arrive()
        return False


class Hourly(FixedClock):
    """Each wait takes an hour; `hours` counts them. The one at which `interrupted` stands is interrupted."""

    def __init__(self, at: datetime) -> None:
        super().__init__(at)
        self.hours = 0
        self.interrupted: int | None = None

    def wait(self, seconds: float, stop: threading.Event | None = None) -> bool:
        if self.hours == self.interrupted:
            raise KeyboardInterrupt
        self.hours += 1
        self.advance(timedelta(hours=1))
        return False

    def pass_hours(self, count: int) -> None:
        self.advance(timedelta(hours=count))


class Asked(Forwarding):
    """Keeps what is asked for, with its haste, and what is read, with the hours that were waited by then."""

    def __init__(self, store: ObjectStore, clock: Hourly) -> None:
        super().__init__(store)
        self._clock = clock
        self.recalled: list[tuple[str, bool]] = []
        self.opened: dict[str, int] = {}

    def recall(self, key: str, *, urgent: bool = False) -> Availability:
        self.recalled.append((key, urgent))
        return super().recall(key, urgent=urgent)

    def open(self, key: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        self.opened[key] = self._clock.hours
        return super().open(key, offset=offset, length=length)


class Noted(Silent):
    """Keeps what a person would see."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


class ColdFiles:
    """`docs` of a folder on a primary, copied to a cold tier by `replicate`. An hour passes with each snapshot."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.source = folder / "docs"
        self.source.mkdir()
        self.clock = Hourly(SystemClock().now() + timedelta(hours=1))
        self.primary, self.cold = self._store("primary"), Asked(self._store(COLD), self.clock)
        docs = {
            "schedule": "hourly", "retention": "400 days", "source": {"type": "directory", "path": str(self.source)},
            "storage": {"primary": "primary", COLD: COLD}, "replication": {COLD: {"send": "everything"}}, **changes,
        }  # fmt: skip
        plan = {
            "version": 1, "name": "test", "encryption": "none", "state_dir": str(folder / "state"),
            "storage": {"primary": {**AZURE, "container": "warm", "classes": []}, COLD: AZURE},
            "file_storage": {DOCS: docs},
        }  # fmt: skip
        stores: dict[str, ObjectStore] = {"primary": self.primary, COLD: self.cold}
        self.site = Site(Plan.model_validate(plan), clock=self.clock, stores=stores)

    def _store(self, name: str) -> MemoryStore:
        latency = timedelta(hours=HOURS)
        store = MemoryStore(name, self.clock, classes=("Archive",), offline=("Archive",), latency=latency)
        empty(name, store)
        return store

    def take(self, **files: bytes) -> SnapshotManifest:
        """A snapshot with these beside what was there, on both tiers."""
        for name, content in files.items():
            (self.source / name).write_bytes(content)
        self.clock.advance(timedelta(hours=1))
        taken = operations.take_snapshot(self.site, DOCS, Silent())
        operations.replicate(self.site, DOCS, COLD, Silent())
        return taken

    def restore(self, target: Path, *, progress: Any = None, **asked: Any) -> FilesReport:
        return operations.restore_files(self.site, DOCS, "latest", target, progress or Silent(), **asked)

    def lose_primary(self) -> None:
        for info in [*self.primary.list("files/")]:
            self.primary.delete(info.key)

    def bulk(self, store: ObjectStore | None = None) -> set[str]:
        """Keys of packs."""
        return {info.key for info in (store or self.cold).list("files/") if role_of(info.key) is Role.BULK}

    def asked(self) -> set[str]:
        return {key for key, _ in self.cold.recalled}


@dataclass
class ColdShop:
    """A shop whose files lie on a tier of which every pack is offline; each long wait takes an hour."""

    shop: Shop
    at: datetime

    def __post_init__(self) -> None:
        self.hours = FixedClock(self.at)
        self.clock = Waiting(lambda: self.hours.advance(timedelta(hours=1)))
        latency = timedelta(hours=HOURS)
        self.cold = MemoryStore("cold", self.hours, classes=("Archive",), offline=("Archive",), latency=latency)
        disk = LocalStore(self.shop.folder / "repository", "disk")
        for info in disk.list():
            bulk = role_of(info.key) is Role.BULK
            self.cold.put(info.key, Body.of(read_all(disk, info.key)), storage_class="Archive" if bulk else None)
        plan = self.shop.plan()
        plan["storage"]["cold"] = {**AZURE, "classes": []}
        plan["file_storage"]["docs"]["storage"] = {"primary": "cold"}
        stores: dict[str, ObjectStore] = {"disk": disk, "cold": self.cold}
        self.site = Site(Plan.model_validate(plan), clock=self.clock, stores=stores)

    def states(self) -> set[Availability]:
        """Of all packs."""
        keys = [info.key for info in self.cold.list("files/") if role_of(info.key) is Role.BULK]
        return {self.cold.stat(key).availability for key in keys}
