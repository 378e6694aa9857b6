"""What a tier holds of a server or a file set, and what each object must be: by the manifest that names it, by
its own name, or by the digest or form that it carries itself. One listing and every small record is read; no key is
needed.

Reading the rest and what to do about a fault does not belong here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from dr_pipelines.errors import BackupNotFound, IntegrityError, ObjectNotFound, RepositoryError
from dr_pipelines.lsn import Timeline, WalSegment, is_history_name
from dr_pipelines.repository import layout
from dr_pipelines.repository.labels import Labelled
from dr_pipelines.repository.layout import WalLayout
from dr_pipelines.repository.manifest import BackupManifest, StoredObject
from dr_pipelines.repository.marks import read_expired, read_keep
from dr_pipelines.repository.owners import Owner
from dr_pipelines.repository.sealed import is_as_sealed
from dr_pipelines.repository.wal import description
from dr_pipelines.storage.base import ObjectInfo, ObjectStore, read_all

_THREADS = 8
_SEGMENT_SIZES = tuple(1 << power for power in range(20, 31))
"""What `initdb --wal-segsize` takes, in bytes."""


@dataclass(frozen=True, slots=True)
class Named:
    """An object and what it must be. `label` is that of a backup or snapshot that needs it; None for WAL."""

    stored: StoredObject
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """An object that is not what it must be. `stored` is None for a record, which carries its own proof."""

    key: str
    what: Literal["damaged", "missing"]
    label: str | None = None
    stored: StoredObject | None = None


@dataclass
class Inventory:
    """`there`: everything of the owner that was listed. `backups` (or snapshots) are committed, `expired` can still be
    undone;
    `described`: the segment size of each system's WAL;
    `faults` of records; `not_understood`: why a record of a newer format was not looked into; `unread`: lists of what
    is needed that are damaged or gone. What else is needed is known after `read_lists`."""

    owner: Owner[Labelled]
    there: Mapping[str, ObjectInfo]
    backups: dict[str, Labelled] = field(default_factory=dict)
    expired: dict[str, Labelled] = field(default_factory=dict)
    records: int = 0
    record_bytes: int = 0
    described: dict[str, int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    not_understood: list[str] = field(default_factory=list)
    unread: frozenset[StoredObject] = frozenset()
    _by_object: Mapping[StoredObject, Sequence[Hashable]] = field(default_factory=dict)
    _by_group: Mapping[Hashable, Sequence[str]] = field(default_factory=dict)

    def read_lists(self, store: ObjectStore) -> list[Fault]:
        """What they say is named from now on; those that are damaged or gone are faults, of what is expired only where
        they are there. Each is read once. Raises what the store raises."""
        for manifests in (self.backups, self.expired):
            manifests |= zip(manifests, self.owner.whole(store, [*manifests.values()]), strict=True)
        needing: dict[StoredObject, str] = {}
        for label, manifest in (*self.expired.items(), *self.backups.items()):
            for stored in self.owner.unread(manifest):
                if label in self.backups or stored.key in self.there:
                    needing[stored] = label
        self.unread = frozenset(needing)
        self._by_object = {}
        return [
            Fault(stored.key, "damaged" if stored.key in self.there else "missing", label, stored)
            for stored, label in needing.items()
        ]

    @property
    def server(self) -> str:
        """The owner's name, where what is asked is about WAL: a file set has none."""
        return self.owner.name

    def named(self) -> Iterator[Named]:
        """Every object with a digest, once, whoever shares it, but unread lists. Of what is expired only what is there:
        pruning may have begun."""
        seen: set[StoredObject] = {*self.unread}
        groups: set[Hashable] = set()
        for label, name, objects in self._groups():
            if name not in groups:
                groups.add(name)
                for stored in objects:
                    if stored not in seen and (label in self.backups or stored.key in self.there):
                        seen.add(stored)
                        yield Named(stored, label)
        for info in self.there.values():
            if info.key.startswith(layout.wal_prefix(self.server)) and (key := layout.parse_wal_key(info.key)):
                yield Named(StoredObject(key=info.key, size=info.size, sha256=key.sha256))

    def _groups(self) -> Iterator[tuple[str, Hashable, Sequence[StoredObject]]]:
        """Those of what exists before those of what is expired."""
        for label, backup in (*self.backups.items(), *self.expired.items()):
            yield from ((label, name, objects) for name, objects in backup.groups)

    def needing(self, fault: Fault) -> Sequence[str]:
        """The labels of all that names a faulty object; of a record its own. None for WAL."""
        if fault.label is None or fault.stored is None:
            return (fault.label,) if fault.label is not None else ()
        names = (self._by_object or self._learn_groups()).get(fault.stored, ())
        there = fault.stored.key in self.there
        labels = dict.fromkeys(label for name in names for label in self._by_group[name])
        return [label for label in labels if there or label in self.backups] or (fault.label,)

    def _learn_groups(self) -> Mapping[StoredObject, Sequence[Hashable]]:
        """When it is first asked which labels need an object, and again after lists were read. Threads may do it at
        once, so what says that it is done comes last."""
        by_object: dict[StoredObject, list[Hashable]] = defaultdict(list)
        by_group: dict[Hashable, list[str]] = defaultdict(list)
        for label, name, objects in self._groups():
            if name not in by_group:
                for stored in objects:
                    by_object[stored].append(name)
            by_group[name].append(label)
        self._by_group = by_group
        self._by_object = by_object
        return by_object

    @property
    def of_server(self) -> Mapping[str, BackupManifest]:
        """The backups, which say what WAL there is; a file set has none."""
        return {label: backup for label, backup in self.backups.items() if isinstance(backup, BackupManifest)}

    def labels(self) -> set[str]:
        """Of everything of which there is anything."""
        found = {self.owner.label_of(key) for key in self.there}
        return {label for label in found if label is not None}

    def systems(self) -> set[str]:
        prefix = layout.wal_prefix(self.server)
        return {layout.system_id_of(self.server, key) for key in self.there if key.startswith(prefix)}

    def segment_size(self, system_id: str) -> int | None:
        """As a backup of the system says, which proves it by its digest."""
        for backup in (*self.backups.values(), *self.expired.values()):
            if isinstance(backup, BackupManifest) and backup.system_id == system_id:
                return backup.segment_size
        return None

    def segments(self, system_id: str, size: int) -> dict[Timeline, dict[int, list[ObjectInfo]]]:
        """Objects of WAL segments, whole or their heads, by timeline and number."""
        found: dict[Timeline, dict[int, list[ObjectInfo]]] = {}
        for key, info in self.there.items():
            if key.startswith(WalLayout(self.server, system_id).prefix):
                parsed = layout.parse_wal_key(key)
                if parsed is not None and not is_history_name(parsed.file):
                    segment = WalSegment.parse(parsed.file, size)
                    found.setdefault(segment.timeline, {}).setdefault(segment.number, []).append(info)
        return found


