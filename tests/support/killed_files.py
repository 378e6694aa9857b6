"""A file set that lived for some days, as folders of buckets, and what must hold of it whatever is killed."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from dr_pipelines import operations
from dr_pipelines.checks import passed
from dr_pipelines.clock import FixedClock, SystemClock
from dr_pipelines.files.restore import restore_to_directory
from dr_pipelines.files.tiers import Tiers as ReadTiers
from dr_pipelines.plan import Plan
from dr_pipelines.progress import Silent
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.marks import put_proof
from dr_pipelines.repository.repository import Repository
from dr_pipelines.repository.snapshots import begin_snapshot
from dr_pipelines.site import Site
from dr_pipelines.storage.base import ObjectStore
from dr_pipelines.storage.memory import MemoryStore
from tests.support.estate import write_to
from tests.support.file_sets import tree
from tests.support.file_tiers import DOCS, assert_whole_or_invisible, labels, put_archive, snapshot

BOTH = ("primary", "secondary")
TARGET = "target"
DAYS, KEPT = 7, 4
DAY = timedelta(days=1)
Tree = dict[bytes, tuple[object, ...]]


def written(folder: Path) -> Callable[[Mapping[str, Mapping[str, Any]]], dict[str, Any]]:
    """The plan of `docs`, whose files are in `folder`; the store `target` is no tier."""

    def plan(stores: Mapping[str, Mapping[str, Any]], state_dir: str = "state") -> dict[str, Any]:
        rules = {"schedule": "daily", "retention": f"{KEPT} days", "grace": "1 day", "largest_share": "100 %"}
        source = {"type": "directory", "path": str(folder)}
        tiers = {tier: tier for tier in stores if tier != TARGET}
        return {
            "version": 1, "name": "test", "encryption": "none", "databases": {}, "storage": {**stores},
            "state_dir": state_dir,
            "file_storage": {DOCS: {**rules, "source": source, "storage": tiers, "proven_within": "1000 days"}},
        }  # fmt: skip

    return plan


@dataclass
class LivedSet:
    """A snapshot a day, the last of them half an hour ago: with modes, a link, names that come and go. The secondary
    has no copy of the last two. The first day's snapshot was let go and can be pruned; a crash left archives."""

    folder: Path
    trees: dict[str, Tree] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.source = self.folder / "docs"
        self.clock = FixedClock(SystemClock().now() - DAYS * DAY - timedelta(minutes=30))
        self.stores = {tier: MemoryStore(tier, self.clock) for tier in BOTH}
        for store in self.stores.values():
            Repository(store, Codec(1), store.name).initialise()
        for day in range(DAYS):
            self._live_for_a_day(day)
        self.lack = sorted(self.trees)[-2:]

    def _live_for_a_day(self, day: int) -> None:
        self.clock.advance(DAY)
        self.write(day)
        taken = operations.take_snapshot(self.site(), DOCS, Silent())
        self.trees[taken.label] = tree(self.source)
        if day == KEPT - 1:
            self._crash()
        if day < DAYS - 2:
            operations.replicate(self.site(), DOCS, "secondary", Silent())
        for store in self.stores.values() if day < DAYS - 2 else ():
            put_proof(store, taken.layout, "scrub", passed("seen", "all"), at=self.clock.now(), tier="here", run="test")
        if day == KEPT:
            for tier in BOTH:
                self.let_go(tier)

    def write(self, day: int, at: datetime | None = None) -> None:
        """What its files are on a day, written an hour before it is over."""
        for number in range(4):
            if day % (number + 1) == 0 or day == 0:
                self._put(f"files/{number}", os.urandom(3000), 0o600 + 0o44 * (day % 2), at)
        self._put(f"files/of day {day}/note", f"day {day} ".encode() * 100, 0o755, at)
        (self.source / "link").unlink(missing_ok=True)
        (self.source / "link").symlink_to(f"files/{day % 4}")

    def _put(self, name: str, content: bytes, mode: int, at: datetime | None) -> None:
        path = self.source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(mode)
        then = (at or self.clock.now() - timedelta(hours=1)).timestamp()
        os.utime(path, (then, then))

    def _crash(self) -> None:
        put_archive(begin_snapshot(self._repository("primary"), DOCS, clock=self.clock), {"lost": os.urandom(3000)})

    def let_go(self, tier: str) -> None:
        operations.apply_retention(self.site(), DOCS, tier, Silent(), yes=True)

    def site(self) -> Site:
        places = {tier: {"type": "local", "path": f"/nowhere/{tier}"} for tier in BOTH}
        plan = Plan.model_validate(written(self.source)(places, str(self.folder / "state")))
        return Site(plan, clock=self.clock, stores=self.stores)

    def write_to(self, folder: Path) -> Path:
        """As buckets, with one more that is empty."""
        for tier, store in self.stores.items():
            write_to(store, folder / tier)
        (folder / TARGET).mkdir()
        return folder

    def _repository(self, tier: str) -> Repository:
        return Repository(self.stores[tier], Codec(1), tier)

    @property
    def promised(self) -> set[str]:
        """What the plan keeps."""
        since = self.clock.now() - KEPT * DAY + timedelta(hours=1)
        return {one.label for one in operations.list_snapshots(self.site(), DOCS).snapshots if one.started_at > since}

    def require(self, stores: Mapping[str, ObjectStore], scratch: Path) -> None:
        """What is promised is there, and everything that is there restores as it was."""
        for tier, store in stores.items():
            assert_whole_or_invisible(store)
            there = {*labels(store)}
            assert self.promised - (there if tier == "primary" else there | {*self.lack}) == set()
            for label in sorted(there & self.trees.keys()):
                assert restored(store, label, scratch / f"{tier}-{label}") == self.trees[label], (tier, label)


def restored(store: ObjectStore, label: str, target: Path) -> Tree:
    """What one tier alone gives."""
    tiers = ReadTiers([Repository(store, Codec(1), store.name)], DOCS, Silent())
    report = restore_to_directory(tiers, tiers.find(label), target, clock=SystemClock(), progress=Silent())
    assert not report.failed
    assert report.snapshot == snapshot(store, label).label
    return tree(target)
