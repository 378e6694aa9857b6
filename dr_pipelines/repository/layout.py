"""Every key of the repository, in one place; FORMAT.md says what lies under each.

What does not belong here: what objects hold. No other module builds or takes apart a key.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from dr_pipelines.lsn import Lsn, Timeline, WalSegment, is_history_name

REPOSITORY = "repository.json"


class BackupKind(StrEnum):
    FULL = "full"
    INCREMENTAL = "incremental"


_SUFFIX = {BackupKind.FULL: "full", BackupKind.INCREMENTAL: "incr"}
_PACK = re.compile(r"\A(\d{6})\.zst(?:\.age)?\Z")
_LABEL = re.compile(r"\A(\d{8}T\d{6}Z)-(full|incr)\Z")


def label_for(taken: datetime, kind: BackupKind) -> str:
    """`20261123T020000Z-full`: unique for a server by the claim that its taker makes on it."""
    return f"{stamp(taken)}-{_SUFFIX[kind]}"


def parse_label(label: str) -> tuple[datetime, BackupKind]:
    """Raises `ValueError` when it is not a label."""
    match = _LABEL.match(label)
    if match is None:
        raise ValueError(f"not a backup label: {label!r}")
    kind = BackupKind.FULL if match[2] == "full" else BackupKind.INCREMENTAL
    return parse_stamp(match[1]), kind


@dataclass(frozen=True)
class ProofName:
    """What the key of a proof says: a backup was looked at (`kind`: `replicate`, `verify`, `digests`, `scrub`,
    `validate`, `equivalence`) at a time (to the second), with a verdict (`pass`, `fail`, `not-proven`)."""

    kind: str
    at: datetime
    verdict: str


_PROOF = re.compile(r"\A([a-z-]+)\.(\d{8}T\d{6}Z)\.([a-z-]+)\.[0-9a-f]+\.json\Z")


def parse_proof(key: str) -> ProofName | None:
    match = _PROOF.match(key.rpartition("/")[2])
    return ProofName(match[1], parse_stamp(match[2]), match[3]) if match else None


def stamp(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y%m%dT%H%M%SZ}"


def parse_stamp(text: str) -> datetime:
    return datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)


class LabelLayout(ABC):
    """Keys of whatever has a label and a manifest: a backup, a snapshot of files. All that is known of it lies below
    its `prefix`."""

    label: str

    @property
    @abstractmethod
    def prefix(self) -> str: ...

    @property
    def manifest(self) -> str:
        """The commit point: written last, removed first."""
        return f"{self.prefix}manifest.json"

    @property
    def claims(self) -> str:
        return f"{self.prefix}claims/"

    def claim(self, nonce: str) -> str:
        return f"{self.claims}{nonce}.json"

    def break_glass(self, name: str) -> str:
        """In clear text, for stock tools."""
        return f"{self.prefix}break-glass/{name}"

    @property
    def expired(self) -> str:
        """The manifest of what retention let go: while it is there, that can be undone."""
        return f"{self.prefix}expired.json"

    @property
    def keeps(self) -> str:
        return f"{self.prefix}keeps/"

    def keep(self, nonce: str) -> str:
        """A person's veto against expiry."""
        return f"{self.keeps}{nonce}.json"

    @property
    def damages(self) -> str:
        return f"{self.prefix}damage/"

    def damage(self, nonce: str) -> str:
        """A mark: what this needs is damaged and no tier has it whole."""
        return f"{self.damages}{nonce}.json"

    @property
    def proofs(self) -> str:
        return f"{self.prefix}proofs/"

    def proof(self, name: ProofName, nonce: str) -> str:
        return f"{self.proofs}{name.kind}.{stamp(name.at)}.{name.verdict}.{nonce}.json"

    @abstractmethod
    def is_content(self, key: str) -> bool:
        """Whether its manifest names an object below the prefix."""


