"""What a restore would give, without doing it. Reads manifests, listings and a few WAL segments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from dr_pipelines.commands import Runner
from dr_pipelines.errors import DrError, TargetInUse
from dr_pipelines.lsn import Lsn
from dr_pipelines.postgres.restore_plan import Candidate
from dr_pipelines.postgres.restore_request import RestoreRequest
from dr_pipelines.postgres.restore_source import Source, find_sources, none_is_early_enough
from dr_pipelines.postgres.restore_target import refuse_used
from dr_pipelines.progress import Progress
from dr_pipelines.repository.repository import Repository

_LOOKED_AT = 256 << 20  # bytes of WAL, for the newest commit
_NEAR = 4  # segments; a time is searched for by halves until it is known so closely


@dataclass(frozen=True)
class RestorePreview:
    """What a restore would do. `newest_commit` is None where pg_waldump is not at hand."""

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
    notes: tuple[str, ...]


def preview(
    request: RestoreRequest, repositories: Sequence[Repository], *, runner: Runner, progress: Progress
) -> RestorePreview:
    """What `restore` would do with the same request. Raises what it would raise before it writes; a target directory
    that it would refuse is a note."""
    sources, notes = find_sources(request, repositories, runner=runner, progress=progress)
    source, best = _first(sources, notes)
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
        estimated_seconds=best.estimated_seconds,
        newest_commit=newest,
        notes=(*source.plan.notes, *notes),
    )


def _first(sources: Sequence[Source], notes: list[str]) -> tuple[Source, Candidate]:
    for source in sources:
        for candidate in source.candidates(notes.append):
            return source, candidate
    raise none_is_early_enough(sources[0].plan.target)


def _newest_commit(source: Source, best: Candidate, progress: Progress) -> str | None:
    """The time of the last commit before the target (UTC), out of the WAL just before it."""
    target, until = source.plan.target, source.plan.reachable_end
    if isinstance(target.value, Lsn):
        until = min(until, target.value + (1 if target.inclusive else 0))
    if target.kind == "immediate":
        until = best.chain[-1].stop_lsn
    if isinstance(target.value, datetime):
        until = _end_at(source, target.value, best.chain[-1].start_lsn, until)
    since = Lsn(max(0, until.value - _LOOKED_AT))
    search = source.system.search(source.plan.timeline, since, until)
    progress.phase("look for the newest commit", search.size)
    for end in search.transaction_ends():
        if end.committed and not (isinstance(target.value, datetime) and end.at > target.value):
            return f"{end.at.replace(tzinfo=None).isoformat(sep=' ')} UTC"
    return None


def _end_at(source: Source, at: datetime, since: Lsn, until: Lsn) -> Lsn:
    """A position soon after the last transaction that ended by `at`. Searched for by halves: to read days of WAL would
    take hours."""
    while until - since > _NEAR * source.system.segment_size:
        middle = Lsn((since.value + until.value) // 2)
        last = next(source.system.search(source.plan.timeline, since, middle).transaction_ends(), None)
        since, until = (since, middle) if last is not None and last.at > at else (middle, until)
    return until
