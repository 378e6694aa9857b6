"""What should be on a tier and is not, as far as another tier shows it: a manifest whose objects are all here, and WAL
between what is here that the backups, or the recovery window, need.

What was never sent to a tier, or was let go, is not missing; nor is the newest WAL, while it may be on its way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from dr_pipelines.errors import DrError, ObjectNotFound
from dr_pipelines.lsn import Timeline, WalSegment
from dr_pipelines.replication.inventory import Fault, Inventory
from dr_pipelines.replication.reading import matches
from dr_pipelines.repository import layout
from dr_pipelines.repository.labels import Labelled
from dr_pipelines.repository.layout import BackupKind, WalLayout
from dr_pipelines.repository.manifest import BackupManifest, StoredObject
from dr_pipelines.repository.owners import Owner
from dr_pipelines.repository.repository import Repository
from dr_pipelines.storage.base import ObjectInfo, ObjectStore

_ON_ITS_WAY = timedelta(hours=6)
"""WAL reaches tiers one after the other, and a tier that was down catches up. Longer than a plan lets copies lag."""


def missing_manifests(inventory: Inventory, store: ObjectStore, others: Sequence[Repository]) -> Iterator[Fault]:
    """Of what is whole but for it. A backup that is being taken, copied or pruned lacks something else too."""
    for label in sorted(inventory.labels()):
        backup, there = inventory.owner.layout(label), inventory.there
        if backup.manifest in there or backup.expired in there:
            continue
        if (found := _manifest_elsewhere(inventory.owner, label, others)) is None:
            continue
        if all((info := there.get(named.key)) and info.size == named.size for named in found.objects) and _all_match(
            store, found.objects
        ):
            yield Fault(backup.manifest, "missing", label)


def _manifest_elsewhere(owner: Owner[Labelled], label: str, others: Sequence[Repository]) -> Labelled | None:
    for other in others:
        try:
            found = owner.read(other.store, label)
        except DrError:  # whatever it is, this tier does not show that the manifest should be here
            continue
        if not owner.unread(found):
            return found
    return None


def _all_match(store: ObjectStore, objects: Iterable[StoredObject]) -> bool:
    try:
        return all(matches(store, stored) for stored in objects)
    except ObjectNotFound:
        return False


def missing_wal(
    inventory: Inventory, others: Sequence[Repository], window: timedelta | None, now: datetime, notes: list[str]
) -> Iterator[Fault]:
    """Whole segments that another tier holds. `window` None: only what the backups need to become consistent."""
    elsewhere = _Elsewhere(others, notes)
    for system_id in sorted(inventory.systems()):
        size = inventory.segment_size(system_id)
        if size is None:  # no backup needs any
            continue
        here = inventory.segments(system_id, size)
        keys = WalLayout(inventory.server, system_id)
        needed = {*_of_backups(inventory, system_id, size), *_of_window(inventory, system_id, size, here, window, now)}
        absent = [one for one in sorted(needed) if one.number not in here.get(one.timeline, {})]
        found = [*(elsewhere.find(keys, segment) for segment in absent)]
        if window is not None and any(_is_full_of(backup, system_id) for backup in inventory.of_server.values()):
            found += _of_the_end(keys, size, here, elsewhere, now - window, now - _ON_ITS_WAY)
        for one in found:
            if one is not None:
                yield Fault(one.stored.key, "missing", None, one.stored)


def _of_backups(inventory: Inventory, system_id: str, size: int) -> Iterator[WalSegment]:
    for backup in inventory.of_server.values():
        if backup.system_id == system_id:
            for timeline, start, end in backup.needed_wal:
                for number in range(start.value // size, -(-end.value // size)):
                    yield WalSegment(timeline, number, size)


def _of_window(
    inventory: Inventory,
    system_id: str,
    size: int,
    here: dict[Timeline, dict[int, list[ObjectInfo]]],
    window: timedelta | None,
    now: datetime,
) -> Iterator[WalSegment]:
    """Between the full that the window begins with and the newest WAL that is here."""
    fulls = [backup for backup in inventory.of_server.values() if _is_full_of(backup, system_id)]
    if window is None or not fulls:
        return
    before = [full for full in fulls if full.finished_at <= now - window]
    base = max(before, key=_age) if before else min(fulls, key=_age)
    for timeline, numbers in here.items():
        if timeline < base.timeline:
            continue
        first = base.start_lsn.value // size if timeline == base.timeline else min(numbers)
        yield from (WalSegment(timeline, number, size) for number in range(first, max(numbers)))


def _of_the_end(
    keys: WalLayout,
    size: int,
    here: dict[Timeline, dict[int, list[ObjectInfo]]],
    elsewhere: _Elsewhere,
    since: datetime,
    until: datetime,
) -> Iterator[_Found]:
    """Behind the newest that is here, what came to another tier in that time: long enough ago to have come here too,
    and not so long that it may have been let go."""
    if here:
        newest = max(here)
        segment = WalSegment(newest, max(here[newest]), size)
        while (found := elsewhere.find(keys, segment := segment.next())) and found.modified <= until:
            if found.modified >= since:
                yield found


def _is_full_of(backup: BackupManifest, system_id: str) -> bool:
    return backup.kind is BackupKind.FULL and backup.system_id == system_id


def _age(backup: BackupManifest) -> datetime:
    return backup.finished_at


@dataclass(frozen=True)
class _Found:
    """A whole segment of another tier; `modified` is when it came there."""

    stored: StoredObject
    modified: datetime


class _Elsewhere:
    """WAL of the other tiers, listed a log at a time. A tier that cannot be asked is noted once and passed over."""

    def __init__(self, others: Sequence[Repository], notes: list[str]) -> None:
        self._others, self._notes = list(others), notes
        self._listed: dict[str, dict[str, _Found]] = {}

    def find(self, keys: WalLayout, segment: WalSegment) -> _Found | None:
        prefix = keys.log_prefix(segment)
        if prefix not in self._listed:
            self._listed[prefix] = {}
            for other in [*self._others]:
                for file, found in self._on(other, prefix):
                    self._listed[prefix].setdefault(file, found)
        return self._listed[prefix].get(segment.name)

    def _on(self, other: Repository, prefix: str) -> list[tuple[str, _Found]]:
        try:
            infos = {info.key: info for info in other.store.list(prefix)}
        except DrError as error:
            self._others.remove(other)
            self._notes.append(f"whether {other.tier} has WAL that is missing here cannot be seen: {error.message}")
            return []
        whole = (
            (info, layout.parse_wal_key(key)) for key, info in infos.items() if layout.wal_damage(key) not in infos
        )
        return [
            (key.file, _Found(StoredObject(key=info.key, size=info.size, sha256=key.sha256), info.modified))
            for info, key in whole
            if key is not None and key.partial_end is None
        ]
