"""What snapshots of files share: which objects something needs, and what goes besides snapshots. Pure.

Archives, lists of them, and tables that later ones are laid over, belong to no snapshot alone. They stay while a
manifest names them, or one that can still be put back, and while a snapshot that is being taken or copied may come to
name them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

from dr_pipelines.repository.file_layout import archive_begun
from dr_pipelines.repository.manifest import StoredObject
from dr_pipelines.repository.marks import Expired
from dr_pipelines.repository.snapshot_manifest import ArchiveList, Snapshot
from dr_pipelines.retention.decisions import IN_FLIGHT
from dr_pipelines.retention.view import SnapshotView, Unfinished, begun
from dr_pipelines.storage.base import ObjectInfo


def objects_of(snapshots: Iterable[Snapshot]) -> Iterator[StoredObject]:
    """Each at least once; what a list says that many name, once. Of lists that cannot be read nobody knows what they
    say."""
    seen: set[ArchiveList] = set()
    for one in snapshots:
        yield from one.besides
        for listed in one.listed:
            if listed not in seen:
                seen.add(listed)
                yield from listed.packs


def freed_by(snapshots: Sequence[Snapshot], kept: Collection[str]) -> dict[str, dict[str, int]]:
    """Of those that go, by label: keys and sizes of what goes with each. What several name goes with the newest of
    them. `snapshots` oldest first."""
    seen = {listed for one in snapshots if one.label in kept for listed in one.listed}
    stays = {stored.key for stored in objects_of(one for one in snapshots if one.label in kept)}
    freed: dict[str, dict[str, int]] = {}
    for one in reversed(snapshots):
        if one.label not in kept:
            packs = (pack for listed in one.listed if listed not in seen for pack in listed.packs)
            seen |= {*one.listed}
            freed[one.label] = {stored.key: stored.size for stored in (*one.besides, *packs) if stored.key not in stays}
            stays |= freed[one.label].keys()
    return freed


@dataclass(frozen=True)
class Stays:
    """On a tier. `elsewhere`: what other tiers hold; `unread`: one of them cannot be looked at; `keeps`: of these
    snapshots, those that the tier's rules would keep."""

    here: SnapshotView
    elsewhere: Mapping[str, Snapshot]
    unread: bool
    keeps: Callable[[Sequence[Snapshot]], Collection[str]]
    grace: timedelta
    now: datetime

    @cached_property
    def incoming(self) -> Mapping[str, Snapshot]:
        """Labels without a manifest here that are whole elsewhere, and that belong here: they are being copied, or
        were damaged and will be repaired."""
        unfinished = self.here.unfinished
        found = {one.label: self.elsewhere[one.label] for one in unfinished if one.label in self.elsewhere}
        union = sorted({**self.here.by_label, **found}.values(), key=lambda one: one.started_at)
        wanted = {*self.keeps(union), *(one.label for one in unfinished if self._is_alive(one))}
        return {label: one for label, one in found.items() if label in wanted}

    @cached_property
    def needed(self) -> frozenset[str]:
        """The keys of all that a manifest names, or one that can be put back, or one that is on its way."""
        return frozenset(stored.key for stored in objects_of(self._living))

    @cached_property
    def _living(self) -> list[Snapshot]:
        undoable = (gone.manifest for gone in self.here.catalog.expired if not self._is_over(gone))
        return [*self.here.catalog.snapshots, *undoable, *self.incoming.values()]

    @cached_property
    def prunable(self) -> dict[str, int]:
        """Labels that were expired long enough ago, oldest first, with the bytes of their tables and lists that
        nothing needs; archives are counted by themselves."""
        over = [gone.manifest for gone in self.here.catalog.expired if self._is_over(gone)]
        return {
            one.label: sum(stored.size for stored in one.besides if stored.key not in self.needed)
            for one in sorted(over, key=lambda one: one.started_at)
        }

    @cached_property
    def garbage(self) -> dict[str, int]:
        """What a crash left behind under a label, and tables of snapshots that are gone and that no other needs any
        more. While a tier cannot be read, what lacks its manifest here may be whole there."""
        return {
            one.label: sum(info.size for info in one.objects if info.key not in self.needed)
            for one in (() if self.unread else self.here.unfinished)
            if one.label not in self.incoming
            if not self._is_alive(one) and one.touched <= self.now - IN_FLIGHT
        }

    @cached_property
    def unneeded_archives(self) -> dict[str, tuple[ObjectInfo, ...]]:
        """Objects that nothing needs, by archive. While a tier cannot be read, only of what was let go here, and that
        only when nothing is on its way: it may be a copy of what is there. None while a list cannot be read: any may be
        in it."""
        if any(one.unread for one in self._living):
            return {}
        candidates = None
        if self.unread:
            candidates = {archive.name for gone in self._let_go for archive in gone.archives}
        found = {
            name: tuple(info for info in infos if info.key not in self.needed)
            for name, infos in self.here.catalog.archives.items()
            if (candidates is None or name in candidates) and self._is_settled(name)
        }
        return {name: infos for name, infos in found.items() if infos}

    @cached_property
    def unneeded_lists(self) -> tuple[ObjectInfo, ...]:
        """The same of lists of archives, which manifests name themselves."""
        candidates = {stored.key for gone in self._let_go for stored in gone.lists} if self.unread else None
        return tuple(
            info
            for name, info in self.here.catalog.lists.items()
            if info.key not in self.needed and (candidates is None or info.key in candidates) and self._is_settled(name)
        )

    @property
    def _let_go(self) -> Sequence[Snapshot]:
        """What was let go here, when nothing is on its way."""
        if any(one.claimed for one in self.here.unfinished):
            return ()
        return [gone.manifest for gone in self.here.catalog.expired]

    def _is_settled(self, name: str) -> bool:
        """Whether what put an archive, or a list, had put its last long ago."""
        return self.here.put_by[archive_begun(name)] <= self._horizon

    @cached_property
    def _horizon(self) -> datetime:
        """What nothing names since before may go. A snapshot that is being taken uses archives of those that were there
        when it was begun, and of an interrupted one of the day before, however long it takes itself."""
        running = [begun(one) for one in self.here.unfinished if one.label not in self.incoming and self._is_alive(one)]
        return min([self.now, *running]) - IN_FLIGHT

    def _is_alive(self, one: Unfinished) -> bool:
        """It puts archives beside its label."""
        newest = max(one.touched, self.here.put_by.get(begun(one), one.touched))
        return one.claimed and newest > self.now - IN_FLIGHT

    def _is_over(self, gone: Expired[Snapshot]) -> bool:
        return gone.at + self.grace <= self.now and gone.at <= self._horizon
