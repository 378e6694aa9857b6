"""What the host that takes backups remembers of them, because it cannot read what it encrypted: PostgreSQL's manifests
of the newest few, which incrementals build on, and what the server last said of itself."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from pydantic import ValidationError

from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.repository.source_facts import SourceFacts, decode_facts

_NEWEST = 3


class BackupMemory:
    """Below a server's folder of the state directory, one file a label. Each is an accelerator: without it the next
    backup is a full, and the facts are read from the repository."""

    def __init__(self, folder: Path) -> None:
        self._manifests, self._facts = folder / "backup_manifests", folder / "facts"

    def recall(self, backup: BackupManifest) -> bytes | None:
        """Its backup_manifest."""
        try:
            return (self._manifests / backup.label).read_bytes()
        except FileNotFoundError:
            return None

    def facts(self, backup: BackupManifest) -> SourceFacts | None:
        try:
            return decode_facts((self._facts / backup.label).read_bytes())
        except (OSError, ValidationError):
            return None

    def keep(self, label: str, backup_manifest: bytes, facts: bytes | None) -> None:
        """Only the newest few: an incremental builds on the last one. Raises `OSError`."""
        _keep(self._manifests, label, backup_manifest)
        if facts is not None:
            _keep(self._facts, label, facts)


def _keep(folder: Path, label: str, data: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).rename(folder / label)
    for old in sorted(path for path in folder.iterdir() if path.name[0].isdigit())[:-_NEWEST]:
        old.unlink(missing_ok=True)
