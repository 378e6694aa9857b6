"""The table of a stored snapshot, read back."""

from __future__ import annotations

import pyarrow as pa

from dr_pipelines.errors import IntegrityError
from dr_pipelines.files.table import decode_table, empty, lay_over
from dr_pipelines.repository.fetch import fetch_verified
from dr_pipelines.repository.manifest import StoredObject
from dr_pipelines.repository.repository import Repository
from dr_pipelines.repository.snapshot_manifest import Snapshot


def read_table(repository: Repository, manifest: Snapshot) -> pa.Table:
    """All rows of a snapshot. Raises `IntegrityError` that names the object, `KeyUnusable`, what the store raises."""
    return lay_over(*read_tables(repository, manifest))


def read_tables(repository: Repository, manifest: Snapshot) -> tuple[pa.Table, pa.Table]:
    """The table that lies below, and the rows that are laid over it."""
    changes = _read(repository, manifest.changes) if manifest.changes is not None else empty()
    return _read(repository, manifest.table), changes


def _read(repository: Repository, stored: StoredObject) -> pa.Table:
    try:
        return decode_table(repository.codec.decode(fetch_verified(repository.store, stored)))
    except IntegrityError as error:
        if stored.key in error.message:
            raise
        raise IntegrityError(f"{stored.key} on {repository.store.name}: {error.message}", hint=error.hint) from error
