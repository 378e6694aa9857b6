"""The tiers that a file set is read from, in order of preference: an object is the same on all of them, so what one has
not got whole comes from the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa

from dr_pipelines.errors import (
    BackupNotFound,
    DrError,
    IntegrityError,
    ObjectNotFound,
    ObjectOffline,
    RepositoryError,
    StoreError,
)
from dr_pipelines.files.table import decode_table, empty, lay_over
from dr_pipelines.progress import Progress
from dr_pipelines.repository.archive_reader import ArchiveReader
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.fetch import fetch_into
from dr_pipelines.repository.layout import ProofName
from dr_pipelines.repository.manifest import StoredObject
from dr_pipelines.repository.repository import Repository
from dr_pipelines.repository.snapshot_manifest import FileArchive, Snapshot
from dr_pipelines.repository.snapshots import SnapshotCatalog, read_snapshot, read_snapshots

LATEST = "latest"
Wanted = str | datetime
"""A label, `latest`, or an instant: the newest snapshot that was begun by then."""


@dataclass(frozen=True)
class Known:
    """A snapshot and the tiers that have it; `trouble` when none of them has all of it, or its restore failed where it
    was tried. `anomaly`: the newest that was said of it being unusual."""

    manifest: Snapshot
    tiers: tuple[str, ...]
    trouble: str | None
    anomaly: ProofName | None = None


class Tiers:
    """Raises what the stores raise only when no tier can serve; safe to use from threads."""

    def __init__(self, repositories: Sequence[Repository], file_set: str, progress: Progress) -> None:
        self.file_set = file_set
        self._repositories = [*repositories]
        self._progress = progress
        self._told: set[tuple[str, str]] = set()

    @property
    def repositories(self) -> tuple[Repository, ...]:
        """In the order in which they are asked."""
        return tuple(self._repositories)

    @property
    def codec(self) -> Codec:
        return self._repositories[0].codec

    def find(self, wanted: Wanted) -> Known:
        """Raises `BackupNotFound`."""
        if isinstance(wanted, str) and wanted != LATEST:
            return self._labelled(wanted)
        known = self.known()
        begun = [one for one in known if wanted == LATEST or one.manifest.started_at <= wanted]  # type: ignore[operator]
        if not begun:
            when = "" if wanted == LATEST else f" that was begun by {wanted}"
            raise BackupNotFound(
                f"there is no snapshot of {self.file_set}{when} on {self._names}",
                hint=f"`dr files list {self.file_set}` shows what there is.",
            )
        whole = [one for one in begun if one.trouble is None]
        if whole and whole[-1] is not begun[-1]:
            self.tell(f"{begun[-1].manifest.label} is left out: {begun[-1].trouble}")
        chosen = (whole or begun)[-1]
        self._tell_unread(chosen.manifest)
        if chosen.anomaly is not None and chosen.anomaly.verdict == "fail":
            self.tell(
                f"{chosen.manifest.label} is unusual: more of its files changed or vanished than do; an older one"
                f" may be what you want (`dr files diff {self.file_set} OLDER {chosen.manifest.label}`)"
            )
        return chosen

    def known(self) -> list[Known]:
        """Of all tiers, oldest first."""
        found: dict[str, Known] = {}
        trouble: DrError | None = None
        read = 0
        for repository in self._repositories:
            try:
                repository.check_format()
                catalog = read_snapshots(repository.store, self.file_set)
            except (StoreError, RepositoryError) as error:
                trouble = trouble or error
                self._note(repository, "its snapshots", error)
                continue
            read += 1
            for manifest in catalog.snapshots:
                before = found.get(manifest.label, Known(manifest, (), "it is on no tier"))
                seen = [one for one in (before.anomaly, catalog.marks[manifest.label].anomaly()) if one is not None]
                found[manifest.label] = Known(
                    before.manifest if manifest.unread else manifest,
                    (*before.tiers, repository.tier),
                    _trouble(catalog, manifest) if before.trouble is not None else None,
                    max(seen, key=lambda one: one.at, default=None),
                )
        if not read and trouble is not None:
            raise trouble
        return sorted(found.values(), key=lambda one: (one.manifest.started_at, one.manifest.label))

    def _labelled(self, label: str) -> Known:
        trouble: DrError | None = None
        part: Known | None = None
        for repository in self._repositories:
            try:
                repository.check_format()
                found = read_snapshot(repository.store, self.file_set, label)
            except (StoreError, RepositoryError, IntegrityError) as error:
                if not isinstance(error, BackupNotFound):
                    self._note(repository, label, error)
                if trouble is None or isinstance(trouble, BackupNotFound):
                    trouble = error
                continue
            if not found.unread:
                return Known(found, (repository.tier,), None)
            self._tell_unread(found)
            part = part or Known(found, (repository.tier,), "not all its archives are known")
        if part is not None:
            return part
        assert trouble is not None
        raise trouble

    def table(self, manifest: Snapshot) -> pa.Table:
        """All rows of a snapshot. Raises `IntegrityError` when no tier has it whole, `KeyUnusable`."""
        changes = self.rows_in(manifest.changes) if manifest.changes is not None else empty()
        return lay_over(self.rows_in(manifest.table), changes)

    def rows_in(self, stored: StoredObject) -> pa.Table:
        """Of one stored table."""
        data = bytearray(stored.size)
        self.fetch(stored, memoryview(data))
        try:
            return decode_table(self.codec.decode(data))
        except IntegrityError as error:
            raise IntegrityError(f"{stored.key}: {error.message}", hint=error.hint) from error

    def reader(self, archive: FileArchive, *, workers: int) -> ArchiveReader:
        return ArchiveReader(self._repositories[0].store, archive, self.codec, workers=workers, fetch=self.fetch)

    def fetch(self, stored: StoredObject, target: memoryview) -> None:
        """From the first tier that has the object whole. Raises `IntegrityError` where none has, and what a store
        raises that does not say so."""
        troubles: list[DrError] = []
        for repository in self._repositories:
            try:
                fetch_into(repository.store, stored, target)
                return
            except (IntegrityError, StoreError) as error:
                troubles.append(error)
                if len(self._repositories) > 1 and not isinstance(error, ObjectOffline):
                    self._note(repository, stored.key, error)
                    self._prefer_others(repository, error)
        undecided = next((one for one in troubles if not isinstance(one, (IntegrityError, ObjectNotFound))), None)
        if undecided is not None:
            raise undecided
        if len(troubles) == 1 and isinstance(troubles[0], IntegrityError):
            raise IntegrityError(troubles[0].message, hint=self._repair)
        raise IntegrityError(f"{stored.key} is whole on none of {self._names}", hint=self._repair)

    def tell(self, text: str) -> None:
        """Something that a person should see."""
        self._progress.note(text)

    def _tell_unread(self, manifest: Snapshot) -> None:
        for one in manifest.unread:
            self.tell(f"not all archives of {manifest.label} are known: {one.trouble}")

    def _prefer_others(self, repository: Repository, error: DrError) -> None:
        """A tier that does not answer is asked last from now on: each question to it takes its time."""
        if not isinstance(error, (IntegrityError, ObjectNotFound)):
            self._repositories = [*(one for one in self._repositories if one is not repository), repository]

    @property
    def _names(self) -> str:
        return ", ".join(repository.tier for repository in self._repositories)

    @property
    def _repair(self) -> str:
        first = self._repositories[0]
        return f"`dr scrub {first.store.name}` repairs what another tier has whole; an older snapshot may do."

    def _note(self, repository: Repository, what: str, error: DrError) -> None:
        if (repository.tier, what) not in self._told:
            self._told.add((repository.tier, what))
            self.tell(f"{what} cannot be read from {repository.tier}: {error.message}")


def _trouble(catalog: SnapshotCatalog, manifest: Snapshot) -> str | None:
    lacking = catalog.trouble(manifest)
    return f"it {lacking}" if lacking is not None else catalog.failed_validation(manifest)
