"""Letting go, and taking that back: manifests, and nothing else.

A backup, or a snapshot of files, exists if and only if its manifest does. What builds on another goes before it and
comes back after it, so that a crash never leaves a child whose parent is gone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from dr_pipelines.errors import IntegrityError, ObjectLocked, ObjectNotFound, RepositoryError, UsageError
from dr_pipelines.repository.catalog import chain_of
from dr_pipelines.repository.labels import LabelCatalog, Labelled
from dr_pipelines.repository.layout import LabelLayout
from dr_pipelines.repository.marks import Expired, Keep, put_expired, put_keep
from dr_pipelines.repository.repository import Repository
from dr_pipelines.retention.decisions import Retained
from dr_pipelines.retention.view import View
from dr_pipelines.storage.base import Body, ObjectStore, read_all

M = TypeVar("M", bound=Labelled)
_KEPT_SINCE = "somebody keeps it since the plan was made"


@dataclass
class Expiry:
    """Labels that were let go, and why others of the plan stay."""

    expired: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


def expire(store: ObjectStore, here: View[M], planned: Retained, at: datetime) -> Expiry:
    """Can be done again after a crash. Raises what the store raises."""
    done = Expiry()
    children: dict[str, list[str]] = defaultdict(list)
    for found in here.known.manifests:
        if found.builds_on is not None:
            children[found.builds_on].append(found.label)
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
    repository: Repository, known: LabelCatalog[M], labels: Collection[str], keep: Keep, *, thing: str = "backup"
) -> list[str]:
    """The manifests of these labels are put back, and of what they build on. Returns those that are there again, each
    held by `keep`, or the next expiry would take them at once. `thing` is what messages call them.

    Raises `UsageError` for a label that was not expired, and `RepositoryError`, before anything is changed, when what
    it needs was pruned already.
    """
    by_label: dict[str, Expired[M]] = {gone.manifest.label: gone for gone in known.expired}
    unknown = sorted(set(labels) - set(by_label))
    if unknown:
        names = ", ".join(by_label) or "none"
        raise UsageError(
            f"{unknown[0]} on {repository.tier} is no expired {thing}", hint=f"these can be undone: {names}."
        )
    everything = {found.label: found for found in (*known.manifests, *(gone.manifest for gone in known.expired))}
    wanted = {link.label: link for label in labels for link in chain_of(by_label[label].manifest, everything)}
    returning = sorted(
        (link for link in wanted.values() if link.label in by_label),
        key=lambda link: (len(chain_of(link, everything)), link.started_at),
    )
    sizes: dict[str, dict[str, int]] = {}
    for found in returning:
        _require_whole(repository.store, found, sizes)
    for found in returning:
        expired_at = by_label[found.label].at
        put_keep(repository.store, found.layout, keep, name=f"undo-{expired_at:%Y%m%dT%H%M%SZ}")
        repository.put(found.layout.manifest, Body.of(by_label[found.label].data))
        _forget(repository.store, found.layout)
    return [found.label for found in returning]


def _children_first(labels: Iterable[str], by_label: Mapping[str, M]) -> list[str]:
    def depth(label: str) -> int:
        try:
            return len(chain_of(by_label[label], by_label))
        except RepositoryError:  # its parent is gone: nothing here must wait for it
            return 0

    return sorted(labels, key=depth, reverse=True)


def _let_go(store: ObjectStore, here: View[M], label: str, at: datetime, reason: str) -> str | None:
    """Why it stays; None when it is gone."""
    backup: M = here.by_label[label]
    if _is_kept_since(store, here, backup):
        return _KEPT_SINCE
    try:
        data = read_all(store, backup.layout.manifest)
        if here.decode(data) != backup:
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


def _is_kept_since(store: ObjectStore, here: View[M], backup: M) -> bool:
    marks = here.known.marks.get(backup.label)
    return any(info.key not in (marks.keeps if marks else ()) for info in store.list(backup.layout.keeps))


def _require_whole(store: ObjectStore, found: Labelled, listed: dict[str, dict[str, int]]) -> None:
    """`listed`: the sizes of what lies below each prefix, as far as that was asked."""
    for home in found.homes:
        if home not in listed:
            listed[home] = {info.key: info.size for info in store.list(home)}
    gone = [one.key for one in found.objects if all(listed[home].get(one.key) != one.size for home in found.homes)]
    if gone:
        raise RepositoryError(
            f"{found.label} cannot come back on {store.name}: {gone[0]} is pruned already",
            hint="another tier may have it still: `dr list --tier …`.",
        )


def _forget(store: ObjectStore, layout: LabelLayout) -> None:
    try:
        store.delete(layout.expired)
    except ObjectLocked:
        return  # beside a manifest it says nothing
