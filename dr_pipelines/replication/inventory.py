"""What a tier holds of a server, and what each object must be: by the manifest that names it, by its own name, or
by the digest or form that it carries itself. One listing and every small record is read; no key is needed.

Reading the rest and what to do about a fault does not belong here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from dr_pipelines.errors import BackupNotFound, IntegrityError, ObjectNotFound, RepositoryError
from dr_pipelines.lsn import Timeline, WalSegment, is_history_name
from dr_pipelines.repository import layout
from dr_pipelines.repository.catalog import parse_manifest
from dr_pipelines.repository.layout import BackupLayout, WalLayout
from dr_pipelines.repository.manifest import BackupManifest, StoredObject, decode
from dr_pipelines.repository.marks import read_expired, read_keep
from dr_pipelines.repository.sealed import is_as_sealed
from dr_pipelines.repository.wal import description
from dr_pipelines.storage.base import ObjectInfo, ObjectStore, read_all

_THREADS = 8
_SEGMENT_SIZES = tuple(1 << power for power in range(20, 31))
"""What `initdb --wal-segsize` takes, in bytes."""


@dataclass(frozen=True, slots=True)
class Named:
    """An object and what it must be. `label` is its backup's; None for WAL."""

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
    """`there`: everything of the server that was listed. `backups` are committed, `expired` can still be undone;
    `described`: the segment size of each system's WAL;
    `faults` of records; `not_understood`: why a record of a newer format was not looked into."""

    server: str
    there: Mapping[str, ObjectInfo]
    backups: dict[str, BackupManifest] = field(default_factory=dict)
    expired: dict[str, BackupManifest] = field(default_factory=dict)
    records: int = 0
    record_bytes: int = 0
    described: dict[str, int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    not_understood: list[str] = field(default_factory=list)

    def named(self) -> Iterator[Named]:
        """Every object with a digest. Of an expired backup only what is there: pruning may have begun."""
        for label, backup in self.backups.items():
            yield from (Named(stored, label) for stored in backup.objects)
        for label, backup in self.expired.items():
            yield from (Named(stored, label) for stored in backup.objects if stored.key in self.there)
        for info in self.there.values():
            if info.key.startswith(layout.wal_prefix(self.server)) and (key := layout.parse_wal_key(info.key)):
                yield Named(StoredObject(key=info.key, size=info.size, sha256=key.sha256))

    def labels(self) -> set[str]:
        """Of every backup of which there is anything."""
        found = {layout.label_of(self.server, key) for key in self.there}
        return {label for label in found if label is not None}

    def systems(self) -> set[str]:
        prefix = layout.wal_prefix(self.server)
        return {layout.system_id_of(self.server, key) for key in self.there if key.startswith(prefix)}

    def segment_size(self, system_id: str) -> int | None:
        """As a backup of the system says, which proves it by its digest."""
        known = [*self.backups.values(), *self.expired.values()]
        return next((backup.segment_size for backup in known if backup.system_id == system_id), None)

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


def take_inventory(store: ObjectStore, server: str) -> Inventory:
    """Raises what the store raises: a listing that is not whole is no inventory."""
    there = {info.key: info for info in store.list(layout.server_prefix(server))}
    inventory = Inventory(server, there)
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="inventory") as pool:
        for _ in pool.map(lambda read: read(), list(_readings(store, inventory))):
            pass
    for system_id, size in inventory.described.items():
        if inventory.segment_size(system_id) not in (None, size):
            inventory.faults.append(Fault(WalLayout(server, system_id).description, "damaged"))
    return inventory


def _readings(store: ObjectStore, inventory: Inventory) -> Iterator[Callable[[], None]]:
    for key in inventory.there:
        label = layout.label_of(inventory.server, key)
        if label is None:
            continue
        backup = BackupLayout(inventory.server, label)
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
    inventory.backups[label] = parse_manifest(data, store, inventory.server, label)
    if not is_as_sealed(data):
        raise IntegrityError(f"{key} on {store.name} was changed")


def _expired(store: ObjectStore, inventory: Inventory, key: str, label: str) -> None:
    inventory.expired[label] = read_expired(store, BackupLayout(inventory.server, label), decode).manifest
    if not is_as_sealed(read_all(store, key)):
        raise IntegrityError(f"{key} on {store.name} was changed")


def _keep(store: ObjectStore, inventory: Inventory, key: str, label: str) -> None:
    whole_keep(store, key)


def _description(store: ObjectStore, inventory: Inventory, key: str, label: str) -> None:
    inventory.described[layout.system_id_of(inventory.server, key)] = described_size(read_all(store, key))


def record_is_whole(store: ObjectStore, inventory: Inventory, fault: Fault) -> bool:
    """At a second look. A record that is gone is a fault only where it has to be."""
    backup = BackupLayout(inventory.server, fault.label or "")
    again = Inventory(inventory.server, inventory.there)
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
