"""A tier and where it is copied from, both read whole: what is due there, of a server or of a file set."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic

from dr_pipelines.errors import BackupNotFound, RepositoryError, UsageError
from dr_pipelines.plan.file_sets import FileReplicationPlan
from dr_pipelines.plan.policies import TierReplicationPlan
from dr_pipelines.replication.policy import Due, Keeps, due_backups
from dr_pipelines.replication.wal_policy import WalDue, wal_due, wal_need
from dr_pipelines.repository.catalog import Catalog, chain_of, in_order
from dr_pipelines.repository.labels import LabelCatalog, M
from dr_pipelines.repository.layout import wal_prefix
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.repository.owners import FileSetOwner, Owner
from dr_pipelines.repository.repository import Repository
from dr_pipelines.repository.snapshot_manifest import Snapshot
from dr_pipelines.repository.snapshots import SnapshotCatalog
from dr_pipelines.retention.planner import kept_labels
from dr_pipelines.retention.snapshots import kept_snapshots, rules_on
from dr_pipelines.retention.wal import wal_among
from dr_pipelines.site import Site

SentPlan = TierReplicationPlan | FileReplicationPlan


def sent_to(site: Site, name: str, tier: str) -> SentPlan | None:
    """What the plan sends of a server or a file set to a tier; None to the primary."""
    if name in site.plan.file_storage:
        return site.file_set(name).sent_to(tier)
    return site.plan_of(name).replication.of(tier)


def replicated_tiers(site: Site, name: str) -> tuple[str, ...]:
    """Of a server or a file set: those that copies are sent to."""
    sent = ((tier, sent_to(site, name, tier)) for tier in site.tiers(name))
    return tuple(tier for tier, plan in sent if plan is not None and plan.send != "nothing")


def sides_of(site: Site, name: str, tier: str, source: str) -> ServerSides | FileSetSides:
    """Raises `UsageError`, and what a store raises."""
    owner = site.owner(name)
    if isinstance(owner, FileSetOwner):
        return FileSetSides(site, owner, tier, source)
    return ServerSides(site, owner, tier, source)


class _Sides(ABC, Generic[M]):
    """`here` and `there` are what the source and the target hold."""

    here: LabelCatalog[M]
    there: LabelCatalog[M]

    def __init__(self, site: Site, owner: Owner[M], tier: str, source: str) -> None:
        # A primary that was lost whole is made anew and filled from a tier that was not.
        plan = TierReplicationPlan() if tier == "primary" else sent_to(site, owner.name, tier)
        if plan is None or tier == source:
            raise UsageError(
                f"nothing is copied from {source} to {tier}",
                hint=f"the tiers that copies are sent to are: "
                f"{', '.join(replicated_tiers(site, owner.name)) or 'none'}.",
            )
        self.plan: SentPlan = plan
        self._site, self.owner, self.tier = site, owner, tier
        self.source, self.target = (site.bare_repository(owner.name, name) for name in (source, tier))
        with ThreadPoolExecutor(2, thread_name_prefix="catalogs") as pool:
            self.here, self.there = pool.map(self._read, (self.source, self.target))

    def _read(self, repository: Repository) -> LabelCatalog[M]:
        repository.check_format()
        return self.owner.catalog(repository.store)

    @property
    @abstractmethod
    def _keeps(self) -> Keeps[M]:
        """What the tier's retention keeps."""

    def due(self) -> tuple[Due[M], ...]:
        return due_backups(self.plan.send, self.here, self.there, now=self._site.clock.now(), keeps=self._keeps)

    def asked(self, labels: Sequence[str]) -> tuple[Due[M], ...]:
        """What a person wants there, whatever the plan sends, with the chains that it needs."""
        by_label = {backup.label: backup for backup in self.here.manifests}
        for label in labels:
            if label not in by_label:
                raise BackupNotFound(
                    f"no {self.kind} {label!r} of {self.owner.name} on {self.source.tier}",
                    hint=self._listing.format(name=self.owner.name, tier=self.source.tier),
                )
            if any(gone.manifest.label == label for gone in self.there.expired):
                raise RepositoryError(
                    f"{label} was expired from {self.tier}",
                    hint=f"`dr retention undo` brings it back on {self.tier}.",
                )
        wanted = {link.label for label in labels for link in chain_of(by_label[label], by_label)}
        whole = {backup.label for backup in self.there.manifests if not self.there.marks[backup.label].missing}
        return tuple(
            Due(backup, backup.finished_at)
            for backup in self.here.manifests
            if backup.label in wanted and backup.label not in whole
        )

    @abstractmethod
    def wal_due(self, due: Sequence[Due[Any]]) -> WalDue:
        """For what is on the tier and what is on its way."""

    kind: str
    _listing: str


class ServerSides(_Sides[BackupManifest]):
    """Of a server."""

    here: Catalog
    there: Catalog
    kind = "backup"
    _listing = "`dr list {name} --tier {tier}` shows those that there are."

    @property
    def _rules(self) -> Any:
        return self._site.plan_of(self.owner.name).retention.on(self.tier)

    @property
    def _keeps(self) -> Keeps[BackupManifest]:
        rules, now = self._rules, self._site.clock.now()
        return lambda backups: kept_labels(in_order(backups), rules, now)

    def wal_due(self, due: Sequence[Due[Any]]) -> WalDue:
        server = self.owner.name
        held = {backup.label: backup for backup in (*self.there.backups, *(one.backup for one in due))}
        with ThreadPoolExecutor(2, thread_name_prefix="listings") as pool:
            listed = pool.map(
                lambda repository: [*repository.store.list(wal_prefix(server))], (self.source, self.target)
            )
            here, there = listed
            gone = (expired.manifest for expired in (*self.here.expired, *self.there.expired))
            known = (*held.values(), *self.here.backups, *gone)
            sizes = {backup.system_id: backup.segment_size for backup in known}
            wal = wal_among(here, server, sizes.get)
            backups, now = in_order(held.values()), self._site.clock.now()
            need = wal_need(self.plan.send, backups, self._rules, now=now, wal=wal)
            return wal_due(server, here, there, need)


class FileSetSides(_Sides[Snapshot]):
    """Of a file set, which has no WAL."""

    here: SnapshotCatalog
    there: SnapshotCatalog
    kind = "snapshot"
    _listing = "`dr files list {name} --tier {tier}` shows those that there are."

    @property
    def _keeps(self) -> Keeps[Snapshot]:
        rules, now = rules_on(self._site.file_set(self.owner.name), self.tier), self._site.clock.now()
        return lambda some: kept_snapshots(sorted(some, key=lambda one: one.started_at), rules, now)

    def wal_due(self, due: Sequence[Due[Any]]) -> WalDue:
        return WalDue()
