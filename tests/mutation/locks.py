"""Locks of an object store taken off or made shorter, in memory: only a store's service can do that to real ones."""

from __future__ import annotations

import random
from datetime import timedelta

from dr_pipelines.clock import FixedClock
from dr_pipelines.operations import lock_is_in_force
from dr_pipelines.plan import Plan
from dr_pipelines.repository import layout
from dr_pipelines.site import Site
from dr_pipelines.storage.base import Body
from dr_pipelines.storage.memory import MemoryStore
from tests.mutation.ledger import Ledger, Trial
from tests.support.tiers import BACKUPS, CLOCK, content, tier

_PROMISED = timedelta(days=8)
_LOCKS = {"lock taken off": None, "lock two days shorter": _PROMISED - timedelta(days=2)}


def lock_trials(rng: random.Random, count: int = 20) -> Ledger:
    ledger = Ledger("locks of one tier")
    ledger.alarms += [f"{name} fails where every lock is in force" for name in _fails(None, _PROMISED)]
    ledger.good += 1
    keys = [key for key in content(tier("primary")) if layout.role_of(key) is not layout.Role.NOTE]
    for number in range(count):
        kind, lock = [*_LOCKS.items()][number % len(_LOCKS)]
        loose = rng.choice(keys)
        ledger.add(Trial(kind, loose, _fails(loose, lock)))
    return ledger


def _fails(loose: str | None, lock: timedelta | None) -> tuple[str, ...]:
    clock = FixedClock(CLOCK.now())
    store = MemoryStore("bucket", clock)
    for key, data in content(tier("primary")).items():
        held = lock if key == loose else _PROMISED
        until = None if held is None or layout.role_of(key) is layout.Role.NOTE else clock.now() + held
        store.put(key, Body.of(data), retain_until=until)
    site = Site(Plan.model_validate(_PLAN), clock=clock, stores={"bucket": store})
    labels = (None, *(backup.label for backup in BACKUPS))
    results = [lock_is_in_force(site, "shop", "primary", *([label] if label else [])) for label in labels]
    return tuple(dict.fromkeys(result.name for result in results if not result.passed))


_PLAN = {
    "version": 1, "name": "test", "encryption": "none",
    "storage": {"bucket": {"type": "s3", "profile": "aws", "bucket": "bucket", "lock": {}}},
    "databases": {
        "shop": {"connection": {"host": "db"}, "schedule": {"full": "daily"}, "storage": {"primary": "bucket"}},
    },
}  # fmt: skip
