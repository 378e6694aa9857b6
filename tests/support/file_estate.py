"""A file set's life and what its tiers hold of it: snapshots that share archives and tables, interrupted and running
ones, copies, by a clock that the test moves. Contents are small and random; nothing is read from any disk."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from dr_pipelines.checks import failed, passed
from dr_pipelines.clock import Clock, FixedClock
from dr_pipelines.errors import ObjectNotFound
from dr_pipelines.plan import Plan
from dr_pipelines.repository.archive_lists import with_archives
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.file_layout import FILES
from dr_pipelines.repository.manifest import StoredObject
from dr_pipelines.repository.marks import put_proof
from dr_pipelines.repository.repository import Repository
from dr_pipelines.repository.snapshot_manifest import Counts, FileArchive, Snapshot, SnapshotManifest, decode_snapshot
from dr_pipelines.repository.snapshots import SnapshotWriter, begin_snapshot, read_snapshots
from dr_pipelines.site import Site
from dr_pipelines.storage.base import Body, ObjectStore, read_all
from dr_pipelines.storage.memory import MemoryStore

SET = "assets"
BEGIN = datetime(2026, 3, 2, 2, tzinfo=UTC)
RULES = {
    "schedule": "daily", "retention": "4 days", "grace": "1 day", "largest_share": "100 %",
    "proven_within": "1000 days",
}  # fmt: skip


def plan(on: Collection[str] = ("primary",), *, lock: bool = False, **changes: Any) -> Plan:
    """Stores named like the tiers; `FileEstate` brings them."""
    place = {"type": "s3", "endpoint": "http://127.0.0.1:1", **({"lock": {}} if lock else {})}
    return Plan.model_validate(
        {
            "version": 1,
            "name": "test",
            "state_dir": "/nowhere",
            "encryption": "none",
            "storage": {tier: {**place, "bucket": f"{tier}-bucket"} for tier in on},
            "databases": {},
            "file_storage": {
                SET: {
                    **RULES,
                    "source": {"type": "directory", "path": "/srv/assets"},
                    "storage": {tier: tier for tier in on},
                    **changes,
                }
            },
        }
    )


@dataclass
class FileEstate:
    """Everything is written to `store`, the primary."""

    clock: FixedClock = field(default_factory=lambda: FixedClock(BEGIN))
    seed: int = 0

    def __post_init__(self) -> None:
        self.store = MemoryStore("primary", self.clock)
        self.secondary = MemoryStore("secondary", self.clock)
        for store in (self.store, self.secondary):
            Repository(store, Codec(1), store.name).initialise()
        self._random = random.Random(self.seed)
        self._interrupted: list[tuple[datetime, FileArchive]] = []

    def site(self, given: Plan | None = None, *, clock: Clock | None = None, **stores: ObjectStore) -> Site:
        ready = {"primary": self.store, "secondary": self.secondary, **stores}
        return Site(given or plan(), clock=clock or self.clock, stores=ready)

    def clone(self) -> FileEstate:
        """As it is now, with a primary and a clock of its own; every object as old as it is. Without its locks."""
        twin = FileEstate(seed=self.seed)
        for info in sorted(self.store.list(), key=lambda info: info.modified):
            twin.clock.advance(info.modified - twin.clock.now())
            twin.store.put(info.key, Body.of(read_all(self.store, info.key)), if_absent=False)
        twin.clock.advance(self.clock.now() - twin.clock.now())
        return twin

    # --- what happens ---

    def begin(self) -> Running:
        """A snapshot that uses what the newest names, and of any other that is there."""
        self.clock.advance(timedelta(seconds=2))
        writer = begin_snapshot(self._repository, SET, clock=self.clock)
        there = self.manifests()
        since = self.clock.now() - timedelta(days=1)
        usable = {archive.name: archive for one in there for archive in one.archives}
        usable |= {archive.name: archive for at, archive in self._interrupted if at > since}
        stored = {info.key for info in self.store.list(FILES)}
        usable = {name: one for name, one in usable.items() if all(pack.key in stored for pack in one.packs)}
        names = [one.name for one in (there[-1].archives if there else ())]
        stays = [usable[name] for name in names if name in usable and self._random.random() < 0.6]
        again = [one for name, one in sorted(usable.items()) if name not in names and self._random.random() < 0.05]
        return Running(self, writer, there[-1] if there else None, [*stays, *again])

    def take(self, *, proven: bool = True, poll: bool = False) -> Snapshot:
        made = self.begin().commit(poll=poll)
        if proven:
            self.prove(made)
        return made

    def crash(self) -> str:
        """A snapshot that did not end, after it had put archives. The next day's may use them."""
        running = self.begin()
        self._interrupted += [(self.clock.now(), running.put_archive()) for _ in range(2)]
        return running.writer.label

    def prove(
        self, snapshot: Snapshot, kind: str = "scrub", *, good: bool = True, store: ObjectStore | None = None
    ) -> None:
        seen = passed("seen", "all") if good else failed("seen", "not")
        put_proof(store or self.store, snapshot.layout, kind, seen, at=self.clock.now(), tier="primary", run="test")

    def replicate(self, *, cut: int | None = None) -> None:
        """What is on the primary, to the secondary; `cut`: it ends after so many puts."""
        left = 1 << 30 if cut is None else cut
        gone = {info.key.split("/")[3] for info in self.secondary.list(FILES) if info.key.endswith("/expired.json")}
        for snapshot in read_snapshots(self.store, SET).usable:
            there = {info.key for info in self.secondary.list(FILES)}
            if snapshot.layout.manifest in there or snapshot.label in gone:
                continue
            claim = snapshot.layout.claim("cd")
            for key in (claim, *(one.key for one in snapshot.objects), snapshot.layout.manifest):
                if key in there:
                    continue
                if left == 0:
                    return
                left -= 1
                self.secondary.put(key, Body.of(b"{}" if key == claim else read_all(self.store, key)))
            self.secondary.delete(claim)

    # --- what is there ---

    def manifests(self, store: ObjectStore | None = None) -> list[Snapshot]:
        store = store or self.store
        keys = [info.key for info in store.list(FILES) if info.key.endswith("/manifest.json")]
        return with_archives(store, [decode_snapshot(read_all(store, key)) for key in keys])

    def labels(self, store: ObjectStore | None = None) -> set[str]:
        return {one.label for one in self.manifests(store)}

    def require_whole(self, store: ObjectStore | None = None) -> None:
        """What has a manifest has all that it names."""
        sizes = {info.key: info.size for info in (store or self.store).list()}
        for one in self.manifests(store):
            lost = [named.key for named in one.objects if sizes.get(named.key) != named.size]
            assert not lost, f"{one.label} has lost {lost}"

    @property
    def _repository(self) -> Repository:
        return Repository(self.store, Codec(1), "primary")

    def noise(self) -> bytes:
        return self._random.randbytes(self._random.randint(20, 60))


