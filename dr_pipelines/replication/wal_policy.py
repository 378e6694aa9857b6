"""Which WAL is due on a tier. Pure: two listings and what the tier's backups need in, the objects to bring out.

WAL is compared by PostgreSQL's name for it, not by key: the stream may have put the same segment on both tiers, and
encrypted twice it never looks alike.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from dr_pipelines.lsn import Lsn, WalSegment, is_history_name
from dr_pipelines.repository.layout import BackupKind, WalKey, WalLayout, damaged_wal, parse_wal_key, system_id_of
from dr_pipelines.repository.manifest import BackupManifest, StoredObject
from dr_pipelines.storage.base import ObjectInfo


@dataclass(frozen=True)
class SystemNeed:
    """What of one system's WAL is needed: these segments by name, and all that ends after `since`."""

    segment_size: int
    segments: frozenset[str]
    since: Lsn | None = None

    def wants(self, file: str) -> bool:
        if file in self.segments:
            return True
        return self.since is not None and WalSegment.parse(file, self.segment_size).end > self.since


@dataclass(frozen=True)
class WalNeed:
    """By system. `others`: whether WAL of a system that is not named is needed too."""

    systems: Mapping[str, SystemNeed]
    others: bool = False

    def wants(self, system_id: str, file: str) -> bool:
        system = self.systems.get(system_id)
        if system is None:
            return self.others
        return is_history_name(file) or system.wants(file)


def wal_need(send: str, backups: Iterable[BackupManifest], *, now: datetime, window: timedelta) -> WalNeed:
    """For a tier with these backups. `everything`: what any instant of the recovery window needs and what each older
    backup needs to become consistent; else the latter only."""
    by_system: dict[str, list[BackupManifest]] = defaultdict(list)
    for backup in backups:
        by_system[backup.system_id].append(backup)
    everything = send == "everything"
    return WalNeed(
        {
            system_id: SystemNeed(
                of_system[0].segment_size,
                frozenset(name for backup in of_system for name in _own_segments(backup)),
                _window_begins(of_system, now - window) if everything else None,
            )
            for system_id, of_system in by_system.items()
        },
        others=everything,  # WAL may be there before its first backup is
    )


def _own_segments(backup: BackupManifest) -> Iterable[str]:
    for needed in backup.wal_ranges:
        segment = WalSegment.containing(needed.start, needed.timeline, backup.segment_size)
        while segment.start < needed.end:
            yield segment.name
            segment = segment.next()


def _window_begins(backups: Sequence[BackupManifest], begin: datetime) -> Lsn:
    """Where the newest full that is older than the window starts, or any after it: a promotion may go back."""
    fulls = [backup for backup in backups if backup.kind is BackupKind.FULL and backup.finished_at <= begin]
    since = max((full.started_at for full in fulls), default=min(backup.started_at for backup in backups))
    return min(backup.start_lsn for backup in backups if backup.started_at >= since)


# --- two listings -------------------------------------------------------------------------------------------


@dataclass
class _Listed:
    """One system on one tier, by file: whole objects (and histories), and heads by their end."""

    described: ObjectInfo | None = None
    whole: dict[str, list[StoredObject]] = field(default_factory=lambda: defaultdict(list))
    heads: dict[str, dict[Lsn, StoredObject]] = field(default_factory=lambda: defaultdict(dict))


@dataclass(frozen=True)
class WalDue:
    """`descriptions`: keys of `wal.json`. `whole`: histories first, then segments in order, each with all the objects
    that hold it: one is enough. `heads`: the longest of each segment whose whole is nowhere. `stale`: heads on the
    target that go once what makes them superfluous is there. `oldest`: when the first of these reached the source."""

    descriptions: tuple[str, ...] = ()
    whole: tuple[tuple[StoredObject, ...], ...] = ()
    heads: tuple[StoredObject, ...] = ()
    stale: tuple[str, ...] = ()
    oldest: datetime | None = None

    @property
    def bytes(self) -> int:
        """To be copied."""
        return sum(alternatives[0].size for alternatives in self.whole) + sum(head.size for head in self.heads)


def wal_due(server: str, source: Sequence[ObjectInfo], target: Sequence[ObjectInfo], need: WalNeed) -> WalDue:
    """`source` and `target` are what lies under `layout.wal_prefix` there. Objects marked as damaged are not there."""
    ours, theirs = _by_system(server, source), _by_system(server, target)
    descriptions: list[str] = []
    whole: list[tuple[StoredObject, ...]] = []
    heads: list[StoredObject] = []
    stale: list[str] = []
    for system_id in sorted({*ours, *theirs}):
        here, there = (listed.get(system_id, _Listed()) for listed in (ours, theirs))
        wanted = [file for file in here.whole if file not in there.whole and need.wants(system_id, file)]
        open_heads = [
            (file, longest)
            for file, of_file in here.heads.items()
            if file not in here.whole and file not in there.whole and need.wants(system_id, file)
            and (longest := max(of_file)) > max(there.heads.get(file, {}), default=Lsn(0))
        ]  # fmt: skip
        if here.described is not None and there.described is None and (wanted or open_heads):
            descriptions.append(here.described.key)
        whole += [tuple(here.whole[file]) for file in sorted(wanted, key=_histories_first)]
        heads += [here.heads[file][end] for file, end in sorted(open_heads)]
        stale += _stale(there, {*wanted, *there.whole}, dict(open_heads))
    begun = {info.key: info.modified for info in source}
    arrived = [begun[stored.key] for stored in (*(any_of[0] for any_of in whole), *heads)]
    return WalDue(tuple(descriptions), tuple(whole), tuple(heads), tuple(stale), min(arrived, default=None))


def _histories_first(file: str) -> tuple[bool, str]:
    return not is_history_name(file), file


def _stale(there: _Listed, whole: set[str], longer: Mapping[str, Lsn]) -> list[str]:
    """Heads on the target that a whole segment or a longer head makes superfluous."""
    return [
        head.key
        for file, heads in there.heads.items()
        for end, head in heads.items()
        if file in whole or end < max(max(heads), longer.get(file, Lsn(0)))
    ]


def _by_system(server: str, listed: Sequence[ObjectInfo]) -> dict[str, _Listed]:
    damaged = {marked for info in listed if (marked := damaged_wal(info.key)) is not None}
    systems: dict[str, _Listed] = defaultdict(_Listed)
    for info in listed:
        system_id = system_id_of(server, info.key)
        key = parse_wal_key(info.key)
        if key is not None and info.key not in damaged:
            _add(systems[system_id], key, StoredObject(key=info.key, size=info.size, sha256=key.sha256))
        elif info.key == WalLayout(server, system_id).description:
            systems[system_id].described = info
    return systems


def _add(system: _Listed, key: WalKey, stored: StoredObject) -> None:
    if key.partial_end is None:
        system.whole[key.file].append(stored)
    else:
        system.heads[key.file][key.partial_end] = stored
