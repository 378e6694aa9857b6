"""What would be lost of a file set if it were gone now, by tier: the file RPO as it is."""

from __future__ import annotations

from dr_pipelines.errors import DrError
from dr_pipelines.objectives.exposure import Exposure, FilesSeen, files_exposure, unseen
from dr_pipelines.operations.files import list_snapshots
from dr_pipelines.operations.polls import polls_of
from dr_pipelines.repository.snapshot_manifest import Snapshot
from dr_pipelines.repository.snapshots import SnapshotCatalog
from dr_pipelines.site import Site


def file_exposures(site: Site, file_set: str) -> tuple[Exposure, ...]:
    """Of each tier."""
    return tuple(exposure_on(site, file_set, tier) for tier in site.tiers(file_set))


def exposure_on(site: Site, file_set: str, tier: str) -> Exposure:
    try:
        return file_exposure(site, file_set, tier, list_snapshots(site, file_set, tier))
    except DrError as error:
        return unseen(tier, f"cannot be read: {error.message}")


def file_exposure(site: Site, file_set: str, tier: str, catalog: SnapshotCatalog) -> Exposure:
    """Of a tier that holds this. Where every file has a row, what rows say counts too: a poll looks at no others."""
    by_rows = site.file_set(file_set).rows_name_all
    until = polls_of(site, file_set).until if by_rows and tier == "primary" else None
    seen = [_seen(one, by_rows and until is None) for one in catalog.usable]
    if seen and until is not None:  # this host knows more than the store: also that no row changed since
        seen.append(FilesSeen(until, "as its rows said"))
    newest = max(seen, key=lambda one: one.until, default=None)
    return files_exposure(tier, newest, seen_at=site.clock.now())


def _seen(one: Snapshot, by_rows: bool) -> FilesSeen:
    """By rows a poll's snapshot is as they said a moment before it began."""
    polled = by_rows and one.is_poll
    return FilesSeen(one.started_at if polled else one.looked_at, "as its rows said" if polled else "its snapshot is")