@dataclass(frozen=True)
class BackupLayout(LabelLayout):
    """Keys of one backup. `suffix` is `.zst` or `.zst.age`."""

    server: str
    label: str

    @property
    def prefix(self) -> str:
        return f"servers/{self.server}/backups/{self.label}/"

    def pack(self, number: int, suffix: str) -> str:
        return f"{self.prefix}packs/{number:06d}{suffix}"

    def pack_number(self, key: str) -> int | None:
        """None for what is no pack of this backup."""
        match = (
            _PACK.match(key.removeprefix(f"{self.prefix}packs/")) if key.startswith(f"{self.prefix}packs/") else None
        )
        return int(match[1]) if match else None

    @property
    def content_pattern(self) -> str:
        """What the keys of all that a manifest names look like, as a regular expression."""
        inside = r"(?:packs/\d{6}|backup_manifest|index\.json|facts\.json)\.zst(?:\.age)?|break-glass/\w[\w.-]*"
        return rf"^{re.escape(self.prefix)}(?:{inside})$"

    def backup_manifest(self, suffix: str) -> str:
        """PostgreSQL's own manifest, as it came."""
        return f"{self.prefix}backup_manifest{suffix}"

    def index(self, suffix: str) -> str:
        """Which member of the tar lies at which offset."""
        return f"{self.prefix}index.json{suffix}"

    def facts(self, suffix: str) -> str:
        """What the server said of itself."""
        return f"{self.prefix}facts.json{suffix}"

    def is_content(self, key: str) -> bool:
        """Whether a manifest names it: a pack, PostgreSQL's manifest, the index, the server's facts, the break-glass
        bundle."""
        name = key.removeprefix(self.prefix)
        return name.startswith(("packs/", "break-glass/", "backup_manifest.", "index.json.", "facts.json."))


def backups_prefix(server: str) -> str:
    return f"servers/{server}/backups/"


def label_of(server: str, key: str) -> str | None:
    """The backup that a key below `backups_prefix` belongs to; None when it belongs to none."""
    label, slash, _ = key.removeprefix(backups_prefix(server)).partition("/")
    return label if slash and _LABEL.match(label) else None


SERVERS = "servers/"
EVIDENCE = "evidence/"
INCIDENTS = "incidents/"


def evidence(kind: str, at: datetime, nonce: str) -> str:
    """What a scrub, an expiry, a drill saw: kept for whoever asks later."""
    return f"{_evidence_stem(kind, at, nonce)}.json"


def evidence_document(kind: str, at: datetime, nonce: str) -> str:
    """The same for people: a page of HTML, which no program reads."""
    return f"{_evidence_stem(kind, at, nonce)}.html"


def _evidence_stem(kind: str, at: datetime, nonce: str) -> str:
    return f"{EVIDENCE}{at.astimezone(UTC):%Y/%m}/{kind}-{stamp(at)}-{nonce}"


_EVIDENCE = re.compile(r"\A(.+)-(\d{8}T\d{6}Z)-[0-9a-f]+\.json\Z")


def parse_evidence(key: str) -> tuple[str, datetime] | None:
    """Its kind and its time, to the second; None for what is none, and for a document."""
    match = _EVIDENCE.match(key.rpartition("/")[2])
    return (match[1], parse_stamp(match[2])) if match else None


CANARIES = "canary/"
_CANARY = re.compile(r"\A(\d{8}T\d{6}Z)-[0-9a-f]+\Z")


def canary(at: datetime, nonce: str) -> str:
    """A locked object that is there to be attacked."""
    return f"{CANARIES}{stamp(at)}-{nonce}"


def parse_canary(key: str) -> datetime | None:
    """When it was put; None for what is no canary."""
    match = _CANARY.match(key.removeprefix(CANARIES))
    return parse_stamp(match[1]) if match else None


def incident_id(at: datetime, nonce: str) -> str:
    return f"{stamp(at)}-{nonce}"


def incident(identity: str) -> str:
    return f"{INCIDENTS}{identity}/incident.json"


def incident_closed(identity: str) -> str:
    return f"{INCIDENTS}{identity}/closed.json"


def incident_of(key: str) -> str:
    return key.removeprefix(INCIDENTS).partition("/")[0]


def server_prefix(server: str) -> str:
    """Everything of one server."""
    return f"{SERVERS}{server}/"


def server_of(key: str) -> str:
    return key.removeprefix(SERVERS).partition("/")[0]


