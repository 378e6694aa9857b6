"""The baseline's suites: what every table of a source's facts is expected to be in a copy of it. Pure: facts in, one
query of measures and expectations of each out."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from fnmatch import fnmatchcase

from dr_pipelines.clock import CLOCK_DRIFT
from dr_pipelines.plan.values import format_duration
from dr_pipelines.repository.source_facts import ColumnFacts, DatabaseFacts, ForeignKeyFacts, SequenceFacts, TableFacts
from dr_pipelines.validation.suites import Expectation, Severity, Suite, filled
from dr_pipelines.wording import counted

ROWS = "rows"
"""The measure that counts them."""
ROUGHLY = 0.5
"""Of an estimate: two of the same table may differ by much."""
KEEPS_TIME = timedelta(days=1)
"""A column whose newest value was this near to when it was looked at tells when rows came; others are birthdays, and
due dates."""


@dataclass(frozen=True)
class Terms:
    """How a copy is judged. `tolerance` is a share of rows; tables above `count_up_to_rows` are not read whole;
    `promises` is how much of each table may be lost, by name or pattern (`sales.*`)."""

    tolerance: float
    count_up_to_rows: int
    promises: Mapping[str, timedelta]

    def severity(self, table: TableFacts) -> Severity:
        """Rows come and go in tables that no data class names: that is shown. Where none is named, all count."""
        named = not self.promises or self.promise_of(table) is not None
        return Severity.CRITICAL if named else Severity.WARNING

    def promise_of(self, table: TableFacts) -> timedelta | None:
        """The least of those that name it."""
        return min((most for name, most in self.promises.items() if fnmatchcase(table.full_name, name)), default=None)

    def is_large(self, table: TableFacts) -> bool:
        return (table.estimated_rows if table.rows is None else table.rows) > self.count_up_to_rows or (
            table.rows is None
        )


@dataclass(frozen=True)
class Measured:
    """A query, and what is expected of its rows. `large`: it reads no table whole, and may use indexes; `named_by` is
    the column that says which row is meant, where there are several."""

    suite: Suite
    query: str
    large: bool = False
    named_by: str | None = None


# --- what there must be -------------------------------------------------------------------------------------


def shape_of(told: DatabaseFacts) -> Measured:
    """A row a column that was recorded: which table, which type, and what is found of it."""
    rows = ", ".join(
        f"({_literal(table.schema_name)}, {_literal(table.name)}, {_literal(column.name)}, {_literal(column.type)})"
        for table in told.tables
        for column in table.columns or (ColumnFacts(name="", type=""),)
    )
    query = f"""
        SELECT told.s || '.' || told.t || CASE WHEN told.c = '' THEN '' ELSE '.' || told.c END AS named,
               c.oid IS NOT NULL AS table_found, told.y AS recorded,
               CASE WHEN told.c = '' THEN '' ELSE format_type(a.atttypid, a.atttypmod) END AS found
        FROM (VALUES {rows}) AS told (s, t, c, y)
        LEFT JOIN pg_namespace n ON n.nspname = told.s
        LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = told.t AND c.relkind IN ('r', 'p')
        LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = told.c AND a.attnum > 0 AND NOT a.attisdropped
    """
    columns = sum(len(table.columns or "-") for table in told.tables)
    expectations = (
        Expectation("expect_table_row_count_to_equal", "all that was recorded is looked at", {"value": columns}),
        Expectation(
            "expect_column_values_to_be_in_set", "every table is there", {"column": "table_found", "value_set": [True]}
        ),
        *filled(
            "found",
            "every column is there",
            Expectation(
                "expect_column_pair_values_to_be_equal",
                "every column is of the type that was recorded",
                {"column_A": "recorded", "column_B": "found", "ignore_row_if": "either_value_is_missing"},
            ),
        ),
    )
    return Measured(Suite(f"tables of {told.name}", expectations), query, large=True, named_by="named")


# --- what must be in a table --------------------------------------------------------------------------------


def measures_of(
    table: TableFacts, told: DatabaseFacts, terms: Terms, present: Collection[str], sequences: Collection[str]
) -> Measured:
    """`present`: tables that are there, by full name; `sequences`: of the copy, those that only rise."""
    asked = [*_measures(table, told, terms, present, sequences)]
    columns = ", ".join(f"{sql} AS {name}" for name, sql, _ in asked if sql)
    suite = Suite(f"{told.name} {table.full_name}", tuple(one for _, _, one in asked))
    large = terms.is_large(table)
    query = f"SELECT {columns}" if large else f"SELECT {columns} FROM {_only(table)} AS t"
    return Measured(suite, query if columns else "", large)


_Asked = Iterator[tuple[str, str, Expectation]]
"""Name and SQL of a measure, and what is expected of it; no SQL for one that is skipped."""


def _measures(
    table: TableFacts, told: DatabaseFacts, terms: Terms, present: Collection[str], sequences: Collection[str]
) -> _Asked:
    if table.unlogged:
        yield _skip(ROWS, "it has its rows", "it is unlogged: PostgreSQL empties it when it is restored")
        return
    if table.rows == 0 or (table.rows is None and table.estimated_rows == 0):
        yield _skip(ROWS, "it has its rows", "it was empty when it was backed up")
        return
    yield _rows(table, terms)
    large = "it is too large to be read whole" if terms.is_large(table) else None
    if table.primary_key:
        yield from _primary_key(table, large)
    for number, key in enumerate(table.foreign_keys):
        yield _foreign_key(number, table, key, terms, told, present, large)
    for number, sequence in enumerate(told.sequences):
        if sequence.owned_by is not None and sequence.owned_by[:2] == (table.schema_name, table.name):
            yield _sequence(number, sequence, sequences, large)
    for number, column in enumerate(table.columns):
        newest, promised = column.newest, terms.promise_of(table)
        if newest is not None and promised is not None and _keeps_time(newest, told.taken_at):
            yield _newest(number, table, column, newest, promised, by_index=large is not None)


def _rows(table: TableFacts, terms: Terms) -> tuple[str, str, Expectation]:
    if not terms.is_large(table):
        least = math.ceil((table.rows or 0) * (1 - terms.tolerance))
        says = f"it has no less than {1 - terms.tolerance:.0%} of the {table.rows:,} that were counted"
        return ROWS, "count(*)", _at_least(ROWS, says, max(least, 1), terms.severity(table))
    least = math.ceil(table.estimated_rows * min(1 - terms.tolerance, ROUGHLY))
    says = f"it has about {counted(table.estimated_rows, 'row')}, by its size"
    if table.partitioned:
        return _skip(ROWS, says, "its partitions are looked at")
    # As the planner estimates: rows a page as of the last look, times pages as they are. Where nobody ever looked, the
    # source's estimate goes by its size, and so does this.
    pages = "pg_relation_size(c.oid) / current_setting('block_size')::bigint"
    by_size = f"pg_table_size(c.oid)::float8 / {max(table.bytes, 1)} * {table.estimated_rows}"
    sql = (
        f"(SELECT (CASE WHEN c.reltuples > 0 AND c.relpages > 0 THEN c.reltuples / c.relpages * ({pages}) "
        f"ELSE {by_size} END)::bigint FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        f"WHERE n.nspname = {_literal(table.schema_name)} AND c.relname = {_literal(table.name)})"
    )
    return ROWS, sql, _at_least(ROWS, says, least, terms.severity(table))


def _primary_key(table: TableFacts, large: str | None) -> _Asked:
    columns = [_name(column) for column in table.primary_key]
    of = ", ".join(table.primary_key)
    missing = " OR ".join(f"t.{column} IS NULL" for column in columns)
    yield (
        "key_nulls",
        "" if large else f"count(*) FILTER (WHERE {missing})",
        _none("key_nulls", f"no row is without its primary key ({of})", large),
    )
    grouped = f"SELECT 1 FROM {_only(table)} AS t GROUP BY {', '.join(f't.{c}' for c in columns)} HAVING count(*) > 1"
    yield (
        "key_twice",
        "" if large else f"(SELECT count(*) FROM ({grouped}) AS twice)",
        _none("key_twice", f"no primary key ({of}) is there twice", large),
    )


def _foreign_key(
    number: int,
    table: TableFacts,
    key: ForeignKeyFacts,
    terms: Terms,
    told: DatabaseFacts,
    present: Collection[str],
    large: str | None,
) -> tuple[str, str, Expectation]:
    referred = f"{key.schema_name}.{key.table}"
    says = f"what {', '.join(key.columns)} refers to is in {referred} ({key.name})"
    other = next((one for one in told.tables if one.full_name == referred), None)
    why = large
    if not key.validated:
        why = "the source itself has not validated it (NOT VALID)"
    elif referred not in present:
        why = f"{referred} is not there"
    elif why is None and other is not None and terms.is_large(other):
        why = f"{referred} is too large to be read whole"
    given = " AND ".join(f"child.{_name(column)} IS NOT NULL" for column in key.columns)
    same = " AND ".join(
        f"parent.{_name(to)} = child.{_name(column)}" for column, to in zip(key.columns, key.referred, strict=True)
    )
    parent = f"{_name(key.schema_name)}.{_name(key.table)}"
    sql = (
        f"(SELECT count(*) FROM {_only(table)} AS child WHERE {given} "
        f"AND NOT EXISTS (SELECT 1 FROM {parent} AS parent WHERE {same}))"
    )
    return f"orphans_{number}", "" if why else sql, _none(f"orphans_{number}", says, why)


def _sequence(
    number: int, sequence: SequenceFacts, rising: Collection[str], large: str | None
) -> tuple[str, str, Expectation]:
    full, column = f"{sequence.schema_name}.{sequence.name}", (sequence.owned_by or ("", "", ""))[2]
    says = f"the sequence {full} is not behind {column}"
    why = large or (None if full in rising else "it is not there, or falls, or begins anew")
    # Of values that it could give: others were put in by hand, from another range.
    sql = (
        f"(SELECT last_value - CASE WHEN is_called THEN 0 ELSE 1 END "
        f"FROM {_name(sequence.schema_name)}.{_name(sequence.name)}) - max(t.{_name(column)})"
    )
    return f"ahead_{number}", "" if why else sql, _at_least(f"ahead_{number}", says, 0, skipped=why)


def _newest(
    number: int, table: TableFacts, column: ColumnFacts, newest: datetime, promised: timedelta, *, by_index: bool
) -> tuple[str, str, Expectation]:
    recorded = f"{newest:%Y-%m-%d %H:%M:%S.%f%z}"
    given = f"{format_duration(promised)} ({promised.total_seconds():.0f} s)" if promised else "no second"
    says = f"the newest {column.name} is behind the newest that was recorded by {given} at most"
    of = f"t.{_name(column.name)}"
    sane = f"{of} BETWEEN '0002-01-01' AND '9998-12-31'"
    highest = (
        f"(SELECT max({of}) FROM {_quoted(table)} AS t WHERE {sane})"
        if by_index
        else f"max({of}) FILTER (WHERE {sane})"
    )
    sql = f"extract(epoch FROM {_literal(recorded)}::timestamptz - CAST({highest} AS timestamptz))::float8"
    expected = Expectation(
        "expect_column_max_to_be_between",
        says,
        {"column": f"behind_{number}", "max_value": promised.total_seconds()},
    )
    return f"behind_{number}", sql, expected


def _keeps_time(newest: datetime, looked_at: datetime) -> bool:
    return looked_at - KEEPS_TIME <= newest <= looked_at + CLOCK_DRIFT


# --- shorter to write ---------------------------------------------------------------------------------------


def _at_least(
    measure: str, says: str, least: int, severity: Severity = Severity.CRITICAL, skipped: str | None = None
) -> Expectation:
    given = {"column": measure, "min_value": least}
    return Expectation("expect_column_max_to_be_between", says, given, severity, skipped)


def _none(measure: str, says: str, skipped: str | None) -> Expectation:
    given = {"column": measure, "min_value": 0, "max_value": 0}
    return Expectation("expect_column_max_to_be_between", says, given, skipped=skipped)


def _skip(measure: str, says: str, why: str) -> tuple[str, str, Expectation]:
    return measure, "", _at_least(measure, says, 0, skipped=why)


def _only(table: TableFacts) -> str:
    """Without the tables that inherit from it: its keys say nothing of theirs."""
    return _quoted(table) if table.partitioned else f"ONLY {_quoted(table)}"


def _quoted(table: TableFacts) -> str:
    return f"{_name(table.schema_name)}.{_name(table.name)}"


def _name(identifier: str) -> str:
    doubled = identifier.replace('"', '""')
    return f'U&"{_UNREAD.sub(_escaped, doubled)}"'


def _literal(text: str) -> str:
    doubled = text.replace("'", "''")
    return f"U&'{_UNREAD.sub(_escaped, doubled)}'"


_UNREAD = re.compile(r"[^\w .,()'\"+-]", re.ASCII)
"""What one of the layers between us and PostgreSQL could take for a parameter, as `%`, `:` or `{`."""


def _escaped(found: re.Match[str]) -> str:
    return f"\\+{ord(found[0]):06X}"
