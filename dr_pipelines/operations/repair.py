"""Repairing live files from the versions that snapshots hold: `dr reconcile --repair`, and what it would do."""

from __future__ import annotations

from dr_pipelines.errors import DrError, UsageError
from dr_pipelines.files.repair import Planned as Planned
from dr_pipelines.files.repair import Repair, planned
from dr_pipelines.files.repair import Repaired as Repaired
from dr_pipelines.files.restore_plan import plan_restore
from dr_pipelines.files.restore_recall import Recall, Recalling
from dr_pipelines.files.tiers import Tiers
from dr_pipelines.operations.file_restores import recalling_of
from dr_pipelines.plan.file_sets import BucketSource, DirectorySource
from dr_pipelines.progress import Progress
from dr_pipelines.reconcile.compare import Comparison
from dr_pipelines.reconcile.repair import plan_repair
from dr_pipelines.repository.recall import foretold
from dr_pipelines.site import Site


def plan(site: Site, file_set: str, found: Comparison, progress: Progress) -> Planned:
    """What `repair` would do. That snapshots cannot be read here is told, not raised."""
    try:
        tiers = _tiers(site, file_set, progress)
        wanted = _plan(site, found, tiers, progress)
        offline = _recall(tiers, wanted, recalling_of(site, file_set)).find()
        if offline.objects:
            progress.note(foretold(offline))
        return planned(wanted)
    except DrError as error:
        return Planned(unknown=error.message)


def repair(
    site: Site, file_set: str, found: Comparison, progress: Progress, *, wait: bool = False, urgent: bool = False
) -> Repaired:
    """What a version in the repository can repair of the findings. Nothing is overwritten but files whose content is
    not what their row says, and these are kept. What is offline of all that is asked for before anything is repaired
    (`urgent`: as fast as the service can), and with `wait` waited for. Raises `UsageError`, what a restore of files
    raises."""
    source = site.file_set(file_set).source
    tiers = _tiers(site, file_set, progress)
    wanted = _plan(site, found, tiers, progress)
    recalling = recalling_of(site, file_set, wait=wait, urgent=urgent)
    _recall(tiers, wanted, recalling).bring_back(clock=site.clock, progress=progress)
    # Imported here: a folder's repair needs no bucket, and the other way round.
    if isinstance(source, DirectorySource):
        from dr_pipelines.files.repair_directory import repair_directory

        return repair_directory(tiers, source.path, wanted, clock=site.clock, progress=progress)
    if isinstance(source, BucketSource):
        from dr_pipelines.files.repair_bucket import repair_bucket

        return repair_bucket(tiers, site.bucket(source.store), wanted, clock=site.clock, progress=progress)
    raise UsageError(
        f"the plan does not say where the files of {file_set} are", hint=f"name file_storage.{file_set}.source."
    )


def _recall(tiers: Tiers, wanted: Repair, recalling: Recalling) -> Recall:
    return Recall(tiers, plan_restore(wanted.rows, wanted.archives, into_bucket=True), recalling)


def _plan(site: Site, found: Comparison, tiers: Tiers, progress: Progress) -> Repair:
    progress.phase("pair")
    snapshots = [one.manifest for one in tiers.known() if one.trouble is None]
    return plan_repair(found, snapshots, site.clock.now(), tiers.table)


def _tiers(site: Site, file_set: str, progress: Progress) -> Tiers:
    repositories, notes = site.readable_repositories(file_set)
    for note in notes:
        progress.note(note)
    return Tiers(repositories, file_set, progress)
