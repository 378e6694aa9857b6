"""Files brought back, and what is known of them: restores, versions, differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from dr_pipelines.errors import UsageError
from dr_pipelines.files.restore import FilesReport, restore_to_directory
from dr_pipelines.files.tiers import LATEST, Tiers, Wanted
from dr_pipelines.progress import Progress
from dr_pipelines.repository.file_layout import parse_snapshot_label
from dr_pipelines.site import Site


def restore_files(
    site: Site,
    file_set: str,
    snapshot: str,
    target: Path,
    progress: Progress,
    *,
    paths: Sequence[str] = (),
    overwrite: bool = False,
    tier: str | None = None,
) -> FilesReport:
    """From one tier alone, or from the first that has it, and what that has not whole from the others. Raises what
    `files.restore.restore_to_directory` raises; what could not be restored is in the report."""
    wanted = snapshot_wanted(snapshot)
    tiers, notes = _tiers(site, file_set, progress, tier)
    report = restore_to_directory(
        tiers, tiers.find(wanted), target, paths=paths, overwrite=overwrite, clock=site.clock, progress=progress
    )
    return replace(report, notes=notes)


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


def _tiers(site: Site, file_set: str, progress: Progress, tier: str | None) -> tuple[Tiers, tuple[str, ...]]:
    repositories, notes = site.readable_repositories(file_set, tier)
    for note in notes:
        progress.note(note)
    return Tiers(repositories, file_set, progress), tuple(notes)
