"""Removing what nothing needs any more: content of backups that were expired long enough ago, garbage of crashes, WAL.

What is expired is forgotten last, when all of its content is gone: until then a crash, or a lock, leaves something that
says what it is. WAL goes oldest first, so that what a crash leaves of a timeline has no hole.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice

from dr_pipelines.errors import ObjectLocked, ObjectNotFound
from dr_pipelines.repository.file_layout import SnapshotLayout, snapshot_of, snapshots_prefix
from dr_pipelines.repository.layout import BackupLayout, LabelLayout, WalLayout, wal_damage
from dr_pipelines.repository.marks import read_keep
from dr_pipelines.repository.snapshot_manifest import Snapshot
from dr_pipelines.retention.decisions import IN_FLIGHT
from dr_pipelines.retention.planner import Retention
from dr_pipelines.retention.records import Needs
from dr_pipelines.retention.snapshots import SnapshotRetention
from dr_pipelines.retention.view import SnapshotView, TierView
from dr_pipelines.retention.wal import SystemWal, WalNeed, WalObject
from dr_pipelines.storage.base import ObjectInfo, ObjectStore

_BATCH = 64
_WORKERS = 8

MinimumStay = Callable[[str | None], timedelta]
"""How long an object of a storage class must stay, or be paid for all the same."""


def no_minimum(storage_class: str | None) -> timedelta:
    return timedelta(0)


@dataclass
class Pruned:
    """What is gone; `archives`: how many of a file set; `postponed`: nothing went, for a snapshot was begun or came
    back meanwhile; `locked`: how many objects stay because they are locked, and until when the last of them is."""

    labels: list[str] = field(default_factory=list)
    wal_objects: int = 0
    archives: int = 0
    bytes: int = 0
    postponed: bool = False
    locked: int = 0
    locked_until: datetime | None = None


def prune(
    store: ObjectStore,
    server: str,
    here: TierView,
    planned: Retention,
    needs: Needs | None,
    *,
    stay: MinimumStay = no_minimum,
) -> Pruned:
    """`needs` None: no WAL goes. Can be done again after a crash. Raises what the store raises."""
    done = Pruned()
    for label in planned.prune:
        _prune_expired(store, BackupLayout(server, label), frozenset(), done)
    for label in planned.garbage:
        _prune_garbage(store, BackupLayout(server, label), planned.at, frozenset(), done)
    if needs is None:
        return done
    for system_id, system in here.wal.items():
        needed = needs.get(system_id, ())
        _prune_wal(store, system, prunable_wal(system, needed, planned.at, stay), done)
        if not needed and not _in_use(here, system_id):
            _prune_rest(store, WalLayout(server, system_id), planned.at, done)
    return done


def prune_snapshots(store: ObjectStore, file_set: str, here: SnapshotView, planned: SnapshotRetention) -> Pruned:
    """As `prune`. What is there now and was not when this was planned may need what nothing needed then."""
    done = Pruned()
    if not (planned.prune or planned.garbage or planned.archives or planned.lists):
        return done
    known = here.by_label.keys() | {one.label for one in here.unfinished if one.claimed}
    if not _labels_in_use(store, file_set) <= known:
        done.postponed = True
        return done
    for infos in planned.archives.values():
        done.archives += len(_remove(store, infos, done)) == len(infos)
    _remove(store, planned.lists, done)
    gone = {expired.manifest.label: expired.manifest for expired in here.catalog.expired}
    for label in planned.prune:
        _prune_base(store, gone[label], planned.needed, done)
        _prune_expired(store, gone[label].layout, planned.needed, done)
    for label in planned.garbage:
        _prune_garbage(store, SnapshotLayout(file_set, label), planned.at, planned.needed, done)
    return done


def _prune_base(store: ObjectStore, gone: Snapshot, needed: Collection[str], done: Pruned) -> None:
    """The table below its changes lies under the label of another, of which it may be all that is left."""
    if gone.table.key not in needed and not gone.table.key.startswith(gone.layout.prefix):
        with contextlib.suppress(ObjectNotFound):
            _remove(store, [store.stat(gone.table.key)], done)


def _labels_in_use(store: ObjectStore, file_set: str) -> set[str]:
    """Those that have a manifest or a claim."""
    found = set()
    for info in store.list(snapshots_prefix(file_set)):
        label = snapshot_of(file_set, info.key)
        if label is not None:
            layout = SnapshotLayout(file_set, label)
            if info.key == layout.manifest or info.key.startswith(layout.claims):
                found.add(label)
    return found


def prunable_wal(system: SystemWal, needs: Sequence[WalNeed], at: datetime, stay: MinimumStay) -> Iterator[WalObject]:
    """Not needed, not on its way, and paid for long enough. Oldest first."""
    stays = {name: max(stay(name), IN_FLIGHT).total_seconds() for name in system.classes}
    now = at.timestamp()
    return (found for found in system.unneeded(needs) if found.modified + stays[found.storage_class] <= now)


def _prune_expired(store: ObjectStore, layout: LabelLayout, needed: Collection[str], done: Pruned) -> None:
    objects = [*store.list(layout.prefix)]
    if any(info.key == layout.manifest for info in objects):
        return  # it came back since
    last = [info for info in objects if info.key == layout.expired]
    content = [info for info in objects if info not in last and info.key not in needed]
    _remove_in_order(store, layout.label, content, last, done)


def _prune_garbage(
    store: ObjectStore, layout: LabelLayout, at: datetime, needed: Collection[str], done: Pruned
) -> None:
    objects = [*store.list(layout.prefix)]
    if any(info.key in (layout.manifest, layout.expired) or info.modified > at - IN_FLIGHT for info in objects):
        return
    if any(read_keep(store, info.key).holds(at) for info in objects if info.key.startswith(layout.keeps)):
        return
    claims = [info for info in objects if info.key.startswith(layout.claims)]
    content = [info for info in objects if info not in claims and info.key not in needed]
    _remove_in_order(store, layout.label, content, claims, done)


def _remove_in_order(
    store: ObjectStore, label: str, content: Sequence[ObjectInfo], last: Sequence[ObjectInfo], done: Pruned
) -> None:
    if len(_remove(store, content, done)) == len(content) and len(_remove(store, last, done)) == len(last):
        done.labels.append(label)


def _prune_wal(store: ObjectStore, system: SystemWal, objects: Iterator[WalObject], done: Pruned) -> None:
    marks = set(system.marks)
    while batch := [*islice(objects, _BATCH)]:
        removed = _remove(store, batch, done)
        done.wal_objects += len(removed)
        for mark in marks & {wal_damage(key) for key in removed}:
            store.delete(mark)


def _prune_rest(store: ObjectStore, layout: WalLayout, at: datetime, done: Pruned) -> None:
    """Of a system of which nothing else is left: histories, and last what says how large its segments were."""
    rest = [*store.list(layout.prefix)]
    if all(layout.describes(info.key) and info.modified <= at - IN_FLIGHT for info in rest):
        histories = [info for info in rest if info.key != layout.description]
        if len(_remove(store, histories, done)) == len(histories):
            _remove(store, [info for info in rest if info.key == layout.description], done)


def _in_use(here: TierView, system_id: str) -> bool:
    gone = (expired.manifest for expired in here.catalog.expired)
    return any(backup.system_id == system_id for backup in (*here.catalog.backups, *gone))


def _remove(store: ObjectStore, objects: Sequence[ObjectInfo | WalObject], done: Pruned) -> set[str]:
    """What a lock holds stays. Returns the keys of what is gone."""

    def delete(found: ObjectInfo | WalObject) -> ObjectInfo | None:
        try:
            store.delete(found.key)
            return None
        except ObjectLocked:
            return store.stat(found.key)

    removed = set()
    with ThreadPoolExecutor(_WORKERS, thread_name_prefix="prune") as pool:
        for found, locked in zip(objects, pool.map(delete, objects), strict=True):
            if locked is None:
                done.bytes += found.size
                removed.add(found.key)
                continue
            done.locked += 1
            if locked.retain_until is not None:
                done.locked_until = max(done.locked_until or locked.retain_until, locked.retain_until)
    return removed
