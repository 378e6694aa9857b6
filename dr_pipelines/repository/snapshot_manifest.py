"""The manifest of a snapshot of files: in clear text, the commit point. It names every stored object of the snapshot
with its size and SHA-256, those that earlier snapshots put among them; it names no file, and no secret."""

from __future__ import annotations

from datetime import datetime

from dr_pipelines.repository.file_layout import SnapshotLayout, archives_prefix
from dr_pipelines.repository.manifest import FORMAT_VERSION, Archive, Encoding, Record, StoredObject
from dr_pipelines.repository.sealed import seal, unseal


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
    """One snapshot. Its rows are those of `table`, with those of `changes` laid over them (null: as the table is).
    `table` may have been put by an earlier snapshot, as may `archives`: all that any row needs is named here. `parent`
    is the label that `counts` compares with; `source` says what was read. `scanned_at`: when everything was looked at
    last, where only some paths were at `started_at`."""

    format: int = FORMAT_VERSION
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
    archives: tuple[FileArchive, ...] = ()
    break_glass: tuple[StoredObject, ...] = ()

    @property
    def layout(self) -> SnapshotLayout:
        return SnapshotLayout(self.file_set, self.label)

    @property
    def looked_at(self) -> datetime:
        """What was not changed by then is in it as it was."""
        return self.scanned_at or self.started_at

    @property
    def owner(self) -> str:
        return self.file_set

    @property
    def builds_on(self) -> None:
        """What it shares with others it names itself."""
        return None

    @property
    def homes(self) -> tuple[str, ...]:
        """The prefixes below which its objects lie; tables that other snapshots put are among them."""
        own = self.layout.prefix
        elsewhere = (table.key for table in self.tables if not table.key.startswith(own))
        return (own, archives_prefix(self.file_set), *elsewhere)

    @property
    def partial(self) -> bool:
        """Whether something of the source could not be read."""
        return self.counts.unreadable > 0

    @property
    def tables(self) -> tuple[StoredObject, ...]:
        return (self.table,) if self.changes is None else (self.table, self.changes)

    @property
    def packs(self) -> tuple[StoredObject, ...]:
        return tuple(pack for archive in self.archives for pack in archive.packs)

    @property
    def restored_from(self) -> tuple[StoredObject, ...]:
        """What a restore reads."""
        return (*self.packs, *self.tables)

    @property
    def objects(self) -> tuple[StoredObject, ...]:
        """Every stored object that it needs but the manifest itself, whoever put it."""
        return (*self.restored_from, *self.break_glass)

    @property
    def stored_size(self) -> int:
        """Of all that it needs, in bytes; what other snapshots share is counted in each."""
        return sum(stored.size for stored in self.objects)


def encode_snapshot(manifest: SnapshotManifest) -> bytes:
    """As it is stored, with its own digest."""
    return seal(manifest.model_dump(mode="json"))


def decode_snapshot(data: bytes) -> SnapshotManifest:
    """Raises `IntegrityError` when it does not match its own SHA-256, `pydantic.ValidationError` when it is none."""
    return SnapshotManifest.model_validate(unseal(data))
