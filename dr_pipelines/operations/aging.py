"""Packs, of backups and of files, and WAL grow old, and move to the colder storage classes of the plan."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from dr_pipelines.lsn import WalSegment
from dr_pipelines.operations.retention_look import FileSetLook, ServerLook, look
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
from dr_pipelines.replication.file_aging import plan_file_aging
from dr_pipelines.repository.catalog import Catalog
from dr_pipelines.repository.layout import Role, parse_wal_key, role_of, system_id_of, wal_prefix
from dr_pipelines.retention.decisions import Retained
from dr_pipelines.retention.guards import Guard
from dr_pipelines.site import Site
from dr_pipelines.storage.base import ObjectStore

_STOPS_IT = frozenset({"incident", "problems", "clock", "silence"})
"""Guards of retention for days on which recoveries are near, or nobody knows how old anything is."""


@dataclass(frozen=True)
class AgingReport:
    """What is to move on a tier of a server or file set (`name`), and what was moved (None: nothing was tried, because
    of `guards` or for a look only)."""

    name: str
    tier: str
    plan: AgingPlan
    aged: Aged | None = None
    guards: tuple[Guard, ...] = ()


def age_storage(site: Site, name: str, tier: str, progress: Progress, *, dry_run: bool = False) -> AgingReport:
    """Move what is old enough of a server or a file set to the classes that the plan names for the tier's store. Where
    it names none, nothing is read. Raises what the tier's store raises; what it was stopped at can be gone on with."""
    classes = _classes(site.terms(name, tier))
    if not classes:
        return AgingReport(name, tier, AgingPlan(()))
    repository = site.read_only_repository(name, tier) if dry_run else site.bare_repository(name, tier)
    seen = look(site, name, tier, repository, ask_clock=not dry_run)
    rules = AgingRules(
        classes,
        repository.store.capabilities.storage_classes,
        is_cold_by_design=tier == "archive" and len(classes) == 1 and classes[0].offline,
    )
    plan = _files(seen, rules) if isinstance(seen, FileSetLook) else _server(seen, rules)
    stops = tuple(guard for guard in seen.guards if guard.name in _STOPS_IT)
    if dry_run or stops:
        return AgingReport(name, tier, plan, guards=stops)
    return AgingReport(name, tier, plan, apply_aging(plan, repository.store, progress))


def _server(seen: ServerLook, rules: AgingRules) -> AgingPlan:
    lasting = Lasting(_until(seen.planned), seen.planned.at_hand, seen.limits.recovery_window)
    wal = _whole_wal(seen.store, seen.name, seen.here.catalog)
    return plan_aging(seen.here.catalog, wal, rules, lasting, now=seen.planned.at)


def _files(seen: FileSetLook, rules: AgingRules) -> AgingPlan:
    """The primary serves a restore of the newest snapshot at once, whatever is cold on the tiers behind it."""
    here = seen.here
    newest = next((one.label for one in reversed(here.catalog.snapshots) if one.label in here.restorable), None)
    at_hand = frozenset([newest] if newest is not None and here.tier == "primary" else [])
    return plan_file_aging(here.catalog, rules, Lasting(_until(seen.planned), at_hand), now=seen.planned.at)


def _until(planned: Retained) -> dict[str, datetime | None]:
    return {found.label: found.until for found in planned.decisions if found.keep}


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