def take_inventory(store: ObjectStore, owner: Owner[Labelled]) -> Inventory:
    """Raises what the store raises: a listing that is not whole is no inventory."""
    there = {info.key: info for info in store.list(owner.prefix)}
    inventory = Inventory(owner, there)
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="inventory") as pool:
        for _ in pool.map(lambda read: read(), list(_readings(store, inventory))):
            pass
    for system_id, size in inventory.described.items():
        if inventory.segment_size(system_id) not in (None, size):
            inventory.faults.append(Fault(WalLayout(owner.name, system_id).description, "damaged"))
    return inventory


def _readings(store: ObjectStore, inventory: Inventory) -> Iterator[Callable[[], None]]:
    for key in inventory.there:
        label = inventory.owner.label_of(key)
        if label is None:
            continue
        backup = inventory.owner.layout(label)
        if key == backup.manifest:
            yield partial(_read, store, inventory, key, label, _manifest)
        elif key == backup.expired and backup.manifest not in inventory.there:
            yield partial(_read, store, inventory, key, label, _expired)
        elif key.startswith(backup.keeps):
            yield partial(_read, store, inventory, key, label, _keep)
    for system_id in sorted(inventory.systems()):
        described = WalLayout(inventory.server, system_id).description
        if described in inventory.there:
            yield partial(_read, store, inventory, described, None, _description)
        else:
            inventory.faults.append(Fault(described, "missing"))


def _read(
    store: ObjectStore,
    inventory: Inventory,
    key: str,
    label: str | None,
    read: Callable[[ObjectStore, Inventory, str, str], None],
) -> None:
    try:
        read(store, inventory, key, label or "")
    except (BackupNotFound, ObjectNotFound):  # expired or pruned since the listing
        return
    except IntegrityError:
        inventory.faults.append(Fault(key, "damaged", label))
    except RepositoryError as error:
        inventory.not_understood.append(error.message)
        return
    inventory.records += 1
    inventory.record_bytes += inventory.there[key].size


def _manifest(store: ObjectStore, inventory: Inventory, key: str, label: str) -> None:
    data = read_all(store, key)
    inventory.backups[label] = inventory.owner.parse(data, store, label)
    if not is_as_sealed(data):
        raise IntegrityError(f"{key} on {store.name} was changed")


def _expired(store: ObjectStore, inventory: Inventory, key: str, label: str) -> None:
    owner = inventory.owner
    inventory.expired[label] = read_expired(store, owner.layout(label), owner.decode).manifest
    if not is_as_sealed(read_all(store, key)):
        raise IntegrityError(f"{key} on {store.name} was changed")


def _keep(store: ObjectStore, inventory: Inventory, key: str, label: str) -> None:
    whole_keep(store, key)


def _description(store: ObjectStore, inventory: Inventory, key: str, label: str) -> None:
    inventory.described[layout.system_id_of(inventory.server, key)] = described_size(read_all(store, key))


def record_is_whole(store: ObjectStore, inventory: Inventory, fault: Fault) -> bool:
    """At a second look. A record that is gone is a fault only where it has to be."""
    backup = inventory.owner.layout(fault.label or "")
    again = Inventory(inventory.owner, inventory.there)
    try:
        if fault.key == backup.manifest:
            _manifest(store, again, fault.key, backup.label)
        elif fault.key == backup.expired:
            _expired(store, again, fault.key, backup.label)
        elif fault.label is not None:
            _keep(store, again, fault.key, backup.label)
        else:
            _description(store, again, fault.key, "")
            ((system_id, size),) = again.described.items()
            return inventory.segment_size(system_id) in (None, size)
    except IntegrityError:
        return False
    except (BackupNotFound, ObjectNotFound):
        return fault.label is not None and fault.key != backup.manifest
    except RepositoryError:  # of a newer format
        return True
    return True


def whole_keep(store: ObjectStore, key: str) -> bytes:
    """A keep as it is stored. Raises `IntegrityError` when it cannot be understood."""
    try:
        read_keep(store, key)
    except RepositoryError as error:
        raise IntegrityError(error.message) from error
    data = read_all(store, key)
    if not is_as_sealed(data):
        raise IntegrityError(f"{key} on {store.name} was changed")
    return data


def described_size(data: bytes) -> int:
    """What a `wal.json` says: the size of a segment in bytes. Raises `IntegrityError`."""
    for size in _SEGMENT_SIZES:
        if description(size) == data:
            return size
    raise IntegrityError("no description of WAL")
