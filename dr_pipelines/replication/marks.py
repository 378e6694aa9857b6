"""Marks that are true on every tier, brought where they are not known: that a snapshot is unusual, that an incremental
is not what its WAL says. So a tier that is left alone decides no worse than all of them together."""

from __future__ import annotations

import contextlib

from dr_pipelines.errors import ObjectExists, ObjectNotFound
from dr_pipelines.repository.labels import LabelCatalog, Labelled
from dr_pipelines.repository.layout import LabelLayout
from dr_pipelines.repository.marks import list_proofs, unheard
from dr_pipelines.repository.repository import Repository
from dr_pipelines.storage.base import Body, read_all


def tell(source: Repository, target: Repository, about: LabelLayout) -> None:
    """What `source` says of one backup, as it is now, and `target` has not heard. Raises what a store raises."""
    said = list_proofs(source.store, about)
    for proof in unheard(said.keys(), list_proofs(target.store, about).keys()):
        with contextlib.suppress(ObjectExists, ObjectNotFound):  # another run was faster; it was pruned
            target.store.put(said[proof], Body.of(read_all(source.store, said[proof])))


def untold(here: LabelCatalog[Labelled], there: LabelCatalog[Labelled]) -> tuple[LabelLayout, ...]:
    """What both have and only the first has heard of."""
    return tuple(
        one.layout
        for one in here.manifests
        if one.label in there.marks and unheard(here.marks[one.label].proofs, there.marks[one.label].proofs)
    )
