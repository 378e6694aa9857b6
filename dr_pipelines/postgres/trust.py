"""The trust gate: may the next backup be an incremental on top of this one? Pure.

Native incrementals have had data-loss defects (release notes of 17.13 and 18.7), so a chain is continued only where
nothing happened that they were wrong about, and on minors with known defects an incremental is provisional until it
is proven.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dr_pipelines.lsn import Timeline
from dr_pipelines.postgres.server import ServerFacts
from dr_pipelines.repository.catalog import Catalog, unequal
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.repository.marks import Marks

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


def reason_of_proof(parent: BackupManifest | None, catalog: Catalog) -> str | None:
    """Why no incremental may follow in the chain of `parent`: one of the same full was found not to give what the full
    gives with its WAL. None when nothing of the kind is known."""
    if parent is None:
        return None
    by_label = {backup.label: backup for backup in catalog.backups}
    root = _root(parent, by_label)
    for backup in reversed(catalog.backups):
        seen = catalog.marks.get(backup.label, Marks()).equivalence()
        if seen is not None and seen.verdict == "fail" and _root(backup, by_label) == root:
            return f"{backup.label}, of the same full, {unequal(seen)}"
    return None


def chain_to_replace(catalog: Catalog) -> tuple[str, str] | None:
    """The newest full, when an incremental of it was found unequal: another full is due. With the reason."""
    fulls = [backup for backup in catalog.backups if backup.kind is BackupKind.FULL]
    newest = max(fulls, key=lambda backup: backup.finished_at, default=None)
    reason = reason_of_proof(newest, catalog)
    return None if newest is None or reason is None else (newest.label, reason)


def _root(backup: BackupManifest, by_label: Mapping[str, BackupManifest]) -> str:
    """The label of its full, as far as the chain is there."""
    seen = [backup.label]
    while (parent := by_label[seen[-1]].parent) in by_label and parent not in seen:
        seen.append(str(parent))
    return seen[-1]


def reason_for_doubt(facts: ServerFacts) -> str | None:
    """Why an incremental of this server is provisional; None when nothing is known against it."""
    sound = _FIRST_SOUND_MINOR.get(facts.major)
    if sound is None or facts.version_num >= sound:
        return None
    return (
        f"PostgreSQL {facts.version} may omit changed blocks from incrementals; "
        f"{sound // 10_000}.{sound % 10_000} mends that"
    )
