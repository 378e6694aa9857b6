"""The manifest of a backup: ours, in clear text, the commit point. (PostgreSQL's file is always `backup_manifest`.)

It names every stored object with its size and SHA-256, so replication and scrubbing need no key; it names no
secret. Source of the fields about WAL: PostgreSQL manual, "Streaming Replication Protocol", BASE_BACKUP.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer

from dr_pipelines.lsn import Lsn, Timeline
from dr_pipelines.repository.layout import BackupKind, BackupLayout
from dr_pipelines.repository.sealed import seal, unseal

FORMAT_VERSION = 1
FIRST_WITH_INCREMENTALS = 17_00_00
"""The first PostgreSQL with incrementals; before it, an hourly point is a sealed range of WAL."""


def _lsn(value: Any) -> Any:
    return Lsn.parse(value) if isinstance(value, str) else value


def _timeline(value: Any) -> Any:
    return Timeline(value) if isinstance(value, int) else value


LsnField = Annotated[Lsn, BeforeValidator(_lsn), PlainSerializer(str, return_type=str)]
TimelineField = Annotated[Timeline, BeforeValidator(_timeline), PlainSerializer(lambda t: t.id, return_type=int)]


class Record(BaseModel):
    """Frozen; keys of a newer minor format are ignored. Built when the first is read: not every command reads each."""

    model_config = ConfigDict(frozen=True, extra="ignore", arbitrary_types_allowed=True, defer_build=True)


class StoredObject(Record):
    """One object of the store. `key` is from the repository's root; `size` and `sha256` are of the stored bytes."""

    key: str
    size: int
    sha256: str


class Encoding(Record):
    """How objects are encoded: each is zstd by itself, then age by itself when there are recipients."""

    compression: Literal["zstd"] = "zstd"
    level: int
    recipients: tuple[str, ...] = ()

    @property
    def suffix(self) -> str:
        return ".zst.age" if self.recipients else ".zst"


class Archive(Record):
    """A tar of `size` bytes, cut every `pack_size` bytes into packs, in order."""

    size: int
    pack_size: int
    packs: tuple[StoredObject, ...]

    @property
    def stored_size(self) -> int:
        return sum(pack.size for pack in self.packs)


class Tablespace(Record):
    """In the archive the files of a tablespace lie under `pg_tblspc/<oid>/`; `location` is where it was."""

    oid: int
    location: str


class WalRange(Record):
    """WAL that the backup needs to become consistent: `start` to `end` on `timeline`."""

    timeline: TimelineField
    start: LsnField
    end: LsnField


class BackupManifest(Record):
    """One backup. `stop_lsn` is where it becomes consistent. `parent` is the label that an incremental builds on;
    `asked_kind` and `kind_reason` say why a full was taken where an incremental was asked for; `provisional` says
    why an incremental is not to be trusted before it is proven; `facts` is what the server said of itself when it was
    taken (`source_facts`)."""

    format: int = FORMAT_VERSION
    server: str
    label: str
    kind: BackupKind
    asked_kind: BackupKind
    kind_reason: str | None = None
    provisional: str | None = None
    parent: str | None = None
    started_at: datetime
    finished_at: datetime
    tool_version: str
    taken_on: str
    system_id: str
    postgres_version: str
    postgres_version_num: int
    segment_size: int
    block_size: int
    data_checksums: bool
    timeline: TimelineField
    start_lsn: LsnField
    stop_lsn: LsnField
    wal_ranges: tuple[WalRange, ...] = ()
    tablespaces: tuple[Tablespace, ...] = ()
    encoding: Encoding
    archive: Archive
    backup_manifest: StoredObject
    index: StoredObject
    facts: StoredObject | None = None
    break_glass: tuple[StoredObject, ...] = ()

    @property
    def hourly_points_are_wal(self) -> bool:
        """Whether its server has no incrementals."""
        return self.postgres_version_num < FIRST_WITH_INCREMENTALS

    @property
    def layout(self) -> BackupLayout:
        return BackupLayout(self.server, self.label)

    @property
    def owner(self) -> str:
        return self.server

    @property
    def builds_on(self) -> str | None:
        return self.parent

    @property
    def counted_with(self) -> str | None:
        return self.builds_on

    @property
    def homes(self) -> tuple[str, ...]:
        """The prefixes below which its objects lie."""
        return (self.layout.prefix,)

    @property
    def objects(self) -> tuple[StoredObject, ...]:
        """Every stored object of the backup but the manifest itself."""
        facts = () if self.facts is None else (self.facts,)
        return (*self.archive.packs, self.backup_manifest, self.index, *facts, *self.break_glass)

    @property
    def groups(self) -> tuple[tuple[str, tuple[StoredObject, ...]]]:
        return ((self.label, self.objects),)

    @property
    def restored_from(self) -> tuple[StoredObject, ...]:
        """What a restore reads; the index and the break-glass bundle only make it easier."""
        return (*self.archive.packs, self.backup_manifest)

    @property
    def needed_wal(self) -> tuple[tuple[Timeline, Lsn, Lsn], ...]:
        """WAL without which it does not become consistent, as (timeline, start, end)."""
        told = tuple((part.timeline, part.start, part.end) for part in self.wal_ranges)
        return told or ((self.timeline, self.start_lsn, self.stop_lsn),)

    @property
    def stored_size(self) -> int:
        return sum(stored.size for stored in self.objects)


def encode(manifest: BackupManifest) -> bytes:
    """As it is stored, with its own digest: nothing else names one."""
    return seal(manifest.model_dump(mode="json"))


def decode(data: bytes) -> BackupManifest:
    """Raises `IntegrityError` when it does not match its own SHA-256 or is no JSON, `pydantic.ValidationError` when it
    is no manifest."""
    return BackupManifest.model_validate(unseal(data))
