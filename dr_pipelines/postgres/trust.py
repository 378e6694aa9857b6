"""The trust gate: may the next backup be an incremental on top of this one? Pure.

Native incrementals have had data-loss defects (release notes of 17.13 and 18.7), so a chain is continued only where
nothing happened that they were wrong about, and on minors with known defects an incremental is provisional until it
is proven.
"""

from __future__ import annotations

from collections.abc import Sequence

from dr_pipelines.lsn import Timeline
from dr_pipelines.postgres.server import ServerFacts
from dr_pipelines.repository.manifest import BackupManifest

_FIRST_SOUND_MINOR = {17: 17_00_13, 18: 18_00_07}


def parent_of(backups: Sequence[BackupManifest], facts: ServerFacts) -> BackupManifest | None:
    """The newest backup of this server, of `backups` oldest first. Where there is none of its system, the newest of
    another: a server that came back after a visit elsewhere goes on with its own."""
    own = [backup for backup in backups if backup.system_id == facts.system_id]
    return next(reversed(own or backups), None)


def reason_for_base(parent: BackupManifest | None, facts: ServerFacts) -> str | None:
    """Why nothing can build on `parent`, not even WAL; None when something can."""
    if parent is None:
        return "there is no backup to build on"
    if parent.system_id != facts.system_id:
        return f"the server is another one: system {facts.system_id}, the newest backup is of {parent.system_id}"
    if parent.timeline != facts.timeline:
        return reason_of_timeline(parent, facts.timeline)
    return None


def reason_of_timeline(parent: BackupManifest, timeline: Timeline) -> str:
    return f"the server is on timeline {timeline.id}, the newest backup on {parent.timeline.id}"


def reason_for_full(parent: BackupManifest | None, facts: ServerFacts) -> str | None:
    """Why a full is taken where an incremental was asked for; None when the chain may be continued."""
    reason = reason_for_base(parent, facts)
    if parent is None or reason is not None:
        return reason
    if parent.postgres_version_num != facts.version_num:
        return f"the server runs {facts.version}, the newest backup was taken on {parent.postgres_version}"
    if parent.data_checksums != facts.data_checksums:
        return "data checksums were switched on or off since the newest backup"
    if not facts.summarize_wal:
        return "summarize_wal is off on the server"
    return None


def reason_for_doubt(facts: ServerFacts) -> str | None:
    """Why an incremental of this server is provisional; None when nothing is known against it."""
    sound = _FIRST_SOUND_MINOR.get(facts.major)
    if sound is None or facts.version_num >= sound:
        return None
    return (
        f"PostgreSQL {facts.version} may omit changed blocks from incrementals; "
        f"{sound // 10_000}.{sound % 10_000} mends that"
    )
