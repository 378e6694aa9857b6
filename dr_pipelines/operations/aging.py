"""Packs and WAL grow old, and move to the colder storage classes of the plan."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dr_pipelines.lsn import WalSegment
from dr_pipelines.operations.retention import retention_of
from dr_pipelines.plan.classes import ORDINARY
from dr_pipelines.plan.stores import LocalStorePlan
from dr_pipelines.plan.terms import StorageTerms
from dr_pipelines.progress import Progress
from dr_pipelines.replication.aging import (
    Aged,
    AgedClass,
    AgedWal,
    AgingPlan,
    AgingRules,
    Lasting,
    apply_aging,
    plan_aging,
)
from dr_pipelines.repository.catalog import Catalog
from dr_pipelines.repository.layout import Role, parse_wal_key, role_of, system_id_of, wal_prefix
from dr_pipelines.retention.guards import Guard
from dr_pipelines.site import Site
from dr_pipelines.storage.base import ObjectStore

_STOPS_IT = frozenset({"incident", "problems", "clock", "silence"})
"""Guards of retention for days on which recoveries are near, or nobody knows how old anything is."""


@dataclass(frozen=True)
class AgingReport:
    """What is to move on a tier of a server, and what was moved (None: nothing was tried, because of `guards` or for a
    look only)."""

    server: str
    tier: str
    plan: AgingPlan
    aged: Aged | None = None
    guards: tuple[Guard, ...] = ()


def age_storage(site: Site, server: str, tier: str, progress: Progress, *, dry_run: bool = False) -> AgingReport:
    """Move what is old enough to the classes that the plan names for the tier's store. Where it names none, nothing is
    read. Raises what the tier's store raises; what it was stopped at can be gone on with."""
    classes = _classes(site.terms(server, tier))
    if not classes:
        return AgingReport(server, tier, AgingPlan(()))
    repository = site.read_only_repository(server, tier) if dry_run else site.bare_repository(server, tier)
    view, retention, guards = retention_of(site, server, tier, repository, ask_clock=not dry_run)
    rules = AgingRules(
        classes,
        repository.store.capabilities.storage_classes,
        site.plan_of(server).retention.on(tier).recovery_window,
        is_cold_by_design=tier == "archive" and len(classes) == 1 and classes[0].offline,
    )
    lasting = Lasting({found.label: found.until for found in retention.decisions if found.keep}, retention.at_hand)
    wal = _whole_wal(repository.store, server, view.catalog)
    plan = plan_aging(view.catalog, wal, rules, lasting, now=retention.at)
    stops = tuple(guard for guard in guards if guard.name in _STOPS_IT)
    if dry_run or stops:
        return AgingReport(server, tier, plan, guards=stops)
    return AgingReport(server, tier, plan, apply_aging(plan, repository.store, progress))


def _classes(terms: StorageTerms) -> tuple[AgedClass, ...]:
    """Of the plan, but for the one that everything is in anyway."""
    store = terms.store
    if store is None or isinstance(store, LocalStorePlan):
        return ()
    return tuple(
        AgedClass(aged.name, aged.after, terms.may_be_offline(aged.name), terms.minimum(aged.name))
        for aged in store.classes
        if aged.name != ORDINARY[store.type]
    )


def _whole_wal(store: ObjectStore, server: str, catalog: Catalog) -> Mapping[str, Sequence[AgedWal]]:
    """Of the systems that have backups, by their id."""
    sizes = {backup.system_id: backup.segment_size for backup in catalog.backups}
    found: dict[str, list[AgedWal]] = defaultdict(list)
    for info in store.list(wal_prefix(server)):
        system_id, key = system_id_of(server, info.key), parse_wal_key(info.key)
        if key is not None and system_id in sizes and role_of(info.key) is Role.BULK:
            segment = WalSegment.parse(key.file, sizes[system_id])
            found[system_id].append(AgedWal(segment, info.key, info.size, info.storage_class, info.modified))
    return found
