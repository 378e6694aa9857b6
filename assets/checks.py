"""Checks of the backups of a server, or the snapshots of a file set, together, named as promises; those of single ones
are in `integrity`. Each reads the stores; what could not be read has not passed."""
# No `from __future__ import annotations` here: Dagster reads the types of decorated functions.

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import dagster as dg

from dr_pipelines.backed_up import BackedUp, Taken, file_sets, servers
from dr_pipelines.checks import CheckResult, not_proven
from dr_pipelines.errors import DrError
from dr_pipelines.jobs import REFERENCES_MATCH
from dr_pipelines.metadata import FULL_BACKUP, POLL, SNAPSHOT, TIER, WAL_ARCHIVE, asset_key, check_result
from dr_pipelines.objectives.polls import ROWS_ARE_POLLED
from dr_pipelines.plan import Plan
from dr_pipelines.plan.values import Schedule, format_duration
from dr_pipelines.repository.due import (
    BACKUP_IS_THERE,
    SNAPSHOT_IS_THERE,
    Window,
    backup_is_there,
    newest_due,
    snapshot_is_there,
)
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.repository.repository import Repository
from dr_pipelines.resources import SiteResource
from dr_pipelines.validation.file_anomalies import CHANGES_ARE_USUAL

if TYPE_CHECKING:
    from dr_pipelines.site import Site

WAL_HAS_NO_GAP = "wal_has_no_gap"
Look = Callable[["Site"], CheckResult]


def looked(name: str, look: Look, resource: SiteResource) -> CheckResult:
    """What the look says; an error on the way means that nothing is proven."""
    try:
        return look(resource.site())
    except DrError as error:
        return not_proven(name, f"could not be checked: {error.message}", error=type(error).__name__, hint=error.hint)


# --- the looks ----------------------------------------------------------------------------------------------


def look_for_due_backup(server: str, kind: BackupKind, schedule: Schedule) -> Look:
    """Whether the backup of today (a full) or of this hour (an incremental) is there, once it is due."""
    window = Window.DAY if kind is BackupKind.FULL else Window.HOUR

    def look(site: "Site") -> CheckResult:
        repository = site.read_only_repository(server, TIER)
        backups = repository.backups(server)
        if kind is BackupKind.INCREMENTAL and hourly_points_are_wal(backups):
            return wal_is_there(repository, server, backups)
        now = site.clock.now()
        return backup_is_there(backups, kind, newest_due(schedule.cron, schedule.interval, window, now), now=now)

    return look


def look_for_due_snapshot(file_set: str, taken: Taken) -> Look:
    def look(site: "Site") -> CheckResult:
        # Imported here: see resources.py.
        from dr_pipelines.repository.snapshots import read_snapshots

        snapshots = read_snapshots(site.read_only_repository(file_set, TIER).store, file_set).snapshots
        now, schedule = site.clock.now(), taken.schedule
        due = newest_due(schedule.cron, schedule.interval, taken.window, now)
        return snapshot_is_there(snapshots, due, now=now)

    return look


def looks_for_due(backed_up: BackedUp) -> dict[str, tuple[str, Look]]:
    """Of each thing the name of the check whether it is in time, and what that looks at."""
    looks = {taken.thing: look_for_due(backed_up, taken) for taken in backed_up.taken}
    if backed_up.polled_every is not None:
        looks[POLL] = (ROWS_ARE_POLLED, look_at_polls(backed_up.name))
    return looks


def look_for_due(backed_up: BackedUp, taken: Taken) -> tuple[str, Look]:
    if backed_up.is_files:
        return SNAPSHOT_IS_THERE, look_for_due_snapshot(backed_up.name, taken)
    kind = BackupKind.FULL if taken.thing == FULL_BACKUP else BackupKind.INCREMENTAL
    return BACKUP_IS_THERE, look_for_due_backup(backed_up.name, kind, taken.schedule)


def hourly_points_are_wal(backups: Sequence[BackupManifest]) -> bool:
    return bool(backups) and backups[-1].hourly_points_are_wal


