"""A look at rows between two snapshots: new versions of files are copied before they are overwritten."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from dr_pipelines.errors import Busy, DrError
from dr_pipelines.files.rows import changed_since
from dr_pipelines.objectives.polls import Polls
from dr_pipelines.operations.files import file_source, take_in_turn
from dr_pipelines.operations.polls import note_waiting, polls_of, remember
from dr_pipelines.operations.reconcile import known_contents
from dr_pipelines.operations.references import references_of
from dr_pipelines.operations.turns import turn
from dr_pipelines.progress import Progress
from dr_pipelines.reconcile.compare import changed_paths
from dr_pipelines.repository.snapshot_manifest import Snapshot
from dr_pipelines.site import Site

_OVERLAP = timedelta(hours=1)
"""A row's time is that of its transaction's start, and it is seen only once that has ended."""


@dataclass(frozen=True)
class Polled:
    """`at`: every row that was committed by then has its file in the newest snapshot, if it was there. `snapshot`: the
    one that was taken for the `changed` paths; None when nothing had changed. `exposed`: how long ago that was so just
    before it ended, which is what a loss would have cost then; None when it never was. `is_whole`: everything was
    looked at, because no snapshot was known."""

    at: datetime
    changed: int
    snapshot: Snapshot | None
    exposed: timedelta | None = None
    is_whole: bool = False


@dataclass(frozen=True)
class Looked:
    """What is to be copied: `changed` paths, None for everything. `since`: until when that is known."""

    at: datetime
    changed: list[bytes] | None
    since: datetime | None


def poll(site: Site, file_set: str, progress: Progress, *, wait: bool = False) -> Polled:
    """Copy the files of rows that are not in the newest snapshot as they are now. Raises `Busy` while a snapshot or
    another poll is under way on this host, unless it is to `wait`; `UsageError` where nothing points at the files,
    `ServerError`, and what a snapshot raises."""
    with _attempt(site, file_set, progress, wait=wait):
        looked = _look(site, file_set, progress)
        if looked.changed == []:
            return _quiet(site, file_set, looked)
        taken = take_in_turn(site, file_set, progress, only=looked.changed)
        whole = looked.changed is None
        at, changed = (taken.started_at, taken.counts.files) if whole else (looked.at, len(looked.changed or ()))
        remember(site, file_set, Polls(at, at))
        return Polled(at, changed, taken, _exposed(site, looked), is_whole=whole)


def look_at_rows(site: Site, file_set: str, progress: Progress) -> Polled | Looked:
    """Only a look: `Polled` where nothing is to be copied, else what is. Raises as `poll` does."""
    with _attempt(site, file_set, progress, wait=False):
        looked = _look(site, file_set, progress)
        return _quiet(site, file_set, looked) if looked.changed == [] else looked


def _look(site: Site, file_set: str, progress: Progress) -> Looked:
    references = references_of(site, file_set)
    known, at = known_contents(site, file_set), site.clock.now()
    if known.seen_at is None:
        return Looked(at, None, None)
    progress.phase("rows")
    rows = references.read()
    written = references.dated.read(since=known.seen_at - _OVERLAP)
    doubted = changed_paths(rows, known.rows, written)
    progress.phase("look")
    looked = file_source(site, file_set).look(doubted)
    until = polls_of(site, file_set).until
    changed = changed_since(known.rows, known.seen_at, looked, doubted)
    return Looked(at, changed, max(known.seen_at, until) if until is not None else known.seen_at)


def _quiet(site: Site, file_set: str, looked: Looked) -> Polled:
    remember(site, file_set, Polls(looked.at, looked.at))
    return Polled(looked.at, 0, None, _exposed(site, looked))


def _exposed(site: Site, looked: Looked) -> timedelta | None:
    return None if looked.since is None else max(site.clock.now() - looked.since, timedelta(0))


@contextmanager
def _attempt(site: Site, file_set: str, progress: Progress, *, wait: bool) -> Iterator[None]:
    """In turn; what it comes to nothing for is put down, for whoever asks why nothing was polled."""
    try:
        with turn(site, file_set, progress, wait=wait):
            yield
    except Busy:
        note_waiting(site, file_set)
        raise
    except DrError as error:
        before = polls_of(site, file_set)
        remember(site, file_set, replace(before, tried_at=site.clock.now(), waits=False, trouble=error.message))
        raise
