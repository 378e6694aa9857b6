"""The manifest of a snapshot of files: in clear text, the commit point. It names the stored objects of the snapshot
with size and SHA-256, those that earlier snapshots put among them: tables, and lists, which name packs in the same way.
It names no file, and no secret."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Annotated

from pydantic import Field, SkipValidation

from dr_pipelines.repository.file_layout import SnapshotLayout, archives_prefix, lists_prefix
from dr_pipelines.repository.manifest import Archive, Encoding, Record, StoredObject
from dr_pipelines.repository.sealed import seal, unseal

SNAPSHOT_FORMAT = 2
"""Of the manifest. Since 2 archives are in lists; a program that knows no lists would take all archives for garbage."""


class FileArchive(Archive):
    """Contents of files, one tar: many small ones, or one that is large. `name` is unique in its file set."""

    name: str


class Counts(Record):
    """What a snapshot saw. `new`, `changed` and `removed` files are beside the snapshot before it (all are new in the
    first); `unreadable` have a row that says why, and no content. `bytes` are of all files, `new_bytes` of those whose
    content was read and was not in the file set yet; `read_bytes` of all that were read; `stored_bytes` are what this
    snapshot added to the store."""

    files: int = 0
    directories: int = 0
    links: int = 0
    bytes: int = 0
    new: int = 0
    changed: int = 0
    removed: int = 0
    unreadable: int = 0
    read_bytes: int = 0
    new_bytes: int = 0
    stored_bytes: int = 0


class SnapshotManifest(Record):
    """One snapshot, as it is stored. Its rows are those of `table`, with those of `changes` laid over them (null: as
    the table is). `table` may have been put by an earlier snapshot, as may `lists`: its archives are those that they
    list, each once. `parent` is the label that `counts` compares with; `source` says what was read. `scanned_at`: when
    everything was looked at last, where only some paths were at `started_at`. `inline`: archives that a manifest of
    format 1 names itself."""

    format: int = SNAPSHOT_FORMAT
    file_set: str
    label: str
    parent: str | None = None
    started_at: datetime
    scanned_at: datetime | None = None
    finished_at: datetime
    tool_version: str
    taken_on: str
    source: str
    encoding: Encoding
    counts: Counts
    table: StoredObject
    changes: StoredObject | None = None
    lists: tuple[StoredObject, ...] = ()
    break_glass: tuple[StoredObject, ...] = ()
    inline: tuple[FileArchive, ...] = Field(default=(), validation_alias="archives", exclude=True)

    @property
    def layout(self) -> SnapshotLayout:
        return SnapshotLayout(self.file_set, self.label)

    @property
    def is_poll(self) -> bool:
        """Whether only what rows said was new or changed was looked at."""
        return self.scanned_at is not None

    @property
    def looked_at(self) -> datetime:
        """What was not changed by then is in it as it was."""
        return self.scanned_at or self.started_at

    @property
    def owner(self) -> str:
        return self.file_set

    @property
    def partial(self) -> bool:
        """Whether something of the source could not be read."""
        return self.counts.unreadable > 0

    @property
    def tables(self) -> tuple[StoredObject, ...]:
        return (self.table,) if self.changes is None else (self.table, self.changes)


@dataclass(frozen=True)
class ArchiveList:
    """What a stored list says. `trouble`: why it cannot be read, so that nobody knows what it lists. `stored` is None
    for what a manifest of format 1 names itself."""

    archives: tuple[FileArchive, ...]
    stored: StoredObject | None = None
    trouble: str | None = None

    def __hash__(self) -> int:
        return hash((self.stored, len(self.archives)))

    @cached_property
    def packs(self) -> tuple[StoredObject, ...]:
        return tuple(pack for archive in self.archives for pack in archive.packs)

    @cached_property
    def stored_size(self) -> int:
        """Of the packs, in bytes."""
        return sum(pack.size for pack in self.packs)


class Snapshot(SnapshotManifest):
    """A manifest, and what its lists say: `listed`. It is equal to another with the same manifest."""

    listed: Annotated[tuple[ArchiveList, ...], SkipValidation] = Field(default=(), exclude=True, repr=False)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SnapshotManifest):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in SnapshotManifest.model_fields)

    def __hash__(self) -> int:
        return hash((self.file_set, self.label))

    @property
    def builds_on(self) -> None:
        """What it shares with others it names itself."""
        return None

    @property
    def counted_with(self) -> str | None:
        return self.parent if self.is_poll else None

    @property
    def homes(self) -> tuple[str, ...]:
        """The prefixes below which its objects lie; tables that other snapshots put are among them."""
        own = self.layout.prefix
        elsewhere = (table.key for table in self.tables if not table.key.startswith(own))
        return (own, archives_prefix(self.file_set), lists_prefix(self.file_set), *elsewhere)

    @property
    def unread(self) -> tuple[ArchiveList, ...]:
        """Lists that cannot be read. While there is one, `archives` are not all that it has."""
        return tuple(one for one in self.listed if one.trouble is not None)

    @property
    def archives(self) -> tuple[FileArchive, ...]:
        return tuple(archive for one in self.listed for archive in one.archives)

    @property
    def packs(self) -> tuple[StoredObject, ...]:
        return tuple(pack for one in self.listed for pack in one.packs)

    @property
    def besides(self) -> tuple[StoredObject, ...]:
        """All that it names itself: every object but the packs."""
        return (*self.lists, *self.tables, *self.break_glass)

    @property
    def restored_from(self) -> tuple[StoredObject, ...]:
        """What a restore reads."""
        return (*self.packs, *self.lists, *self.tables)

    @property
    def objects(self) -> tuple[StoredObject, ...]:
        """Every stored object that it needs but the manifest itself, whoever put it."""
        return (*self.packs, *self.besides)

    @property
    def groups(self) -> tuple[tuple[str | ArchiveList, tuple[StoredObject, ...]], ...]:
        """The same: what it names itself, and what each list does."""
        return ((self.label, self.besides), *((one, one.packs) for one in self.listed))

    @property
    def stored_size(self) -> int:
        """Of all that it needs, in bytes; what other snapshots share is counted in each."""
        return sum(one.stored_size for one in self.listed) + sum(stored.size for stored in self.besides)


def with_lists(manifest: SnapshotManifest, lists: Iterable[ArchiveList]) -> Snapshot:
    """`lists` are those that it names, in their order."""
    inline = [ArchiveList(manifest.inline)] if manifest.inline else []
    fields = {name: getattr(manifest, name) for name in SnapshotManifest.model_fields}
    return Snapshot.model_construct(**fields, listed=(*inline, *lists))


def with_lists_unread(manifest: SnapshotManifest) -> Snapshot:
    return with_lists(manifest, (ArchiveList((), stored, "it was not read") for stored in manifest.lists))


def encode_snapshot(manifest: SnapshotManifest) -> bytes:
    """As it is stored, with its own digest."""
    return seal(manifest.model_dump(mode="json"))


def decode_snapshot(data: bytes) -> SnapshotManifest:
    """Raises `IntegrityError` when it does not match its own SHA-256, `pydantic.ValidationError` when it is none."""
    return SnapshotManifest.model_validate(unseal(data))
