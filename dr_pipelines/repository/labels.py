"""Everything that has a label: what is common to its manifests, and what one listing shows of it: which are committed,
which are expired, what is marked."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar

from dr_pipelines.errors import ObjectNotFound, RepositoryError
from dr_pipelines.repository.layout import LabelLayout, ProofName, parse_proof
from dr_pipelines.repository.manifest import StoredObject
from dr_pipelines.repository.marks import Expired, Keep, Marks, read_keep
from dr_pipelines.storage.base import ObjectInfo, ObjectStore

L = TypeVar("L", bound=LabelLayout)


class Labelled(Protocol):
    """A manifest: of a backup, or of a snapshot of files. It names all that is needed of it, whoever put that."""

    @property
    def label(self) -> str: ...

    @property
    def owner(self) -> str:
        """The server or file set."""

    @property
    def builds_on(self) -> str | None:
        """The label without which it cannot be restored."""

    @property
    def counted_with(self) -> str | None:
        """The label together with which it is one of many: of an incremental that which it builds on, of a poll the
        snapshot before it."""

    @property
    def started_at(self) -> datetime: ...

    @property
    def finished_at(self) -> datetime: ...

    @property
    def layout(self) -> LabelLayout: ...

    @property
    def objects(self) -> tuple[StoredObject, ...]:
        """Every stored object of it but the manifest itself."""

    @property
    def groups(self) -> Iterable[tuple[Hashable, Sequence[StoredObject]]]:
        """The same in groups: what many share is of the same name in each, and need be gone through once."""

    @property
    def restored_from(self) -> tuple[StoredObject, ...]:
        """What a restore reads."""

    @property
    def homes(self) -> tuple[str, ...]:
        """The prefixes below which all of that lies; its own first."""

    @property
    def stored_size(self) -> int: ...


M = TypeVar("M", bound=Labelled)
M_co = TypeVar("M_co", bound=Labelled, covariant=True)


class LabelCatalog(Protocol[M_co]):
    """What a tier holds of a server or a file set: `manifests` oldest first, of which nothing stands against the
    `usable`; `marks` by label."""

    @property
    def manifests(self) -> Sequence[M_co]: ...

    @property
    def usable(self) -> Sequence[M_co]: ...

    @property
    def marks(self) -> Mapping[str, Marks]: ...

    @property
    def expired(self) -> Sequence[Expired[Any]]: ...


def list_homes(store: ObjectStore, manifest: Labelled) -> dict[str, ObjectInfo]:
    """What lies where the objects of a manifest do, by key: its own, and what it may share with others."""
    return {info.key: info for home in manifest.homes for info in store.list(home)}


class Listed(Generic[L]):
    """What a listing shows of one label."""

    def __init__(self, layout: L) -> None:
        self.layout = layout
        self.committed = self.expired = self.claimed = False
        self.sizes: dict[str, int] = {}
        self.classes: dict[str, str] = {}
        self.keeps: list[str] = []
        self.damage: list[str] = []
        self.proofs: list[ProofName] = []
        self.stored_bytes = 0

    def add(self, info: ObjectInfo) -> None:
        key, layout = info.key, self.layout
        self.stored_bytes += info.size
        if layout.is_content(key):
            self.sizes[key] = info.size
            if info.storage_class is not None:
                self.classes[key] = info.storage_class
        elif key == layout.manifest:
            self.committed = True
        elif key == layout.expired:
            self.expired = True
        elif key.startswith(layout.claims):
            self.claimed = True
        elif key.startswith(layout.keeps):
            self.keeps.append(key)
        elif key.startswith(layout.damages):
            self.damage.append(key)
        elif (proof := parse_proof(key)) is not None:
            self.proofs.append(proof)

    def marks(
        self, store: ObjectStore, named: Iterable[StoredObject], sizes: Mapping[str, int], finished_at: datetime
    ) -> Marks:
        """`named` is what the manifest names, `sizes` what is there of it, by key."""
        keeps = {key: keep for key in self.keeps if (keep := _try_keep(store, key, finished_at)) is not None}
        missing = tuple(stored.key for stored in named if sizes.get(stored.key) != stored.size)
        return Marks(keeps, tuple(self.damage), tuple(self.proofs), missing, self.stored_bytes, self.classes)


def list_labels(
    store: ObjectStore, prefix: str, layout_of: Callable[[str], L | None]
) -> tuple[dict[str, Listed[L]], list[str]]:
    """By label, and one sentence for each object that belongs to none. Raises what the store raises."""
    labels: dict[str, Listed[L]] = {}
    problems: list[str] = []
    for info in store.list(prefix):
        layout = layout_of(info.key)
        if layout is None:
            problems.append(f"{info.key} on {store.name} belongs to no backup")
            continue
        if layout.label not in labels:
            labels[layout.label] = Listed(layout)
        labels[layout.label].add(info)
    return labels, problems


def _try_keep(store: ObjectStore, key: str, finished_at: datetime) -> Keep | None:
    """None when it was taken back since the listing. One that cannot be understood may be the one that matters: it
    holds, and hides no backup."""
    try:
        return read_keep(store, key)
    except ObjectNotFound:
        return None
    except RepositoryError as error:
        return Keep(until=None, reason=error.message, by="somebody", at=finished_at)
