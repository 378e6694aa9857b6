"""Locks follow what is kept: where a backup stays longer than its objects are locked, their locks are made longer.

Which were made longer until when is remembered in the records, so that a store of a million objects is asked about the
few backups only whose end has moved.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

from dr_pipelines.errors import ObjectNotFound
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.repository.snapshot_manifest import ArchiveList
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
    had = _by_object(here, {label: until for label, until in known.items() if label in here.by_label})
    for key, until in _by_object(here, kept).items():
        if key not in had or had[key] < until:
            _extend(store, key, until)
    for label, until in kept.items():
        if label not in known or known[label] < until:
            _extend(store, here.by_label[label].layout.manifest, until)
    return {label: max(until, known.get(label, until)) for label, until in kept.items()}


def _by_object(here: SnapshotView, ends: Mapping[str, datetime]) -> dict[str, datetime]:
    """Of snapshots until when each is locked, of all that they need the same, by key: what several name, the longest.
    What a list says that many name is gone through once."""
    found: dict[str, datetime] = {}
    lists: dict[ArchiveList, datetime] = {}
    for label in sorted(ends, key=lambda label: ends[label]):  # whoever comes last has the longest
        one, until = here.by_label[label], whole_day(ends[label])
        found |= {stored.key: until for stored in one.besides}
        lists |= dict.fromkeys(one.listed, until)
    for listed in sorted(lists, key=lambda listed: lists[listed]):
        found |= {pack.key: lists[listed] for pack in listed.packs}
    return found


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
