"""A look at rows between two snapshots: new versions of files are copied before they are overwritten."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from dr_pipelines.files.rows import changed_since
from dr_pipelines.operations.files import file_source, take_snapshot
from dr_pipelines.operations.reconcile import known_contents
from dr_pipelines.operations.references import references_of
from dr_pipelines.progress import Progress
from dr_pipelines.reconcile.compare import changed_paths
from dr_pipelines.repository.snapshot_manifest import Snapshot
from dr_pipelines.site import Site

_OVERLAP = timedelta(hours=1)
"""A row's time is that of its transaction's start, and it is seen only once that has ended."""


@dataclass(frozen=True)
class Polled:
    """`at`: every row that was committed by then has its file in the newest snapshot, if it was there. `snapshot`: the
    one that was taken for the `changed` paths; None when nothing had changed. `is_whole`: everything was looked at,
    because no snapshot was known."""

    at: datetime
    changed: int
    snapshot: Snapshot | None
    is_whole: bool = False


def poll(site: Site, file_set: str, progress: Progress) -> Polled:
    """Copy the files of rows that are not in the newest snapshot as they are now. Raises `UsageError` where nothing
    points at the files, `ServerError`, and what a snapshot raises."""
    references = references_of(site, file_set)
    known, at = known_contents(site, file_set), site.clock.now()
    if known.seen_at is None:
        first = take_snapshot(site, file_set, progress)
        _remember(site, file_set, first.started_at)
        return Polled(first.started_at, first.counts.files, first, is_whole=True)
    progress.phase("rows")
    rows = references.read()
    written = references.dated.read(since=known.seen_at - _OVERLAP)
    doubted = changed_paths(rows, known.rows, written)
    progress.phase("look")
    looked = file_source(site, file_set).look(doubted)
    changed = changed_since(known.rows, known.seen_at, looked, doubted)
    taken = take_snapshot(site, file_set, progress, only=changed) if changed else None
    _remember(site, file_set, at)
    return Polled(at, len(changed), taken)


def polled_until(site: Site, file_set: str) -> datetime | None:
    """Of this host's polls: until when rows are known to have their files in the newest snapshot."""
    try:
        return TypeAdapter(datetime).validate_json(_file(site, file_set).read_bytes())
    except (OSError, ValidationError):
        return None


def _remember(site: Site, file_set: str, at: datetime) -> None:
    path = _file(site, file_set)
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_bytes(TypeAdapter(datetime).dump_json(at))
    new.replace(path)


def _file(site: Site, file_set: str) -> Path:
    return site.state_dir / "files" / file_set / "polled.json"
