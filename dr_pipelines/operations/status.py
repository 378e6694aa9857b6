"""What stands: each tier's backups, the WAL stream, and what whoever is on call must know."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from dr_pipelines.errors import DrError
from dr_pipelines.lsn import Lsn
from dr_pipelines.operations.replica_sides import replicated_tiers
from dr_pipelines.operations.replication import replication_lag
from dr_pipelines.operations.windows import TierWindows, judged, view_tiers
from dr_pipelines.postgres.tier_view import TierView
from dr_pipelines.postgres.wal_slots import PatientServer
from dr_pipelines.postgres.wal_spool import Spool
from dr_pipelines.postgres.wal_status import StreamStatus, read_status
from dr_pipelines.replication.checks import TierLag
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.site import Site

_STREAM_SILENT_AFTER = 60.0


@dataclass(frozen=True)
class TierState:
    """What one tier holds of a server, and from when to when it can be restored from there (`windows`); `error` says
    why that could not be seen, `hint` what to do then. `wal_end` was in a store at `wal_stored_at`: of an idle server
    that is long ago, and nothing is lost. `lag` is how far it is behind the primary: None for the primary itself, and
    where that could not be seen."""

    tier: str
    windows: TierWindows
    newest_full: BackupManifest | None = None
    newest_backup: BackupManifest | None = None
    wal_end: Lsn | None = None
    wal_stored_at: datetime | None = None
    problems: tuple[str, ...] = ()
    lag: TierLag | None = None
    error: str | None = None
    hint: str | None = None


@dataclass(frozen=True)
class ServerState:
    """One server of the plan as it stands. `warnings` are sentences for whoever is on call."""

    server: str
    tiers: tuple[TierState, ...]
    stream: StreamStatus | None
    warnings: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.server


def status(site: Site) -> list[ServerState]:
    """Every server of the plan, from what the stores and the stream's status file say."""
    return [_state(site, server) for server in site.plan.databases]


def _state(site: Site, server: str) -> ServerState:
    views = view_tiers(site, server)
    tiers = tuple(_tier_state(views[found.tier], found) for found in judged(site, server, views))
    if tiers and tiers[0].error is None:
        tiers = (tiers[0], *(replace(tier, lag=_lag(site, server, tier)) for tier in tiers[1:]))
    stream = read_status(site.state_dir / server / "stream.json")
    return ServerState(server, tiers, stream, tuple(_warnings(site, server, tiers, stream)))


def _tier_state(view: TierView | DrError, windows: TierWindows) -> TierState:
    if isinstance(view, DrError):
        return TierState(windows.tier, windows, error=view.message, hint=view.hint)
    backups = view.catalog.backups
    fulls = [backup for backup in backups if backup.kind is BackupKind.FULL]
    newest = windows.systems[-1] if windows.systems else None
    return TierState(
        windows.tier,
        windows,
        fulls[-1] if fulls else None,
        backups[-1] if backups else None,
        newest.wal_end if newest else None,
        newest.wal_stored_at if newest else None,
        view.catalog.problems,
    )


def _lag(site: Site, server: str, tier: TierState) -> TierLag | None:
    if tier.error is None and tier.tier in replicated_tiers(site, server):
        with contextlib.suppress(DrError):  # it was read just now: what came between shows with the next look
            return replication_lag(site, server, tier.tier)
    return None


def _warnings(site: Site, server: str, tiers: Sequence[TierState], stream: StreamStatus | None) -> list[str]:
    said = [
        f"{tier.tier} cannot be read: {tier.error}; {tier.hint or f'run `dr store check {tier.tier}`'}"
        for tier in tiers
        if tier.error
    ]
    if tiers and tiers[0].error is None and tiers[0].newest_full is None:
        said.append(f"there is no full backup on {tiers[0].tier}: run `dr backup {server} --full`")
    if stream is None or stream.gap is None:  # else it is said below what happened
        said += [
            f"newest WAL on {tier.tier} cannot be restored: {gap.why}: take a full now with `dr backup {server} --full`"
            for tier in tiers
            for gap in (tier.windows.systems[-1].gaps[-1:] if tier.windows.systems else ())
            if gap.end is None
        ]
    for lag in (tier.lag for tier in tiers if tier.lag is not None):
        if lag.is_late:
            said.append(f"{lag.tier} is behind: {lag}; run `dr replicate {server} --tier {lag.tier}`")
        said += [f"{held}: run `dr scrub {tiers[0].tier}`" for held in lag.held]
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