@dataclass(frozen=True)
class WalLayout:
    """Keys of a server's WAL. `system_id` is PostgreSQL's, in decimal."""

    server: str
    system_id: str

    @property
    def prefix(self) -> str:
        return f"servers/{self.server}/wal/{self.system_id}/"

    @property
    def description(self) -> str:
        """What holds for all segments: their size."""
        return f"{self.prefix}wal.json"

    def describes(self, key: str) -> bool:
        """Whether it says something of the segments: the description, or a timeline's history."""
        return key == self.description or _HISTORY_NAME.match(key.removeprefix(self.prefix)) is not None

    def timeline_prefix(self, timeline: Timeline) -> str:
        return f"{self.prefix}{timeline}/"

    def log_prefix(self, segment: WalSegment) -> str:
        return f"{self.timeline_prefix(segment.timeline)}{segment.log:08X}/"

    def segment_prefix(self, segment: WalSegment) -> str:
        """Whole and partial objects of one segment."""
        return f"{self.log_prefix(segment)}{segment.name}."

    def history_prefix(self, timeline: Timeline) -> str:
        return f"{self.prefix}{timeline.history_file}."

    def segment(self, segment: WalSegment, sha256: str, suffix: str) -> str:
        """`sha256` is of the stored bytes: WAL has no manifest, so the name says what is right, scrubbing needs no key,
        and two writers of one segment (age never encrypts alike twice) never meet under one key."""
        return f"{self.log_prefix(segment)}{segment.name}.{sha256}{suffix}"

    def partial(self, segment: WalSegment, end: Lsn, sha256: str, suffix: str) -> str:
        """The head of an open segment, up to `end`. The LSN is written with sixteen hex digits so that names sort."""
        return f"{self.log_prefix(segment)}{segment.name}.{end.value:016X}.partial.{sha256}{suffix}"

    def history(self, timeline: Timeline, sha256: str, suffix: str) -> str:
        return f"{self.prefix}{timeline.history_file}.{sha256}{suffix}"


def wal_prefix(server: str) -> str:
    return f"servers/{server}/wal/"


def system_id_of(server: str, key: str) -> str:
    return key.removeprefix(wal_prefix(server)).partition("/")[0]


def wal_file_prefix(key: str) -> str:
    """Every object of the same segment or history as this key's."""
    folder, _, name = key.rpartition("/")
    return f"{folder}/{name.partition('.')[0]}."


_DAMAGED = ".damaged"


def wal_damage(key: str) -> str:
    """The mark beside a WAL object: it is damaged and no tier has it whole."""
    return f"{key}{_DAMAGED}"


def damaged_wal(key: str) -> str | None:
    """The WAL object that a mark is about; None for what is no mark."""
    return key.removesuffix(_DAMAGED) if key.endswith(_DAMAGED) else None


_WAL_NAME = re.compile(r"([0-9A-F]{24})(?:\.([0-9A-F]{16})\.partial)?\.([0-9a-f]{64})\.zst(?:\.age)?\Z")
_HISTORY_NAME = re.compile(r"\A([0-9A-F]{8}\.history)\.([0-9a-f]{64})\.zst(?:\.age)?\Z")


@dataclass(frozen=True)
class WalKey:
    """What the key of a WAL object says. `file` is PostgreSQL's name for it; `partial_end`: of an open segment."""

    file: str
    sha256: str
    partial_end: Lsn | None = None


def wal_position(key: str) -> tuple[int, int] | None:
    """The quick way to where a segment lies: its 24 hex digits as one number, and the end of a head (0: the whole).
    None for what is no segment."""
    match = _WAL_NAME.match(key, key.rfind("/") + 1)
    return (int(match[1], 16), int(match[2], 16) if match[2] else 0) if match else None


def parse_wal_key(key: str) -> WalKey | None:
    """None for what is not WAL."""
    name = key.rpartition("/")[2]
    if match := _WAL_NAME.match(name):
        return WalKey(match[1], match[3], Lsn(int(match[2], 16)) if match[2] else None)
    if match := _HISTORY_NAME.match(name):
        return WalKey(match[1], match[2])
    return None


class Role(StrEnum):
    """What an object is for, as far as that says how it lies in its store."""

    BULK = "bulk"
    """Packs, of backups and files, and whole WAL segments: nearly all bytes, read only when something is restored."""
    GUIDE = "guide"
    """Manifests, indexes, tables of files, lists of archives, histories, the break-glass bundle: what a recovery is
    planned with."""
    NOTE = "note"
    """Claims, marks, evidence, heads of open segments: what is not of the backup, or soon replaced."""


_CONTENT = re.compile(
    r"\A(?:servers/[^/]+/backups/[^/]+/(?:(?P<packs>packs/)|break-glass/|backup_manifest\.|index\.json\.|facts\.json\."
    r"|manifest\.json\Z)|files/[^/]+/(?:(?P<archives>archives/)|lists/|snapshots/[^/]+/"
    r"(?:break-glass/|table\.parquet\.|changes\.parquet\.|manifest\.json\Z)))"
)


def role_of(key: str) -> Role:
    if (wal := parse_wal_key(key)) is not None:
        if wal.partial_end is not None:
            return Role.NOTE
        return Role.GUIDE if is_history_name(wal.file) else Role.BULK
    match = _CONTENT.match(key)
    if match is None:
        return Role.NOTE
    return Role.BULK if match["packs"] or match["archives"] else Role.GUIDE
