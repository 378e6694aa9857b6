"""RPO and RTO as they are: measured from the stores and the servers, held against the plan's promises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dr_pipelines.errors import DrError
from dr_pipelines.lsn import Lsn
from dr_pipelines.objectives.exposure import (
    NOT_SEARCHED,
    Exposure,
    NewestCommit,
    ServerPosition,
    has_caught_up,
    stream_exposure,
    tier_exposure,
    unseen,
)
from dr_pipelines.objectives.judgement import Objective, judge_loss, judge_time
from dr_pipelines.objectives.promises import Promise, promises, systems_of
from dr_pipelines.objectives.recovery_time import RecoveryTimes, recovery_times
from dr_pipelines.operations.file_exposure import file_exposures
from dr_pipelines.operations.windows import view_tiers
from dr_pipelines.postgres.recovery_windows import RecoveryWindow, SystemWindows
from dr_pipelines.postgres.restore_plan import WalSpan, lineage
from dr_pipelines.postgres.tier_view import TierView, windows_of
from dr_pipelines.postgres.wal_search import WalSearch
from dr_pipelines.postgres.wal_slots import PatientServer
from dr_pipelines.postgres.wal_status import read_status
from dr_pipelines.postgres.wal_tiers import WalTiers
from dr_pipelines.progress import Silent
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.repository.validations import Validation, read_validations
from dr_pipelines.site import Site

RESTORES = 60
"""So many of the newest on each tier are read; growth is seen in them."""
_PATIENCE = 15.0
"""Seconds for a server's answer."""
_SEARCHED = 256 << 20
"""Bytes of WAL that are looked through for the newest commit: a server that wrote more without one did nothing that
could be lost."""


@dataclass(frozen=True)
class Objectives:
    """Each line of the plan's tables, and what it was judged by: exposures by server, the stream's first, and by file
    set, and measured restores by server."""

    lines: tuple[Objective, ...]
    exposures: Mapping[str, tuple[Exposure, ...]]
    restores: Mapping[str, RecoveryTimes]
    files: Mapping[str, tuple[Exposure, ...]] = field(default_factory=dict)


def objectives(site: Site, server: str | None = None) -> Objectives:
    """Of the whole plan, or of what rests on one server. A store or server that does not answer hides no other."""
    if server is not None:
        site.plan_of(server)
    return measure_objectives(site, promises(site.plan, server))


def measure_objectives(site: Site, asked: Sequence[Promise]) -> Objectives:
    """The same, of some promises."""
    losing = dict.fromkeys(one.server for one in asked if one.table == "rpo" and one.server is not None)
    timed = dict.fromkeys(server for one in asked if one.table == "rto" for server in one.servers)
    exposures = {server: exposures_of(site, server) for server in losing}
    named = dict.fromkeys(name for one in asked for name in one.file_sets if name in site.file_sets)
    files = {name: file_exposures(site, name) for name in named}
    restores = {server: restores_of(site, server) for server in timed}
    systems, now = systems_of(site.plan), site.clock.now()
    lines = tuple(
        judge_loss(one, exposures.get(one.server or "", ()), files)
        if one.table == "rpo"
        else judge_time(one, systems, restores, now)
        for one in asked
    )
    return Objectives(lines, exposures, restores, files)


# --- RPO ----------------------------------------------------------------------------------------------------


def exposures_of(site: Site, server: str) -> tuple[Exposure, ...]:
    """Of the WAL stream, then of each tier."""
    asked = _position(site, server)
    position = asked if isinstance(asked, ServerPosition) else None
    look = _Look(site, server)
    while position is not None and position.connected and look.goes_on(position):
        look = look.anew()
    stream = stream_exposure(
        position,
        [*look.newest.values()],
        slot=site.slot(server),
        gap=_open_gap(site, server, look),
        why=asked.message if isinstance(asked, DrError) else "",
    )
    return (stream, *(look.exposure(tier, position) for tier in site.tiers(server)))


def _position(site: Site, server: str) -> ServerPosition | DrError:
    """Asked before the tiers are looked at: what was committed by then is on a tier that has reached it."""
    asked_at = site.clock.now()
    try:
        live = site.server(server)

        def ask() -> ServerPosition:
            facts, lsn, standby = live.facts(), live.flush_lsn(), live.standby(site.slot(server))
            ((commit,),) = live.ask("SELECT current_setting('synchronous_commit')")
            return ServerPosition(
                asked_at,
                facts.system_id,
                facts.timeline,
                lsn,
                facts.in_recovery,
                standby is not None,
                standby.state if standby else None,
                standby.sync_state if standby else None,
                str(commit),
            )

        return PatientServer(live, _PATIENCE).ask(ask)
    except DrError as error:
        return error


