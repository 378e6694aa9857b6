"""What storage classes cost when their objects go early: each is charged for a minimum of days."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from dr_pipelines.plan.classes import storage_class
from dr_pipelines.plan.stores import LocalStorePlan, StorePlan
from dr_pipelines.storage.base import ObjectInfo

_MONTH_DAYS = 30.0
_GB = 1e9


@dataclass(frozen=True)
class Early:
    """Objects that are charged for until `until`, whether they are there or not; `cost` is what is charged for the time
    from their removal on, in the currency of the plan's prices."""

    until: datetime
    cost: float
    storage_class: str


def minimum_stay(plan: StorePlan, name: str | None) -> timedelta:
    """For how long an object of a class of this store is charged at least."""
    facts = None if isinstance(plan, LocalStorePlan) else storage_class(plan.type, name)
    return timedelta(days=facts.minimum_days) if facts else timedelta(0)


def early(plan: StorePlan, objects: Iterable[ObjectInfo], gone_at: datetime) -> Early | None:
    """None when nothing of it would be paid for in vain."""
    until, cost, coldest = gone_at, 0.0, ""
    for info in objects:
        ends = info.modified + minimum_stay(plan, info.storage_class)
        if isinstance(plan, LocalStorePlan) or ends <= gone_at:
            continue
        facts = storage_class(plan.type, info.storage_class)
        price = plan.price_of(facts).keep if facts else 0.0
        cost += info.size / _GB * price * ((ends - gone_at) / timedelta(days=_MONTH_DAYS))
        if ends > until:
            until, coldest = ends, info.storage_class or ""
    return Early(until, cost, coldest) if until > gone_at else None
