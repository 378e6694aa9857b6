"""What was of one path over time: each stretch of snapshots that hold the same content, and those that hold nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dr_pipelines.errors import BackupNotFound, IntegrityError, UsageError
from dr_pipelines.files.table import GONE, shown
from dr_pipelines.files.tiers import Known, Tiers
from dr_pipelines.repository.manifest import StoredObject

_SHORTEST = 4
"""Digits of a SHA-256 that may stand for it."""


@dataclass(frozen=True)
class Version:
    """A stretch of `snapshots` in a row, from `first` to `last`, in which the path is the same. `kind` is the type of
    the row, `deleted` where there is none. `size` in bytes; `sha256` in hex; `error` where it could not be read."""

    kind: str
    size: int | None
    modified: datetime | None
    sha256: str | None
    target: str | None
    error: str | None
    first: str
    last: str
    snapshots: int

    @property
    def identity(self) -> tuple[str | None, ...]:
        return self.kind, self.sha256, self.target, self.error


def versions_of(tiers: Tiers, path: bytes) -> list[Version]:
    """Oldest first, from the first snapshot that has the path. A table that is whole on no tier is left out, and told.
    Raises `BackupNotFound` when no snapshot has it, `KeyUnusable`, what the stores raise."""
    history = _History(tiers, path)
    found: list[Version] = []
    for known in tiers.known():
        one = history.version_in(known)
        if one is None or (not found and one.kind == "deleted"):
            continue
        if found and found[-1].identity == one.identity:
            found[-1] = _longer(found[-1], one)
        else:
            found.append(one)
    if not found:
        raise BackupNotFound(
            f"no snapshot of {tiers.file_set} has {shown(path)}",
            hint="paths are relative to the source, as `dr files diff` writes them.",
        )
    return found


def snapshot_with(versions: Sequence[Version], digits: str) -> str:
    """The label of the newest snapshot that holds the version. Raises `UsageError` unless exactly one is meant."""
    meant = [one for one in versions if one.sha256 and one.sha256.startswith(digits.lower())]
    if len(digits) < _SHORTEST or len({one.sha256 for one in meant}) != 1:
        there = ", ".join(dict.fromkeys(one.sha256[:12] for one in versions if one.sha256)) or "none"
        raise UsageError(
            f"{digits!r} means no single version: write at least {_SHORTEST} digits of its SHA-256",
            hint=f"the versions are: {there}.",
        )
    return meant[-1].last


class _History:
    """Tables that snapshots share are read once, and of each only the row of the path is kept."""

    def __init__(self, tiers: Tiers, path: bytes) -> None:
        self._tiers, self._path = tiers, path
        self._rows: dict[str, dict[str, Any] | None] = {}

    def version_in(self, known: Known) -> Version | None:
        """None when the snapshot's table cannot be had."""
        manifest = known.manifest
        try:
            row = self._row(manifest.changes) if manifest.changes is not None else None
            row = self._row(manifest.table) if row is None else row
        except IntegrityError as error:
            self._tiers.tell(f"{manifest.label} is left out: {error.message}")
            return None
        return _version(None if row is None or row["type"] == GONE else row, manifest.label)

    def _row(self, stored: StoredObject) -> dict[str, Any] | None:
        if stored.sha256 not in self._rows:
            table = self._tiers.rows_in(stored)
            found = table.filter(pc.equal(table["path"], pa.scalar(self._path, pa.binary()))).to_pylist()
            self._rows[stored.sha256] = found[0] if found else None
        return self._rows[stored.sha256]


def _version(row: dict[str, Any] | None, label: str) -> Version:
    if row is None:
        return Version("deleted", None, None, None, None, None, label, label, 1)
    at, target = row["mtime_ns"], row["target"]
    return Version(
        row["type"],
        row["size"],
        datetime.fromtimestamp(at / 1e9, UTC) if at is not None else None,
        row["sha256"].hex() if row["sha256"] is not None else None,
        shown(target) if target is not None else None,
        row["error"],
        label,
        label,
        1,
    )


def _longer(stretch: Version, one: Version) -> Version:
    """With the newest time: what was only touched is the same version."""
    return Version(
        one.kind, one.size, one.modified, one.sha256, one.target, one.error, stretch.first, one.last,
        stretch.snapshots + 1,
    )  # fmt: skip
