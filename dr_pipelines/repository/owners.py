"""A server or a file set: what labels on a tier are of, and where they and their manifests are found. So what is done
to every label (copying, scrubbing, looking at locks) is written once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic

from dr_pipelines.repository.archive_lists import with_archives
from dr_pipelines.repository.catalog import Catalog, parse_manifest, read_catalog, read_manifest
from dr_pipelines.repository.file_layout import SnapshotLayout, file_set_prefix, snapshot_of
from dr_pipelines.repository.labels import LabelCatalog, M_co
from dr_pipelines.repository.layout import BackupLayout, LabelLayout, label_of, server_prefix
from dr_pipelines.repository.manifest import BackupManifest, StoredObject, decode
from dr_pipelines.repository.snapshot_manifest import Snapshot, decode_snapshot, with_lists_unread
from dr_pipelines.repository.snapshots import SnapshotCatalog, parse_snapshot, read_snapshot, read_snapshots
from dr_pipelines.storage.base import ObjectStore


@dataclass(frozen=True)
class Owner(ABC, Generic[M_co]):
    """`name` is the plan's."""

    name: str

    @property
    @abstractmethod
    def prefix(self) -> str:
        """Everything of it."""

    @abstractmethod
    def layout(self, label: str) -> LabelLayout: ...

    @abstractmethod
    def label_of(self, key: str) -> str | None:
        """The label that a key lies under; None when it lies under none."""

    @abstractmethod
    def decode(self, data: bytes) -> M_co:
        """A manifest as it is stored; what it names by lists is not known before `whole` reads them. Raises
        `IntegrityError`, `pydantic.ValidationError`."""

    @abstractmethod
    def parse(self, data: bytes, store: ObjectStore, label: str) -> M_co:
        """As `decode`: of a label, as it was read from `store`. Raises `IntegrityError`, `RepositoryError`."""

    def whole(self, store: ObjectStore, manifests: Sequence[M_co]) -> Sequence[M_co]:
        """In the same order, each with all that it names; see `unread`. Raises what the store raises."""
        return manifests

    def unread(self, manifest: M_co) -> Sequence[StoredObject]:  # type: ignore[misc]
        """Lists of what a manifest needs that are not there, or are damaged: what else it needs is not known."""
        return ()

    @abstractmethod
    def read(self, store: ObjectStore, label: str) -> M_co:
        """Raises `BackupNotFound`, and as `parse`."""

    @abstractmethod
    def catalog(self, store: ObjectStore) -> LabelCatalog[M_co]:
        """Raises what the store raises."""


class ServerOwner(Owner[BackupManifest]):
    """Of backups."""

    @property
    def prefix(self) -> str:
        return server_prefix(self.name)

    def layout(self, label: str) -> BackupLayout:
        return BackupLayout(self.name, label)

    def label_of(self, key: str) -> str | None:
        return label_of(self.name, key)

    def decode(self, data: bytes) -> BackupManifest:
        return decode(data)

    def parse(self, data: bytes, store: ObjectStore, label: str) -> BackupManifest:
        return parse_manifest(data, store, self.name, label)

    def read(self, store: ObjectStore, label: str) -> BackupManifest:
        return read_manifest(store, self.name, label)

    def catalog(self, store: ObjectStore) -> Catalog:
        return read_catalog(store, self.name)


class FileSetOwner(Owner[Snapshot]):
    """Of snapshots."""

    @property
    def prefix(self) -> str:
        return file_set_prefix(self.name)

    def layout(self, label: str) -> SnapshotLayout:
        return SnapshotLayout(self.name, label)

    def label_of(self, key: str) -> str | None:
        return snapshot_of(self.name, key)

    def decode(self, data: bytes) -> Snapshot:
        return with_lists_unread(decode_snapshot(data))

    def parse(self, data: bytes, store: ObjectStore, label: str) -> Snapshot:
        return with_lists_unread(parse_snapshot(data, store, self.name, label))

    def whole(self, store: ObjectStore, manifests: Sequence[Snapshot]) -> Sequence[Snapshot]:
        return with_archives(store, manifests)

    def unread(self, manifest: Snapshot) -> Sequence[StoredObject]:
        return [one.stored for one in manifest.unread if one.stored is not None]

    def read(self, store: ObjectStore, label: str) -> Snapshot:
        return read_snapshot(store, self.name, label)

    def catalog(self, store: ObjectStore) -> SnapshotCatalog:
        return read_snapshots(store, self.name)
