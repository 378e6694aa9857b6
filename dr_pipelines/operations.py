"""One function a verb, used by the command line and Dagster alike. Nothing here prints."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from dr_pipelines.checks import CheckResult, not_proven
from dr_pipelines.commands import Command, account_exists, runs_as_root
from dr_pipelines.errors import BackupNotFound, DrError, UsageError
from dr_pipelines.lsn import Lsn
from dr_pipelines.postgres import tools
from dr_pipelines.postgres.restore import RestoreReport
from dr_pipelines.postgres.restore import restore as _restore
from dr_pipelines.postgres.restore_preview import RestorePreview
from dr_pipelines.postgres.restore_preview import preview as _preview
from dr_pipelines.postgres.restore_request import RestoreRequest
from dr_pipelines.postgres.restore_source import no_backup
from dr_pipelines.postgres.take import SealedWal
from dr_pipelines.postgres.take import take_backup as _take_backup
from dr_pipelines.postgres.verify import verify
from dr_pipelines.postgres.wal_checks import wal_has_no_gap as _wal_has_no_gap
from dr_pipelines.postgres.wal_ship import Tier
from dr_pipelines.postgres.wal_slots import PatientServer
from dr_pipelines.postgres.wal_spool import Spool
from dr_pipelines.postgres.wal_status import StreamStatus, read_status
from dr_pipelines.postgres.wal_stream import WalStream
from dr_pipelines.progress import Progress
from dr_pipelines.repository.catalog import Catalog
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.repository.repository import Repository
from dr_pipelines.repository.wal import WalArchive
from dr_pipelines.site import Site
from dr_pipelines.storage.check import check_store as _check_store

_STREAM_SILENT_AFTER = 60.0


@dataclass(frozen=True)
class TierState:
    """What one tier holds of a server; `error` says why that could not be seen, `hint` what to do then."""

    tier: str
    newest_full: BackupManifest | None = None
    newest_backup: BackupManifest | None = None
    wal_end: Lsn | None = None
    problems: tuple[str, ...] = ()
    error: str | None = None
    hint: str | None = None


@dataclass(frozen=True)
class ServerState:
    """One server of the plan as it stands. `warnings` are sentences for whoever is on call."""

    server: str
    tiers: tuple[TierState, ...]
    stream: StreamStatus | None
    warnings: tuple[str, ...]


def check_store(site: Site, tier_or_name: str) -> list[CheckResult]:
    """Try a store of the plan with scratch objects."""
    return _check_store(site.store_of(tier_or_name))


def take_backup(site: Site, server: str, kind: BackupKind, progress: Progress) -> BackupManifest | SealedWal:
    """Take a backup into the primary tier. Raises what `postgres.take.take_backup` raises."""
    repository = site.repository(server, "primary")
    taken = _take_backup(
        site.server(server),
        repository,
        server,
        kind,
        state_dir=site.state_dir,
        clock=site.clock,
        progress=progress,
    )
    if isinstance(taken, BackupManifest) and _lacks_wal(repository, taken):
        progress.note(
            f"no WAL of {server} is on {repository.tier} yet: {taken.label} can be restored only with the WAL from "
            f"{taken.start_lsn} on; does `dr wal stream {server}` run?"
        )
    return taken


def _lacks_wal(repository: Repository, backup: BackupManifest) -> bool:
    with contextlib.suppress(DrError):  # the backup is there; a listing that failed says nothing of its WAL
        return repository.wal(backup.server, backup.system_id).is_empty()
    return False


def list_backups(site: Site, server: str, tier: str = "primary") -> Catalog:
    repository = site.read_only_repository(server, tier)
    repository.check_format()
    return repository.catalog(server)


def find_backup(site: Site, label: str, tier: str = "primary", server: str | None = None) -> BackupManifest:
    """A backup by its label, or the `latest`; without a server, of whichever server of the plan has it.

    Raises `BackupNotFound`; `UsageError` when `latest` could be of several servers.
    """
    servers = [server] if server else [name for name in site.plan.databases if tier in site.tiers(name)]
    if label == "latest" and len(servers) > 1:
        raise UsageError(f"the plan has {len(servers)} servers", hint=f"name one of them: {', '.join(servers)}.")
    for name in servers:
        with contextlib.suppress(BackupNotFound):
            return _labelled(site.read_only_repository(name, tier), name, label)
    raise BackupNotFound(
        f"no backup {label!r} of {' or '.join(servers) or 'any server'} on {tier}",
        hint=f"`dr list --tier {tier}` shows those that there are.",
    )


def verify_backup(site: Site, server: str, label: str, tier: str, progress: Progress) -> list[CheckResult]:
    """Read a backup whole and compare it; `label` may be `latest`. Raises `BackupNotFound`."""
    repository = site.read_only_repository(server, tier)
    return verify(repository, _labelled(repository, server, label), progress=progress)


def wal_has_no_gap(site: Site, server: str, tier: str = "primary") -> CheckResult:
    repository = site.read_only_repository(server, tier)
    try:
        return _wal_has_no_gap(repository, server, repository.backups(server))
    except DrError as error:
        return not_proven("wal_has_no_gap", f"{tier} could not be read: {error.message}")


def restore(site: Site, request: RestoreRequest, progress: Progress, *, tier: str | None = None) -> RestoreReport:
    """Restore and recover from one tier alone, or from the first that can with the WAL of all and of this host's
    spool."""
    repositories, notes = site.readable_repositories(request.server, tier)
    for note in notes:
        progress.note(note)
    report = _restore(
        _located(site, request, tier), repositories, clock=site.clock, runner=site.runner, progress=progress
    )
    return replace(report, notes=(*notes, *report.notes))


def preview_restore(
    site: Site, request: RestoreRequest, progress: Progress, *, tier: str | None = None
) -> RestorePreview:
    repositories, notes = site.readable_repositories(request.server, tier)
    seen = _preview(_located(site, request, tier), repositories, runner=site.runner, progress=progress)
    return replace(seen, notes=(*notes, *seen.notes))


def stream_wal(site: Site, server: str, stop: threading.Event, tell: Callable[[str], None] = lambda said: None) -> None:
    """`dr wal stream`: returns when `stop` is set and everything is shipped; `tell` hears what changes meanwhile.
    Raises what `WalStream.run` raises."""
    plan, connection, slot = site.plan_of(server), site.server(server).connection, site.slot(server)
    target = tools.ReceiverTarget(
        connection.host, connection.port, connection.user, connection.password, connection.sslmode
    )

    def receiver(spool: Path, major: int) -> Command:
        programs = site.bin_dir(server, major)
        return tools.pg_receivewal(
            target, directory=spool, slot=slot, synchronous=plan.wal.synchronous, bin_dir=programs
        )

    def archive(tier: str, system_id: str) -> WalArchive:
        repository = site.repository(server, tier)
        repository.check_format()
        return repository.wal(server, system_id)

    # Opened by their shippers, one by one: a tier that cannot be opened must not stop the others.
    tiers = [Tier(tier, functools.partial(archive, tier)) for tier in plan.wal.tiers]
    WalStream(
        server,
        site.server(server),
        receiver,
        tiers,
        slot=slot,
        directory=site.state_dir / server,
        clock=site.clock,
        runner=site.runner,
        tell=tell,
        ship_open_every=plan.wal.ship_open_every.total_seconds(),
    ).run(stop)


def status(site: Site) -> list[ServerState]:
    """Every server of the plan, from what the stores and the stream's status file say."""
    return [_state(site, server) for server in site.plan.databases]