class Running:
    """A snapshot that is being taken."""

    def __init__(
        self, estate: FileEstate, writer: SnapshotWriter, last: Snapshot | None, uses: list[FileArchive]
    ) -> None:
        self.estate, self.writer, self._last, self._uses = estate, writer, last, uses
        self._started = self._last_put = estate.clock.now()

    def put_archive(self) -> FileArchive:
        self._last_put = self.estate.clock.now()
        name = self.writer.new_archive()
        packs = [self.writer.put_pack(name, number, Body.of(self.estate.noise())) for number in range(2)]
        return FileArchive(name=name, size=100, pack_size=50, packs=tuple(packs))

    def quiet_for(self) -> timedelta:
        """Since it put something last."""
        return self.estate.clock.now() - self._last_put

    def commit(self, *, poll: bool = False) -> Snapshot:
        """Its table is that of the last one with changes, or now and then one of its own."""
        last_put = self._last_put
        archives = [*self._uses, self.put_archive()]
        self._last_put = last_put
        base: StoredObject | None = None
        with suppress(ObjectNotFound):
            if self._last is not None and int(self._started.timestamp() // 86400) % 5:
                self.estate.store.stat(self._last.table.key)
                base = self._last.table
        own = self.writer.put_table(self.estate.noise(), changes=base is not None)
        return self.writer.commit(
            SnapshotManifest(
                file_set=SET, label=self.writer.label, parent=self._last.label if self._last else None,
                started_at=self._started, finished_at=self.estate.clock.now(),
                scanned_at=self._last.looked_at if self._last and poll else None,
                tool_version="0", taken_on="here", source="/srv/assets", encoding=Codec(1).encoding, counts=Counts(),
                table=base or own, changes=own if base is not None else None,
            ),
            {one.name: one for one in archives}.values(),
            self._last.listed if self._last is not None else (),
        )  # fmt: skip


def objects(store: ObjectStore) -> Mapping[str, datetime]:
    """Of the file set, with when each came."""
    return {info.key: info.modified for info in store.list(FILES)}
