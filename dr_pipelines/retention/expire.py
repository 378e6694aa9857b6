"""Letting backups go, and taking that back: their manifests, and nothing else.

A backup exists if and only if its manifest does. What builds on another goes before it and comes back after it, so that
a crash never leaves a child whose parent is gone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from dr_pipelines.errors import IntegrityError, ObjectLocked, ObjectNotFound, RepositoryError, UsageError
from dr_pipelines.repository.catalog import chain_of, in_order
from dr_pipelines.repository.layout import BackupLayout
from dr_pipelines.repository.manifest import BackupManifest, decode
from dr_pipelines.repository.marks import Expired, Keep, put_expired, put_keep
from dr_pipelines.repository.repository import Repository
from dr_pipelines.retention.planner import Retention
from dr_pipelines.retention.view import TierView
from dr_pipelines.storage.base import Body, ObjectStore, read_all

_KEPT_SINCE = "somebody keeps it since the plan was made"


@dataclass
class Expiry:
    """Labels that were let go, and why others of the plan stay."""

    expired: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


def expire(store: ObjectStore, here: TierView, planned: Retention, at: datetime) -> Expiry:
    """Can be done again after a crash. Raises what the store raises."""
    done = Expiry()
    children: dict[str, list[str]] = defaultdict(list)
    for backup in here.catalog.backups:
        if backup.parent is not None:
            children[backup.parent].append(backup.label)
    going = {decision.label: decision.why for decision in planned.expire}
    for label in _children_first(going, here.by_label):
        staying = [child for child in children[label] if child not in done.expired]
        if staying:
            done.refused[label] = f"{staying[0]} builds on it and stays"
        elif (refusal := _let_go(store, here, label, at, going[label])) is not None:
            done.refused[label] = refusal
        else:
            done.expired.append(label)
    return done


def undo(
    repository: Repository,
    backups: Sequence[BackupManifest],
    expired: Sequence[Expired[BackupManifest]],
    labels: Collection[str],
    keep: Keep,
) -> list[str]:
    """The manifests of these labels are put back, and of what they build on. Returns those that are there again, each
    held by `keep`, or the next expiry would take them at once.

    Raises `UsageError` for a label that was not expired, and `RepositoryError`, before anything is changed, when what
    it needs was pruned already.
    """
    by_label = {gone.manifest.label: gone for gone in expired}
    unknown = sorted(set(labels) - set(by_label))
    if unknown:
        known = ", ".join(by_label) or "none"
        raise UsageError(
            f"{unknown[0]} on {repository.tier} is no expired backup", hint=f"these can be undone: {known}."
        )
    everything = {backup.label: backup for backup in (*backups, *(gone.manifest for gone in expired))}
    wanted = [link for label in labels for link in chain_of(by_label[label].manifest, everything)]
    returning = in_order({b.label: b for b in wanted if b.label in by_label}.values())
    for backup in returning:
        _require_whole(repository.store, backup)
    for backup in returning:
        expired_at = by_label[backup.label].at
        put_keep(repository.store, backup.layout, keep, name=f"undo-{expired_at:%Y%m%dT%H%M%SZ}")
        repository.put(backup.layout.manifest, Body.of(by_label[backup.label].data))
        _forget(repository.store, backup.layout)
    return [backup.label for backup in returning]


def _children_first(labels: Iterable[str], by_label: Mapping[str, BackupManifest]) -> list[str]:
    def depth(label: str) -> int:
        try:
            return len(chain_of(by_label[label], by_label))
        except RepositoryError:  # its parent is gone: nothing here must wait for it
            return 0

    return sorted(labels, key=depth, reverse=True)


def _let_go(store: ObjectStore, here: TierView, label: str, at: datetime, reason: str) -> str | None:
    """Why it stays; None when it is gone."""
    backup = here.by_label[label]
    if _is_kept_since(store, here, backup):
        return _KEPT_SINCE
    try:
        data = read_all(store, backup.layout.manifest)
        if decode(data) != backup:
            return "its manifest has changed since the plan was made"
    except ObjectNotFound:
        return None
    except IntegrityError:
        return "its manifest is damaged"
    put_expired(store, backup.layout, data, at=at, reason=reason)
    try:
        store.delete(backup.layout.manifest)
    except ObjectLocked as error:
        return error.message
    if _is_kept_since(store, here, backup):  # whoever keeps it looks for the manifest after that
        store.put(backup.layout.manifest, Body.of(data))
        return _KEPT_SINCE
    return None


def _is_kept_since(store: ObjectStore, here: TierView, backup: BackupManifest) -> bool:
    marks = here.catalog.marks.get(backup.label)
    return any(info.key not in (marks.keeps if marks else ()) for info in store.list(backup.layout.keeps))


def _require_whole(store: ObjectStore, backup: BackupManifest) -> None:
    sizes = {info.key: info.size for info in store.list(backup.layout.prefix)}
    gone = [named.key for named in backup.objects if sizes.get(named.key) != named.size]
    if gone:
        raise RepositoryError(
            f"{backup.label} cannot come back on {store.name}: {gone[0]} is pruned already",
            hint="another tier may have it still: `dr list --tier …`.",
        )


def _forget(store: ObjectStore, layout: BackupLayout) -> None:
    try:
        store.delete(layout.expired)
    except ObjectLocked:
        return  # beside a manifest it says nothing
