"""Is the backup there that was due? Pure: manifests, a schedule and a time in, an answer out.

Dagster's freshness policies look at an asset as a whole and take an old partition that was filled late for news;
this looks at when backups were taken.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum

from croniter import croniter

from dr_pipelines.checks import CheckResult, failed, passed
from dr_pipelines.clock import CLOCK_DRIFT
from dr_pipelines.repository.labels import Labelled
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.repository.snapshot_manifest import Snapshot

BACKUP_IS_THERE = "backup_is_there"
SNAPSHOT_IS_THERE = "snapshot_is_there"

# How long a backup may take before its absence is news: a quarter of the distance of two, and never over an hour.
LONGEST_ALLOWANCE = timedelta(hours=1)


class Window(Enum):
    """The time in which a backup counts for its partition; also how its key is written."""

    DAY = "%Y-%m-%d"
    HOUR = "%Y-%m-%d-%H:00"

    @property
    def length(self) -> timedelta:
        return timedelta(days=1) if self is Window.DAY else timedelta(hours=1)

    @classmethod
    def of(cls, interval: timedelta) -> Window:
        """Of what is taken so often."""
        return cls.DAY if interval >= timedelta(days=1) else cls.HOUR

    def start(self, at: datetime) -> datetime:
        floor = at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        return floor.replace(hour=0) if self is Window.DAY else floor


@dataclass(frozen=True)
class Due:
    """A backup that must be there: scheduled at `at`, in the window that begins at `start`."""

    window: Window
    at: datetime

    @property
    def start(self) -> datetime:
        return self.window.start(self.at)

    @property
    def key(self) -> str:
        """The partition's key."""
        return self.start.strftime(self.window.value)

    def __str__(self) -> str:
        return f"{'day' if self.window is Window.DAY else 'hour'} {self.key} (UTC)"


def newest_due(cron: str, interval: timedelta, window: Window, now: datetime) -> Due:
    """The newest tick of a schedule that was long enough ago for its backup to be there."""
    latest = now.astimezone(UTC) - min(interval / 4, LONGEST_ALLOWANCE)
    tick: datetime = croniter(cron, latest + timedelta(seconds=1)).get_prev(datetime)
    return Due(window, tick)


def exposure(backups: Iterable[BackupManifest], taken: BackupManifest) -> timedelta | None:
    """From the state that the newest backup before `taken` holds to the state that `taken` holds: what would be lost
    between them without WAL. None when it is the first."""
    before = [backup.finished_at for backup in backups if backup.finished_at < taken.finished_at]
    return taken.finished_at - max(before) if before else None


def backup_is_there(backups: Iterable[BackupManifest], kind: BackupKind, due: Due, *, now: datetime) -> CheckResult:
    """A full serves where an incremental was due: it too is a point to recover from. One that was taken after the
    window serves too: what was due is how new the newest must be, and a repository begins in mid-day. One of the future
    was taken while a clock was ahead, and would serve until then whatever happens."""
    serving = [backup for backup in backups if kind is BackupKind.INCREMENTAL or backup.kind is kind]
    return _is_there(BACKUP_IS_THERE, "backup", f"{kind} backup", serving, due, now)


def snapshot_is_there(snapshots: Iterable[Snapshot], due: Due, *, now: datetime) -> CheckResult:
    """The same of a file set. A partial one serves: another check says what it lacks. One that looked only at what rows
    said to have changed does not: that all else was looked at is what was due."""
    whole = [one for one in snapshots if not one.is_poll]
    return _is_there(SNAPSHOT_IS_THERE, "snapshot", "snapshot of everything", whole, due, now)


def _is_there(name: str, thing: str, asked: str, serving: Iterable[Labelled], due: Due, now: datetime) -> CheckResult:
    seen = [one for one in serving if one.started_at <= now + CLOCK_DRIFT]
    newest = max(seen, key=lambda one: one.started_at, default=None)
    details = {"due_at": due.at, "partition": due.key, "newest": newest.label if newest else None}
    if newest is not None and newest.started_at >= due.start:
        inside = newest.started_at < due.start + due.window.length
        which = f"the {thing} of {due}" if inside else f"a newer {thing} than that of {due}"
        return passed(name, f"{which} is there: {newest.label}", **details)
    last = f"the newest is {newest.label}" if newest else "there is none at all"
    return failed(name, f"no {asked} was taken in the {due}; {last}", **details)
