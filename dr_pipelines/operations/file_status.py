"""What stands of file sets: each tier's snapshots, what would be lost, and what whoever is on call must know."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from dr_pipelines.checks import Verdict
from dr_pipelines.errors import DrError
from dr_pipelines.objectives.exposure import Exposure, unseen
from dr_pipelines.objectives.polls import Polls
from dr_pipelines.operations.file_exposure import file_exposure
from dr_pipelines.operations.files import list_snapshots
from dr_pipelines.operations.polls import check_polls, polls_of
from dr_pipelines.operations.replica_sides import replicated_tiers
from dr_pipelines.operations.replication import replication_lag
from dr_pipelines.replication.checks import TierLag
from dr_pipelines.repository.due import Window, newest_due, snapshot_is_there
from dr_pipelines.repository.snapshot_manifest import Snapshot
from dr_pipelines.repository.snapshots import SnapshotCatalog
from dr_pipelines.site import Site
from dr_pipelines.wording import counted


@dataclass(frozen=True)
class FileTierState:
    """What one tier holds of a file set: how many snapshots, the newest, and since when what changed would be lost
    with all else (`exposure`). `error` says why that could not be seen, `hint` what to do then. `lag` is how far it is
    behind the primary: None for the primary itself, and where that could not be seen."""

    tier: str
    exposure: Exposure
    snapshots: int = 0
    newest: Snapshot | None = None
    problems: tuple[str, ...] = ()
    lag: TierLag | None = None
    error: str | None = None
    hint: str | None = None


@dataclass(frozen=True)
class FileSetState:
    """One file set of the plan as it stood at `at`. `polls` as this host knows them: None where the plan asks for none.
    `warnings` are sentences for whoever is on call."""

    file_set: str
    at: datetime
    tiers: tuple[FileTierState, ...]
    polls: Polls | None
    warnings: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.file_set


@dataclass
class _Seen:
    """One look at all tiers."""

    site: Site
    file_set: str
    catalogs: dict[str, SnapshotCatalog] = field(default_factory=dict)
    errors: dict[str, DrError] = field(default_factory=dict)

    def look(self) -> None:
        for tier in self.site.tiers(self.file_set):
            try:
                self.catalogs[tier] = list_snapshots(self.site, self.file_set, tier)
            except DrError as error:
                self.errors[tier] = error


def file_status(site: Site) -> list[FileSetState]:
    """Every file set of the plan that is backed up."""
    return [_state(site, file_set) for file_set in site.file_sets]


def _state(site: Site, file_set: str) -> FileSetState:
    seen = _Seen(site, file_set)
    seen.look()
    tiers = tuple(_tier_state(seen, tier) for tier in site.tiers(file_set))
    polls = polls_of(site, file_set) if site.file_set(file_set).poll is not None else None
    return FileSetState(file_set, site.clock.now(), tiers, polls, tuple(_warnings(seen, tiers)))


def _tier_state(seen: _Seen, tier: str) -> FileTierState:
    site, file_set = seen.site, seen.file_set
    if (error := seen.errors.get(tier)) is not None:
        return FileTierState(
            tier, unseen(tier, f"cannot be read: {error.message}"), error=error.message, hint=error.hint
        )
    catalog = seen.catalogs[tier]
    return FileTierState(
        tier,
        file_exposure(site, file_set, tier, catalog),
        len(catalog.snapshots),
        catalog.snapshots[-1] if catalog.snapshots else None,
        catalog.problems,
        _lag(seen, tier),
    )


def _lag(seen: _Seen, tier: str) -> TierLag | None:
    if "primary" in seen.catalogs and tier in replicated_tiers(seen.site, seen.file_set):
        with contextlib.suppress(DrError):  # it was read just now: what came between shows with the next look
            return replication_lag(seen.site, seen.file_set, tier)
    return None


def _warnings(seen: _Seen, tiers: tuple[FileTierState, ...]) -> Iterator[str]:
    name = seen.file_set
    for tier, error in seen.errors.items():
        yield f"{tier} cannot be read: {error.message}; {error.hint or f'run `dr store check {tier}`'}"
    if "primary" in seen.catalogs:
        yield from _of_primary(seen.site, name, seen.catalogs["primary"])
    for tier, catalog in seen.catalogs.items():
        newest = catalog.snapshots[-1] if catalog.snapshots else None
        if newest is not None and (trouble := catalog.trouble(newest)) is not None:
            yield f"the newest snapshot on {tier}, {newest.label}, {trouble}: run `dr scrub {tier}`"
    for lag in (tier.lag for tier in tiers if tier.lag is not None):
        if lag.is_late:
            yield f"{lag.tier} is behind: {lag}; run `dr replicate {name} --tier {lag.tier}`"
        yield from (f"{held}: run `dr scrub primary`" for held in lag.held)


def _of_primary(site: Site, name: str, catalog: SnapshotCatalog) -> Iterator[str]:
    plan, now = site.file_set(name), site.clock.now()
    schedule = plan.schedule
    due = newest_due(schedule.cron, schedule.interval, Window.of(schedule.interval), now)
    there = snapshot_is_there(catalog.snapshots, due, now=now)
    if not there.passed:
        yield f"{there.summary}: run `dr files snapshot {name}`"
    polled = check_polls(site, name)
    if polled is not None and polled.verdict is not Verdict.PASS:
        yield f"{polled.summary}: {polled.details['hint']}"
    newest = catalog.snapshots[-1] if catalog.snapshots else None
    if newest is not None and newest.partial and plan.partial == "fail":
        lacking = counted(newest.counts.unreadable, "file")
        yield f"{newest.label} is partial, {lacking} could not be read: `dr files diff {name} {newest.label} live`"
    if unusual := [one.label for one in catalog.snapshots if catalog.is_unusual(one.label)]:
        more = f" and {len(unusual) - 1} more" if len(unusual) > 1 else ""
        yield f"{unusual[-1]}{more} changed unusually, and holds all that is older: `dr files check {name}` says how"
