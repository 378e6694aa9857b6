"""What a repository holds of a server: the catalog is what the manifests say, and nothing else.

Reading manifests and putting them in order belongs here; what to do with a backup does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from pydantic import ValidationError

from dr_pipelines.errors import BackupNotFound, IntegrityError, ObjectNotFound, RepositoryError
from dr_pipelines.repository.labels import Listed, M, list_labels
from dr_pipelines.repository.layout import BackupLayout, ProofName, backups_prefix, label_of, parse_proof
from dr_pipelines.repository.manifest import FORMAT_VERSION, BackupManifest, decode
from dr_pipelines.repository.marks import Expired, Marks, newest_equivalence, read_expired
from dr_pipelines.storage.base import ObjectStore, read_all


@dataclass(frozen=True)
class Catalog:
    """`backups` oldest first, whatever their state; `marks` of each by its label; `unfinished` labels that have objects
    and no manifest (being taken, or garbage); `expired` those that can still be undone; `problems` one sentence for
    each object that is not understood, of which `lost` are those that are marked as damaged on every tier: nobody will
    ever understand them."""

    backups: tuple[BackupManifest, ...]
    unfinished: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    marks: Mapping[str, Marks] = field(default_factory=dict)
    expired: tuple[Expired[BackupManifest], ...] = ()
    lost: frozenset[str] = frozenset()

    @property
    def manifests(self) -> tuple[BackupManifest, ...]:
        return self.backups

    @property
    def usable(self) -> tuple[BackupManifest, ...]:
        """Those whose chain is whole: nothing of it is missing or marked as damaged. Oldest first."""
        return tuple(backup for backup in self.backups if self.trouble(backup) is None)

    def class_of(self, backup: BackupManifest, key: str) -> str | None:
        """The storage class of one of its objects; None for the store's ordinary one."""
        return self.marks.get(backup.label, _UNMARKED).classes.get(key)

    @cached_property
    def _by_label(self) -> Mapping[str, BackupManifest]:
        return {backup.label: backup for backup in self.backups}

    def trouble(self, backup: BackupManifest, *, even_unequal: bool = False) -> str | None:
        """Why no restore can use a backup, as far as the catalog shows it; None when it can. With `even_unequal`,
        what a comparison said against an incremental is none: its bytes are there."""
        try:
            chain = chain_of(backup, self._by_label)
        except RepositoryError as error:
            return error.message
        for link in chain:
            own = self._own_troubles.get(link.label)
            if own is not None and even_unequal:
                own = _own_trouble(link, self.marks.get(link.label, _UNMARKED), even_unequal=True)
            if own is not None:
                return own if link is backup else f"{link.label}, which it builds on, {own}"
        return None

    def failed_validation(self, backup: BackupManifest) -> str | None:
        """Which restore of its chain failed, when no restore passed since that needed what that one did; None when
        none did."""
        passed: datetime | None = None
        for link in reversed(chain_of(backup, self._by_label) if self._validations else []):
            newest = self._validations.get(link.label)
            if newest is None:
                continue
            if newest.verdict == "fail" and (passed is None or passed <= newest.at):
                whose = "its validation" if link is backup else f"the validation of {link.label}, which it builds on,"
                return f"{whose} failed on {newest.at:%Y-%m-%d %H:%M} UTC"
            if newest.verdict == "pass":
                passed = newest.at if passed is None else max(passed, newest.at)
        return None

    @cached_property
    def _validations(self) -> Mapping[str, ProofName]:
        found = ((label, marks.validated()) for label, marks in self.marks.items())
        return {label: newest for label, newest in found if newest is not None}

    @cached_property
    def _own_troubles(self) -> Mapping[str, str]:
        """Of those that have one, whatever they build on: chains may be long, and each link is in many."""
        found = (
            (label, _own_trouble(backup, self.marks.get(label, _UNMARKED))) for label, backup in self._by_label.items()
        )
        return {label: trouble for label, trouble in found if trouble is not None}


_UNMARKED = Marks()


def _own_trouble(backup: BackupManifest, marks: Marks, *, even_unequal: bool = False) -> str | None:
    if marks.damage:
        return "is damaged, and no tier had it whole"
    if (seen := marks.equivalence()) is not None and seen.verdict == "fail" and not even_unequal:
        return unequal(seen)
    missing = {*marks.missing}
    lacking = [named.key for named in backup.restored_from if named.key in missing] if missing else []
    more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
    return f"has no whole {lacking[0]}{more}" if lacking else None


def unequal(seen: ProofName) -> str:
    """What is to be said of an incremental of which a proof found that."""
    return f"was found on {seen.at:%Y-%m-%d %H:%M} UTC not to give what its full gives with WAL"


def known_equivalence(catalogs: Iterable[Catalog]) -> dict[str, ProofName]:
    """The newest comparison of each incremental, over all tiers: all hold the same."""
    proofs: dict[str, list[ProofName]] = {}
    for catalog in catalogs:
        for label, marks in catalog.marks.items():
            proofs.setdefault(label, []).extend(marks.proofs)
    found = {label: newest_equivalence(those) for label, those in proofs.items()}
    return {label: seen for label, seen in found.items() if seen is not None}


def vouched_for(catalog: Catalog) -> frozenset[str]:
    """Labels of what a comparison that passed built on, with the incremental itself."""
    found: set[str] = set()
    for backup in catalog.backups:
        seen = catalog.marks.get(backup.label, _UNMARKED).equivalence()
        if seen is not None and seen.verdict == "pass" and catalog.trouble(backup) is None:
            found |= {link.label for link in chain_of(backup, catalog.backups)}
    return frozenset(found)


