"""Locks follow what is kept: where a backup stays longer than its objects are locked, their locks are made longer.

Which were made longer until when is remembered in the records, so that a store of a million objects is asked about the
few backups only whose end has moved.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

from dr_pipelines.errors import ObjectNotFound
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.retention.planner import Retention, wal_of
from dr_pipelines.retention.view import TierView
from dr_pipelines.storage.base import ObjectStore

_AHEAD = timedelta(days=60)
"""What is kept for ever is locked for so long, again and again: nobody can take back a lock that has no end."""


def extend_locks(
    store: ObjectStore, here: TierView, planned: Retention, known: Mapping[str, datetime]
) -> dict[str, datetime]:
    """Until when each kept backup is locked now. Raises what the store raises."""
    locked: dict[str, datetime] = {}
    for decision in planned.decisions:
        if not decision.keep:
            continue
        until = decision.until or _for_ever(planned.at)
        before = known.get(decision.label)
        if before is not None and before >= until:
            locked[decision.label] = before
            continue
        for key in _objects(here, here.by_label[decision.label]):
            _extend(store, key, until)
        locked[decision.label] = until
    return locked


def _for_ever(now: datetime) -> datetime:
    """The same for a month, so that it does not move each time."""
    return (now + _AHEAD).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def _objects(here: TierView, backup: BackupManifest) -> Iterator[str]:
    """The manifest last: a lock on it says that the rest is locked."""
    system = here.wal.get(backup.system_id)
    if system is not None:
        yield from (found.key for found in system.within(wal_of(backup, here.by_label)))
    yield from (named.key for named in backup.objects)
    yield backup.layout.manifest


def _extend(store: ObjectStore, key: str, until: datetime) -> None:
    try:
        present = store.stat(key).retain_until
        if present is None or present < until:
            store.extend_lock(key, until)
    except ObjectNotFound:
        return  # it shows as missing in the catalog
