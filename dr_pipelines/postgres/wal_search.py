"""Restore points and ends of transactions in the stored WAL, newest first, as pg_waldump prints them.

What does not belong here: what to make of them.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from dr_pipelines.commands import Runner, failure_of
from dr_pipelines.errors import DrError, IntegrityError, RepositoryError, RestoreError
from dr_pipelines.lsn import Lsn, Timeline, WalSegment
from dr_pipelines.postgres import tools
from dr_pipelines.postgres.restore_plan import WalSpan
from dr_pipelines.postgres.wal_tiers import WalTiers
from dr_pipelines.progress import Progress

BATCH_BYTES = 64 << 20
"""So much WAL is fetched and read at a time, after a beginning with less: often the first segment has it."""
_LINE = re.compile(r"rmgr: (\w+) .*?tx: +(\d+), lsn: ([0-9A-F]+/[0-9A-F]+), .*? desc: (.*)")
_POINT = "RESTORE_POINT "
_END = re.compile(r"(COMMIT|ABORT)(?:_PREPARED (\d+):)? (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?)")


class WalRecord(NamedTuple):
    """`manager` is the resource manager's name, `xid` the transaction (or 0), `said` pg_waldump's description."""

    lsn: Lsn
    manager: str
    xid: int
    said: str


@dataclass(frozen=True)
class TransactionEnd:
    """`xid` as WAL keeps it, of 32 bits; `at` by the server's clock."""

    lsn: Lsn
    xid: int
    committed: bool
    at: datetime


class WalSearch:
    """Reads the WAL in `spans` backwards along `path` (timelines with where each was left) down to `since`. A segment
    that is damaged is passed over and kept in `damaged`; `gaps` are what is not there."""

    def __init__(
        self,
        wal: WalTiers,
        spans: Sequence[WalSpan],
        path: Mapping[Timeline, Lsn | None],
        since: Lsn,
        *,
        segment_size: int,
        bin_dir: Path | None,
        runner: Runner,
        progress: Progress,
    ) -> None:
        self._wal, self._path, self._bin_dir = wal, path, bin_dir
        self._runner, self._progress = runner, progress
        self._batches = list(_batches(spans, path, since, segment_size))
        self.gaps = list(_gaps(spans, path, since))
        self.damaged: dict[WalSegment, DrError] = {}

    @property
    def size(self) -> int:
        """How many bytes there are to read at most."""
        return sum(segment.size for batch in self._batches for segment in batch)

    def restore_points(self) -> Iterator[tuple[Lsn, str]]:
        """Newest first, by name."""
        for record in self.records("XLOG"):
            if record.said.startswith(_POINT):
                yield record.lsn, record.said.removeprefix(_POINT)

    def transaction_ends(self) -> Iterator[TransactionEnd]:
        """Newest first."""
        for record in self.records("Transaction"):
            if (end := _END.match(record.said)) is not None:
                at = datetime.fromisoformat(end[3]).replace(tzinfo=UTC)
                yield TransactionEnd(record.lsn, int(end[2] or record.xid), end[1] == "COMMIT", at)

    def records(self, manager: str | None = None) -> Iterator[WalRecord]:
        """The records of a resource manager, or of all, newest first."""
        with _scratch() as name, ThreadPoolExecutor(4) as pool:
            folder = Path(name)
            for batch in self._batches:
                for run in reversed(self._fetch(batch, folder, pool)):
                    yield from reversed(self._dump(run, folder, manager))
                for path in folder.iterdir():
                    if path.name != batch[0].name:  # its head is the end of the last record of the batch before it
                        path.unlink()

    def _fetch(self, batch: Sequence[WalSegment], folder: Path, pool: ThreadPoolExecutor) -> list[list[WalSegment]]:
        """Puts the segments into `folder`; returns those that follow each other, together."""
        runs: list[list[WalSegment]] = [[]]
        for segment, data in zip(batch, pool.map(self._read, batch), strict=True):
            self._progress.advance(segment.size)
            if data is None:
                runs.append([])
                continue
            try:
                (folder / segment.name).write_bytes(data)
            except OSError as error:
                raise _no_scratch(error) from error
            runs[-1].append(segment)
        return [run for run in runs if run]

    def _read(self, segment: WalSegment) -> bytes | None:
        try:
            found = self._wal.read(segment)
        except (IntegrityError, RepositoryError) as error:
            self.damaged[segment] = error
            return None
        return None if found is None else found.data

    def _dump(self, run: Sequence[WalSegment], folder: Path, manager: str | None) -> list[WalRecord]:
        following = run[-1].next()
        last = following if (folder / following.name).exists() else run[-1]
        command = tools.pg_waldump_segments(folder, run[0], last, manager, bin_dir=self._bin_dir)
        done = self._runner.run(command, check=False)
        if done.returncode not in (0, 1):  # 1: an error where the WAL ends; what it printed before that counts
            raise failure_of(command, done)
        records = (
            WalRecord(Lsn.parse(lsn), name, int(xid), said) for name, xid, lsn, said in _LINE.findall(done.stdout)
        )
        left = self._path[run[0].timeline]
        return [found for found in records if found.lsn < run[-1].end and (left is None or found.lsn < left)]


def _scratch() -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory(prefix="dr-")
    except OSError as error:
        raise _no_scratch(error) from error


def _no_scratch(error: OSError) -> RestoreError:
    return RestoreError(
        f"WAL cannot be looked into in {error.filename or 'a temporary folder'}: {error.strerror or error}",
        hint="make room there, or name another folder with TMPDIR.",
    )


def _batches(
    spans: Sequence[WalSpan], path: Mapping[Timeline, Lsn | None], since: Lsn, size: int
) -> Iterator[list[WalSegment]]:
    """Newest first; within each the oldest first."""
    length = 1
    for span in sorted(spans, key=lambda span: (span.timeline, span.start), reverse=True):
        if span.timeline not in path:
            continue
        left = path[span.timeline]
        end = span.end if left is None else min(span.end, left)
        first, stop = max(span.start, since).value // size, -(-end.value // size)
        while stop > first:
            lower = max(first, stop - length)
            yield [WalSegment(span.timeline, number, size) for number in range(lower, stop)]
            stop, length = lower, max(1, min(2 * length, BATCH_BYTES // size))


def _gaps(spans: Sequence[WalSpan], path: Mapping[Timeline, Lsn | None], since: Lsn) -> Iterator[tuple[Lsn, Lsn]]:
    """A timeline's first segment begins with a copy of what the one before had of it."""
    for before, after in pairwise(span for span in spans if span.timeline in path):
        left = path[before.timeline]
        end = before.end if left is None else min(before.end, left)
        if after.start > max(end, since):
            yield end, after.start
