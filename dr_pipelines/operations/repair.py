"""Repairing live files of a directory from the versions that snapshots hold: `dr reconcile --repair`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dr_pipelines.errors import UsageError
from dr_pipelines.files.aside import drop_aside, keep_aside, name_aside
from dr_pipelines.files.restore import FilesReport, restore_rows, without
from dr_pipelines.files.table import FILE, shown
from dr_pipelines.files.tiers import Tiers
from dr_pipelines.plan.file_sets import DirectorySource
from dr_pipelines.progress import Progress
from dr_pipelines.reconcile.compare import Comparison
from dr_pipelines.reconcile.repair import Repair, plan_repair
from dr_pipelines.site import Site


@dataclass(frozen=True)
class Repaired:
    """Paths. What was `replaced` is kept beside each under a name that ends with `aside`; `not_repaired` says why."""

    restored: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    aside: str = ""
    not_repaired: Mapping[str, str] = field(default_factory=dict)


def require_repairable(site: Site, file_set: str) -> Path:
    """The folder of the live files. Raises `UsageError` where there is none."""
    source = site.file_set(file_set).source
    if not isinstance(source, DirectorySource):
        raise UsageError(
            f"{file_set} lies in a bucket, and only files of a directory are repaired in place",
            hint=f"`dr files restore {file_set}` brings versions back beside it.",
        )
    return source.path


def repair(site: Site, file_set: str, found: Comparison, progress: Progress) -> Repaired:
    """What a version in the repository can repair of the findings. Nothing is overwritten but files whose content is
    not what their row says, and these are kept. Raises what a restore of files raises."""
    root = require_repairable(site, file_set)
    repositories, notes = site.readable_repositories(file_set)
    for note in notes:
        progress.note(note)
    tiers = Tiers(repositories, file_set, progress)
    progress.phase("pair")
    snapshots = [one.manifest for one in tiers.known() if one.trouble is None]
    at = site.clock.now()
    plan = plan_repair(found.findings, snapshots, at, tiers.table)
    reasons = {shown(path): why for path, why in plan.hopeless.items()}
    restored = _restore(site, tiers, root, plan, plan.absent, progress, overwrite=False)
    reasons |= restored.failed | dict.fromkeys(restored.kept, "somebody put another file there")
    wrong = _files(plan.wrong)
    stays = {
        path: why
        for path in wrong
        if (why := keep_aside(root, path, at, size=plan.found[path].size, digest=plan.found[path].sha256)) is not None
    }
    reasons |= {shown(path): why for path, why in stays.items()}
    rows = without(plan.wrong, stays)
    kept = [path for path in wrong if path not in stays]
    try:
        replaced = _restore(site, tiers, root, plan, rows, progress, overwrite=True)
        kept = [path for path in kept if shown(path) in replaced.failed]
    finally:
        for path in kept:
            drop_aside(root, path, at)
    reasons |= replaced.failed
    return Repaired(
        tuple(name for path in _files(plan.absent) if (name := shown(path)) not in reasons),
        tuple(name for path in wrong if (name := shown(path)) not in reasons),
        shown(name_aside(b"", at)),
        reasons,
    )


def _restore(
    site: Site, tiers: Tiers, root: Path, plan: Repair, rows: Any, progress: Progress, *, overwrite: bool
) -> FilesReport:
    archives = {archive.name: archive for one in plan.snapshots for archive in one.archives}
    labels = ", ".join(one.label for one in plan.snapshots)
    return restore_rows(
        tiers,
        rows,
        archives.values(),
        root,
        snapshot=labels,
        overwrite=overwrite,
        clock=site.clock,
        progress=progress,
    )


def _files(rows: Any) -> list[bytes]:
    return [path for path, kind in zip(rows["path"].to_pylist(), rows["type"].to_pylist(), strict=True) if kind == FILE]
