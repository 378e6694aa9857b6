"""Whether the WAL in a repository reaches from the oldest full backup to its newest end without a hole.

It really lists the store. What does not belong here: reading the segments' contents (`dr verify` does) and the stream.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dr_pipelines.checks import CheckResult, failed, not_proven, passed
from dr_pipelines.lsn import Lsn, Timeline, WalSegment
from dr_pipelines.postgres.wal_resume import parse_history as parse_history
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.repository.repository import Repository
from dr_pipelines.repository.wal import WalArchive
from dr_pipelines.repository.wal_listing import WalListing

NAME = "wal_has_no_gap"
WAL_IS_CONTINUOUS = "wal_is_continuous"
_NEVER = "can never become consistent here"
_NAMED = 10  # missing segments that the result names


@dataclass(frozen=True)
class TimelineWal:
    """What a store holds of one timeline: whole segments' numbers, and the open segment with the end of its WAL."""

    whole: frozenset[int]
    open_number: int | None = None
    open_end: Lsn | None = None

    def end(self, size: int) -> Lsn | None:
        ends = [Lsn((number + 1) * size) for number in self.whole] + ([self.open_end] if self.open_end else [])
        return max(ends, default=None)

    def covers(self, number: int, end: Lsn) -> bool:
        """Whether the segment is there up to `end`."""
        return number in self.whole or (
            number == self.open_number and self.open_end is not None and self.open_end >= end
        )


def wal_has_no_gap(repository: Repository, server_name: str, backups: Sequence[BackupManifest]) -> CheckResult:
    """Looks at the newest timeline of the newest backup's system, and back along its history to the oldest full."""
    if not backups:
        return not_proven(NAME, f"{server_name} has no backup, so there is no place for WAL to start from")
    newest = backups[-1]
    archive = repository.wal(server_name, newest.system_id)
    listing = archive.listing()
    timelines = listing.known
    if not timelines:
        return not_proven(NAME, f"the repository holds no WAL of {server_name}", system_id=newest.system_id)
    if newest.timeline > timelines[-1]:
        summary = f"{newest.label} is on timeline {newest.timeline.id}, of which the repository holds no WAL"
        return failed(NAME, summary, timeline=newest.timeline.id, hint=f"is `dr wal stream {server_name}` running?")
    switches = _switches(archive, timelines[-1])
    if switches is None:
        return failed(NAME, f"the history file of timeline {timelines[-1].id} is missing", timeline=timelines[-1].id)
    path = [*switches, (timelines[-1], None)]
    fulls = _fulls_on(path, [backup for backup in backups if backup.system_id == newest.system_id])
    if not fulls:
        return not_proven(NAME, f"no full backup lies on the way to timeline {timelines[-1].id}")
    held = {timeline: _held(listing, timeline) for timeline, _ in path}
    # A gap is mended by a full that lies after it: what counts is the oldest full from which nothing is missing.
    oldest = _judge(fulls[0], newest, path, held)
    if oldest.passed:
        return oldest
    judged = (_judge(full, newest, path, held) for full in fulls[1:])
    mended = next((result for result in judged if result.passed), None)
    if mended is None:
        return oldest
    return passed(NAME, f"{mended.summary}; before that {oldest.summary}", **mended.details)


def wal_is_continuous(repository: Repository, backup: BackupManifest, *, to_now: bool = True) -> CheckResult:
    """From where a backup begins to the newest WAL of its server, across timelines; without `to_now`, as far as the
    backup needs it to become consistent (the rest was let go). Passes when the backup becomes consistent and nothing is
    missing after it. Details: `waits_for`, where WAL that ends too early has to reach. Raises what the store raises."""
    label, server = backup.label, backup.server
    archive = repository.wal(server, backup.system_id, backup.segment_size)
    listing = archive.listing()
    if not listing.known:
        hint = f"is `dr wal stream {server}` running?"
        return not_proven(WAL_IS_CONTINUOUS, f"{repository.tier} holds no WAL of {server}", label=label, hint=hint)
    path = _path_of(archive, listing, backup) if to_now else [(backup.timeline, backup.stop_lsn)]
    if path is None:
        summary = f"the history file of timeline {listing.known[-1].id} is missing"
        return failed(WAL_IS_CONTINUOUS, summary, label=label, timeline=listing.known[-1].id)
    held = {timeline: _held(listing, timeline) for timeline, _ in path}
    missing, reached = missing_segments(backup.start_lsn, backup.timeline, path, held, backup.segment_size)
    if missing:
        consistent = missing[0].start >= backup.stop_lsn
        return _lacks(backup, missing, f"reaches no further than {missing[0].start}" if consistent else _NEVER)
    if reached is None or reached < backup.stop_lsn:
        summary = f"WAL ends at {reached or backup.start_lsn}, before {label} becomes consistent at {backup.stop_lsn}"
        hint = f"is `dr wal stream {server}` running?"
        return failed(WAL_IS_CONTINUOUS, summary, label=label, waits_for=str(backup.stop_lsn), hint=hint)
    end = path[-1][0]
    details = {"label": label, "from_lsn": str(backup.start_lsn), "to_lsn": str(reached), "timeline": end.id}
    details |= {"segments": sum(len(wal.whole) for wal in held.values())}
    if not to_now:
        said = f"the WAL that makes {label} consistent is there; what followed was let go, as the plan wants it"
        return passed(WAL_IS_CONTINUOUS, said, **details)
    left = ", which the server has left" if end != max(listing.known) else ""
    said = f"WAL is whole from {label} ({backup.start_lsn}) to {reached} on timeline {end.id}{left}"
    return passed(WAL_IS_CONTINUOUS, said, **details)


