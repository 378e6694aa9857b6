"""Locks follow what is kept: where a backup stays longer than its objects are locked, their locks are made longer.

Which were made longer until when is remembered in the records, so that a store of a million objects is asked about the
few backups only whose end has moved.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

from dr_pipelines.errors import ObjectNotFound
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.retention.decisions import Retained, whole_day
from dr_pipelines.retention.planner import Retention, wal_of
from dr_pipelines.retention.view import SnapshotView, TierView
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


def extend_shared_locks(
    store: ObjectStore, here: SnapshotView, planned: Retained, known: Mapping[str, datetime]
) -> dict[str, datetime]:
    """As `extend_locks`, for snapshots: what several name is locked for as long as the one that stays longest; to the
    end of the day, so that it is asked for once a day however often snapshots come."""
    kept = {decision.label: decision.until or _for_ever(planned.at) for decision in planned.decisions if decision.keep}
    wanted: dict[str, datetime] = {}
    had: dict[str, datetime] = {}
    # Whoever names an object last, with these orders, wants it longest, or had it longest.
    for label in sorted(kept, key=lambda label: kept[label]):
        for stored in here.by_label[label].objects:
            wanted[stored.key] = whole_day(kept[label])
    for label in sorted(known.keys() & here.by_label.keys(), key=lambda label: known[label]):
        for stored in here.by_label[label].objects:
            had[stored.key] = whole_day(known[label])
    for key, until in wanted.items():
        if key not in had or had[key] < until:
            _extend(store, key, until)
    for label, until in kept.items():
        if label not in known or known[label] < until:
            _extend(store, here.by_label[label].layout.manifest, until)
    return {label: max(until, known.get(label, until)) for label, until in kept.items()}


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
