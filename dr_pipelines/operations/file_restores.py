"""Files brought back, and what is known of them: restores, versions, differences."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from dr_pipelines.errors import UsageError
from dr_pipelines.files.diff import (
    SHOWN,
    Difference,
    LiveContents,
    by_digest,
    by_time,
    diff_tables,
    difference,
    live_rows,
)
from dr_pipelines.files.restore import FilesReport, planned, restore_to_directory
from dr_pipelines.files.restore_bucket import restore_to_bucket
from dr_pipelines.files.restore_preview import FilesPreview, preview
from dr_pipelines.files.restore_recall import Recalling
from dr_pipelines.files.tiers import LATEST, Known, Tiers, Wanted
from dr_pipelines.files.versions import Version, snapshot_with, versions_of
from dr_pipelines.operations.files import file_source
from dr_pipelines.progress import Progress
from dr_pipelines.repository.file_layout import parse_snapshot_label
from dr_pipelines.site import Site

LIVE = "live"


@dataclass(frozen=True)
class StorePlace:
    """A bucket of the plan, by its store's name, and below which prefix in it."""

    store: str
    prefix: str = ""

    @classmethod
    def parse(cls, text: str) -> StorePlace:
        """`STORE` or `STORE/PREFIX`."""
        store, _, prefix = text.partition("/")
        return cls(store, prefix)

    def __str__(self) -> str:
        return f"{self.store}/{self.prefix}".rstrip("/")


def restore_files(
    site: Site,
    file_set: str,
    snapshot: str,
    target: Path | StorePlace,
    progress: Progress,
    *,
    paths: Sequence[str] = (),
    overwrite: bool = False,
    version: str | None = None,
    tier: str | None = None,
    wait: bool = False,
    urgent: bool = False,
) -> FilesReport:
    """With `version`, digits of a SHA-256, that version of the one path, from the newest snapshot that has it. From one
    tier alone, or from the first that has it, and what that has not whole from the others. Packs that are offline are
    asked for (`urgent`: as fast as the service can), and with `wait` waited for. Raises what
    `files.restore.restore_to_directory` raises; what could not be restored is in the report."""
    tiers, notes = _tiers(site, file_set, progress, tier)
    found = _found(tiers, snapshot, paths, version)
    recalling = recalling_of(site, file_set, wait=wait, urgent=urgent)
    if isinstance(target, Path):
        report = restore_to_directory(
            tiers, found, target,
            paths=paths, overwrite=overwrite, recalling=recalling, clock=site.clock, progress=progress,
        )  # fmt: skip
    else:
        report = restore_to_bucket(
            tiers, found, site.bucket(target.store), target.prefix,
            paths=paths, overwrite=overwrite, recalling=recalling, clock=site.clock, progress=progress,
        )  # fmt: skip
    return replace(report, notes=(*notes, *report.notes))


def preview_files(
    site: Site,
    file_set: str,
    snapshot: str,
    target: Path | StorePlace,
    progress: Progress,
    *,
    paths: Sequence[str] = (),
    overwrite: bool = False,
    version: str | None = None,
    tier: str | None = None,
    urgent: bool = False,
) -> FilesPreview:
    """What `restore_files` would read, and what of that is offline. Asks for nothing, and writes nothing."""
    tiers, notes = _tiers(site, file_set, progress, tier)
    found = _found(tiers, snapshot, paths, version)
    folder = target if isinstance(target, Path) else None
    plan = planned(tiers, found, folder, paths=paths, overwrite=overwrite)
    recalling = recalling_of(site, file_set, urgent=urgent)
    seen = preview(tiers, plan, recalling, snapshot=found.manifest.label, target=str(target))
    return replace(seen, notes=notes)


def recalling_of(site: Site, file_set: str, *, wait: bool = False, urgent: bool = False) -> Recalling:
    """With what the classes of each tier's store mean."""
    return Recalling({tier: site.terms(file_set, tier) for tier in site.tiers(file_set)}, wait, urgent)


def _found(tiers: Tiers, snapshot: str, paths: Sequence[str], version: str | None) -> Known:
    wanted = snapshot_wanted(snapshot)
    return tiers.find(wanted if version is None else _with_version(tiers, wanted, paths, version))


def file_versions(
    site: Site, file_set: str, path: bytes, progress: Progress, *, tier: str | None = None
) -> list[Version]:
    """Every version of a path that the tiers hold, oldest first. Raises what `files.versions.versions_of` raises."""
    tiers, _ = _tiers(site, file_set, progress, tier)
    return versions_of(tiers, path)


def diff_files(
    site: Site,
    file_set: str,
    before: str,
    after: str,
    progress: Progress,
    *,
    contents: bool = False,
    most: int | None = SHOWN,
    tier: str | None = None,
) -> Difference:
    """Of two snapshots, or of one and the source (`live`), whose files are read with `contents`. Raises `UsageError`,
    and what reading tables raises."""
    tiers, _ = _tiers(site, file_set, progress, tier)
    progress.phase("look")
    first = tiers.find(snapshot_wanted(before)).manifest
    if after != LIVE:
        second = tiers.find(snapshot_wanted(after)).manifest
        found = diff_tables(tiers.table(first), tiers.table(second), by_digest)
        return difference(first.label, second.label, "SHA-256", found, most)
    source = file_source(site, file_set)
    if not contents:
        found = diff_tables(tiers.table(first), live_rows(source), by_time)
        return difference(first.label, LIVE, "size and time", found, most)
    live = LiveContents(source)
    found = diff_tables(tiers.table(first), live_rows(source), live)
    return replace(difference(first.label, LIVE, "SHA-256", found, most), unread=live.unread)


def snapshot_wanted(text: str) -> Wanted:
    """A label, `latest`, or an instant with its zone. Raises `UsageError`."""
    if text == LATEST:
        return text
    try:
        parse_snapshot_label(text)
        return text
    except ValueError:
        pass
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise UsageError(
            f"{text!r} is no snapshot: neither a label, nor latest, nor an instant with its zone",
            hint="`dr files list` shows labels; an instant is written as 2026-11-23T14:05:00Z.",
        )
    return at


def _with_version(tiers: Tiers, wanted: Wanted, paths: Sequence[str], version: str) -> str:
    if len(paths) != 1 or wanted != LATEST:
        raise UsageError(
            "a version is one of one path, in whatever snapshot has it",
            hint="name the path with --path, and `latest` as the snapshot; `dr files versions` shows them.",
        )
    return snapshot_with(versions_of(tiers, os.fsencode(paths[0])), version)


def _tiers(site: Site, file_set: str, progress: Progress, tier: str | None) -> tuple[Tiers, tuple[str, ...]]:
    repositories, notes = site.readable_repositories(file_set, tier)
    for note in notes:
        progress.note(note)
    return Tiers(repositories, file_set, progress), tuple(notes)
