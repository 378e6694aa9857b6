"""Packs that a restore of files needs and that are offline: which, where, what they take and cost; and a restore that
asks for them, and goes on with the others while it waits.

Asking and waiting is `repository/recall.py`'s, as for a server.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

from dr_pipelines.clock import Clock
from dr_pipelines.errors import DrError, ObjectNotFound
from dr_pipelines.files.restore_plan import Restoring, Unit, packs_of
from dr_pipelines.files.table import shown
from dr_pipelines.files.tiers import Tiers
from dr_pipelines.plan.terms import StorageTerms
from dr_pipelines.progress import Progress, Silent
from dr_pipelines.repository.manifest import StoredObject
from dr_pipelines.repository.recall import Needed, Offline, Reading, availabilities, bring_back, find_offline
from dr_pipelines.repository.repository import Repository
from dr_pipelines.repository.snapshots import list_archives
from dr_pipelines.storage.base import Availability, ObjectInfo

_FEW = 64
"""So many packs are looked at one by one; of more, all that the file set has are listed."""
_ABREAST = 16
_NAMED = 3


@dataclass(frozen=True)
class Recalling:
    """What is done about packs that are offline: they are asked for (`urgent`: as fast as the service can), and with
    `wait` the restore goes on when they are there; otherwise it ends. `terms` are those of each tier's store."""

    terms: Mapping[str, StorageTerms] = field(default_factory=dict)
    wait: bool = False
    urgent: bool = False


ASKING = Recalling()


def may_be_offline(tiers: Tiers) -> bool:
    """Whether anything can be, by what the stores can do."""
    return any(repository.store.capabilities.storage_classes for repository in tiers.repositories)


def reading(tiers: Tiers, packs: Sequence[StoredObject], terms: Mapping[str, StorageTerms]) -> Reading:
    """Packs, each on the first tier that has it at hand, else on the first from which it is on its way, else on the
    first that has it at all. What is nowhere is not among them: the restore names it."""
    found: dict[str, list[Needed]] = {}
    left = [*packs] if may_be_offline(tiers) else []
    for repository in tiers.repositories:
        there = _there(tiers, repository, left)
        doubtful = []
        for stored in left:
            info = there.get(stored.key)
            if info is None or info.size != stored.size:
                doubtful.append(stored)
                continue
            needed = Needed(repository.tier, repository.store, stored.key, stored.size, info.storage_class)
            if terms.get(repository.tier, StorageTerms()).may_be_offline(info.storage_class):
                doubtful.append(stored)
                found.setdefault(stored.key, []).append(needed)
            else:
                found[stored.key] = [needed]
        left = doubtful
    return Reading(_nearest([*found.values()]), terms)


def _nearest(found: Sequence[Sequence[Needed]]) -> list[Needed]:
    """Of each, where it can be read first. Only what lies in offline classes of several tiers is asked about."""
    order = (Availability.ONLINE, Availability.ARRIVING, Availability.OFFLINE)
    several = [needed for places in found if len(places) > 1 for needed in places]
    ranks = {needed: order.index(state) for needed, state in availabilities(several)}
    return [min(places, key=lambda needed: ranks.get(needed, 0)) for places in found]


def _there(tiers: Tiers, repository: Repository, packs: Sequence[StoredObject]) -> Mapping[str, ObjectInfo]:
    """By key. A tier that does not answer has nothing to recall."""
    if not packs:
        return {}
    try:
        if len(packs) > _FEW:
            archives, _ = list_archives(repository.store, tiers.file_set)
            return {info.key: info for infos in archives.values() for info in infos}
        with ThreadPoolExecutor(_ABREAST, thread_name_prefix="look") as pool:
            seen = pool.map(lambda stored: _stat(repository, stored.key), packs)
            return {info.key: info for info in seen if info is not None}
    except DrError as error:
        tiers.tell(f"what {repository.tier} has offline cannot be seen: {error.message}")
        return {}


def _stat(repository: Repository, key: str) -> ObjectInfo | None:
    try:
        return repository.store.stat(key)
    except ObjectNotFound:
        return None


class Recall:
    """Of one restore: what of its plan is offline."""

    def __init__(self, tiers: Tiers, plan: Restoring, recalling: Recalling) -> None:
        self._tiers, self._plan, self._recalling = tiers, plan, recalling
        self._packs = [packs_of(unit, plan.contents) for unit in plan.units]
        self.packs = tuple({stored.key: stored for packs in self._packs for stored in packs}.values())
        self._reading = reading(tiers, self.packs, recalling.terms)

    def find(self) -> Offline:
        """Raises what the stores raise."""
        return find_offline(self._reading, urgent=self._recalling.urgent)

    def files_in(self, objects: Collection[Needed]) -> list[bytes]:
        """Paths of which something lies in them."""
        away = {needed.key for needed in objects}
        found: list[bytes] = []
        for unit, packs in zip(self._plan.units, self._packs, strict=True):
            if not away.isdisjoint(stored.key for stored in packs):
                found += self._plan.contents["path"].slice(unit.start, unit.stop - unit.start).to_pylist()
        return found

    def bring_back(self, *, clock: Clock, progress: Progress) -> None:
        """All of it, for whoever reads it thereafter. Raises as `run`."""
        self.run(lambda units: None, clock=clock, progress=progress)

    def run(self, unpack: Callable[[Sequence[Unit]], None], *, clock: Clock, progress: Progress) -> None:
        """All units, those that are at hand first. Raises `RecallPending` before anything is unpacked where it is not
        waited for, `StoreError` when something could not be asked for, and what `unpack` raises."""
        offline = self.find()
        if offline.objects:
            self._tell(offline, progress)
        left = [*zip(self._plan.units, self._packs, strict=True)]

        def unpack_those_there(away: Sequence[Needed]) -> None:
            nonlocal left
            keys = {needed.key for needed in away}
            ready = [unit for unit, packs in left if keys.isdisjoint(stored.key for stored in packs)]
            left = [(unit, packs) for unit, packs in left if not keys.isdisjoint(stored.key for stored in packs)]
            if ready:
                unpack(ready)

        bring_back(
            offline,
            urgent=self._recalling.urgent,
            wait=self._recalling.wait,
            clock=clock,
            progress=Silent(),  # the bytes that count are those that are restored
            note=progress.note,
            meanwhile=unpack_those_there,
        )
        unpack_those_there(())

    def _tell(self, offline: Offline, progress: Progress) -> None:
        files = self.files_in(offline.objects)
        named = ", ".join(shown(path) for path in islice(files, _NAMED)) + (", …" if len(files) > _NAMED else "")
        progress.note(f"{len(files):,} of {len(self._plan.contents):,} files lie in offline storage: {named}")
