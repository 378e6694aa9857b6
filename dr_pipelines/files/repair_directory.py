"""Live files of a directory brought back to what their rows say. Nothing is overwritten but files whose content is not
what their row names, and each of these stays beside itself under another name."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from dr_pipelines.clock import Clock
from dr_pipelines.files.aside import drop_aside, keep_aside, name_aside
from dr_pipelines.files.repair import Repair, Repaired, repaired
from dr_pipelines.files.restore import FilesReport, restore_rows
from dr_pipelines.files.table import shown
from dr_pipelines.files.tiers import Tiers
from dr_pipelines.progress import Progress


def repair_directory(tiers: Tiers, root: Path, repair: Repair, *, clock: Clock, progress: Progress) -> Repaired:
    """Raises what a restore of files raises."""

    def restore(rows: pa.Table, *, overwrite: bool) -> FilesReport:
        return restore_rows(
            tiers, rows, repair.archives, root,
            snapshot=repair.labels, overwrite=overwrite, clock=clock, progress=progress,
        )  # fmt: skip

    at = clock.now()
    restored = restore(repair.absent, overwrite=False)
    failed = dict(restored.failed) | dict.fromkeys(restored.kept, "somebody put another file there")
    stays = {}
    for path in repair.files(repair.wrong):
        found = repair.found[path]
        if (why := keep_aside(root, path, at, size=found.size, digest=found.sha256)) is not None:
            stays[path] = why
    repair = repair.without(stays)
    kept = {path: shown(name_aside(path, at)) for path in repair.files(repair.wrong)}
    unplaced = set(kept)
    try:
        replaced = restore(repair.wrong, overwrite=True)
        failed |= replaced.failed
        unplaced = {path for path in kept if shown(path) in replaced.failed}
    finally:
        for path in unplaced:
            drop_aside(root, path, at)
    return repaired(repair, kept, failed)
