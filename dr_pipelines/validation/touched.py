"""What a transaction did, with the names that its tables have in a restored copy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dr_pipelines.errors import ServerError
from dr_pipelines.postgres.scratch import ScratchServer
from dr_pipelines.postgres.wal_transaction import RelationFile, RowCounts, TransactionRecords

_FIRST_OWN = 16384
"""Smaller oids are PostgreSQL's own, and so are those of catalogues."""
_NAME = """
SELECT c.oid::bigint, CASE WHEN owner.oid IS NULL THEN quote_ident(n.nspname) || '.' || quote_ident(c.relname)
                      ELSE quote_ident(n2.nspname) || '.' || quote_ident(owner.relname) || ' (TOAST)' END
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_class owner ON owner.reltoastrelid = c.oid LEFT JOIN pg_namespace n2 ON n2.oid = owner.relnamespace
WHERE c.oid = pg_filenode_relation(%s::oid, %s::oid)
"""
_NO_NAME = ("3D000", "55P03")
"""SQLSTATE of a database that is not there, and of a catalogue that is locked."""


@dataclass(frozen=True)
class TouchedTable:
    """`name` with its schema, or where it lies when the copy knows no such relation. `removed`: its files went with
    the commit, as those of a table that was dropped, truncated or rewritten do; an index or a TOAST table may be
    named too."""

    database: str
    name: str
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    removed: bool = False


@dataclass(frozen=True)
class Touched:
    """`catalog_changes` are rows of PostgreSQL's own catalogues (DDL); `complete`: its beginning was seen, or more
    may belong to it."""

    tables: tuple[TouchedTable, ...]
    catalog_changes: int
    databases: tuple[str, ...]
    subtransactions: int
    complete: bool


def name_tables(records: TransactionRecords, copy: ScratchServer) -> Touched:
    """By the names that `copy` has for them."""
    names = _Names(copy)
    tables, catalog = [], 0
    for file in sorted({*records.rows, *records.removed}):
        rows = records.rows.get(file, RowCounts())
        if names.is_catalog(file):
            catalog += rows.inserted + rows.updated + rows.deleted
            continue
        tables.append(
            TouchedTable(
                names.database(file), names.relation(file), rows.inserted, rows.updated, rows.deleted,
                file in records.removed,
            )
        )  # fmt: skip
    return Touched(tuple(tables), catalog, records.databases, records.subtransactions, records.complete)


class _Names:
    """What a copy says of oids and files; each is asked once."""

    def __init__(self, copy: ScratchServer) -> None:
        self._copy = copy
        listed = self._ask("postgres", "SELECT oid::bigint, datname FROM pg_database")
        self._databases = {int(oid): str(name) for oid, name in listed}
        self._known: dict[RelationFile, tuple[int, str] | None] = {}

    def database(self, file: RelationFile) -> str:
        return str(self._databases.get(file.database, file.database or "all databases"))

    def relation(self, file: RelationFile) -> str:
        found = self._look(file)
        return found[1] if found is not None else f"file {file}"

    def is_catalog(self, file: RelationFile) -> bool:
        found = self._look(file)
        return file.database == 0 or (found[0] if found is not None else file.number) < _FIRST_OWN

    def _look(self, file: RelationFile) -> tuple[int, str] | None:
        if file not in self._known:
            rows = self._ask(self.database(file), _NAME, file.tablespace, file.number) if file.database else []
            self._known[file] = (int(rows[0][0]), str(rows[0][1])) if rows else None
        return self._known[file]

    def _ask(self, dbname: str, query: str, *values: int) -> list[tuple[Any, ...]]:
        try:
            return self._copy.server(dbname).ask(query, values, lock_timeout=1)
        except ServerError as error:
            if error.sqlstate in _NO_NAME:
                return []
            raise
