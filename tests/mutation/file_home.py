"""The good file set that is damaged: snapshots that share archives, lists and tables, encrypted, on two tiers."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from dr_pipelines import operations
from dr_pipelines.clock import FixedClock, SystemClock
from dr_pipelines.embedded.postgres import open_folder
from dr_pipelines.progress import Silent
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.encryption import generate_identity
from dr_pipelines.repository.snapshots import read_snapshots
from dr_pipelines.site import Site
from dr_pipelines.storage.base import Body, read_all
from dr_pipelines.storage.memory import MemoryStore
from tests.support.file_sets import tree
from tests.support.file_tiers import DOCS, empty, file_site

TIERS = ("primary", "secondary")
_RECORD = "repository.json"
_FILES = 120
_LATER = timedelta(days=1)
"""What has just come to one tier may be on its way to the other: a day later it is not."""

Tree = Mapping[bytes, tuple[object, ...]]


@dataclass(frozen=True)
class Thing:
    """An object. `label`: of the newest snapshot whose restore reads it; None: none does."""

    key: str
    kind: str
    label: str | None


@dataclass(frozen=True)
class FileHome:
    """`objects` of each tier, by key; `things` of a tier, but for what is there for those who look (proofs, claims);
    `truth`: what each snapshot restores, oldest first."""

    base: Path
    identity: str
    recipient: str
    objects: Mapping[str, Mapping[str, bytes]]
    things: tuple[Thing, ...]
    truth: Mapping[str, Tree]
    ended: datetime

    def stores(self) -> dict[str, MemoryStore]:
        """The tiers as they are when all is well, each time anew."""
        made = {tier: MemoryStore(tier, FixedClock(self.ended)) for tier in TIERS}
        for tier, store in made.items():
            for key, data in self.objects[tier].items():
                store.put(key, Body.of(data))
        return made

    def site(self, stores: Mapping[str, MemoryStore]) -> Site:
        return _site(self.base, stores, (self.identity, self.recipient), FixedClock(self.ended + _LATER))


@contextmanager
def good_files() -> Iterator[FileHome]:
    """Three snapshots with little that changes between them, and one of which half is new, with a table of its own."""
    base = open_folder("dr-mutation-files-")
    key = generate_identity()
    keys = (key.reveal(), str(key.recipient))
    clock = FixedClock(SystemClock().now() + timedelta(hours=1))  # what is written now is older than its snapshots
    try:
        stores = {tier: MemoryStore(tier, clock) for tier in TIERS}
        for tier, store in stores.items():
            empty(tier, store, Codec(1, (keys[1],), (keys[0],)))
        site = _site(base, stores, keys, clock)
        truth = {label: seen for label, seen in _lived(site, base / "docs", clock)}
        operations.replicate(site, DOCS, "secondary", Silent())
        objects = {tier: {info.key: read_all(one, info.key) for info in one.list()} for tier, one in stores.items()}
        yield FileHome(base, *keys, objects, tuple(_things(stores["primary"])), truth, clock.now())
    finally:
        shutil.rmtree(base, ignore_errors=True)


def _site(base: Path, stores: Mapping[str, MemoryStore], keys: tuple[str, str], clock: FixedClock) -> Site:
    return file_site(
        stores, clock=clock, identity=keys[0], encryption={"recipients": [keys[1]]}, state_dir=str(base / "state"),
        source={"type": "directory", "path": str(base / "docs")}, schedule="daily",
        anomalies={"changed": "100 %", "vanished": "100 %", "renamed": "100 %", "incompressible": "100 %"},
    )  # fmt: skip


def _lived(site: Site, source: Path, clock: FixedClock) -> Iterator[tuple[str, Tree]]:
    rng = random.Random(1)
    for step, changed in enumerate((_FILES, 4, 3, _FILES // 2)):
        for number in range(changed):
            path = source / f"{number % 5}" / f"file {step}-{number}" if step else source / f"first {number}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(rng.randbytes(rng.randrange(1, 3000)) + b"text " * rng.randrange(500))
        for path in sorted(source.glob("first *"))[:step]:
            path.unlink()
        clock.advance(timedelta(hours=1))
        yield operations.take_snapshot(site, DOCS, Silent()).label, tree(source)


def _things(store: MemoryStore) -> Iterator[Thing]:
    snapshots = read_snapshots(store, DOCS).snapshots
    found = {_RECORD: Thing(_RECORD, _RECORD, None)}
    for one in snapshots:
        kinds = {stored.key: "pack" for stored in one.packs} | {stored.key: "list of archives" for stored in one.lists}
        kinds |= {one.table.key: "table"} | ({one.changes.key: "changes"} if one.changes is not None else {})
        kinds |= {one.layout.manifest: "manifest"}
        found |= {key: Thing(key, kind, one.label) for key, kind in kinds.items()}
        found |= {stored.key: Thing(stored.key, "break-glass", None) for stored in one.break_glass}
    yield from (found[key] for key in sorted(found))
