"""Whether the rows of databases and the files they point at agree: on the source, or in a snapshot.

On the source everything changes while it is looked at. Rows are read before and after the listing, and what differs
then is looked at once more, later: only what differs each time in the same way is a finding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from dr_pipelines.checks import CheckResult
from dr_pipelines.errors import BackupNotFound, DrError, UsageError
from dr_pipelines.files.arrays import numbers
from dr_pipelines.files.look import SEEN, known_digests, read_digests
from dr_pipelines.files.memory import SnapshotMemory
from dr_pipelines.files.read_table import read_table
from dr_pipelines.files.repair import Planned, Repaired
from dr_pipelines.files.table import lay_over
from dr_pipelines.operations.files import file_source, labelled_snapshot
from dr_pipelines.operations.references import References, references_of
from dr_pipelines.operations.repair import plan, repair
from dr_pipelines.progress import Progress
from dr_pipelines.reconcile.checks import references_match
from dr_pipelines.reconcile.compare import DIGEST, EXTRA, MISSING, SIZE, Comparison, compare, lasting, worth_reading
from dr_pipelines.repository.snapshot_manifest import Snapshot
from dr_pipelines.repository.snapshots import read_snapshots
from dr_pipelines.site import Site

LIVE = "live"
SETTLED = 5.0
"""Seconds after which what differs on the source is looked at again: by then an upload has its row."""


@dataclass(frozen=True)
class Reconciliation:
    """`against`: what the rows were held against. `found` is for those who go on with it. `planned`: what a repair
    would do."""

    file_set: str
    against: str
    check: CheckResult
    found: Comparison = field(repr=False)
    repaired: Repaired | None = None
    planned: Planned | None = None


@dataclass(frozen=True)
class Known:
    """What is known of the contents of files: the rows of a snapshot, and when it began."""

    rows: Any = None
    seen_at: datetime | None = None


def reconcile(
    site: Site,
    file_set: str,
    progress: Progress,
    *,
    against: str = LIVE,
    database_at: str | None = None,
    tier: str | None = None,
    read_all: bool = False,
    settled: float = SETTLED,
    mend: bool = False,
    plan_only: bool = False,
    wait: bool = False,
    urgent: bool = False,
) -> Reconciliation:
    """`against`: `live`, a snapshot's label, `latest`, or an instant (the newest snapshot that was whole by then).
    `read_all`: files of which rows name digests are read though a snapshot knows theirs. `tier`: where snapshots are
    read. `mend`: what a version in the repository can repair of live files is repaired, and looked at again; with
    `plan_only` it is only told; `wait` and `urgent` as of `repair`. Raises `UsageError`, `BackupNotFound`,
    `ServerError`, what a store raises."""
    references = references_of(site, file_set, database_at=database_at)
    if mend:
        _require_live(against, database_at)
    if against == LIVE:
        found = _Live(site, file_set, references, progress, read_all).look(settled)
        repairable = database_at is None and any(found.counts[kind] for kind in (MISSING, SIZE, DIGEST))
        planned = plan(site, file_set, found, progress) if repairable and plan_only else None
        repaired = None
        if repairable and mend:
            repaired = repair(site, file_set, found, progress, wait=wait, urgent=urgent)
            found = _Live(site, file_set, references, progress, read_all).look(settled)
        check = references_match(found, against="the source")
        return Reconciliation(file_set, LIVE, check, found, repaired, planned)
    manifest, files = _snapshot(site, file_set, against, tier or "primary")
    found = _in_snapshot(references, manifest, files)
    doubtful = set() if database_at else {EXTRA} if references.say_when else {MISSING, EXTRA, SIZE, DIGEST}
    check = references_match(found, against=f"snapshot {manifest.label}", doubtful=doubtful)
    return Reconciliation(file_set, manifest.label, check, found)


def _require_live(against: str, database_at: str | None) -> None:
    if against != LIVE or database_at is not None:
        raise UsageError(
            "only live files are repaired, by the rows of the live database",
            hint="leave out --against and --database-at, or --repair.",
        )


# --- the source ---------------------------------------------------------------------------------------------


class _Live:
    def __init__(self, site: Site, file_set: str, references: References, progress: Progress, read_all: bool) -> None:
        self._clock, self._progress = site.clock, progress
        self._source = file_source(site, file_set)
        self._references, self._read_all = references, read_all
        self._known = known_contents(site, file_set)

    def look(self, settled: float) -> Comparison:
        first = self._look_once(self._read_all)
        if not len(first.findings) and not first.undigested:
            return first
        self._progress.note(f"what differs is looked at again in {settled:.0f} s")
        self._clock.wait(settled)
        second = self._look_once(False)
        return replace(second, findings=lasting(first.findings, second.findings))

    def _look_once(self, read_all: bool) -> Comparison:
        """Of rows that were there before the listing and after it."""
        references = self._references
        self._progress.phase("rows")
        before, began = references.read(), self._clock.now()
        self._progress.phase("look")
        files, unreadable = self._scan()
        chosen = worth_reading(files, before, everything=read_all, present=references.listed_by_rows)
        files = read_digests(self._source, files, chosen, self._progress)
        self._known = Known(files, began)
        earlier = compare(before, files, references.folders, unreadable).findings
        del before  # of a million rows as much as of their files: not twice
        self._progress.phase("rows")
        found = compare(references.read(), files, references.folders, unreadable)
        return replace(found, findings=lasting(earlier, found.findings))

    def _scan(self) -> tuple[Any, Mapping[bytes, str]]:
        scan = self._source.scan()
        known, self._known = self._known, Known()
        return known_digests(scan, known.rows, known.seen_at), scan.unreadable


def known_contents(site: Site, file_set: str) -> Known:
    """Of the newest snapshot that this host remembers, or can read; nothing where neither is so. In the columns of
    `SEEN`."""
    past = SnapshotMemory(site.state_dir / "files" / file_set).recall()
    if past is not None and past.manifest is not None:
        rows = lay_over(past.base, past.changes).select(SEEN)
        # Copied: else they hold the whole file from which they were read.
        return Known(rows.take(numbers(len(rows))), past.manifest.started_at)
    try:
        repository = site.read_only_repository(file_set, "primary")
        manifest = labelled_snapshot(repository, file_set, "latest")
        return Known(read_table(repository, manifest).select(SEEN), manifest.started_at)
    except DrError:
        return Known()


# --- a snapshot ---------------------------------------------------------------------------------------------


def _in_snapshot(references: References, manifest: Snapshot, files: Any) -> Comparison:
    """Rows that say that they were written since are left out."""
    rows = references.read(before=manifest.started_at)
    younger = references.read(since=manifest.started_at) if references.say_when else references.nothing()
    return compare(rows, files, references.folders, younger=younger)


def _snapshot(site: Site, file_set: str, asked: str, tier: str) -> tuple[Snapshot, Any]:
    repository = site.read_only_repository(file_set, site.tier_of(file_set, tier))
    repository.check_format()
    at = _instant(asked)
    if at is None:
        manifest = labelled_snapshot(repository, file_set, asked)
    else:
        whole = [one for one in read_snapshots(repository.store, file_set).usable if one.finished_at <= at]
        if not whole:
            raise BackupNotFound(
                f"no snapshot of {file_set} on {tier} was whole by {at:%Y-%m-%d %H:%M:%S} UTC",
                hint=f"`dr files list {file_set}` shows what there is.",
            )
        manifest = whole[-1]
    return manifest, read_table(repository, manifest)


def _instant(text: str) -> datetime | None:
    """None for what is no instant, and so a label. Raises `UsageError` for one without a zone."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    if at.tzinfo is None:
        raise UsageError(f"{text} has no zone", hint="write it as 2026-11-23T10:00:00Z.")
    return at.astimezone(UTC)
