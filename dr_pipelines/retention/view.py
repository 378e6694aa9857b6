"""What one listing of a tier shows of a server: what the planner decides from. Deciding does not belong here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from dr_pipelines.repository.catalog import Catalog
from dr_pipelines.repository.layout import BackupKind, BackupLayout
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.repository.marks import Keep
from dr_pipelines.repository.repository import Repository
from dr_pipelines.retention.wal import SystemWal, list_wal, own_wal


@dataclass(frozen=True)
class Unfinished:
    """A label with objects and no manifest: being taken, being copied, or garbage. `touched`: its newest object."""

    label: str
    touched: datetime
    stored_bytes: int


@dataclass(frozen=True)
class TierView:
    """What a tier holds of a server. `wal` by system id."""

    tier: str
    catalog: Catalog
    wal: Mapping[str, SystemWal] = field(default_factory=dict)
    unfinished: tuple[Unfinished, ...] = ()

    @cached_property
    def by_label(self) -> Mapping[str, BackupManifest]:
        return {backup.label: backup for backup in self.catalog.backups}

    @cached_property
    def restorable(self) -> frozenset[str]:
        """Labels of the backups that a restore can use: whole, and their own WAL is here."""
        return frozenset(label for label, trouble in self.troubles.items() if trouble is None)

    @cached_property
    def troubles(self) -> Mapping[str, str | None]:
        """By label, why a backup cannot be restored from this tier; None when it can."""
        return {backup.label: self._trouble(backup) for backup in self.catalog.backups}

    def keeps(self, label: str, now: datetime) -> list[Keep]:
        marks = self.catalog.marks.get(label)
        return [keep for keep in marks.keeps.values() if keep.holds(now)] if marks else []

    def _trouble(self, backup: BackupManifest) -> str | None:
        system = self.wal.get(backup.system_id)
        if (trouble := self.catalog.trouble(backup)) is not None:
            return trouble
        if system is None or not all(system.holds(needed) for needed in own_wal(backup)):
            return f"the WAL that it needs is not on {self.tier}"
        return None


def view_of(repository: Repository, server: str) -> TierView:
    """Raises what the store raises: a listing that is not whole is no view."""
    # What is committed between the two listings has WAL of now, which is never touched.
    catalog = repository.catalog(server)
    sizes = {backup.system_id: backup.segment_size for backup in catalog.backups}
    wal = list_wal(repository.store, server, sizes)
    unfinished = tuple(
        found for label in catalog.unfinished if (found := _unfinished(repository, server, label)) is not None
    )
    return TierView(repository.tier, catalog, wal, unfinished)


def _unfinished(repository: Repository, server: str, label: str) -> Unfinished | None:
    """None when it is gone since."""
    objects = [*repository.store.list(BackupLayout(server, label).prefix)]
    if not objects:
        return None
    return Unfinished(label, max(info.modified for info in objects), sum(info.size for info in objects))


def is_full(backup: BackupManifest) -> bool:
    return backup.kind is BackupKind.FULL