def _state(site: Site, server: str) -> ServerState:
    tiers = tuple(_tier_state(site, server, tier) for tier in site.tiers(server))
    stream = read_status(site.state_dir / server / "stream.json")
    return ServerState(server, tiers, stream, tuple(_warnings(site, server, tiers, stream)))


def _tier_state(site: Site, server: str, tier: str) -> TierState:
    try:
        repository = site.read_only_repository(server, tier)
        repository.check_format()
        catalog = repository.catalog(server)
        fulls = [backup for backup in catalog.backups if backup.kind is BackupKind.FULL]
        newest = catalog.backups[-1] if catalog.backups else None
        systems = [newest.system_id] if newest else repository.wal_system_ids(server)
        ends = [found.end for system in systems for found in repository.wal(server, system).ranges()]
        return TierState(tier, fulls[-1] if fulls else None, newest, max(ends, default=None), catalog.problems)
    except DrError as error:
        return TierState(tier, error=error.message, hint=error.hint)


def _warnings(site: Site, server: str, tiers: Sequence[TierState], stream: StreamStatus | None) -> list[str]:
    said = [
        f"{tier.tier} cannot be read: {tier.error}; {tier.hint or f'run `dr store check {tier.tier}`'}"
        for tier in tiers
        if tier.error
    ]
    if tiers and tiers[0].error is None and tiers[0].newest_full is None:
        said.append(f"there is no full backup on {tiers[0].tier}: run `dr backup {server} --full`")
    said += _stream_warnings(site, server, stream, tiers[0].newest_full.started_at if tiers[0].newest_full else None)
    return said


