"""What the store itself has against removing a backup: locks, and storage classes that are paid for a while yet. Asked
only of what would go."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from dr_pipelines.errors import ObjectNotFound
from dr_pipelines.plan.terms import StorageTerms
from dr_pipelines.repository.layout import LabelLayout
from dr_pipelines.retention.calendar import Reason
from dr_pipelines.retention.cold import Early, early
from dr_pipelines.storage.base import ObjectInfo, ObjectStore


@dataclass
class Holds:
    """By label: reasons to keep it, and what it costs to let it go early."""

    reasons: dict[str, list[Reason]] = field(default_factory=dict)
    early: dict[str, Early] = field(default_factory=dict)


def holds_of(
    store: ObjectStore,
    terms: StorageTerms,
    going: Mapping[str, LabelLayout],
    objects_of: Callable[[str], Iterable[ObjectInfo]],
    now: datetime,
    *,
    grace: timedelta,
    anyway: bool = False,
) -> Holds:
    """`going`: by label; `objects_of`: what is removed with a label. `anyway`: a person
    wants it early; then the cost is told and is no reason."""
    holds = Holds()
    for label, layout in going.items():
        reasons: list[Reason] = []
        if (locked := _locked_until(store, layout)) is not None and locked > now:
            reasons.append(Reason(f"locked until {locked:%Y-%m-%d %H:%M}", locked))
        # Expired now, its objects go after the grace.
        charged = early(terms, objects_of(label), now + grace)
        if charged is not None:
            holds.early[label] = charged
            if not anyway:
                said = f"{charged.storage_class} is paid for until {charged.until:%Y-%m-%d}"
                reasons.append(Reason(said, charged.until))
        if reasons:
            holds.reasons[label] = reasons
    return holds


def _locked_until(store: ObjectStore, layout: LabelLayout) -> datetime | None:
    """Of its manifest, which goes first."""
    try:
        return store.stat(layout.manifest).retain_until
    except ObjectNotFound:
        return None
