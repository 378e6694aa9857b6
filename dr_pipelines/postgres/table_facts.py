"""Tables and sequences of a database: what they are, how many rows, newest times, sums over rows.

A source is asked in its one transaction and within a time; its restored copy the same, so that both say the same.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from dr_pipelines.errors import ServerError
from dr_pipelines.postgres.catalogue_queries import USER_SCHEMA
from dr_pipelines.postgres.session import ReadSession
from dr_pipelines.repository.source_facts import ColumnFacts, ForeignKeyFacts, SequenceFacts, TableFacts

LARGE_OBJECTS = "pg_catalog.pg_largeobject"
"""Where the contents of large objects lie: listed as a table where there are some."""
_CHECKSUM = re.compile(r"(\d+)% (\d+) (-?\d+)")
_WHOLE = 100
_VERSION = "concat_ws(' ', c.ctid, c.xmin)"


@dataclass(frozen=True)
class Checksum:
    """The sum of a 64 bit hash of each row's text, over all rows in `share` percent of a table's blocks: the same
    blocks in a physical copy. Printed as `100% 42 -123`, with the number of rows that were summed."""

    share: int
    rows: int
    sum: int

    @classmethod
    def parse(cls, text: str) -> Checksum:
        """Raises `ValueError`."""
        found = _CHECKSUM.fullmatch(text)
        if found is None:
            raise ValueError(f"not a checksum: {text!r}")
        return cls(*(int(part) for part in found.groups()))

    def __str__(self) -> str:
        return f"{self.share}% {self.rows} {self.sum}"


@dataclass(frozen=True)
class ListedTable:
    """`facts` without what its rows tell. `quoted` names it in SQL; `leaves` are the tables of a partitioned one;
    `times` its columns of dates and timestamps, quoted, and whether an index gives the newest; `version` changes when
    it is altered, emptied or rewritten."""

    facts: TableFacts
    oid: int
    quoted: str
    times: Mapping[str, tuple[str, bool]] = field(default_factory=dict)
    leaves: tuple[int, ...] = ()
    readable: bool = True
    version: str = ""


def list_tables(session: ReadSession) -> list[ListedTable]:
    """Ordinary and partitioned ones, temporary ones left out."""
    try:
        rows = session.ask(_tables("coalesce(pg_table_size(c.oid), 0)"))
    except ServerError:  # one is locked by somebody; the statistics know about how large it is
        rows = session.ask(_tables("c.relpages * current_setting('block_size')::bigint"))
    columns, keys = _columns(session), _keys(session)
    return [_listed(row, columns.get(row[0], []), keys.get(row[0], [])) for row in rows]


def _tables(size: str) -> str:
    return f"""
        SELECT c.oid::bigint, n.nspname, c.relname, format('%I.%I', n.nspname, c.relname), c.relkind = 'p',
               c.relpersistence = 'u', CASE WHEN c.relkind = 'r' THEN {size} ELSE 0 END,
               greatest(c.reltuples, pg_stat_get_live_tuples(c.oid), 0)::bigint,
               CASE WHEN c.relkind = 'p'
                    THEN ARRAY(SELECT relid::bigint FROM pg_partition_tree(c.oid) WHERE isleaf) END,
               has_table_privilege(c.oid, 'SELECT'), {_VERSION}
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND ({USER_SCHEMA}
              OR c.oid = 'pg_largeobject'::regclass AND EXISTS (SELECT FROM pg_largeobject_metadata))
        ORDER BY n.nspname, c.relname
        """


def table_versions(session: ReadSession) -> dict[int, str]:
    """By oid, as they are now."""
    rows = session.ask(f"SELECT c.oid::bigint, {_VERSION} FROM pg_class c WHERE c.relkind IN ('r', 'p')")
    return {oid: version for oid, version in rows}


def falling_sequences(session: ReadSession) -> set[tuple[str, str]]:
    """Schema and name of those that count down."""
    rows = session.ask("SELECT schemaname::text, sequencename::text FROM pg_sequences WHERE increment_by < 0")
    return {(schema, name) for schema, name in rows}


def is_behind(value: int | None, than: int | None, *, falls: bool) -> bool:
    """Of two values of a sequence; None is before its first."""
    if than is None or value is None:
        return than is not None
    return value > than if falls else value < than


def _listed(row: Sequence[Any], columns: Sequence[tuple[Any, ...]], keys: Sequence[tuple[Any, ...]]) -> ListedTable:
    oid, schema, name, quoted, partitioned, unlogged, size, estimated, leaves, readable, version = row
    primary = next((tuple(found[2]) for found in keys if found[1] == "p"), ())
    foreign = tuple(
        ForeignKeyFacts(
            name=named,
            columns=tuple(of),
            schema_name=to_schema,
            table=to_table,
            referred=tuple(to),
            validated=validated,
        )
        for named, kind, of, to_schema, to_table, to, validated in keys
        if kind == "f"
    )
    facts = TableFacts(
        schema_name=schema, name=name, partitioned=partitioned, unlogged=unlogged, bytes=size,
        estimated_rows=estimated or size // 100,
        columns=tuple(ColumnFacts(name=column, type=kind, not_null=filled) for column, kind, filled, *_ in columns),
        primary_key=primary, foreign_keys=foreign,
    )  # fmt: skip
    times = {column: (quote, indexed) for column, _, _, quote, is_time, indexed in columns if is_time}
    return ListedTable(facts, oid, quoted, times, tuple(leaves or ()), readable, version)


def _columns(session: ReadSession) -> dict[int, list[tuple[Any, ...]]]:
    rows = session.ask(
        f"""
        SELECT c.oid::bigint, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, quote_ident(a.attname),
               a.atttypid IN ('date'::regtype, 'timestamp'::regtype, 'timestamptz'::regtype),
               EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indkey[0] = a.attnum AND i.indisvalid
                       AND i.indpred IS NULL)
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
              AND ({USER_SCHEMA} OR c.oid = 'pg_largeobject'::regclass)
        ORDER BY c.oid, a.attnum
        """
    )
    return _by_oid(rows)


def _keys(session: ReadSession) -> dict[int, list[tuple[Any, ...]]]:
    """Primary and foreign keys, with their columns in order."""
    named = """ARRAY(SELECT a.attname::text FROM unnest({keys}) WITH ORDINALITY AS u(attnum, place)
                     JOIN pg_attribute a ON a.attrelid = {relation} AND a.attnum = u.attnum ORDER BY u.place)"""
    rows = session.ask(
        f"""
        SELECT k.conrelid::bigint, k.conname, k.contype, {named.format(keys="k.conkey", relation="k.conrelid")},
               n.nspname, f.relname, {named.format(keys="k.confkey", relation="k.confrelid")}, k.convalidated
        FROM pg_constraint k LEFT JOIN pg_class f ON f.oid = k.confrelid
        LEFT JOIN pg_namespace n ON n.oid = f.relnamespace
        WHERE k.contype IN ('p', 'f') ORDER BY k.conrelid, k.conname
        """
    )
    return _by_oid(rows)


def _by_oid(rows: Sequence[tuple[Any, ...]]) -> dict[int, list[tuple[Any, ...]]]:
    found: dict[int, list[tuple[Any, ...]]] = defaultdict(list)
    for oid, *rest in rows:
        found[oid].append(tuple(rest))
    return found


def count_rows(
    session: ReadSession, table: ListedTable, *, share: int | None = None, seconds: float | None = None
) -> TableFacts:
    """All rows counted, the newest times, and the sum over `share` percent of its blocks. Raises `ServerError`."""
    asked = ["count(*)", _sum() if share == _WHOLE else "0"]
    asked += [f"max({quoted}) FILTER (WHERE {_sane(quoted)})::timestamptz" for quoted, _ in table.times.values()]
    only = "" if table.facts.partitioned else "ONLY "
    ((rows, total, *newest),) = session.ask(
        f'SELECT {", ".join(asked)} FROM {only}{table.quoted} AS "dr row"', seconds=seconds
    )
    checksum = None
    if share == _WHOLE:
        checksum = Checksum(share, rows, int(total))
    elif share is not None:
        sampled = f'{only}{table.quoted} AS "dr row" TABLESAMPLE SYSTEM ({share}) REPEATABLE (0)'
        ((some, total),) = session.ask(f"SELECT count(*), {_sum()} FROM {sampled}", seconds=seconds)
        checksum = Checksum(share, some, int(total))
    facts = _with_newest(table, dict(zip(table.times, newest, strict=True)))
    return facts.model_copy(update={"rows": rows, "checksum": None if checksum is None else str(checksum)})


def newest_times(session: ReadSession, table: ListedTable, *, seconds: float | None = None) -> TableFacts:
    """Of a table that is not counted: those that an index gives. Raises `ServerError`."""
    indexed = {name: quoted for name, (quoted, has_index) in table.times.items() if has_index}
    if not indexed:
        return table.facts
    asked = (f"(SELECT max({c})::timestamptz FROM {table.quoted} WHERE {_sane(c)})" for c in indexed.values())
    ((*newest,),) = session.ask(f"SELECT {', '.join(asked)}", seconds=seconds)
    return _with_newest(table, dict(zip(indexed, newest, strict=True)))


def _sum() -> str:
    return 'coalesce(sum(hashtextextended("dr row"::text, 0)), 0)'


def _sane(quoted: str) -> str:
    """Within what Python's datetime knows: `infinity` is nobody's newest time."""
    return f"{quoted} BETWEEN '0002-01-01' AND '9998-12-31'"


def _with_newest(table: ListedTable, newest: Mapping[str, datetime | None]) -> TableFacts:
    columns = tuple(
        column.model_copy(update={"newest": newest[column.name]}) if column.name in newest else column
        for column in table.facts.columns
    )
    return table.facts.model_copy(update={"columns": columns})


def sequence_states(session: ReadSession) -> dict[tuple[str, str], tuple[str, int | None]]:
    """By schema and name: what changes when one is altered or begins anew, and how far it counted, upwards."""
    rows = session.ask(
        f"""
        SELECT n.nspname, c.relname, {_VERSION}, CASE WHEN has_sequence_privilege(c.oid, 'SELECT')
               THEN pg_sequence_last_value(c.oid)::numeric * sign(s.seqincrement::numeric) END
        FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relpersistence = 'p' AND {USER_SCHEMA}
        """
    )
    return {(schema, name): (version, None if far is None else int(far)) for schema, name, version, far in rows}


def list_sequences(session: ReadSession) -> list[SequenceFacts]:
    """`last_value` is no part of a snapshot: it is as it is when it is read. None: not used yet, not to be read by this
    role, or unlogged, which no copy has."""
    rows = session.ask(
        f"""
        SELECT n.nspname, c.relname, CASE WHEN c.relpersistence <> 'u' AND NOT s.seqcycle
               AND has_sequence_privilege(c.oid, 'SELECT') THEN pg_sequence_last_value(c.oid) END,
               tn.nspname, t.relname, a.attname
        FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid
             AND d.refclassid = 'pg_class'::regclass AND d.refobjsubid > 0 AND d.deptype IN ('a', 'i')
        LEFT JOIN pg_class t ON t.oid = d.refobjid LEFT JOIN pg_namespace tn ON tn.oid = t.relnamespace
        LEFT JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
        WHERE c.relpersistence <> 't' AND {USER_SCHEMA} ORDER BY n.nspname, c.relname
        """
    )
    return [
        SequenceFacts(schema_name=schema, name=name, last_value=value, owned_by=tuple(owner) if owner[0] else None)
        for schema, name, value, *owner in rows
    ]