def _lacks(backup: BackupManifest, missing: Sequence[WalSegment], so: str) -> CheckResult:
    names = [segment.name for segment in missing[:_NAMED]]
    several = "segments are" if len(missing) > 1 else "segment is"
    summary = f"{len(missing)} WAL {several} missing, the first is {names[0]}: {backup.label} {so}"
    hint = f"`dr scrub` of this tier brings back what another holds; else `dr backup {backup.server} --full`."
    return failed(WAL_IS_CONTINUOUS, summary, label=backup.label, missing=names, missing_count=len(missing), hint=hint)


def _path_of(
    archive: WalArchive, listing: WalListing, backup: BackupManifest
) -> list[tuple[Timeline, Lsn | None]] | None:
    """The timelines to the newest one; to the backup's own where the newest did not come from it. None when the history
    that says so is missing."""
    newest = listing.known[-1]
    switches = _switches(archive, max(newest, backup.timeline))
    if switches is None:
        return None
    path = [*switches, (max(newest, backup.timeline), None)]
    left = dict(path)
    if backup.timeline in left and ((end := left[backup.timeline]) is None or backup.stop_lsn <= end):
        return path
    return [(backup.timeline, None)]


def missing_segments(
    start: Lsn,
    timeline: Timeline,
    path: Sequence[tuple[Timeline, Lsn | None]],
    held: Mapping[Timeline, TimelineWal],
    size: int,
) -> tuple[list[WalSegment], Lsn | None]:
    """The segments that are not there from `start` on `timeline` along `path` (timelines, oldest first, each with the
    position where it was left; None: the newest), and the end of what is there."""
    missing: list[WalSegment] = []
    position, end = start, None
    legs = [(line, left) for line, left in path if line >= timeline]
    for index, (line, left) in enumerate(legs):
        last = left if left is not None else held[line].end(size)
        if last is None or last < position:
            return missing, end
        following = held[legs[index + 1][0]] if index + 1 < len(legs) else None
        for number in range(position.value // size, -(-last.value // size)):
            segment = WalSegment(line, number, size)
            # The first segment of a timeline begins with a copy of what the one before had of it.
            copied = (
                following is not None and number in (following.whole | {following.open_number}) and segment.end > last
            )
            if not held[line].covers(number, min(segment.end, last)) and not copied:
                missing.append(segment)
        position = end = last
    return missing, end


def _judge(
    full: BackupManifest,
    newest: BackupManifest,
    path: Sequence[tuple[Timeline, Lsn | None]],
    held: Mapping[Timeline, TimelineWal],
) -> CheckResult:
    missing, end = missing_segments(full.start_lsn, full.timeline, path, held, full.segment_size)
    seen = {
        "oldest_full": full.label,
        "from_lsn": str(full.start_lsn),
        "to_lsn": str(end) if end is not None else None,
        "timeline": path[-1][0].id,
        "segments": sum(len(wal.whole) for wal in held.values()),
    }
    if missing:
        names = [segment.name for segment in missing[:_NAMED]]
        several = "segments are" if len(missing) > 1 else "segment is"
        summary = f"{len(missing)} WAL {several} missing after {full.label}, the first is {names[0]}"
        hint = f"`dr scrub` of this tier brings back what another holds; else `dr backup {full.server} --full`."
        return failed(NAME, summary, missing=names, missing_count=len(missing), hint=hint, **seen)
    if end is None or end <= full.start_lsn:
        return not_proven(NAME, f"the repository holds no WAL after the start of {full.label}", **seen)
    if newest.timeline == path[-1][0] and end < newest.stop_lsn:
        summary = f"WAL ends at {end}, before {newest.label} becomes consistent at {newest.stop_lsn}"
        return failed(NAME, summary, **seen)
    return passed(NAME, f"WAL is whole from {full.label} ({full.start_lsn}) to {end}", **seen)


def _switches(archive: WalArchive, timeline: Timeline) -> list[tuple[Timeline, Lsn | None]] | None:
    """The timelines before this one with the position where each was left; None when its history file is missing."""
    if timeline.id == 1:
        return []
    history = archive.history(timeline)
    return None if history is None else parse_history(history)


def _fulls_on(path: Sequence[tuple[Timeline, Lsn | None]], backups: Sequence[BackupManifest]) -> list[BackupManifest]:
    """Oldest first."""
    left = dict(path)
    fulls = [
        backup
        for backup in backups
        if backup.kind is BackupKind.FULL
        and backup.timeline in left
        and ((end := left[backup.timeline]) is None or backup.stop_lsn <= end)
    ]
    return sorted(fulls, key=lambda backup: backup.start_lsn)


def _held(listing: WalListing, timeline: Timeline) -> TimelineWal:
    listed = listing.timelines.get(timeline)
    if listed is None:
        return TimelineWal(frozenset())
    head = listed.open_head
    return TimelineWal(
        frozenset(listed.numbers),
        None if head is None else head.number,
        None if head is None else Lsn(head.end),
    )
