"""What one tier holds of a server, read once: its catalog and the WAL of each of its systems, as listed.

Recovery windows, `dr status` and retention look at it. What follows from it does not belong here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from dr_pipelines.errors import IntegrityError, KeyUnusable
from dr_pipelines.lsn import Lsn, Timeline
from dr_pipelines.postgres.recovery_windows import SystemWal, SystemWindows, recovery_windows
from dr_pipelines.postgres.restore_plan import Switch, WalSpan
from dr_pipelines.postgres.wal_resume import parse_history
from dr_pipelines.repository.catalog import Catalog
from dr_pipelines.repository.repository import Repository
from dr_pipelines.repository.wal import WalArchive
from dr_pipelines.repository.wal_listing import WalListing


@dataclass(frozen=True)
class ViewedWal:
    """One system's WAL. Timelines without a history that could be read are in `unreadable` (no key at hand opens it) or
    `unknown` (it is not there, or damaged)."""

    listing: WalListing
    histories: Mapping[Timeline, Switch]
    unreadable: frozenset[Timeline]
    unknown: frozenset[Timeline]


@dataclass(frozen=True)
class TierView:
    """`wal` by system id, the system that was seen first comes first."""

    tier: str
    catalog: Catalog
    wal: Mapping[str, ViewedWal]


def view_tier(repository: Repository, server: str) -> TierView:
    """Raises what the store raises; `RepositoryError` where there is no repository."""
    repository.check_format()
    catalog = repository.catalog(server)
    sizes: dict[str, int | None] = {backup.system_id: backup.segment_size for backup in catalog.backups}
    systems = sizes or dict.fromkeys(repository.wal_system_ids(server))
    wal = {system: _view_wal(repository.wal(server, system, size)) for system, size in systems.items()}
    return TierView(repository.tier, catalog, wal)


def windows_of(view: TierView, others: Sequence[TierView] = ()) -> tuple[SystemWindows, ...]:
    """The recovery windows of each system on a tier. `others` only tell when WAL reached a store first: on a replica
    that is the time of copying."""
    found = []
    for system, wal in view.wal.items():
        elsewhere = [other.wal[system] for other in others if system in other.wal]
        found.append(recovery_windows(view.catalog, system, _system_wal(wal, [wal, *elsewhere])))
    return tuple(found)


def _system_wal(own: ViewedWal, everywhere: Sequence[ViewedWal]) -> SystemWal:
    def stored_at(timeline: Timeline, end: Lsn) -> datetime | None:
        times = (wal.listing.stored_at(timeline, end) for wal in everywhere)
        return min(filter(None, times), default=None)

    spans = [WalSpan(part.timeline, part.start, part.end) for part in own.listing.ranges()]
    return SystemWal(own.listing.segment_size, spans, own.histories, own.unreadable, own.unknown, stored_at)


def _view_wal(archive: WalArchive) -> ViewedWal:
    listing = archive.listing()
    histories: dict[Timeline, Switch] = {}
    unreadable: set[Timeline] = set()
    for timeline in listing.histories:
        try:
            rows = parse_history(archive.history(timeline) or b"")
        except KeyUnusable:
            unreadable.add(timeline)
        except IntegrityError:
            continue
        else:
            if rows and rows[-1][1] is not None:
                histories[timeline] = Switch(rows[-1][0], rows[-1][1])
    told = {Timeline(1), *histories, *unreadable}
    return ViewedWal(listing, histories, frozenset(unreadable), frozenset(set(listing.known) - told))