def _stream_warnings(site: Site, server: str, stream: StreamStatus | None, newest_full: datetime | None) -> list[str]:
    if stream is None:
        return [f"no WAL stream has run on this host: {_run_it(server)}"]
    silent = (site.clock.now() - stream.updated_at).total_seconds()
    said = [
        f"the stream to {tier} is in trouble: {at.last_error}" for tier, at in stream.tiers.items() if at.last_error
    ]
    spool = site.spool(server)
    said += _full_disk(spool) or _absence(server, stream, silent)
    if stream.gap is not None and (newest_full is None or stream.gap.at > newest_full):
        said.append(f"WAL was lost ({stream.gap.reason}): take a full now with `dr backup {server} --full`")
    if stream.last_error:
        runs = "runs, but" if stream.state == "streaming" else f"is {stream.state}"
        said.append(f"the WAL stream {runs}: {stream.last_error}")
    connected = silent <= _STREAM_SILENT_AFTER and stream.state == "streaming"
    if site.plan_of(server).wal.synchronous and not (connected and stream.sync_state in ("sync", "quorum")):
        said.append(
            f"the plan wants synchronous WAL and the stream is {_synchrony(stream) if connected else 'not connected'}: "
            f"commits wait, or can be lost where synchronous_standby_names does not name {site.slot(server)}: "
            f"ALTER SYSTEM SET synchronous_standby_names = 'FIRST 1 ({site.slot(server)})'; SELECT pg_reload_conf()"
        )
        said += _commits(site, server)
    return said


def _synchrony(stream: StreamStatus) -> str:
    return stream.sync_state or "not seen to be so"


def _run_it(server: str) -> str:
    return f"run `dr wal stream {server}` as a service"


def _full_disk(spool: Path) -> list[str]:
    """Looked at here: the stream cannot write there that the disk is full, and seems silent."""
    if spool.is_dir():
        free, needed = Spool(spool).room_on_disk()
        if free < needed:
            return [
                f"the disk of {spool} is full: {free >> 10} KiB are left and the WAL stream needs {needed >> 10}; free "
                "some, or mend the tier that is in trouble (what is shipped is removed)"
            ]
    return []


def _absence(server: str, stream: StreamStatus, silent: float) -> list[str]:
    if stream.state == "stopped":
        return [f"the WAL stream was stopped: {_run_it(server)}"]
    if silent > _STREAM_SILENT_AFTER:
        return [f"the WAL stream has been silent for {silent:.0f} seconds: {_run_it(server)}"]
    return []


def _commits(site: Site, server: str) -> list[str]:
    try:
        waiting = PatientServer(site.server(server)).waiting_commits()
    except DrError as error:
        return [f"whether commits wait cannot be seen: {error.message}"]
    return [f"{waiting} commits wait for the WAL stream: run `dr wal stream {server}`"] if waiting else []


def _labelled(repository: Repository, server: str, label: str) -> BackupManifest:
    if label != "latest":
        return repository.backup(server, label)
    backups = repository.backups(server)
    if not backups:
        raise no_backup(server, repository.tier)
    return backups[-1]


def _located(site: Site, request: RestoreRequest, tier: str | None) -> RestoreRequest:
    plan = site.plan_of(request.server)
    user = request.os_user or plan.os_user or "postgres"
    if runs_as_root() and not account_exists(user):
        raise UsageError(
            f"there is no account {user!r} on this machine, and PostgreSQL does not run as root",
            hint=f"name one with databases.{request.server}.os_user in the plan, or run dr as an ordinary user.",
        )
    return replace(
        request,
        find_bin_dir=functools.partial(site.bin_dir, request.server),
        os_user=user if runs_as_root() else None,
        superuser=plan.connection.user,
        spool=None if tier else site.spool(request.server),
    )
