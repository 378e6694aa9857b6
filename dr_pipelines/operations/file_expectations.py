"""The table of a file set's newest snapshot, held against expectations."""

from __future__ import annotations

from typing import Any

from dr_pipelines.checks import CheckResult, failed, not_proven
from dr_pipelines.errors import BackupNotFound, KeyUnusable
from dr_pipelines.files.columns import columns_of
from dr_pipelines.files.memory import SnapshotMemory
from dr_pipelines.files.read_table import read_table
from dr_pipelines.files.table import lay_over
from dr_pipelines.operations.files import labelled_snapshot
from dr_pipelines.repository.repository import Repository
from dr_pipelines.repository.snapshot_manifest import Snapshot
from dr_pipelines.site import Site
from dr_pipelines.validation.file_suite import SNAPSHOT_MEETS_EXPECTATIONS, snapshot_suite
from dr_pipelines.validation.suites import judged


def judge_snapshot(site: Site, file_set: str, label: str = "latest", tier: str = "primary") -> dict[str, CheckResult]:
    """By name of the check. A host without identity judges the rows that it remembers to have put, which are those of
    the snapshot that it took last. Raises what the store raises."""
    # Imported here: it takes seconds.
    from dr_pipelines.validation.expectations import run_over_columns

    name, repository = SNAPSHOT_MEETS_EXPECTATIONS, site.read_only_repository(file_set, tier)
    try:
        manifest = labelled_snapshot(repository, file_set, label)
        table = _table(site, repository, manifest)
    except BackupNotFound as error:
        return {name: failed(name, error.message, hint=error.hint)}
    except KeyUnusable as error:
        return {name: not_proven(name, error.message, hint=error.hint)}
    columns = columns_of(table, {archive.name: archive.size for archive in manifest.archives})
    result = run_over_columns(snapshot_suite(manifest, columns, site.clock.now()), columns, named_by="path")
    return {name: judged(name, [result], backup=manifest.label, tier=tier)}


def _table(site: Site, repository: Repository, manifest: Snapshot) -> Any:
    """As it is stored, or else as this host remembers it."""
    try:
        return read_table(repository, manifest)
    except KeyUnusable:
        past = SnapshotMemory(site.state_dir / "files" / manifest.file_set).recall()
        if past is None or past.manifest != manifest:
            raise
        return lay_over(past.base, past.changes)
