"""Every object of a server or a file set on one tier against its digest; what is damaged or missing is
repaired; what no tier can repair is marked, so that no restore picks it, and the restore points that it costs are
named.

The order makes a crash harmless: an object is repaired before a mark is lifted, and a mark is put before it is told.
Backups and WAL come and go meanwhile: every fault is looked at again before it is believed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from dr_pipelines.checks import failed, passed
from dr_pipelines.clock import Clock
from dr_pipelines.errors import DrError, IntegrityError, ObjectLocked, ObjectNotFound
from dr_pipelines.progress import Progress
from dr_pipelines.replication.inventory import Fault, Inventory, record_is_whole, take_inventory
from dr_pipelines.replication.losses import (
    LostBackup,
    LostWal,
    costs,
    lost_backups,
    lost_histories,
    lost_wal,
)
from dr_pipelines.replication.missing import missing_manifests, missing_wal
from dr_pipelines.replication.reading import ALL, Sample, Seen, as_on, matches, read_objects
from dr_pipelines.replication.repair import WAL_DAMAGE, Outcome, Repair, State
from dr_pipelines.repository import layout
from dr_pipelines.repository.labels import Labelled
from dr_pipelines.repository.layout import LabelLayout
from dr_pipelines.repository.marks import put_damage, put_proof, read_damage
from dr_pipelines.repository.owners import Owner
from dr_pipelines.repository.repository import Repository
from dr_pipelines.storage.base import Body

_THREADS = 4
"""Repairs at once: each holds one object in memory."""

_Marked = dict[str, set[str]]
"""Objects, each with the marks that call it damaged."""

PROMISE = "objects_match_their_digests"


@dataclass(frozen=True)
class ScrubOrder:
    """What is to be scrubbed. `others` are the tiers that may hold good bytes, `closed` says why one cannot be asked.
    `filled`: the plan sends backups here. `window`: how far back WAL must be here without a hole; None where only what
    the backups need is sent, and for a file set. `run` names the scrub in marks and proofs."""

    owner: Owner[Labelled]
    repository: Repository
    others: Sequence[Repository]
    run: str
    closed: Sequence[str] = ()
    window: timedelta | None = None
    sample: Sample = ALL
    repair: bool = True
    filled: bool = True


@dataclass
class ServerScrub:
    """What was seen and done, of a `server` or file set. Of `objects` that have a digest or carry one `read` were read,
    `bytes` in all; `offline` would have had to be recalled, `unread` could not be read. `outcomes` has every fault.
    `emptied`: another tier that has backups where this one has none at all: that is no damage to repair, and nothing to
    call good."""

    server: str
    tier: str
    objects: int = 0
    read: int = 0
    bytes: int = 0
    offline: int = 0
    unread: dict[str, str] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)
    lost_backups: tuple[LostBackup, ...] = ()
    lost_wal: tuple[LostWal, ...] = ()
    lost_histories: tuple[str, ...] = ()
    marked: list[str] = field(default_factory=list)
    lifted: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    emptied: str | None = None
    sample: Sample = ALL

    def of(self, *states: State) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.state in states]

    @property
    def lost(self) -> list[str]:
        """The restore points that are gone, in words."""
        backups = [f"{lost.label}: {lost.because}" for lost in self.lost_backups]
        beyond = [f"what lies beyond {name}" for name in self.lost_histories]
        return [*backups, *(str(lost) for lost in self.lost_wal), *beyond]

    def told(self) -> dict[str, Any]:
        """As plain JSON values, for evidence."""
        return {
            "server": self.server,
            "tier": self.tier,
            "objects": self.objects,
            "read": self.read,
            "bytes": self.bytes,
            "offline": self.offline,
            "sample": {"share": self.sample.share, "start": self.sample.start, "next": self.sample.following.start},
            "unread": self.unread,
            "faults": [
                {"key": o.fault.key, "what": o.fault.what, "state": o.state.value, "by": o.by} for o in self.outcomes
            ],
            "lost_backups": [{"label": lost.label, "because": lost.because} for lost in self.lost_backups],
            "lost_wal": [lost.told() for lost in self.lost_wal],
            "lost_histories": [*self.lost_histories],
            "emptied": self.emptied,
            "marked": self.marked,
            "lifted": self.lifted,
            "notes": self.notes,
        }


def scrub_server(order: ScrubOrder, *, clock: Clock, progress: Progress) -> ServerScrub:
    """Raises what the scrubbed store raises when it cannot be listed or does not answer; trouble with the others is in
    the result."""
    return _Scrub(order, clock, progress).run()


class _Scrub:
    """One run over one server on one tier."""

    def __init__(self, order: ScrubOrder, clock: Clock, progress: Progress) -> None:
        self._order, self._clock, self._progress = order, clock, progress
        self._store = order.repository.store
        self._result = ServerScrub(order.owner.name, order.repository.tier, sample=order.sample)

    def run(self) -> ServerScrub:
        order, result = self._order, self._result
        inventory = take_inventory(self._store, order.owner)
        repair = Repair(inventory, order.repository, order.others, order.closed, self._clock)
        marked = self._marked(inventory)
        # Records first: a manifest that is whole again says what else must be there.
        missing = missing_manifests(inventory, self._store, order.others)
        outcomes = self._settle([*inventory.faults, *missing], inventory, repair)
        outcomes += self._settle(inventory.read_lists(self._store), inventory, repair)
        if any(outcome.state is State.REPAIRED for outcome in outcomes):
            inventory.read_lists(self._store)
        seen = read_objects(self._store, inventory.named, inventory.there, order.sample, self._progress, always=marked)
        outcomes += self._settle([*seen.faults, *self._holes(inventory)], inventory, repair)
        # WAL that was replaced at an earlier scrub is no news.
        result.outcomes = [o for o in outcomes if o.state is not State.REPLACED or o.fault.key not in marked]
        result.objects = seen.objects + inventory.records
        result.read, result.bytes = seen.read + inventory.records, seen.bytes + inventory.record_bytes
        result.offline, result.unread = len(seen.offline), dict(seen.unread)
        result.notes += inventory.not_understood
        if order.filled and not inventory.labels():
            result.emptied = next((other.tier for other in order.others if self._has_backups(other)), None)
        self._name_losses(inventory)
        if order.repair:
            self._mark(inventory, marked)
            self._lift(inventory, marked, seen)
        self._prove(inventory, seen)
        return result

    def _has_backups(self, other: Repository) -> bool:
        try:
            return bool(self._order.owner.catalog(other.store).manifests)
        except DrError as error:
            self._result.notes.append(f"whether {other.tier} has backups cannot be seen: {error.message}")
            return False

    def _holes(self, inventory: Inventory) -> list[Fault]:
        """Of WAL. Looked for again when there are any: what is gone meanwhile, nothing may need any more."""
        order, notes = self._order, list[str]()
        holes = [*missing_wal(inventory, order.others, order.window, self._clock.now(), notes)]
        if holes:
            again, notes = take_inventory(self._store, order.owner), list[str]()
            holes = [*missing_wal(again, order.others, order.window, self._clock.now(), notes)]
        self._result.notes += notes
        return holes

    def _settle(self, faults: Sequence[Fault], inventory: Inventory, repair: Repair) -> list[Outcome]:
        def settle(fault: Fault) -> Outcome | None:
            try:
                if not self._stands(fault, inventory):
                    return None
            except DrError as error:
                return Outcome(fault, State.UNDECIDED, f"it could not be looked at again: {error.message}")
            return repair.mend(fault) if self._order.repair else Outcome(fault, State.FOUND)

        if faults and self._order.repair:
            self._progress.phase("repair")
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="repair") as pool:
            return [outcome for outcome in pool.map(settle, faults) if outcome is not None]

    def _name_losses(self, inventory: Inventory) -> None:
        lost = [outcome.fault for outcome in self._result.of(State.LOST)]
        unusable = [backup.label for backup in lost_backups(lost, inventory)]
        self._result.lost_wal = lost_wal(lost, inventory, unusable)
        self._result.lost_backups = lost_backups(lost, inventory, self._result.lost_wal)
        self._result.lost_histories = lost_histories(lost)

    def _stands(self, fault: Fault, inventory: Inventory) -> bool:
        """A backup that was expired or pruned since, and WAL that is gone, is no damage; neither is what a second look
        finds whole."""
        needing = [self._order.owner.layout(label) for label in inventory.needing(fault)]
        if needing and not any(self._is_there_still(fault, label) for label in needing):
            return False
        if fault.stored is None:
            return not record_is_whole(self._store, inventory, fault)
        try:
            return not matches(self._store, as_on(self._store, fault.stored))
        except ObjectNotFound:
            return fault.what == "missing" or fault.label is not None

    def _is_there_still(self, fault: Fault, backup: LabelLayout) -> bool:
        there = {info.key for info in self._store.list(backup.prefix)}
        if fault.key == backup.manifest and fault.what == "missing":
            return backup.manifest not in there and backup.expired not in there
        if backup.manifest in there:
            return True
        if fault.what == "missing" or backup.expired not in there:
            return False
        return fault.key in there or any(info.key == fault.key for info in self._store.list(fault.key))

    # --- marks ---

    def _marked(self, inventory: Inventory) -> _Marked:
        found: _Marked = {}
        for key in inventory.there:
            label = self._order.owner.label_of(key)
            if (wal := layout.damaged_wal(key)) is not None:
                found.setdefault(wal, set()).add(key)
            elif label is not None and key.startswith(self._order.owner.layout(label).damages):
                for about in self._told_by(key, label, inventory):
                    found.setdefault(about, set()).add(key)
        return found

    def _told_by(self, mark: str, label: str, inventory: Inventory) -> Iterable[str]:
        """What does not say what it is about may be about everything."""
        try:
            return read_damage(self._store, mark)
        except ObjectNotFound:
            return []
        except IntegrityError:
            backup = inventory.backups.get(label) or inventory.expired.get(label)
            return [stored.key for stored in backup.objects] if backup else [mark]

    def _mark(self, inventory: Inventory, marked: _Marked) -> None:
        by_label: dict[str, list[str]] = {}
        for outcome in self._result.of(State.LOST):
            fault = outcome.fault
            if fault.label is not None and fault.key == self._order.owner.layout(fault.label).expired:
                self._forget(fault.key)
            elif labels := costs(fault, inventory):
                for label in labels:
                    by_label.setdefault(label, []).append(fault.key)
            elif layout.parse_wal_key(fault.key) is not None and fault.what == "damaged" and fault.key not in marked:
                self._store.put(layout.wal_damage(fault.key), Body.of(WAL_DAMAGE))
                self._result.marked.append(fault.key)
        for label, keys in sorted(by_label.items()):
            backup = self._order.owner.layout(label)
            if not all(any(mark.startswith(backup.damages) for mark in marked.get(key, ())) for key in keys):
                put_damage(self._store, backup, sorted(keys), at=self._clock.now(), found_by=self._order.run)
                self._result.marked.append(label)

    def _forget(self, expired: str) -> None:
        """What it let go can never come back: without it the rest is garbage, and goes as such."""
        with contextlib.suppress(ObjectLocked):
            self._store.delete(expired)

    def _lift(self, inventory: Inventory, marked: _Marked, seen: Seen) -> None:
        """Marks of what is whole now, and of WAL that is gone."""
        whole = seen.whole | {outcome.fault.key for outcome in self._result.of(State.REPAIRED)}
        whole |= {backup.layout.manifest for backup in inventory.backups.values()}
        about_by_mark: dict[str, set[str]] = {}
        for about, marks in marked.items():
            for mark in marks:
                about_by_mark.setdefault(mark, set()).add(about)
        for mark, about_what in sorted(about_by_mark.items()):
            wal = layout.damaged_wal(mark)
            if about_what <= whole or (wal is not None and wal not in inventory.there):
                self._store.delete(mark)
                self._result.lifted.append(mark)

    # --- proofs ---

    def _prove(self, inventory: Inventory, seen: Seen) -> None:
        """Of each backup of which every object was read, on the tier itself."""
        bad: dict[str, list[str]] = {}
        for outcome in self._result.outcomes:
            if outcome.state is not State.REPAIRED:
                for label in inventory.needing(outcome.fault):
                    bad.setdefault(label, []).append(outcome.fault.key)
        repaired = {outcome.fault.key for outcome in self._result.of(State.REPAIRED)}
        for label, backup in inventory.backups.items():
            if label in bad:
                result = failed(PROMISE, f"{len(bad[label])} objects are damaged or gone", objects=bad[label][:10])
            elif all(stored.key in seen.whole or stored.key in repaired for stored in backup.objects):
                mended = sum(stored.key in repaired for stored in backup.objects)
                result = passed(PROMISE, f"all {len(backup.objects)} objects match", repaired=mended)
            else:
                continue
            try:
                self._store.stat(backup.layout.manifest)  # a proof of what was expired meanwhile would be garbage
                put_proof(
                    self._store, backup.layout, "scrub", result,
                    at=self._clock.now(), tier=self._order.repository.tier, run=self._order.run,
                )  # fmt: skip
            except ObjectNotFound:
                continue
            except DrError as error:
                self._result.notes.append(f"no proof of {label} could be put on {self._result.tier}: {error.message}")
