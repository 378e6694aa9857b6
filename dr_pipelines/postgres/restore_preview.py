"""What a restore would give, without doing it. Reads manifests, listings and a few WAL segments."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from dr_pipelines.commands import Command, Runner
from dr_pipelines.errors import DrError
from dr_pipelines.lsn import Lsn, WalSegment
from dr_pipelines.postgres import tools
from dr_pipelines.postgres.restore_plan import RecoveryTarget
from dr_pipelines.postgres.restore_request import RestoreRequest
from dr_pipelines.postgres.restore_source import Source, find_sources
from dr_pipelines.repository.repository import Repository

_COMMIT = re.compile(r"lsn: ([0-9A-F]+/[0-9A-F]+),.*COMMIT (?:PREPARED )?.*?(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?)")
_LOOKED_AT = 16  # segments, for the newest commit


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


def preview(request: RestoreRequest, repositories: Sequence[Repository], *, runner: Runner) -> RestorePreview:
    """What `restore` would do with the same request. Raises what it would raise before it writes."""
    sources, notes = find_sources(request, repositories)
    source = sources[0]
    best = source.plan.candidates[0]
    try:
        newest = _newest_commit(source, request, runner)
    except DrError as error:
        newest, notes = None, [*notes, f"the newest commit could not be read: {error.message}"]
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


def _newest_commit(source: Source, request: RestoreRequest, runner: Runner) -> str | None:
    """The time of the last commit before the target, as pg_waldump prints it (UTC), from the newest segments."""
    bin_dir = request.bin_dir or request.find_bin_dir(source.backups[-1].postgres_version_num // 10_000)
    for segment, read in reversed(_reads(source, request.target)[-_LOOKED_AT:]):
        found = _commits(segment.name, read(), bin_dir, runner)
        commits = [at for lsn, at in found if _is_before(lsn, at, request.target)]
        if commits:
            return f"{commits[-1].isoformat(sep=' ')} UTC"
    return None


def _reads(source: Source, target: RecoveryTarget) -> list[tuple[WalSegment, Callable[[], bytes]]]:
    """The segments up to the target, oldest first, each with how to read it."""
    archive, timeline = source.archive, source.plan.timeline
    reads = [(found.segment, partial(archive.read_segment, found.segment)) for found in archive.segments(timeline)]
    head = archive.newest_partial(timeline)
    if head is not None and (not reads or head.segment > reads[-1][0]):
        reads.append((head.segment, partial(archive.read_partial, head)))
    if isinstance(target.value, Lsn):
        return [read for read in reads if read[0].start < target.value]
    return list(reads)


def _commits(name: str, data: bytes, bin_dir: Path | None, runner: Runner) -> list[tuple[Lsn, datetime]]:
    with tempfile.TemporaryDirectory(prefix="dr-") as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        command = Command([tools.program("pg_waldump", bin_dir), str(path)], env={"TZ": "UTC"})
        # It ends with an error where the WAL ends; what it printed before that counts.
        said = runner.run(command, check=False).stdout
    return [(Lsn.parse(lsn), datetime.fromisoformat(at)) for lsn, at in _COMMIT.findall(said)]


def _is_before(lsn: Lsn, at: datetime, target: RecoveryTarget) -> bool:
    if isinstance(target.value, Lsn):
        return lsn < target.value
    return not isinstance(target.value, datetime) or at.replace(tzinfo=UTC) <= target.value
