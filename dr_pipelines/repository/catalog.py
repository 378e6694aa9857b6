"""What a repository holds of a server: the catalog is what the manifests say, and nothing else.

Reading manifests and putting them in order belongs here; what to do with a backup does not.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

from pydantic import ValidationError

from dr_pipelines.errors import BackupNotFound, ObjectNotFound, RepositoryError
from dr_pipelines.repository.layout import BackupLayout, backups_prefix, label_of
from dr_pipelines.repository.manifest import FORMAT_VERSION, BackupManifest
from dr_pipelines.storage.base import ObjectStore, read_all


@dataclass(frozen=True)
class Catalog:
    """`backups` oldest first; `unfinished` labels that have objects and no manifest (being taken, or garbage);
    `problems` one sentence for each object that is not understood."""

    backups: tuple[BackupManifest, ...]
    unfinished: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def read_catalog(store: ObjectStore, server: str) -> Catalog:
    """Raises what the store raises: a listing that is not whole is no catalog."""
    labels: dict[str, bool] = {}
    problems: list[str] = []
    for info in store.list(backups_prefix(server)):
        label = label_of(server, info.key)
        if label is None:
            problems.append(f"{info.key} on {store.name} belongs to no backup")
            continue
        labels[label] = labels.get(label, False) or info.key == BackupLayout(server, label).manifest
    backups: list[BackupManifest] = []
    with ThreadPoolExecutor(8, thread_name_prefix="catalog") as pool:
        for found in pool.map(lambda label: _try_read(store, server, label), (n for n, done in labels.items() if done)):
            if isinstance(found, str):
                problems.append(found)
            elif found is not None:
                backups.append(found)
    unfinished = tuple(label for label, done in labels.items() if not done)
    return Catalog(tuple(in_order(backups)), unfinished, tuple(problems))


def read_manifest(store: ObjectStore, server: str, label: str) -> BackupManifest:
    """Raises `BackupNotFound`, or `RepositoryError` when the manifest is of a newer format or not a manifest."""
    key = BackupLayout(server, label).manifest
    try:
        data = read_all(store, key)
    except ObjectNotFound:
        raise BackupNotFound(
            f"there is no backup {label} of {server} on {store.name}", hint=f"`dr list {server}` shows what there is."
        ) from None
    try:
        manifest = BackupManifest.model_validate_json(data)
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
        raise RepositoryError(
            f"{key} on {store.name} describes {manifest.label} of {manifest.server}: a misplaced copy"
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


def chain_of(manifest: BackupManifest, backups: Iterable[BackupManifest]) -> list[BackupManifest]:
    """The full backup, the incrementals after it, and `manifest` as the last.

    Raises `RepositoryError` when a link is missing.
    """
    by_label = {backup.label: backup for backup in backups}
    chain = [manifest]
    while (parent := chain[0].parent) is not None:
        if parent not in by_label or any(backup.label == parent for backup in chain):
            raise RepositoryError(
                f"{manifest.label} builds on {parent}, which is not there",
                hint=f"restore an earlier backup with more WAL; `dr list {manifest.server}` shows what there is.",
            )
        chain.insert(0, by_label[parent])
    return chain


def _try_read(store: ObjectStore, server: str, label: str) -> BackupManifest | str | None:
    """None when it was removed since the listing."""
    try:
        return read_manifest(store, server, label)
    except BackupNotFound:
        return None
    except RepositoryError as error:
        return error.message
