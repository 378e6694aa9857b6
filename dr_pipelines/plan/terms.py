"""What the storage classes of one store mean to whoever reads from it: how long the bytes take, what they cost."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from dr_pipelines.plan.classes import StorageClass, storage_class
from dr_pipelines.plan.stores import LocalStorePlan, StorePlan

GB = 1e9
_MONTH = timedelta(days=30)


@dataclass(frozen=True)
class StorageTerms:
    """Of the store that the plan describes; of one that it does not, nothing is known. A class is named as in
    `ObjectInfo.storage_class`: None is the ordinary one."""

    store: StorePlan | None = None

    def facts(self, name: str | None) -> StorageClass | None:
        """None for a class that the service does not have."""
        if self.store is None or isinstance(self.store, LocalStorePlan):
            return None
        return storage_class(self.store.type, name)

    def may_be_offline(self, name: str | None) -> bool:
        """Whether an object of this class must be asked for whether its bytes are at hand."""
        facts = self.facts(name)
        return name is not None and (facts is None or facts.offline)

    def recall_seconds(self, name: str | None, *, urgent: bool = False) -> float:
        """From asking for an offline object to its first byte, at most. 0 where that is not known."""
        facts = self.facts(name)
        if facts is None:
            return 0.0
        return 3600 * (facts.urgent_hours if urgent else facts.hours)

    def cost_of_reading(self, size: int, name: str | None, *, urgent: bool = False) -> float:
        """`size` bytes; `urgent` when they are recalled so."""
        facts = self.facts(name)
        if facts is None or self.store is None or isinstance(self.store, LocalStorePlan):
            return 0.0
        return size / GB * self.store.price_of(facts, urgent=urgent).read

    def minimum(self, name: str | None) -> timedelta:
        """For how long an object is charged for, whether it is there or not."""
        facts = self.facts(name)
        return timedelta(days=facts.minimum_days if facts else 0)

    def cost_of_keeping(self, size: int, name: str | None, time: timedelta) -> float:
        """`size` bytes."""
        facts = self.facts(name)
        if facts is None or self.store is None or isinstance(self.store, LocalStorePlan):
            return 0.0
        return size / GB * self.store.price_of(facts).keep * (time / _MONTH)
