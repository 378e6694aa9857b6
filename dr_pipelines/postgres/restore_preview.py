"""What a restore would give, without doing it. Reads manifests, listings and a few WAL segments."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from dr_pipelines.commands import Runner
from dr_pipelines.errors import DrError, StoreError, TargetInUse
from dr_pipelines.lsn import Lsn
from dr_pipelines.postgres.restore_needs import Needs
from dr_pipelines.postgres.restore_plan import Candidate
from dr_pipelines.postgres.restore_request import RestoreRequest
from dr_pipelines.postgres.restore_source import Source, find_sources, none_is_early_enough
from dr_pipelines.postgres.restore_target import refuse_used
from dr_pipelines.progress import Progress
from dr_pipelines.repository.recall import Offline, find_offline
from dr_pipelines.repository.repository import Repository

_LOOKED_AT = 256 << 20  # bytes of WAL, for the newest commit


@dataclass(frozen=True)
class TierEstimate:
    """What a restore from one tier would take. `estimated_seconds` with `recall_seconds` (the longest that the offline
    objects may take, though some of them may be on their way); `cost` of reading, in the currency of the plan's prices,
    or by rough list prices in US dollars."""

    tier: str
    label: str
    estimated_seconds: float
    recall_seconds: float
    cost: float
    offline_objects: int
    offline_bytes: int
    arriving_objects: int
    is_chosen: bool = False


@dataclass(frozen=True)
class RestorePreview:
    """What a restore would do from the tier that it would choose, and what it would take from each. `newest_commit` is
    None where pg_waldump is not at hand."""

    server: str
    tier: str
    chain: tuple[str, ...]
    target: str
    wal_start: Lsn
    reachable_end: Lsn
    bytes: int
    stored_bytes: int
    wal_bytes: int
    estimated_seconds: float
    newest_commit: str | None
    tiers: tuple[TierEstimate, ...]
    notes: tuple[str, ...]


def preview(
    request: RestoreRequest, repositories: Sequence[Repository], *, runner: Runner, progress: Progress
) -> RestorePreview:
    """What `restore` would do with the same request. Raises what it would raise before it writes; a target directory
    that it would refuse is a note."""
    sources, notes = find_sources(request, repositories, runner=runner, progress=progress)
    ways = list(_ways(sources, request, notes))
    if not ways:
        raise none_is_early_enough(sources[0].plan.target)
    chosen = next((way for way in ways if not way.offline.objects), ways[0])
    source, best = chosen.source, chosen.candidate
    try:
        refuse_used(request.target_dir)
    except TargetInUse as error:
        notes.append(f"it cannot be restored there: {error.message}")
    try:
        newest = _newest_commit(source, best, progress)
    except DrError as error:
        newest = None
        notes.append(f"the newest commit could not be read: {error.message}")
    return RestorePreview(
        server=request.server,
        tier=source.repository.tier,
        chain=tuple(backup.label for backup in best.chain),
        target=str(request.target),
        wal_start=best.wal_start,
        reachable_end=source.plan.reachable_end,
        bytes=best.bytes,
        stored_bytes=sum(backup.stored_size for backup in best.chain),
        wal_bytes=best.wal_bytes,
        estimated_seconds=best.estimated_seconds + chosen.offline.seconds,
        newest_commit=newest,
        tiers=tuple(way.estimate(is_chosen=way is chosen) for way in ways),
        notes=(*source.plan.notes, *notes),
    )


@dataclass(frozen=True)
class _Way:
    """How one tier would serve."""

    source: Source
    candidate: Candidate
    offline: Offline

    def estimate(self, *, is_chosen: bool) -> TierEstimate:
        return TierEstimate(
            tier=self.source.repository.tier,
            label=self.candidate.label,
            estimated_seconds=self.candidate.estimated_seconds + self.offline.seconds,
            recall_seconds=self.offline.seconds,
            cost=self.offline.cost,
            offline_objects=len(self.offline.objects),
            offline_bytes=self.offline.bytes,
            arriving_objects=len(self.offline.arriving),
            is_chosen=is_chosen,
        )


def _ways(sources: Sequence[Source], request: RestoreRequest, notes: list[str]) -> Iterator[_Way]:
    """The first of each tier that needs no recall, or else its first."""
    for source in sources:
        first: Candidate | None = None
        try:
            for candidate in source.candidates(notes.append):
                first = first or candidate
                if Needs(source, candidate, request.terms).all_at_hand():
                    first = candidate
                    break
            if first is not None:
                needs = Needs(source, first, request.terms)
                yield _Way(source, first, find_offline(needs, urgent=request.urgent))
        except StoreError as error:
            notes.append(f"{source.repository.tier} cannot be compared: {error.message}")


def _newest_commit(source: Source, best: Candidate, progress: Progress) -> str | None:
    """The time of the last commit before the target (UTC), out of the WAL just before it."""
    target, until = source.plan.target, source.plan.reachable_end
    if isinstance(target.value, Lsn):
        until = min(until, target.value + (1 if target.inclusive else 0))
    if target.kind == "immediate":
        until = best.chain[-1].stop_lsn
    if isinstance(target.value, datetime):
        until = source.system.soon_after(target.value, source.plan.timeline, best.chain[-1].start_lsn, until)
    since = Lsn(max(0, until.value - _LOOKED_AT))
    search = source.system.search(source.plan.timeline, since, until)
    progress.phase("look for the newest commit", search.size)
    for end in search.transaction_ends():
        if end.committed and not (isinstance(target.value, datetime) and end.at > target.value):
            return f"{end.at.replace(tzinfo=None).isoformat(sep=' ')} UTC"
    return None
