"""What one listing of a tier shows of a server or a file set: what the planners decide from. Deciding does not belong
here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Generic, Protocol, TypeVar

from dr_pipelines.repository.catalog import Catalog
from dr_pipelines.repository.file_layout import SnapshotLayout, archive_begun, parse_snapshot_label
from dr_pipelines.repository.labels import Labelled
from dr_pipelines.repository.layout import BackupKind, BackupLayout, LabelLayout
from dr_pipelines.repository.manifest import BackupManifest, decode
from dr_pipelines.repository.marks import Expired, Keep, Marks
from dr_pipelines.repository.repository import Repository
from dr_pipelines.repository.snapshot_manifest import Snapshot, decode_snapshot, with_lists_unread
from dr_pipelines.repository.snapshots import SnapshotCatalog, read_snapshots
from dr_pipelines.retention.wal import SystemWal, list_wal, own_wal
from dr_pipelines.storage.base import ObjectInfo, ObjectStore

M = TypeVar("M", bound=Labelled)


@dataclass(frozen=True)
class Unfinished:
    """A label with objects and no manifest: being taken, being copied, or garbage. `touched`: its newest object;
    `claimed`: somebody has said that it is his."""

    label: str
    touched: datetime
    stored_bytes: int
    claimed: bool = True
    objects: tuple[ObjectInfo, ...] = ()


class Known(Protocol[M]):
    """What retention asks a catalog."""

    @property
    def manifests(self) -> Sequence[M]: ...

    @property
    def marks(self) -> Mapping[str, Marks]: ...

    @property
    def expired(self) -> Sequence[Expired[M]]: ...

    @property
    def problems(self) -> Sequence[str]: ...

    @property
    def lost(self) -> frozenset[str]: ...

    def trouble(self, manifest: M, /) -> str | None: ...

    def failed_validation(self, manifest: M, /) -> str | None: ...


class View(Generic[M], ABC):
    """What a tier holds of something, whatever it is."""

    tier: str
    unfinished: tuple[Unfinished, ...]

    @property
    @abstractmethod
    def known(self) -> Known[M]: ...

    @abstractmethod
    def decode(self, data: bytes) -> M:
        """A manifest as it is stored. Raises `IntegrityError`."""

    @cached_property
    def by_label(self) -> Mapping[str, M]:
        return {found.label: found for found in self.known.manifests}

    @cached_property
    def restorable(self) -> frozenset[str]:
        """Labels of what a restore can use: all that it needs is here."""
        return frozenset(label for label, trouble in self.troubles.items() if trouble is None)

    @cached_property
    def troubles(self) -> Mapping[str, str | None]:
        """By label, why it cannot be restored from this tier; None when it can."""
        return {found.label: self._trouble(found) for found in self.known.manifests}

    def keeps(self, label: str, now: datetime) -> list[Keep]:
        marks = self.known.marks.get(label)
        return [keep for keep in marks.keeps.values() if keep.holds(now)] if marks else []

    def _trouble(self, found: M) -> str | None:
        return self.known.trouble(found)


@dataclass(frozen=True)
class TierView(View[BackupManifest]):
    """What a tier holds of a server. `wal` by system id."""

    tier: str
    catalog: Catalog
    wal: Mapping[str, SystemWal] = field(default_factory=dict)
    unfinished: tuple[Unfinished, ...] = ()

    @property
    def known(self) -> Catalog:
        return self.catalog

    def decode(self, data: bytes) -> BackupManifest:
        return decode(data)

    def _trouble(self, found: BackupManifest) -> str | None:
        system = self.wal.get(found.system_id)
        if (trouble := self.catalog.trouble(found)) is not None:
            return trouble
        if system is None or not all(system.holds(needed) for needed in own_wal(found)):
            return f"the WAL that it needs is not on {self.tier}"
        return None


@dataclass(frozen=True)
class SnapshotView(View[Snapshot]):
    """What a tier holds of a file set."""

    tier: str
    catalog: SnapshotCatalog
    unfinished: tuple[Unfinished, ...] = ()

    @property
    def known(self) -> SnapshotCatalog:
        return self.catalog

    def decode(self, data: bytes) -> Snapshot:
        return with_lists_unread(decode_snapshot(data))

    @cached_property
    def put_by(self) -> Mapping[datetime, datetime]:
        """When the newest pack reached the tier, or list, of all that one snapshot put, by when that was begun."""
        newest: dict[datetime, datetime] = {}
        put = [*self.catalog.archives.items(), *((name, (info,)) for name, info in self.catalog.lists.items())]
        for name, infos in put:
            by = archive_begun(name)
            newest[by] = max([newest.get(by, by), *(info.modified for info in infos)])
        return newest


def view_of(repository: Repository, server: str) -> TierView:
    """Raises what the store raises: a listing that is not whole is no view."""
    # What is committed between the two listings has WAL of now, which is never touched.
    catalog = repository.catalog(server)
    sizes = {backup.system_id: backup.segment_size for backup in catalog.backups}
    wal = list_wal(repository.store, server, sizes)
    unfinished = tuple(
        found
        for label in catalog.unfinished
        if (found := _unfinished(repository.store, BackupLayout(server, label))) is not None
    )
    return TierView(repository.tier, catalog, wal, unfinished)


def snapshot_view_of(repository: Repository, file_set: str) -> SnapshotView:
    """Raises as `view_of`."""
    catalog = read_snapshots(repository.store, file_set)
    unfinished = (
        _unfinished(repository.store, SnapshotLayout(file_set, label), with_objects=True)
        for label in catalog.unfinished
    )
    return SnapshotView(repository.tier, catalog, tuple(found for found in unfinished if found is not None))


def begun(unfinished: Unfinished) -> datetime:
    """When an unfinished snapshot was begun."""
    return parse_snapshot_label(unfinished.label)


def _unfinished(store: ObjectStore, layout: LabelLayout, *, with_objects: bool = False) -> Unfinished | None:
    """None when it is gone since."""
    objects = [*store.list(layout.prefix)]
    if not objects:
        return None
    return Unfinished(
        layout.label,
        max(info.modified for info in objects),
        sum(info.size for info in objects),
        any(info.key.startswith(layout.claims) for info in objects),
        tuple(objects) if with_objects else (),
    )


def is_full(backup: BackupManifest) -> bool:
    return backup.kind is BackupKind.FULL
