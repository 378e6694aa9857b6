"""How new objects lie in a store: locked for how long, in which storage class. Every object of the format is put here.

What a store can do, and moving objects later, does not belong here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from dr_pipelines.clock import Clock, SystemClock
from dr_pipelines.repository.layout import Role, role_of
from dr_pipelines.storage.base import Body, ObjectInfo, ObjectStore


@dataclass(frozen=True)
class Placement:
    """What a backup and recovery from it consist of is locked for `lock_for` from its put on; packs and whole WAL
    segments lie in `storage_class`. Claims, marks, evidence and heads of open segments are never locked: they are
    removed as a matter of course. What recovery is planned with stays in the store's ordinary class."""

    clock: Clock = field(default_factory=SystemClock)
    lock_for: timedelta | None = None
    storage_class: str | None = None

    def put(self, store: ObjectStore, key: str, body: Body, *, if_absent: bool = True) -> ObjectInfo:
        """Raises what `ObjectStore.put` raises."""
        role = role_of(key)
        locked = self.lock_for is not None and role is not Role.NOTE
        return store.put(
            key,
            body,
            if_absent=if_absent,
            retain_until=self.clock.now() + self.lock_for if locked and self.lock_for else None,
            storage_class=self.storage_class if role is Role.BULK else None,
        )


ORDINARY = Placement()
"""Nothing is locked, and all is in the store's ordinary class."""
