"""What a server said of itself when a backup was taken: the truth that a restored copy is compared with.

One encoded object of the backup (`facts.json`), read in one repeatable-read transaction for each database. Values are
PostgreSQL's own, as text where it prints them. What to make of a difference does not belong here.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from pydantic import BaseModel, ConfigDict

from dr_pipelines.lsn import Lsn
from dr_pipelines.repository.manifest import LsnField


class _Record(BaseModel):
    """Frozen; keys of a newer minor format are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", arbitrary_types_allowed=True, defer_build=True)


class ColumnFacts(_Record):
    """`newest` is the greatest value of a column of dates or timestamps, where it was looked at."""

    name: str
    type: str
    not_null: bool = False
    newest: datetime | None = None


class ForeignKeyFacts(_Record):
    """`columns` of the table refer to `referred` of `schema_name`.`table`."""

    name: str
    columns: tuple[str, ...]
    schema_name: str
    table: str
    referred: tuple[str, ...]
    validated: bool = True


class TableFacts(_Record):
    """An ordinary or partitioned table. `rows` were counted (None: it is too large, and `estimated_rows` is what the
    server's statistics say); `checksum` is over all rows, whatever their order, of tables that the plan chose."""

    schema_name: str
    name: str
    partitioned: bool = False
    unlogged: bool = False
    bytes: int = 0
    rows: int | None = None
    estimated_rows: int = 0
    checksum: str | None = None
    columns: tuple[ColumnFacts, ...] = ()
    primary_key: tuple[str, ...] = ()
    foreign_keys: tuple[ForeignKeyFacts, ...] = ()

    @property
    def full_name(self) -> str:
        """`public.orders`, as the plan writes it."""
        return f"{self.schema_name}.{self.name}"


class SequenceFacts(_Record):
    """`owned_by` is (schema, table, column) of the column that takes its values from it."""

    schema_name: str
    name: str
    last_value: int | None
    owned_by: tuple[str, str, str] | None = None


class DatabaseFacts(_Record):
    """`snapshot` is what its transaction saw (`pg_current_snapshot()`), `lsn` where the WAL was then: a copy that was
    replayed to there, and no further, must say the same. `objects` is the rest of its catalogue: for each kind
    (`extension`, `policy`, `grant`, `index`, `function`, …) the identity of each object and its definition; a kind that
    could not be looked at is not there. Not `stable`: something of the catalogue was changed while it was read, and a
    difference there proves nothing."""

    name: str
    lsn: LsnField
    snapshot: str
    taken_at: datetime
    stable: bool = True
    tables: tuple[TableFacts, ...] = ()
    sequences: tuple[SequenceFacts, ...] = ()
    objects: Mapping[str, Mapping[str, str]] = {}


class SourceFacts(_Record):
    """All databases stand at one position. `cluster` is like `objects`, of what no database owns: roles and their
    memberships, tablespaces, databases with their collation versions, settings, slots; the transaction of the first
    database saw it. `trouble` says what could not be looked at, and why: `app` (a whole database), `app data`,
    `app catalogue`, `cluster`, `checksums` (tables that the plan names and nobody has), `record` (none could be
    written behind the position), `position` (it is not exact, and nobody can tell by how much). `in_recovery`: the
    source was a standby, whose snapshots do not name what runs. `questions`: which wording of the questions to the
    catalogues gave the definitions; those that another wording gives cannot be compared."""

    format: int = 1
    questions: str = ""
    system_id: str
    in_recovery: bool = False
    databases: tuple[DatabaseFacts, ...] = ()
    cluster: Mapping[str, Mapping[str, str]] = {}
    trouble: Mapping[str, str] = {}

    @property
    def lsn(self) -> Lsn | None:
        """Where a copy must stand to be compared: replayed to before the first record that begins there or later.
        None: no database was looked at."""
        return self.databases[0].lsn if self.databases else None

    def database(self, name: str) -> DatabaseFacts | None:
        return next((found for found in self.databases if found.name == name), None)


def encode_facts(facts: SourceFacts) -> bytes:
    return facts.model_dump_json(indent=1).encode()


def decode_facts(data: bytes) -> SourceFacts:
    """Raises `pydantic.ValidationError`."""
    return SourceFacts.model_validate_json(data)