def unequal_in_chain(backup: BackupManifest, catalog: Catalog, known: Mapping[str, ProofName]) -> str | None:
    """What a comparison said against a backup or what it builds on, on whichever tier that was put down."""
    with suppress(RepositoryError):
        for link in reversed(chain_of(backup, catalog.backups)):
            if (seen := known.get(link.label)) is not None and seen.verdict == "fail":
                return unequal(seen) if link is backup else f"{link.label}, which it builds on, {unequal(seen)}"
    return None


def read_catalog(store: ObjectStore, server: str) -> Catalog:
    """Raises what the store raises: a listing that is not whole is no catalog."""
    lost: set[str] = set()
    labels, problems = list_labels(
        store,
        backups_prefix(server),
        lambda key: BackupLayout(server, label) if (label := label_of(server, key)) else None,
    )
    backups: list[BackupManifest] = []
    expired: list[Expired[BackupManifest]] = []
    marks: dict[str, Marks] = {}
    with ThreadPoolExecutor(8, thread_name_prefix="catalog") as pool:
        read = pool.map(lambda listed: _try_read(store, listed), labels.values())
        for listed, found in zip(labels.values(), read, strict=True):
            if isinstance(found, str):
                problems.append(found)
                lost |= {found} if listed.damage else set()
            elif isinstance(found, Expired):
                expired.append(found)
            elif found is not None:
                backup, marks[backup.label] = found
                backups.append(backup)
    unfinished = tuple(label for label, listed in labels.items() if not listed.committed and not listed.expired)
    return Catalog(tuple(in_order(backups)), unfinished, tuple(problems), marks, tuple(expired), frozenset(lost))


def read_proofs(store: ObjectStore, server: str) -> dict[str, tuple[ProofName, ...]]:
    """By label, of whatever has any. Reads no object; raises what the store raises."""
    found: dict[str, list[ProofName]] = {}
    for info in store.list(backups_prefix(server)):
        label, proof = label_of(server, info.key), parse_proof(info.key)
        if label is not None and proof is not None:
            found.setdefault(label, []).append(proof)
    return {label: tuple(proofs) for label, proofs in found.items()}


def read_manifest(store: ObjectStore, server: str, label: str) -> BackupManifest:
    """Raises `BackupNotFound`; `IntegrityError` when it is damaged or another backup's; `RepositoryError` when it
    is of a newer format or no manifest."""
    key = BackupLayout(server, label).manifest
    try:
        data = read_all(store, key)
    except ObjectNotFound:
        raise BackupNotFound(
            f"there is no backup {label} of {server} on {store.name}", hint=f"`dr list {server}` shows what there is."
        ) from None
    return parse_manifest(data, store, server, label)


def parse_manifest(data: bytes, store: ObjectStore, server: str, label: str) -> BackupManifest:
    """What was read from `store` as the manifest of this backup. Raises as `read_manifest`."""
    key = BackupLayout(server, label).manifest
    try:
        manifest = decode(data)
    except IntegrityError as error:
        raise IntegrityError(
            f"{key} on {store.name} is damaged: {error.message}",
            hint=f"`dr scrub {store.name}` repairs it from another tier.",
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RepositoryError(f"{key} on {store.name} is no readable manifest: {where}: {first['msg']}") from error
    if manifest.format > FORMAT_VERSION:
        raise RepositoryError(
            f"{key} on {store.name} is of format {manifest.format}; this program reads up to {FORMAT_VERSION}",
            hint="use the newer version of dr that wrote it, or follow the backup's break-glass/README.md.",
        )
    if (manifest.server, manifest.label) != (server, label):
        raise IntegrityError(
            f"{key} on {store.name} describes {manifest.label} of {manifest.server}: a misplaced copy",
            hint=f"`dr scrub {store.name}` repairs it from another tier.",
        )
    return manifest


def in_order(backups: Iterable[BackupManifest]) -> list[BackupManifest]:
    """Oldest first: by system (the one that was seen first comes first), timeline, LSN; time only breaks ties."""
    backups = list(backups)
    first_seen: dict[str, datetime] = {}
    for backup in backups:
        seen = first_seen.get(backup.system_id, backup.started_at)
        first_seen[backup.system_id] = min(seen, backup.started_at)
    return sorted(
        backups,
        key=lambda b: (first_seen[b.system_id], b.system_id, b.timeline, b.stop_lsn, b.started_at, b.label),
    )


def chain_of(manifest: M, backups: Iterable[M] | Mapping[str, M]) -> list[M]:
    """The full backup, the incrementals after it, and `manifest` as the last. `backups` may be by label already.

    Raises `RepositoryError` when a link is missing.
    """
    by_label = backups if isinstance(backups, Mapping) else {backup.label: backup for backup in backups}
    chain, seen = [manifest], {manifest.label}
    while (parent := chain[-1].builds_on) is not None:
        if parent not in by_label or parent in seen:
            raise RepositoryError(
                f"{manifest.label} builds on {parent}, which is not there",
                hint=f"restore an earlier backup with more WAL; `dr list {manifest.owner}` shows what there is.",
            )
        chain.append(by_label[parent])
        seen.add(parent)
    return chain[::-1]


def _try_read(
    store: ObjectStore, listed: Listed[BackupLayout]
) -> tuple[BackupManifest, Marks] | Expired[BackupManifest] | str | None:
    """None when it is no backup, or was removed since the listing."""
    try:
        if listed.committed:
            manifest = read_manifest(store, listed.layout.server, listed.layout.label)
            return manifest, listed.marks(store, manifest.objects, listed.sizes, manifest.finished_at)
        return read_expired(store, listed.layout, decode) if listed.expired else None
    except (BackupNotFound, ObjectNotFound):
        return None
    except (RepositoryError, IntegrityError) as error:
        return error.message