def _open_gap(site: Site, server: str, look: _Look) -> str | None:
    """WAL that the stream of this host lost, as long as no full was taken since."""
    status = read_status(site.state_dir / server / "stream.json")
    if status is None or status.gap is None:
        return None
    views = [view for view in look.views.values() if isinstance(view, TierView)]
    fulls = [one.started_at for view in views for one in view.catalog.backups if one.kind is BackupKind.FULL]
    return None if any(at > status.gap.at for at in fulls) else status.gap.reason


class _Look:
    """One look at all tiers of a server. What is on its way when the server is asked arrives within twice the interval
    at which the stream ships, so the tiers that it ships to are looked at again until then."""

    def __init__(self, site: Site, server: str, *, until: float | None = None) -> None:
        self._site, self._server = site, server
        self._every = site.plan_of(server).wal.ship_open_every.total_seconds()
        self._until = site.clock.monotonic() + 2 * self._every + 2 if until is None else until
        began = site.clock.monotonic()
        self.views = view_tiers(site, server)
        self._took = site.clock.monotonic() - began
        self.seen_at = site.clock.now()
        self.newest = {tier: self._newest(view) for tier, view in self.views.items()}

    def _newest(self, view: TierView | DrError) -> SystemWindows | None:
        """The windows of the newest system."""
        if isinstance(view, DrError):
            return None
        others = [other for other in self.views.values() if isinstance(other, TierView) and other is not view]
        return next(iter(reversed(windows_of(view, others))), None)

    def goes_on(self, position: ServerPosition) -> bool:
        """Whether a tier of the stream that has a backup is behind, and there is time to look again."""
        streamed = [self.newest[tier] for tier in self._site.plan_of(self._server).wal.tiers]
        begun = [one for one in streamed if one is not None and (one.windows or one.unusable)]
        behind = [one for one in begun if not has_caught_up(one, position)]
        return bool(behind) and self._site.clock.monotonic() < self._until

    def anew(self) -> _Look:
        self._site.clock.wait(max(self._every / 4, self._took, 0.1))
        return _Look(self._site, self._server, until=self._until)

    def exposure(self, tier: str, position: ServerPosition | None) -> Exposure:
        view, system = self.views[tier], self.newest[tier]
        if isinstance(view, DrError):
            return unseen(tier, f"cannot be read: {view.message}")
        ready = system is None or (position is not None and has_caught_up(system, position))
        commit = NOT_SEARCHED if ready or system is None else self._commit(view, system)
        return tier_exposure(tier, system, position, seen_at=self.seen_at, commit=commit)

    def _commit(self, view: TierView, system: SystemWindows) -> NewestCommit:
        """The newest one in the WAL of a tier that the stream ships to; of another tier it is not fetched, for reading
        there may cost."""
        if view.tier not in self._site.plan_of(self._server).wal.tiers or not system.windows:
            return NOT_SEARCHED
        try:
            return _newest_commit(self._site, self._server, view, system.system_id, system.windows[-1])
        except DrError as error:
            return NewestCommit(False, why=f"its newest commit cannot be read: {error.message}")


def _newest_commit(site: Site, server: str, view: TierView, system_id: str, window: RecoveryWindow) -> NewestCommit:
    wal = view.wal[system_id]
    since = max(window.start, Lsn(max(0, window.end.value - _SEARCHED)))
    backup = next(one for one in view.catalog.backups if one.system_id == system_id)
    path = {
        step: window.end if left is None else min(left, window.end)
        for step, left in lineage(window.timeline, wal.histories).items()
    }
    repository = site.read_only_repository(server, view.tier)
    search = WalSearch(
        WalTiers({view.tier: repository.wal(server, system_id, backup.segment_size)}),
        [WalSpan(part.timeline, part.start, part.end) for part in wal.listing.ranges()],
        path,
        since,
        segment_size=backup.segment_size,
        bin_dir=site.bin_dir(server, backup.postgres_version_num // 10_000),
        runner=site.runner,
        progress=Silent(),
    )
    found = next((end.at for end in search.transaction_ends() if end.committed), None)
    for error in search.damaged.values():
        return NewestCommit(False, found, f"WAL there is damaged: {error.message}")
    return NewestCommit(True, found)


# --- RTO ----------------------------------------------------------------------------------------------------


def restores_of(site: Site, server: str) -> RecoveryTimes:
    """From the evidence of validations on every tier."""
    plan, now = site.plan_of(server), site.clock.now()
    found: list[Validation] = []
    unread: dict[str, str] = {}
    for tier in site.tiers(server):
        try:
            repository = site.read_only_repository(server, tier)
            repository.check_format()  # an empty folder is a disk that is not mounted rather than a tier without news
            kept = read_validations(repository.store, server, newest=RESTORES)
        except DrError as error:
            unread[tier] = error.message
        else:
            found += [one.validation for one in kept]
    within = plan.schedule.full.longest_interval + plan.validation.within
    return recovery_times(server, found, plan.validation.tiers, within=within, now=now, unread=unread)
