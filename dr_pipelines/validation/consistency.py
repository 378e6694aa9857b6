"""Is the copy's data that of its source? Rows, sums over rows, newest times, sequences: at one position of the WAL."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from dr_pipelines.checks import CheckResult, not_proven, passed
from dr_pipelines.errors import DrError
from dr_pipelines.postgres.session import ReadSession, read_session
from dr_pipelines.postgres.table_facts import (
    Checksum,
    ListedTable,
    count_rows,
    falling_sequences,
    is_behind,
    list_sequences,
    list_tables,
)
from dr_pipelines.repository.source_facts import DatabaseFacts, SourceFacts, TableFacts
from dr_pipelines.validation.at_facts import Difference, doubt_about, facts_of, judged, trouble_with_data, unreadable
from dr_pipelines.validation.subject import RestoredCopy
from dr_pipelines.wording import counted

SOURCE_IS_MATCHED = "source_is_matched"


@dataclass
class _Seen:
    """What was compared, for the evidence."""

    tables: int = 0
    rows: int = 0
    checksums: int = 0
    sequences: int = 0
    sampled: list[str] = field(default_factory=list)
    not_counted: list[str] = field(default_factory=list)
    unlogged: list[str] = field(default_factory=list)
    doubts: dict[str, str] = field(default_factory=dict)

    def details(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if value or isinstance(value, int)}


def source_is_matched(copy: RestoredCopy) -> CheckResult:
    """Every table that was counted has its rows, every one that was summed its sum. A table that is the same is so
    whatever happened at the source in the meantime; one that differs is proven wrong only where no transaction ended
    while the source was looked at."""
    facts = facts_of(copy)
    if isinstance(facts, str):
        return not_proven(SOURCE_IS_MATCHED, facts)
    seen = _Seen()
    differences = [found for told in facts.databases for found in _compared(copy, told, facts, seen)]
    details = {"lsn": str(facts.lsn), **seen.details()}
    if (result := judged(SOURCE_IS_MATCHED, differences, trouble_with_data(facts), details)) is not None:
        return result
    if seen.tables == 0:
        return not_proven(SOURCE_IS_MATCHED, "no table of the source was counted: nothing could be compared", **details)
    left_out = f"; {counted(len(seen.not_counted), 'table')} too large to be counted" if seen.not_counted else ""
    return passed(
        SOURCE_IS_MATCHED,
        f"{counted(seen.tables, 'table')} with {counted(seen.rows, 'row')}, as many as at {facts.lsn}; "
        f"sums over the rows are the same in all {seen.checksums} that have one{left_out}",
        **details,
    )


def _compared(copy: RestoredCopy, told: DatabaseFacts, facts: SourceFacts, seen: _Seen) -> Iterator[Difference]:
    try:
        with read_session(copy.server(told.name)) as session:
            session.begin()
            doubt = doubt_about(session, told, facts)
            if doubt is not None:
                seen.doubts[told.name] = doubt
            for what in (*_tables(session, told, facts, seen), *_sequences(session, told, seen)):
                if isinstance(what, Difference):
                    yield what
                else:
                    yield Difference(f"{told.name}: {what}", doubt)
    except DrError as error:
        yield unreadable(told.name, error)


def _tables(session: ReadSession, told: DatabaseFacts, facts: SourceFacts, seen: _Seen) -> Iterator[str | Difference]:
    """A `Difference` where the transactions at the source have nothing to do with it."""
    here = {table.facts.full_name: table for table in list_tables(session)}
    for table in told.tables:
        name = table.full_name
        if (found := here.pop(name, None)) is None:
            yield f"table {name} is not there"
        elif table.unlogged:
            seen.unlogged.append(f"{told.name}: {name}")
        elif table.rows is None:
            seen.not_counted.append(f"{told.name}: {name}")
        elif not table.partitioned or table.checksum is not None:
            yield from _table(session, table, found, f"{told.name}: {name}", seen)
    if f"{told.name} data" not in facts.trouble:
        yield from (f"table {name} was not at the source" for name in here)


def _table(
    session: ReadSession, told: TableFacts, here: ListedTable, name: str, seen: _Seen
) -> Iterator[str | Difference]:
    share = None if told.checksum is None else Checksum.parse(told.checksum).share
    try:
        found = count_rows(session, here, share=share)
    except DrError as error:
        yield unreadable(f"table {name}", error)
        return
    seen.tables += 1
    seen.rows += found.rows or 0
    seen.checksums += share is not None
    if share is not None and share < 100:
        seen.sampled.append(f"{name} ({share} %)")
    if found.rows != told.rows:
        yield f"table {told.full_name} has {counted(found.rows or 0, 'row')}, the source had {told.rows:,}"
    elif found.checksum != told.checksum:
        yield f"rows of table {told.full_name} differ: their sum is {found.checksum}, at the source {told.checksum}"
    else:
        yield from _newest(told, found)


def _newest(told: TableFacts, found: TableFacts) -> Iterator[str]:
    here = {column.name: column.newest for column in found.columns}
    for column in told.columns:
        if column.newest is not None and here.get(column.name) != column.newest:
            newest = here.get(column.name)
            yield f"the newest {column.name} of table {told.full_name} is {newest}, at the source {column.newest}"


def _sequences(session: ReadSession, told: DatabaseFacts, seen: _Seen) -> Iterator[str]:
    """A copy's sequence may be ahead, for values are written to the WAL before they are used; it may not be behind."""
    here = {(found.schema_name, found.name): found.last_value for found in list_sequences(session)}
    falling = falling_sequences(session)
    for sequence in told.sequences:
        key = (sequence.schema_name, sequence.name)
        if key in here and sequence.last_value is not None:
            seen.sequences += 1
            if is_behind(here[key], sequence.last_value, falls=key in falling):
                name = f"{sequence.schema_name}.{sequence.name}"
                yield f"sequence {name} stands at {here[key]}, at the source it had given out {sequence.last_value}"
