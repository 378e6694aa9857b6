"""Which WAL is due on a tier. Pure: two listings and what the tier's backups need in, the objects to bring out.

WAL is compared by PostgreSQL's name for it, not by key: the stream may have put the same segment on both tiers, and
encrypted twice it never looks alike.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from dr_pipelines.lsn import Lsn, Timeline, WalSegment, is_history_name
from dr_pipelines.plan.policies import RetentionPlan
from dr_pipelines.repository.layout import WalKey, WalLayout, damaged_wal, parse_wal_key, system_id_of
from dr_pipelines.repository.manifest import BackupManifest, StoredObject
from dr_pipelines.retention.planner import keep_by_rules, kept_labels, wal_of
from dr_pipelines.retention.wal import Run, SystemWal, runs_on
from dr_pipelines.retention.wal import WalNeed as Stretch
from dr_pipelines.storage.base import ObjectInfo


class WalNeed:
    """Which files a tier needs. `needs` and `segment_sizes` by system; `others`: whether WAL of a system that is not
    named is needed too."""

    def __init__(
        self, needs: Mapping[str, Sequence[Stretch]], segment_sizes: Mapping[str, int], *, others: bool = False
    ) -> None:
        self._needs, self._sizes, self._others = needs, segment_sizes, others
        self._runs: dict[tuple[str, Timeline], list[Run]] = {}

    def wants(self, system_id: str, file: str) -> bool:
        if system_id not in self._needs:
            return self._others
        if is_history_name(file):
            return bool(self._needs[system_id])
        segment = WalSegment.parse(file, self._sizes[system_id])
        where = (system_id, segment.timeline)
        if where not in self._runs:
            self._runs[where] = runs_on(segment.timeline, self._needs[system_id], segment.size)
        runs = self._runs[where]
        at = bisect_right(runs, segment.number, key=lambda run: run[0]) - 1
        return at >= 0 and segment.number < runs[at][1]


def wal_need(
    send: str,
    backups: Sequence[BackupManifest],
    rules: RetentionPlan,
    *,
    now: datetime,
    wal: Mapping[str, SystemWal] = {},
) -> WalNeed:
    """For a tier with these backups and these rules, so that nothing is brought that retention would remove. `wal` of
    the source tells of timelines that have no backup yet, and of systems whose backups are wanted no more.
    `everything`: what any instant of the recovery window needs and what each older backup that is kept needs by itself;
    else the latter only."""
    by_label = {backup.label: backup for backup in backups}
    needs: dict[str, list[Stretch]] = defaultdict(list)
    for label in kept_labels(backups, rules, now):
        needs[by_label[label].system_id].append(wal_of(by_label[label], by_label))
    if send == "everything":
        _, window = keep_by_rules(backups, by_label, {}, wal, rules, now)
        for system_id, of_system in window.needs.items():
            needs[system_id] += of_system
    sizes = {system_id: system.segment_size for system_id, system in wal.items()}
    sizes |= {backup.system_id: backup.segment_size for backup in backups}
    needs |= {system_id: [] for system_id in sizes if system_id not in needs}
    return WalNeed(needs, sizes, others=send == "everything")  # WAL may be there before its first backup is


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