def wal_is_there(repository: Repository, server: str, backups: Sequence[BackupManifest]) -> CheckResult:
    """What an hour without incrementals has: WAL without a gap. How new it must be cannot be said, as an idle server
    writes none; where a stream does not ship, the hour's run fails."""
    # Imported here: see resources.py.
    from dr_pipelines.postgres.wal_checks import wal_has_no_gap

    found = wal_has_no_gap(repository, server, backups)
    said = f"hourly points are sealed WAL below PostgreSQL 17: {found.summary}"
    return replace(found, name=BACKUP_IS_THERE, summary=said)


def look_for_uncovered(server: str) -> Look:
    def look(site: "Site") -> CheckResult:
        # Imported here: see resources.py.
        from dr_pipelines import operations

        return operations.find_uncovered(site, server)

    return look


def look_for_wal_gap(server: str) -> Look:
    def look(site: "Site") -> CheckResult:
        # Imported here: see resources.py.
        from dr_pipelines import operations

        return operations.wal_has_no_gap(site, server, TIER)

    return look


def look_at_changes(file_set: str) -> Look:
    def look(site: "Site") -> CheckResult:
        # Imported here: see resources.py.
        from dr_pipelines import operations

        return operations.changes_are_usual(site, file_set)

    return look


def look_at_polls(file_set: str) -> Look:
    def look(site: "Site") -> CheckResult:
        # Imported here: see resources.py.
        from dr_pipelines import operations

        found = operations.check_polls(site, file_set)
        assert found is not None, "only of what is polled"
        return found

    return look


def look_at_references(file_set: str) -> Look:
    def look(site: "Site") -> CheckResult:
        # Imported here: see resources.py.
        from dr_pipelines import operations
        from dr_pipelines.progress import Silent

        return operations.reconcile(site, file_set, Silent()).check

    return look


# --- as asset checks ----------------------------------------------------------------------------------------


def asset_check(key: dg.AssetKey, name: str, description: str, look: Look) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=key, name=name, description=description)
    def _check(site: SiteResource) -> dg.AssetCheckResult:
        return check_result(looked(name, look, site))

    return _check


def backup_checks(plan: Plan) -> Iterator[dg.AssetChecksDefinition]:
    for backed_up in servers(plan):
        server = backed_up.name
        yield asset_check(
            asset_key(server, FULL_BACKUP),
            "everything_is_covered",
            "Nothing is on the server that the newest backup or the data classes do not know.",
            look_for_uncovered(server),
        )
        yield from due_checks(backed_up)
        yield asset_check(
            asset_key(server, WAL_ARCHIVE),
            WAL_HAS_NO_GAP,
            "WAL reaches without a gap from the oldest backup to the newest segment.",
            look_for_wal_gap(server),
        )
    for backed_up in file_sets(plan):
        yield from due_checks(backed_up)
        yield from file_checks(backed_up)


def due_checks(backed_up: BackedUp) -> Iterator[dg.AssetChecksDefinition]:
    for taken in backed_up.taken:
        name, look = look_for_due(backed_up, taken)
        said = f"The {taken.thing.replace('_', ' ')} that was due ({taken.schedule.text}), or a newer one, is there."
        yield asset_check(asset_key(backed_up.name, taken.thing), name, said, look)


def file_checks(backed_up: BackedUp) -> Iterator[dg.AssetChecksDefinition]:
    file_set, key = backed_up.name, asset_key(backed_up.name, SNAPSHOT)
    yield asset_check(
        key,
        CHANGES_ARE_USUAL,
        "No unusual share of files changed, vanished, was renamed or no longer compresses since the snapshot before; "
        "what did and was not accepted lets nothing older go.",
        look_at_changes(file_set),
    )
    if backed_up.polled_every is not None:
        yield asset_check(
            asset_key(file_set, POLL),
            ROWS_ARE_POLLED,
            "The rows that point at files are looked at as often as the plan says "
            f"({format_duration(backed_up.polled_every)}), give or take some intervals and a snapshot.",
            look_at_polls(file_set),
        )
    if backed_up.has_references:
        yield asset_check(
            key,
            REFERENCES_MATCH,
            "On the source every row that points at a file has it, and every file has its row.",
            look_at_references(file_set),
        )
