"""The objects of a good repository, and which of them a restore needs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dr_pipelines.lsn import WalSegment, is_history_name
from dr_pipelines.repository import layout
from dr_pipelines.repository.manifest import BackupManifest
from tests.support.lived import Lived

RECORDS = ("repository.json", "wal.json")
"""What says how to read the rest: an object that cannot be read stops whoever comes."""


@dataclass(frozen=True)
class Thing:
    """An object. `label` is the backup whose restore from this tier alone reads it; None: no restore does."""

    key: str
    kind: str
    label: str | None


def things(home: Lived, tier: str = "primary") -> list[Thing]:
    """Everything that lies on a tier but what was put down by those who looked (proofs, evidence)."""
    repository = home.repository(tier)
    backups = {backup.label: backup for backup in repository.backups("shop")}
    found = (_thing(info.key, backups, home.full) for info in repository.store.list())
    return sorted((thing for thing in found if thing is not None), key=lambda thing: thing.key)


def _thing(key: str, backups: dict[str, BackupManifest], full: str) -> Thing | None:
    label = layout.label_of("shop", key)
    if label is not None:
        backup = backups[label]
        if key == backup.layout.manifest:
            return Thing(key, "manifest", label)
        if not backup.layout.is_content(key):
            return None
        read = {stored.key for stored in backup.restored_from}
        return Thing(key, _content(key), label if key in read else None)
    if (wal := layout.parse_wal_key(key)) is not None and not is_history_name(wal.file):
        size = backups[full].segment_size
        segment = WalSegment.parse(wal.file, size)
        kind = "WAL segment" if wal.partial_end is None else "head of a WAL segment"
        return Thing(key, kind, full if segment.end > backups[full].start_lsn else None)
    name = key.rpartition("/")[2]
    return Thing(key, name, None) if name in RECORDS else None


def _content(key: str) -> str:
    named = (("/packs/", "pack"), ("/backup_manifest.", "backup_manifest"), ("/index.", "index"), ("/facts.", "facts"))
    return next((kind for part, kind in named if part in key), "break-glass")


def path_of(home: Lived, key: str, tier: str = "primary") -> Path:
    return home.base / tier / key


def keys_of(home: Lived, kinds: Iterable[str]) -> list[Thing]:
    wanted = {*kinds}
    return [thing for thing in things(home) if thing.kind in wanted]
