"""A faulty object made whole: from an old version on its own tier, from another tier that holds good bytes, or from
what is known of it. Good bytes are proven before they are put, and read back after.

What an object must be is said by `inventory.py`; what it costs when nothing can repair it, by `losses.py`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import TypeVar

from dr_pipelines.clock import Clock
from dr_pipelines.errors import DrError, IntegrityError, ObjectNotFound, ObjectOffline, RepositoryError
from dr_pipelines.files.break_glass import bundle as bundle_of_files
from dr_pipelines.replication.inventory import Fault, Inventory, described_size, whole_keep
from dr_pipelines.replication.reading import as_on, matches
from dr_pipelines.repository import layout
from dr_pipelines.repository.break_glass import bundle
from dr_pipelines.repository.catalog import chain_of
from dr_pipelines.repository.fetch import fetch_body
from dr_pipelines.repository.labels import Labelled
from dr_pipelines.repository.layout import LabelLayout
from dr_pipelines.repository.manifest import BackupManifest, StoredObject
from dr_pipelines.repository.marks import Keep, encode_keep, put_expired, read_expired
from dr_pipelines.repository.owners import Owner
from dr_pipelines.repository.repository import Repository
from dr_pipelines.repository.sealed import seal, unseal
from dr_pipelines.repository.snapshot_manifest import Snapshot
from dr_pipelines.repository.wal import description
from dr_pipelines.storage.base import Body, ObjectStore, read_all

T = TypeVar("T")
WAL_DAMAGE = b"{}\n"
"""What lies under a mark beside WAL; that it is there says all."""


class State(StrEnum):
    """What became of a fault. `REPLACED`: WAL that stays damaged, while a whole object of the same file is beside it.
    `LOST`: no tier holds good bytes. `UNDECIDED`: a tier that may hold them could not be asked, or they could not be
    put. `FOUND`: nothing was to be done."""

    REPAIRED = "repaired"
    REPLACED = "replaced"
    LOST = "lost"
    UNDECIDED = "undecided"
    FOUND = "found"


@dataclass(frozen=True)
class Outcome:
    """`by` is where good bytes came from, or why that could not be decided."""

    fault: Fault
    state: State
    by: str = ""


class Repair:
    """Of one server or file set on one tier. `others` are the tiers that can be asked, `closed` says why one cannot.
    Safe to use from several threads."""

    def __init__(
        self,
        inventory: Inventory,
        repository: Repository,
        others: Sequence[Repository],
        closed: Sequence[str],
        clock: Clock,
    ) -> None:
        self._inventory, self._tier, self._others = inventory, repository, others
        self._store, self._owner = repository.store, inventory.owner
        self._closed, self._clock = closed, clock

    def mend(self, fault: Fault) -> Outcome:
        """Raises nothing that a store can raise."""
        troubles = [*self._closed]
        try:
            source = self._mend(fault, troubles)
            if source is not None:
                return Outcome(fault, State.REPAIRED, source)
            source = self._same_wal(fault, troubles)
        except DrError as error:
            return Outcome(fault, State.UNDECIDED, f"it could not be put: {error.message}")
        if source is not None:
            return Outcome(fault, State.REPLACED, source)
        why = "; ".join(dict.fromkeys(troubles))
        return Outcome(fault, State.UNDECIDED, why) if why else Outcome(fault, State.LOST)

    def _mend(self, fault: Fault, troubles: list[str]) -> str | None:
        backup = self._owner.layout(fault.label or "")
        if fault.stored is not None:
            return self._content(fault, fault.stored, troubles)
        if fault.key == backup.manifest:
            return self._manifest(backup, troubles)
        if fault.key == backup.expired:
            return self._expired(backup, troubles)
        if fault.key.startswith(backup.keeps):
            return self._keep(fault.key, troubles)
        return self._description(fault.key, troubles)

    def _content(self, fault: Fault, stored: StoredObject, troubles: list[str]) -> str | None:
        needing = self._inventory.needing(fault)
        source = self._revived(stored, needing, troubles) or self._copied(stored, needing, troubles)
        if source is None and fault.label is not None:
            source = self._written_anew(stored, fault.label)
        return source

    def _revived(self, stored: StoredObject, needing: Sequence[str], troubles: list[str]) -> str | None:
        """What was overwritten or deleted on a versioned store is still there."""
        until = self._lock_of(stored.key, needing)
        revived = _asked(self._tier, troubles, lambda store: _old_version(store, stored))
        if not revived or not self._is_whole(stored):
            return None
        self._lock(stored.key, until)
        return f"an old version on {self._tier.tier}"

    def _copied(self, stored: StoredObject, needing: Sequence[str], troubles: list[str]) -> str | None:
        for other in self._others:
            recall = f"dr store recall {other.tier} {self._owner.name} --key {stored.key}"
            body = _asked(other, troubles, lambda store: fetch_body(store, as_on(store, stored)), recall)
            if body is not None:
                self._put(stored.key, body, needing)
                return other.tier
        for other in self._others:
            body = _asked(other, troubles, lambda store: _laid_over(store, stored))
            if body is not None:
                self._put(stored.key, body, needing)
                return f"an old version on {other.tier}"
        return None

    def _written_anew(self, stored: StoredObject, label: str) -> str | None:
        """The break-glass bundle says nothing that the manifests do not."""
        known = self._inventory.backups.get(label)
        try:
            files = self._bundle(known) if known is not None and stored in _break_glass(known) else {}
        except RepositoryError:
            return None
        for data in files.values():
            if Body.of(data).sha256 == stored.sha256:
                self._put(stored.key, Body.of(data), [label])
                return "the manifests"
        return None

    def _bundle(self, known: Labelled) -> Mapping[str, bytes]:
        if isinstance(known, Snapshot):
            return bundle_of_files(known.file_set, known.label, known.encoding.recipients)
        if isinstance(known, BackupManifest):
            bare = known.model_copy(update={"break_glass": ()})  # as it was when the bundle was written
            return bundle(chain_of(bare, self._inventory.of_server))
        return {}

    def _same_wal(self, fault: Fault, troubles: list[str]) -> str | None:
        """The segment or history as another writer stored it: under a name of its own, with the SHA-256 of its own
        bytes. The damaged object is marked, so that nobody reads it."""
        wanted = layout.parse_wal_key(fault.key)
        if wanted is None or fault.what == "missing":
            return None
        for tier in [self._tier, *self._others]:
            for stored, body in _asked(tier, troubles, lambda store: [*_whole_wal(store, fault.key, wanted)]) or ():
                if tier is not self._tier:
                    self._put(stored.key, body)
                self._store.put(layout.wal_damage(fault.key), Body.of(WAL_DAMAGE))
                return f"{tier.tier}, as {stored.key.rpartition('/')[2]}"
        return None

    def _manifest(self, backup: LabelLayout, troubles: list[str]) -> str | None:
        if backup.label in self._inventory.backups:  # only its blanks are not as they were written
            data = read_all(self._store, backup.manifest)
            self._put(backup.manifest, Body.of(seal(unseal(data))), [backup.label])
            return "itself"
        for _, data, where in self._manifests(backup.label, troubles):
            self._put(backup.manifest, Body.of(data), [backup.label])
            self._inventory.backups[backup.label] = self._owner.read(self._store, backup.label)
            return where
        return None

    def _expired(self, backup: LabelLayout, troubles: list[str]) -> str | None:
        for manifest, data, where in self._manifests(backup.label, troubles):
            at, reason = self._inventory.there[backup.expired].modified, "the reason was damaged and is lost"
            put_expired(self._store, manifest.layout, data, at=at, reason=reason)
            self._inventory.expired[backup.label] = read_expired(self._store, backup, self._owner.decode).manifest
            return where
        return None

    def _manifests(self, label: str, troubles: list[str]) -> Iterator[tuple[Labelled, bytes, str]]:
        for other in self._others:
            ask = partial(_manifest_on, self._owner, label)
            if (found := _asked(other, troubles, ask)) is not None:
                yield (*found, other.tier)

    def _keep(self, key: str, troubles: list[str]) -> str:
        """A keep that nobody can read any more holds until a person releases it."""
        for other in self._others:
            data = _asked(other, troubles, lambda store: whole_keep(store, key))
            if data is not None:
                self._put(key, Body.of(data))
                return other.tier
        lasting = Keep(until=None, reason="what it said is lost", by="dr scrub", at=self._clock.now())
        self._put(key, Body.of(encode_keep(lasting)))
        return "nothing: it holds for ever now"

    def _description(self, key: str, troubles: list[str]) -> str | None:
        size = self._inventory.segment_size(layout.system_id_of(self._owner.name, key))
        if size is not None:
            self._put(key, Body.of(description(size)))
            return "the backups' manifests"
        for other in self._others:
            data = _asked(other, troubles, lambda store: _description_on(store, key))
            if data is not None:
                self._put(key, Body.of(data))
                return other.tier
        return None

    def _put(self, key: str, body: Body, needing: Sequence[str] = ()) -> None:
        """Over whatever is there, locked no shorter than it or what needs it. Raises `IntegrityError` when it is not
        read back as it was put."""
        until = self._lock_of(key, needing)
        self._tier.put(key, body, if_absent=False)
        self._lock(key, until)
        if not self._is_whole(StoredObject(key=key, size=body.size, sha256=body.sha256)):
            raise IntegrityError(f"{key} on {self._store.name} was put again and is still damaged")

    def _lock(self, key: str, until: datetime | None) -> None:
        held = self._store.stat(key).retain_until if until is not None else None
        if until is not None and (held is None or held < until):
            self._store.extend_lock(key, until)

    def _is_whole(self, stored: StoredObject) -> bool:
        """Of what lies in an offline class at once, the service has compared the digest when it was put."""
        try:
            return matches(self._store, as_on(self._store, stored))
        except ObjectOffline:
            return self._store.stat(stored.key).size == stored.size
        except ObjectNotFound:
            return False

    def _lock_of(self, key: str, needing: Sequence[str]) -> datetime | None:
        """Of what it takes the place of, else the longest of the manifests of what needs it."""
        if (until := self._locked_until(key)) is not None or not self._store.capabilities.object_lock:
            return until
        ends = (self._locked_until(self._owner.layout(label).manifest) for label in needing)
        return max((end for end in ends if end is not None), default=None)

    def _locked_until(self, key: str) -> datetime | None:
        with contextlib.suppress(ObjectNotFound):
            until = self._store.stat(key).retain_until
            if until is not None and until > self._clock.now():
                return until
        return None


def _asked(
    tier: Repository, troubles: list[str], ask: Callable[[ObjectStore], T | None], recall: str | None = None
) -> T | None:
    """What a tier has; None when it has none that is whole. Why it cannot tell is added to `troubles`; `recall`: the
    command for what is offline."""
    try:
        return ask(tier.store)
    except (ObjectNotFound, IntegrityError):
        return None
    except ObjectOffline as error:
        what = f"`{recall}` asks for it, then scrub again" if recall is not None else error.message
        troubles.append(f"{tier.tier} has it offline: {what}")
        return None
    except DrError as error:
        troubles.append(f"{tier.tier} does not tell whether it holds good bytes: {error.message}")
        return None


def _laid_over(store: ObjectStore, stored: StoredObject) -> Body | None:
    """The good bytes below what was put over them on a versioned store, which are its current ones again. What is gone
    there may have been let go."""
    store.stat(stored.key)
    return fetch_body(store, as_on(store, stored)) if _old_version(store, stored) else None


def _old_version(store: ObjectStore, stored: StoredObject) -> bool:
    return store.capabilities.versioning and store.revive(stored.key, stored.sha256)


def _break_glass(known: Labelled) -> Sequence[StoredObject]:
    return known.break_glass if isinstance(known, BackupManifest | Snapshot) else ()


def _manifest_on(owner: Owner[Labelled], label: str, store: ObjectStore) -> tuple[Labelled, bytes]:
    try:
        manifest = owner.read(store, label)
        return manifest, read_all(store, manifest.layout.manifest)
    except RepositoryError:  # not there
        expired = read_expired(store, owner.layout(label), owner.decode)
        return expired.manifest, expired.data


def _description_on(store: ObjectStore, key: str) -> bytes:
    data = read_all(store, key)
    described_size(data)
    return data


def _whole_wal(store: ObjectStore, key: str, wanted: layout.WalKey) -> Iterator[tuple[StoredObject, Body]]:
    """Other objects of the same file that match their names and reach as far."""
    listed = {info.key: info for info in store.list(layout.wal_file_prefix(key))}
    for info in listed.values():
        found = layout.parse_wal_key(info.key)
        if found is None or info.key == key or found.file != wanted.file or layout.wal_damage(info.key) in listed:
            continue
        if found.partial_end is not None and (wanted.partial_end is None or found.partial_end < wanted.partial_end):
            continue
        stored = StoredObject(key=info.key, size=info.size, sha256=found.sha256)
        try:
            yield stored, fetch_body(store, stored)
        except (ObjectNotFound, IntegrityError):
            continue
