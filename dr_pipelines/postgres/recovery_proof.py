"""That recovery ended where it was asked to end: asserted, not assumed."""

from __future__ import annotations

from pathlib import Path

from dr_pipelines.errors import RestoreError, TargetUnreachable
from dr_pipelines.lsn import Lsn, Timeline, WalSegment
from dr_pipelines.postgres.restore_plan import RecoveryTarget
from dr_pipelines.postgres.wal_checks import parse_history
from dr_pipelines.postgres.wal_fetch import WalFetcher
from dr_pipelines.postgres.wal_pages import has_whole_record, is_of_another_place

_LONGEST_RECORD = 1 << 30  # bytes; PostgreSQL's XLogRecordMaxSize is a little less
_DAMAGED = "the WAL there is damaged: restore from another tier with --tier, or with a target before it."


def switch_point(data_dir: Path, timeline: Timeline) -> Lsn:
    """Where the new timeline of a promoted server began, which is where replay ended."""
    rows = parse_history((data_dir / "pg_wal" / timeline.history_file).read_bytes())
    at = rows[-1][1] if rows else None
    if at is None:
        raise RestoreError(f"{timeline.history_file} of the restored server does not say where recovery ended")
    return at


def stop_line(log: Path) -> str | None:
    """What PostgreSQL says of an explicit target, such as `recovery stopping before commit of transaction …`."""
    for line in log.read_text(errors="replace").splitlines():
        if "recovery stopping" in line:
            return line.partition("LOG:")[2].strip()
    return None


def is_consistent(log: Path) -> bool:
    """Whether the server, which may not answer yet, says that it could."""
    return "consistent recovery state reached" in log.read_text(errors="replace")


def assert_reached(target: RecoveryTarget, reached: Lsn, stopped: str | None) -> None:
    """An explicit target: PostgreSQL said that it stopped there. Raises `TargetUnreachable`."""
    if stopped is None:
        raise TargetUnreachable(f"recovery ended at {reached} and did not say that it stopped at the target {target}")
    if isinstance(target.value, Lsn) and target.inclusive and reached < target.value:
        raise TargetUnreachable(f"recovery ended at {reached}, before the target {target.value}")


def assert_nothing_left(reached: Lsn, fetcher: WalFetcher, timeline: Timeline, stored_end: Lsn | None) -> None:
    """The target `latest`: no whole record of the WAL that was stored when recovery began lies between where it ended
    and where that WAL ends, nor pages of other WAL. Raises `TargetUnreachable`."""
    if stored_end is None or reached >= stored_end:
        return
    segment = WalSegment.containing(reached, timeline, fetcher.segment_size)
    start, length = reached.value % fetcher.segment_size, stored_end - reached
    first, data = segment.start, bytearray(_stored(segment, fetcher, stored_end))
    while segment.end < stored_end and len(data) <= _LONGEST_RECORD and not has_whole_record(memoryview(data), start):
        segment = segment.next()
        data += _stored(segment, fetcher, stored_end)
    goes_on = memoryview(data)[: start + length]
    if is_of_another_place(goes_on, start, first.value):
        raise TargetUnreachable(
            f"recovery ended at {reached}, where the stored WAL is that of another place", hint=_DAMAGED
        )
    if has_whole_record(goes_on, start):
        raise TargetUnreachable(
            f"recovery ended at {reached}, but the stored WAL goes on until {stored_end}", hint=_DAMAGED
        )


def _stored(segment: WalSegment, fetcher: WalFetcher, stored_end: Lsn) -> bytes:
    found = fetcher.stored(segment)
    if found is None or found.end < min(segment.end, stored_end):
        raise TargetUnreachable(f"the WAL was stored until {stored_end}, and {segment} is gone since", hint=_DAMAGED)
    return found.data
