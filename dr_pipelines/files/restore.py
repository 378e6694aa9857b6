"""Restoring files: written beside the target, each held against the SHA-256 of its row, then moved into place.

What cannot be restored is named and the rest is; until the last step the target is as it was.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from dr_pipelines.clock import Clock
from dr_pipelines.disk import sync_disk, syncing
from dr_pipelines.errors import RestoreError
from dr_pipelines.files.arrays import array
from dr_pipelines.files.placing import Standing, is_free, place_each, place_whole, standing
from dr_pipelines.files.restore_directory import DirectoryTarget
from dr_pipelines.files.restore_packs import Unpacking
from dr_pipelines.files.restore_plan import Failure, Restoring, Unit, plan_restore
from dr_pipelines.files.restore_recall import ASKING, Recall, Recalling
from dr_pipelines.files.select import selected
from dr_pipelines.files.staging import staging_for
from dr_pipelines.files.table import shown
from dr_pipelines.files.tiers import Known, Tiers
from dr_pipelines.progress import Progress
from dr_pipelines.repository.buffers import give_back_freed_memory
from dr_pipelines.repository.snapshot_manifest import FileArchive


@dataclass(frozen=True)
class FilesReport:
    """What a restore did. `kept` was there and differs, `same` was there as it should be; `failed` says of each path
    why it was not restored. `fetched_bytes` as they are stored."""

    file_set: str
    snapshot: str
    target: str
    files: int
    directories: int
    links: int
    bytes: int
    packs: int
    fetched_bytes: int
    seconds: float
    same: int = 0
    kept: tuple[str, ...] = ()
    failed: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def require_whole(self) -> None:
        """Raises `RestoreError` naming what was not restored."""
        if not self.failed:
            return
        few = "; ".join(f"{path}: {why}" for path, why in [*self.failed.items()][:3])
        more = f"; and {len(self.failed) - 3} more" if len(self.failed) > 3 else ""
        raise RestoreError(
            f"{len(self.failed)} of the wanted paths were not restored: {few}{more}",
            hint="everything else was. `--json` lists them all. What cannot be named here another target may hold "
            "(`--to-store`, a directory); what is damaged another tier or snapshot may have.",
        )


def restore_to_directory(
    tiers: Tiers,
    snapshot: Known,
    target: Path,
    *,
    paths: Sequence[str] = (),
    overwrite: bool = False,
    recalling: Recalling = ASKING,
    clock: Clock,
    progress: Progress,
) -> FilesReport:
    """Raises `UsageError` for paths that the snapshot has not, `TargetInUse`, `HostTooSmall`, `RestoreError`,
    `RecallPending` when packs are offline and it is not waited for, `IntegrityError` when its table is whole on no
    tier, `KeyUnusable`, what the stores raise."""
    give_back_freed_memory()
    progress.phase("look")
    return restore_rows(
        tiers,
        selected(tiers.table(snapshot.manifest), paths),
        snapshot.manifest.archives,
        target,
        snapshot=snapshot.manifest.label,
        overwrite=overwrite,
        recalling=recalling,
        clock=clock,
        progress=progress,
    )


def planned(
    tiers: Tiers, snapshot: Known, target: Path | None, *, paths: Sequence[str] = (), overwrite: bool = False
) -> Restoring:
    """What `restore_to_directory` would do, or with no target a restore to a bucket. Raises as these."""
    rows = selected(tiers.table(snapshot.manifest), paths)
    if target is not None and not is_free(target):
        rows = without(rows, standing(target, rows, overwrite=overwrite).all)
    return plan_restore(rows, snapshot.manifest.archives, into_bucket=target is None)


def restore_rows(
    tiers: Tiers,
    rows: pa.Table,
    archives: Iterable[FileArchive],
    target: Path,
    *,
    snapshot: str,
    overwrite: bool = False,
    recalling: Recalling = ASKING,
    clock: Clock,
    progress: Progress,
) -> FilesReport:
    """The same of rows that were chosen, of one snapshot or of several, whose contents lie in `archives`; `snapshot`
    says of which."""
    began = clock.monotonic()
    there = Standing()
    free = is_free(target)
    if not free:
        there = standing(target, rows, overwrite=overwrite)
        rows = without(rows, there.all)
    plan = plan_restore(rows, archives)
    del rows  # as large as the plan
    recall = Recall(tiers, plan, recalling)
    with staging_for(target, plan.bytes) as staged:
        unpacking, failures = _write(tiers, plan, staged, recall, clock, progress)
        progress.phase("move")
        kept = [*there.kept]
        if free:
            target_of = DirectoryTarget(staged)
            failures += _dressed(target_of, plan, staged, plan.folders)
            sync_disk(staged)
            place_whole(_with_mode(staged), target)
        else:
            sync_disk(staged)
            placed = place_each(staged, target, overwrite=overwrite)
            failures += placed.failures + _dressed(DirectoryTarget(target), plan, target, placed.folders)
            kept += placed.kept
            sync_disk(target)
    lost = {failure.path: failure.reason for failure in (*there.blocked, *plan.failures, *failures)}
    return FilesReport(
        file_set=tiers.file_set,
        snapshot=snapshot,
        target=str(target),
        files=_count([*_paths(plan.contents), *_paths(plan.empty_files), *plan.twins], lost, kept),
        directories=_count(_paths(plan.directories), lost, kept),
        links=_count(_paths(plan.links), lost, kept),
        bytes=plan.bytes_without({*lost, *kept}),
        packs=unpacking.packs,
        fetched_bytes=unpacking.fetched,
        seconds=clock.monotonic() - began,
        same=len(there.same),
        kept=tuple(shown(path) for path in sorted(kept)),
        failed={shown(path): lost[path] for path in sorted(lost)},
    )


def _write(
    tiers: Tiers, plan: Restoring, staged: Path, recall: Recall, clock: Clock, progress: Progress
) -> tuple[Unpacking, list[Failure]]:
    target = DirectoryTarget(staged)
    failures = target.make_folders(plan)
    progress.phase("restore", plan.bytes)
    unpacking = Unpacking(tiers, target, plan.contents, progress)

    def unpack(units: Sequence[Unit]) -> None:
        with syncing(staged):
            unpacking.run(units)

    recall.run(unpack, clock=clock, progress=progress)
    failures += unpacking.failures
    failures += target.put_rest(plan, [failure.path for failure in failures])
    return unpacking, failures


def _dressed(target: DirectoryTarget, plan: Restoring, root: Path, folders: Sequence[bytes]) -> list[Failure]:
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return target.dress_folders(plan.directories, folders, descriptor)
    finally:
        os.close(descriptor)


def _with_mode(staged: Path) -> Path:
    """It was open to us alone; from now on as any new directory."""
    mask = os.umask(0)
    os.umask(mask)
    staged.chmod(0o777 & ~mask)
    return staged


def without(rows: pa.Table, paths: Collection[bytes]) -> pa.Table:
    """The rows of other paths."""
    if not paths:
        return rows
    return rows.filter(pc.invert(pc.is_in(rows["path"], value_set=array(paths, pa.binary()))))


def _paths(rows: pa.Table) -> list[bytes]:
    paths: list[bytes] = rows["path"].to_pylist()
    return paths


def _count(paths: Sequence[bytes], lost: dict[bytes, str], kept: Sequence[bytes]) -> int:
    gone = set(kept)
    return sum(path not in lost and path not in gone for path in paths)
