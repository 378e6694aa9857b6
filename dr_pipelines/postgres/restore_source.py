"""The tiers that can serve a restore, each with its plan. Backups are a tier's own; WAL is taken from all of them, and
from this host's spool."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path

from dr_pipelines.commands import Runner
from dr_pipelines.errors import (
    BackupNotFound,
    DrError,
    IntegrityError,
    ObjectOffline,
    RepositoryError,
    RestoreError,
    StoreError,
    TargetUnreachable,
)
from dr_pipelines.lsn import Lsn, Timeline
from dr_pipelines.postgres.programs import require_programs
from dr_pipelines.postgres.restore_locate import Located, is_looked_up, locate
from dr_pipelines.postgres.restore_plan import (
    Candidate,
    RecoveryTarget,
    RestorePlan,
    Switch,
    WalSpan,
    covered_until,
    lineage,
    plan_restore,
    timeline_to,
)
from dr_pipelines.postgres.restore_request import RestoreRequest
from dr_pipelines.postgres.wal_checks import parse_history
from dr_pipelines.postgres.wal_search import TransactionEnd, WalSearch
from dr_pipelines.postgres.wal_spool_source import SPOOL, SpoolWal
from dr_pipelines.postgres.wal_tiers import WalSource, WalTiers, joined
from dr_pipelines.progress import Progress
from dr_pipelines.repository.catalog import Catalog, known_equivalence, unequal_in_chain
from dr_pipelines.repository.layout import ProofName
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.repository.repository import Repository
from dr_pipelines.repository.wal_listing import ColdSegment
from dr_pipelines.storage.base import ObjectStore

_NEAR = 4  # segments; a time is searched for by halves until it is known so closely
_BY_WAL = (
    "without --label its full is restored with more WAL, which leads to the same point; --even-failed takes it all the "
    "same."
)
_UNUSABLE = (StoreError, RepositoryError, RestoreError, IntegrityError)


@dataclass(frozen=True)
class SystemWal:
    """The WAL of one system as it was listed: `on` each tier, and in `spans` over all of them; what of it is in `cold`
    storage on a tier, and the `stores` of the tiers. With what it is read."""

    wal: WalTiers
    on: dict[str, list[WalSpan]]
    cold: dict[str, Sequence[ColdSegment]]
    stores: dict[str, ObjectStore]
    spans: list[WalSpan]
    histories: dict[Timeline, Switch]

    segment_size: int
    bin_dir: Path | None
    runner: Runner
    progress: Progress

    def search(self, timeline: Timeline, since: Lsn, until: Lsn | None = None) -> WalSearch:
        """Backwards on the way to `timeline`, from the end or `until` down to `since`."""
        path = lineage(timeline, self.histories)
        if until is not None:
            path = {step: until if left is None else min(left, until) for step, left in path.items()}
        return WalSearch(
            self.wal,
            self.spans,
            path,
            since,
            segment_size=self.segment_size,
            bin_dir=self.bin_dir,
            runner=self.runner,
            progress=self.progress,
        )

    def soon_after(self, at: datetime, timeline: Timeline, since: Lsn, until: Lsn) -> Lsn:
        """A position soon after the last transaction that ended by `at`. Searched for by halves: to read days of WAL
        would take hours."""
        while until - since > _NEAR * self.segment_size:
            middle = Lsn((since.value + until.value) // 2)
            last = next(self.search(timeline, since, middle).transaction_ends(), None)
            since, until = (since, middle) if last is not None and last.at > at else (middle, until)
        return until


@dataclass(frozen=True)
class Source:
    """A tier that can serve the restore; `backups` and `system` are of one system."""

    repository: Repository
    catalog: Catalog
    backups: tuple[BackupManifest, ...]
    system: SystemWal
    plan: RestorePlan

    def candidates(self, note: Callable[[str], None]) -> Iterator[Candidate]:
        """Those of the plan, in order. For a target in time the plan compared a backup host's clock with the server's:
        a backup that holds a transaction which ended after the target is left out, and `note` is told. (PostgreSQL does
        not notice when that transaction lies before the WAL that it replays.)"""
        asked = self.plan.target.value
        for candidate in self.plan.candidates:
            if isinstance(asked, datetime):
                try:
                    last = self._last_end(candidate)
                except DrError as error:
                    note(
                        f"whether {candidate.label} lies before {asked} is by the backup host's clock: {error.message}"
                    )
                else:
                    if last is not None and last.at > asked:
                        note(f"{candidate.label} is too late: it holds a transaction that ended at {last.at}")
                        continue
            yield candidate

    def _last_end(self, candidate: Candidate) -> TransactionEnd | None:
        """Before it became consistent, perhaps before it began."""
        search = self.system.search(self.plan.timeline, Lsn(0), candidate.chain[-1].stop_lsn)
        return next(search.transaction_ends(), None)


def find_sources(
    request: RestoreRequest, repositories: Sequence[Repository], *, runner: Runner, progress: Progress
) -> tuple[list[Source], list[str]]:
    """The tiers that can serve the request, in the order given, and why others cannot. Raises the first tier's trouble
    when none can."""
    return _Finding(request, runner, progress).run(repositories)


def no_backup(server: str, tier: str) -> BackupNotFound:
    return BackupNotFound(
        f"there is no backup of {server} on {tier}",
        hint=f"`dr backup {server}` takes one on primary; `dr list {server}` shows those that are there.",
    )


def none_is_early_enough(target: RecoveryTarget) -> TargetUnreachable:
    return TargetUnreachable(
        f"the target {target} lies before the point where any backup becomes consistent",
        hint="ask for a later one, or for an older backup on another tier (--tier); `dr list` shows them.",
    )


class _Finding:
    """One look at all tiers."""

    def __init__(self, request: RestoreRequest, runner: Runner, progress: Progress) -> None:
        self._request, self._runner, self._progress = request, runner, progress
        self._notes: list[str] = []
        self._trouble: DrError | None = None
        self._catalogs: list[tuple[Repository, Catalog]] = []
        self._system_id: str | None = None
        self._systems: dict[str, SystemWal] = {}
        self._located: dict[tuple[str, Timeline], Located] = {}

    def run(self, repositories: Sequence[Repository]) -> tuple[list[Source], list[str]]:
        for repository in repositories:
            with self._noting(repository.tier):
                repository.check_format()
                self._catalogs.append((repository, repository.catalog(self._request.server)))
        self._system_id = self._which_system()
        found: list[Source] = []
        for repository, catalog in self._catalogs:
            with self._noting(repository.tier):
                found.append(self._source(repository, catalog))
        if not found:
            raise self._trouble or BackupNotFound(f"no tier is named to restore {self._request.server} from")
        return found, self._notes

    @contextmanager
    def _noting(self, tier: str, *, only: bool = False) -> Iterator[None]:
        """One tier's trouble does not stop another. With `only`, it is not why there is no restore either."""
        try:
            yield
        except _UNUSABLE as error:
            self._trouble = self._trouble or (None if only else error)
            what = "gives WAL only" if isinstance(error, BackupNotFound) else "cannot be used"
            self._notes.append(f"{tier} {what}: {error.message}")

    def _which_system(self) -> str | None:
        """That of the backup that is named, else of the newest over all tiers: a tier that was left behind by a server
        made anew must not bring back the old one. None when there is no backup."""
        label = self._request.label
        known = [backup for _, catalog in self._catalogs for backup in catalog.backups if label in (None, backup.label)]
        return max(known, key=lambda backup: backup.started_at).system_id if known else None

    def _source(self, repository: Repository, catalog: Catalog) -> Source:
        """Notes what of the tier is not understood: it may be the backup that a person expects."""
        self._notes += catalog.problems
        backups, failed = self._usable(repository, catalog)
        try:
            wanted = self._wanted(repository, catalog, backups)
            system = self._system(wanted)
            target, notes = self._position(backups, system)
            plan = plan_restore(
                backups,
                system.spans,
                system.histories,
                target,
                label=self._request.label,
                use_incrementals=self._request.use_incrementals,
                proven=[label for label, seen in self._equivalence.items() if seen.verdict == "pass"],
            )
        except (BackupNotFound, RestoreError) as error:
            if failed:
                error.hint = f"{error.hint} {_left_out(failed)}" if error.hint else _left_out(failed)
            raise
        notes += [*_elsewhere(plan, system, repository.tier), *self._proof(plan, catalog, repository.tier), *plan.notes]
        return Source(repository, catalog, backups, system, replace(plan, notes=tuple(notes)))

    def _usable(
        self, repository: Repository, catalog: Catalog
    ) -> tuple[tuple[BackupManifest, ...], list[BackupManifest]]:
        """Those of the system whose chain is whole, and those of them that are left out because a validation or a
        comparison failed.
        Raises `IntegrityError` when the one that is named is not whole."""
        usable: list[BackupManifest] = []
        failed: list[BackupManifest] = []
        for backup in catalog.backups:
            if backup.system_id != self._system_id:
                continue
            unequal = self._unequal(backup, catalog)
            broken = catalog.trouble(backup, even_unequal=True)
            if (trouble := broken or (None if self._request.even_failed else unequal)) is not None:
                said = f"{backup.label} on {repository.tier} cannot be used: {trouble}"
                if backup.label == self._request.label:
                    hint = f"`dr scrub {repository.tier}` repairs what another tier holds whole."
                    raise IntegrityError(said, hint=hint if broken else _BY_WAL)
                self._notes.append(said)
                failed += [] if broken else [backup]
            elif (why := catalog.failed_validation(backup)) is None or self._takes_failed:
                usable.append(backup)
            else:
                failed.append(backup)
                self._notes.append(f"{backup.label} on {repository.tier} is left out: {why}")
        return tuple(usable), failed

    @property
    def _takes_failed(self) -> bool:
        """A person named the backup, and what it builds on, or wants all that there are."""
        return self._request.even_failed or self._request.label is not None

    def _proof(self, plan: RestorePlan, catalog: Catalog, tier: str) -> Iterator[str]:
        """Says so when no restore has proven the backup that would be taken, and nobody named it."""
        newest = plan.candidates[0].chain[-1]
        if (why := self._unequal(newest, catalog) or catalog.failed_validation(newest)) is not None:
            yield f"{newest.label} on {tier} is not good, as far as is known: {why}"
        elif self._request.label is None and catalog.marks[newest.label].validated() is None:
            yield f"{newest.label} on {tier} was not proven by a restore yet (`dr validate` does that)"

    def _unequal(self, backup: BackupManifest, catalog: Catalog) -> str | None:
        return unequal_in_chain(backup, catalog, self._equivalence)

    @cached_property
    def _equivalence(self) -> Mapping[str, ProofName]:
        return known_equivalence(catalog for _, catalog in self._catalogs)

    def _wanted(self, repository: Repository, catalog: Catalog, backups: Sequence[BackupManifest]) -> BackupManifest:
        """The one named, or the newest. Raises `BackupNotFound`."""
        server = self._request.server
        if self._request.label is not None:
            return repository.backup(server, self._request.label)
        if not catalog.backups:
            raise no_backup(server, repository.tier)
        if any(backup.system_id == self._system_id for backup in catalog.backups) and not backups:
            raise BackupNotFound(
                f"no backup of {server} on {repository.tier} can be used: each lacks something, is damaged, or failed "
                "its validation",
                hint=f"`dr scrub {repository.tier}` repairs what another tier holds whole.",
            )
        if not backups:
            raise BackupNotFound(
                f"the backups of {server} on {repository.tier} are of another system than the newest one",
                hint=f"to restore one of them, name it with --label; `dr list --tier {repository.tier}` shows them.",
            )
        return backups[-1]

    def _system(self, wanted: BackupManifest) -> SystemWal:
        if wanted.system_id not in self._systems:
            sources, on = dict(self._wal_sources(wanted)), dict[str, list[WalSpan]]()
            cold: dict[str, Sequence[ColdSegment]] = {}
            for name, source in reversed(sources.items()):  # as in `WalTiers.spans`
                with self._noting(name, only=True):
                    listing = source.listing()
                    on[name] = [WalSpan(part.timeline, part.start, part.end) for part in listing.ranges()]
                    cold[name] = listing.cold
            wal = WalTiers({name: source for name, source in sources.items() if name in on})
            self._systems[wanted.system_id] = SystemWal(
                wal,
                on,
                cold,
                {repository.tier: repository.store for repository, _ in self._catalogs},
                joined(span for there in on.values() for span in there),
                _histories(wal),
                wanted.segment_size,
                self._request.bin_dir or self._request.find_bin_dir(wanted.postgres_version_num // 10_000),
                self._runner,
                self._progress,
            )
        return self._systems[wanted.system_id]

    def _wal_sources(self, wanted: BackupManifest) -> Iterator[tuple[str, WalSource]]:
        for repository, _ in self._catalogs:
            yield repository.tier, repository.wal(self._request.server, wanted.system_id, wanted.segment_size)
        if self._request.spool is not None:
            yield SPOOL, SpoolWal(self._request.spool, wanted.system_id)

    def _position(self, backups: Sequence[BackupManifest], system: SystemWal) -> tuple[RecoveryTarget, list[str]]:
        """The target; one that PostgreSQL would only meet on its way is looked up, and one that it would never meet is
        refused."""
        asked, label = self._request.target, self._request.label
        backups = [backup for backup in backups if label in (None, backup.label)]
        if isinstance(asked.value, datetime):
            self._refuse_too_late(asked, asked.value, backups, system)
        if not is_looked_up(asked):
            return asked, []
        timeline = timeline_to(asked, backups, system.spans, system.histories)
        key = (backups[-1].system_id, timeline)
        if key not in self._located:
            since = min(backup.start_lsn for backup in backups)
            require_programs(self._request, backups[-1], self._runner)
            search = system.search(timeline, since)
            self._progress.phase(f"search for {asked}", search.size)
            try:
                self._located[key] = locate(asked, search)
            except ObjectOffline as error:
                raise StoreError(
                    f"{asked} is looked up in the WAL, and some of that must be recalled first: {error.message}",
                    hint="name the position with --lsn, or an instant with --time: these need no looking up.",
                ) from error
        return self._located[key].target, [self._located[key].note]

    def _refuse_too_late(
        self, target: RecoveryTarget, at: datetime, backups: Sequence[BackupManifest], system: SystemWal
    ) -> None:
        """PostgreSQL stops at the first transaction that ended after a time; without one it replays all and fails."""
        search = system.search(timeline_to(target, backups, system.spans, system.histories), Lsn(0))
        try:
            last = next(search.transaction_ends(), None)
        except DrError:
            return  # recovery itself will tell
        if last is not None and not search.damaged and (last.at < at or (target.inclusive and last.at == at)):
            raise TargetUnreachable(
                f"the target {target} lies after the newest transaction in the stored WAL, which ended at "
                f"{last.at.isoformat()}",
                hint="restore without a target: that gives everything up to there.",
            )


def _elsewhere(plan: RestorePlan, system: SystemWal, tier: str) -> Iterator[str]:
    """Says so when the tier's own WAL does not reach as far as the restore goes."""
    newest, target = plan.candidates[0].chain[-1], plan.target
    needed = target.value if isinstance(target.value, Lsn) else plan.reachable_end
    needed = newest.stop_lsn if target.kind == "immediate" else needed
    own = covered_until(newest, joined(system.on.get(tier, [])), lineage(plan.timeline, system.histories))
    if own is None or own < needed:
        others = " and ".join(other for other, spans in system.on.items() if other != tier and spans)
        has = f"goes until {own}" if own else "is not enough to become consistent"
        yield f"the WAL on {tier} {has}: what is missing until {needed} comes from {others}"


def _left_out(failed: Sequence[BackupManifest]) -> str:
    labels = ", ".join(backup.label for backup in failed[-3:])
    more = f" and {len(failed) - 3} more" if len(failed) > 3 else ""
    return (
        f"Left out because a validation or a comparison failed: {labels}{more}; --even-failed takes them all the same."
    )


def _histories(wal: WalTiers) -> dict[Timeline, Switch]:
    found: dict[Timeline, Switch] = {}
    for timeline in wal.timelines():
        data = wal.history(timeline) if timeline.id > 1 else None
        rows = parse_history(data) if data else []
        if rows and rows[-1][1] is not None:
            found[timeline] = Switch(rows[-1][0], rows[-1][1])
    return found
