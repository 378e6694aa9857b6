"""What it costs when no tier holds an object whole: the restore points that are gone, and the stretches of WAL.

Pure: what is marked and told is up to others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dr_pipelines.errors import RepositoryError
from dr_pipelines.lsn import Lsn, Timeline, WalSegment, is_history_name
from dr_pipelines.replication.inventory import Fault, Inventory
from dr_pipelines.repository import layout
from dr_pipelines.repository.catalog import chain_of
from dr_pipelines.repository.labels import Labelled
from dr_pipelines.repository.layout import WalLayout
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.storage.base import ObjectInfo


@dataclass(frozen=True)
class LostBackup:
    """A backup or snapshot that cannot be restored from this tier any more, and why."""

    label: str
    because: str


@dataclass(frozen=True)
class LostWal:
    """WAL from `start` to `end` is gone: no instant after `start` can be restored before `restorable_again`, where the
    next backup becomes consistent (None: there is none yet). `after` and `until` are these as times: when the WAL
    before it reached the tier, and when that backup ended."""

    system_id: str
    timeline: Timeline
    start: Lsn
    end: Lsn
    restorable_again: Lsn | None = None
    next_backup: str | None = None
    after: datetime | None = None
    until: datetime | None = None

    def told(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "system_id": self.system_id,
            "timeline": self.timeline.id,
            "start": str(self.start),
            "end": str(self.end),
            "after": self.after.isoformat() if self.after else None,
            "restorable_again": str(self.restorable_again) if self.restorable_again else None,
            "next_backup": self.next_backup,
            "until": self.until.isoformat() if self.until else None,
        }

    def __str__(self) -> str:
        since = f"after {self.start}" + (f" ({_minute(self.after)})" if self.after else "")
        if self.next_backup is None:
            return f"every instant {since} on timeline {self.timeline.id}, until another full backup is taken"
        return (
            f"every instant {since} until {self.restorable_again} ({_minute(self.until)}), where {self.next_backup} "
            f"becomes consistent, on timeline {self.timeline.id}"
        )


def _minute(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC" if at else "?"


def costs(fault: Fault, inventory: Inventory) -> list[str]:
    """The labels of what cannot be restored without it: the index and the break-glass bundle only make that easier."""
    return [label for label in inventory.needing(fault) if _is_read(fault, label, inventory)]


def _is_read(fault: Fault, label: str, inventory: Inventory) -> bool:
    known = inventory.backups.get(label) or inventory.expired.get(label)
    if known is None:
        return fault.key == inventory.owner.layout(label).manifest
    return any(stored.key == fault.key for stored in known.restored_from)


def lost_backups(lost: Iterable[Fault], inventory: Inventory, gaps: Sequence[LostWal] = ()) -> tuple[LostBackup, ...]:
    """Those that lack an object, those that build on one of them, and those whose own WAL is gone. Oldest first."""
    found: dict[str, str] = {}
    for fault in lost:
        for label in costs(fault, inventory):
            found.setdefault(label, f"{fault.key} is {fault.what}")
    for label, backup in inventory.of_server.items():
        if any(_needs(backup, gap) for gap in gaps):
            found.setdefault(label, "the WAL that makes it consistent is lost")
    for label, known in sorted(inventory.backups.items()):
        broken = next((link for link in _ancestors(known, inventory.backups) if link in found), None)
        if broken is not None:
            found.setdefault(label, f"it builds on {broken}")
    return tuple(LostBackup(label, because) for label, because in sorted(found.items()))


def lost_wal(lost: Iterable[Fault], inventory: Inventory, unusable: Iterable[str] = ()) -> tuple[LostWal, ...]:
    """Stretches of segments of which nothing whole is left; `unusable` are the labels that cannot be restored."""
    keys = {fault.key for fault in lost if fault.label is None}
    return tuple(gap for system in sorted(inventory.systems()) for gap in _gaps(keys, system, inventory, {*unusable}))


def _gaps(lost: set[str], system_id: str, inventory: Inventory, unusable: set[str]) -> Iterator[LostWal]:
    size = inventory.segment_size(system_id) or inventory.described.get(system_id)
    if size is None:
        return
    here = inventory.segments(system_id, size)
    for timeline, gone in sorted(_gone(lost, WalLayout(inventory.server, system_id), size, here).items()):
        objects = here.get(timeline, {})
        for first, last in _runs(sorted(gone)):
            before = [info.modified for info in objects.get(first - 1, ())]
            start, end = WalSegment(timeline, first, size).start, WalSegment(timeline, last, size).end
            following = _next_backup(inventory.of_server.values(), system_id, timeline, end, unusable)
            yield LostWal(
                system_id,
                timeline,
                start,
                end,
                following.stop_lsn if following else None,
                following.label if following else None,
                max(before, default=None),
                following.finished_at if following else None,
            )


def _gone(
    lost: set[str], keys: WalLayout, size: int, here: Mapping[Timeline, Mapping[int, Sequence[ObjectInfo]]]
) -> dict[Timeline, set[int]]:
    """Numbers of segments of which nothing whole is left."""
    found: dict[Timeline, set[int]] = {}
    for key in lost:
        parsed = layout.parse_wal_key(key) if key.startswith(keys.prefix) else None
        if parsed is None or is_history_name(parsed.file):
            continue
        segment = WalSegment.parse(parsed.file, size)
        if all(info.key in lost for info in here.get(segment.timeline, {}).get(segment.number, ())):
            found.setdefault(segment.timeline, set()).add(segment.number)
    return found


def _runs(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Neighbours as (first, last)."""
    start = previous = None
    for number in numbers:
        if previous is None or number != previous + 1:
            if start is not None and previous is not None:
                yield start, previous
            start = number
        previous = number
    if start is not None and previous is not None:
        yield start, previous


def _next_backup(
    backups: Iterable[BackupManifest], system_id: str, timeline: Timeline, after: Lsn, unusable: set[str]
) -> BackupManifest | None:
    able = [
        backup
        for backup in backups
        if (backup.system_id, backup.timeline) == (system_id, timeline)
        and backup.start_lsn >= after
        and backup.label not in unusable
    ]
    return min(able, key=lambda backup: backup.stop_lsn, default=None)


def _needs(backup: BackupManifest, gap: LostWal) -> bool:
    if backup.system_id != gap.system_id:
        return False
    return any(
        timeline == gap.timeline and start < gap.end and gap.start < end for timeline, start, end in backup.needed_wal
    )


def _ancestors(backup: Labelled, backups: Mapping[str, Labelled]) -> list[str]:
    """A parent that is not there is named too: its manifest may be what is damaged."""
    try:
        return [link.label for link in chain_of(backup, backups.values())[:-1]]
    except RepositoryError:
        found, parent = list[str](), backup.builds_on
        while parent is not None and parent not in found:
            found.insert(0, parent)
            parent = backups[parent].builds_on if parent in backups else None
        return found


def lost_histories(lost: Iterable[Fault]) -> tuple[str, ...]:
    """Timeline histories without which no restore finds the way across."""
    keys = (layout.parse_wal_key(fault.key) for fault in lost if fault.label is None)
    return tuple(sorted(key.file for key in keys if key is not None and is_history_name(key.file)))
