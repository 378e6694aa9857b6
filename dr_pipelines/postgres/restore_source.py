"""The tiers that can serve a restore, each with its plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dr_pipelines.errors import BackupNotFound, DrError, RepositoryError, RestoreError, StoreError
from dr_pipelines.lsn import Timeline
from dr_pipelines.postgres.restore_plan import RestorePlan, Switch, WalSpan, plan_restore
from dr_pipelines.postgres.restore_request import RestoreRequest
from dr_pipelines.postgres.wal_checks import parse_history
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.repository.repository import Repository
from dr_pipelines.repository.wal import WalArchive


@dataclass(frozen=True)
class Source:
    """A tier that can serve the restore; `backups` and `archive` are of one system."""

    repository: Repository
    backups: tuple[BackupManifest, ...]
    archive: WalArchive
    plan: RestorePlan


def find_sources(request: RestoreRequest, repositories: Sequence[Repository]) -> tuple[list[Source], list[str]]:
    """The tiers that can serve the request, in the order given, and why others cannot. Raises the first tier's trouble
    when none can."""
    found: list[Source] = []
    notes: list[str] = []
    trouble: DrError | None = None
    for repository in repositories:
        try:
            found.append(_source(request, repository, notes))
        except (StoreError, RepositoryError, RestoreError) as error:
            trouble = trouble or error
            notes.append(f"{repository.tier} cannot be used: {error.message}")
    if not found:
        raise trouble or BackupNotFound(f"no tier is named to restore {request.server} from")
    return found, notes


def _source(request: RestoreRequest, repository: Repository, notes: list[str]) -> Source:
    """Adds to `notes` what of the tier is not understood: it may be the backup that a person expects."""
    repository.check_format()
    catalog = repository.catalog(request.server)
    backups = catalog.backups
    notes += catalog.problems
    wanted = _wanted(request, repository, backups)
    of_system = tuple(backup for backup in backups if backup.system_id == wanted.system_id)
    archive = repository.wal(request.server, wanted.system_id)
    spans = [WalSpan(found.timeline, found.start, found.end) for found in archive.ranges()]
    plan = plan_restore(
        of_system,
        spans,
        _histories(archive),
        request.target,
        label=request.label,
        use_incrementals=request.use_incrementals,
    )
    return Source(repository, of_system, archive, plan)


def _wanted(request: RestoreRequest, repository: Repository, backups: Sequence[BackupManifest]) -> BackupManifest:
    """The backup that says which system is meant: the one named, or the newest."""
    if request.label is not None:
        return repository.backup(request.server, request.label)
    if not backups:
        raise BackupNotFound(
            f"there is no backup of {request.server} on {repository.tier}", hint=f"take one: dr backup {request.server}"
        )
    return backups[-1]


def _histories(archive: WalArchive) -> dict[Timeline, Switch]:
    found: dict[Timeline, Switch] = {}
    for timeline in archive.timelines():
        data = archive.history(timeline) if timeline.id > 1 else None
        rows = parse_history(data) if data else []
        if rows and rows[-1][1] is not None:
            found[timeline] = Switch(rows[-1][0], rows[-1][1])
    return found
