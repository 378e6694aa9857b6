"""What storage classes cost when their objects go early: each is charged for a minimum of days."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from dr_pipelines.plan.terms import StorageTerms
from dr_pipelines.storage.base import ObjectInfo


@dataclass(frozen=True)
class Early:
    """Of objects that are charged for until `until` in any case. `cost` is that of the time from their removal on, in
    the currency of the plan's prices; `storage_class` that of the last of them."""

    until: datetime
    cost: float
    storage_class: str


def early(terms: StorageTerms, objects: Iterable[ObjectInfo], gone_at: datetime) -> Early | None:
    """None when nothing of it would be paid for in vain."""
    until, cost, last = gone_at, 0.0, ""
    for info in objects:
        ends = info.modified + terms.minimum(info.storage_class)
        if ends > gone_at:
            cost += terms.cost_of_keeping(info.size, info.storage_class, ends - gone_at)
        if ends > until:
            until, last = ends, info.storage_class or ""
    return Early(until, cost, last) if until > gone_at else None
