"""A server or a file set: what labels on a tier are of, and where they and their manifests are found. So what is done
to every label (copying, scrubbing, looking at locks) is written once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Generic

from dr_pipelines.repository.catalog import Catalog, parse_manifest, read_catalog, read_manifest
from dr_pipelines.repository.file_layout import SnapshotLayout, file_set_prefix, snapshot_of
from dr_pipelines.repository.labels import LabelCatalog, M_co
from dr_pipelines.repository.layout import BackupLayout, LabelLayout, label_of, server_prefix
from dr_pipelines.repository.manifest import BackupManifest, decode
from dr_pipelines.repository.snapshot_manifest import SnapshotManifest, decode_snapshot
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
        """A manifest as it is stored. Raises `IntegrityError`, `pydantic.ValidationError`."""

    @abstractmethod
    def parse(self, data: bytes, store: ObjectStore, label: str) -> M_co:
        """The manifest of a label, as it was read from `store`. Raises `IntegrityError`, `RepositoryError`."""

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


class FileSetOwner(Owner[SnapshotManifest]):
    """Of snapshots."""

    @property
    def prefix(self) -> str:
        return file_set_prefix(self.name)

    def layout(self, label: str) -> SnapshotLayout:
        return SnapshotLayout(self.name, label)

    def label_of(self, key: str) -> str | None:
        return snapshot_of(self.name, key)

    def decode(self, data: bytes) -> SnapshotManifest:
        return decode_snapshot(data)

    def parse(self, data: bytes, store: ObjectStore, label: str) -> SnapshotManifest:
        return parse_snapshot(data, store, self.name, label)

    def read(self, store: ObjectStore, label: str) -> SnapshotManifest:
        return read_snapshot(store, self.name, label)

    def catalog(self, store: ObjectStore) -> SnapshotCatalog:
        return read_snapshots(store, self.name)
