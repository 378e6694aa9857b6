"""Asking for what lies offline on a tier, for whatever is to be done with it: `dr store recall`. A restore asks for
what it needs by itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dr_pipelines.errors import BackupNotFound, RecallPending, UsageError
from dr_pipelines.progress import Progress
from dr_pipelines.repository.catalog import chain_of
from dr_pipelines.repository.labels import Labelled, list_homes
from dr_pipelines.repository.recall import Needed, Offline, Reading, bring_back, find_offline
from dr_pipelines.repository.repository import Repository
from dr_pipelines.site import Site

LATEST = "latest"


@dataclass(frozen=True)
class Recalled:
    """Of a server or a file set on a tier: `objects` that were looked at; of these `offline_objects` could not be read,
    `arriving_objects` of them asked for before. `is_here`: now all can be. `seconds`: the longest that they may take;
    `cost` of reading all that was looked at, in the currency of the plan's prices, or by rough list prices."""

    name: str
    tier: str
    objects: int
    offline_objects: int
    offline_bytes: int
    arriving_objects: int
    seconds: float
    cost: float
    is_here: bool


def recall_stored(
    site: Site,
    name: str,
    tier: str,
    progress: Progress,
    *,
    label: str | None = None,
    keys: Sequence[str] = (),
    wait: bool = False,
    urgent: bool = False,
    look_only: bool = False,
) -> Recalled:
    """All that a backup (with what it builds on) or a snapshot is restored from, but for WAL, and the objects of these
    keys. Without `wait` it ends when all was asked for. Raises `UsageError`, `BackupNotFound`, what the store
    raises."""
    repository = site.read_only_repository(name, tier)
    needed = [*_of_label(site, name, repository, label)] if label is not None else []
    needed += [_of_key(site, name, repository, key) for key in keys]
    if not needed:
        raise UsageError("nothing to recall was named", hint="name a label, or keys with --key.")
    reading = Reading(needed, {tier: site.terms(name, tier)})
    offline = find_offline(reading, urgent=urgent)
    is_here = not offline.objects
    if not look_only:
        is_here = _bring(site, offline, progress, wait=wait, urgent=urgent)
    return Recalled(
        name, tier, len(needed), len(offline.objects), offline.bytes, len(offline.arriving), offline.seconds,
        offline.cost, is_here,
    )  # fmt: skip


def _bring(site: Site, offline: Offline, progress: Progress, *, wait: bool, urgent: bool) -> bool:
    progress.phase("recall", offline.bytes)
    try:
        bring_back(offline, urgent=urgent, wait=wait, clock=site.clock, progress=progress, note=progress.note)
    except RecallPending:  # that is what was wanted
        return False
    return True


def _of_label(site: Site, name: str, repository: Repository, label: str) -> Iterator[Needed]:
    manifests: Sequence[Labelled] = site.owner(name).catalog(repository.store).manifests
    found = [one for one in manifests if label in (LATEST, one.label)]
    if not found:
        raise BackupNotFound(f"there is no {label} of {name} on {repository.tier}", hint="its label is in `dr list`.")
    for one in chain_of(found[-1], manifests):
        there = list_homes(repository.store, one)
        for stored in one.restored_from:
            if (info := there.get(stored.key)) is not None:
                yield Needed(repository.tier, repository.store, stored.key, info.size, info.storage_class)


def _of_key(site: Site, name: str, repository: Repository, key: str) -> Needed:
    if not key.startswith(site.owner(name).prefix):
        raise UsageError(f"{key} is no object of {name}", hint=f"its keys begin with {site.owner(name).prefix}.")
    info = repository.store.stat(key)
    return Needed(repository.tier, repository.store, key, info.size, info.storage_class)
