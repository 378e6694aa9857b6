"""What every table of the source is expected to be in a restored copy, made by the project itself from the source's
facts: there, with its columns, its rows, its keys, its sequences ahead, its newest rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from dr_pipelines.checks import CheckResult, Verdict, not_proven
from dr_pipelines.postgres.server import Server
from dr_pipelines.postgres.session import read_session
from dr_pipelines.repository.source_facts import DatabaseFacts, SourceFacts
from dr_pipelines.validation.at_facts import doubt_about, facts_of, in_words, trouble_with_data
from dr_pipelines.validation.measures import ROWS, Measured, Terms, measures_of, shape_of
from dr_pipelines.validation.pages import keep_page
from dr_pipelines.validation.subject import RestoredCopy, Subject
from dr_pipelines.validation.suites import SuiteResult, judged, unasked, unmet

if TYPE_CHECKING:
    from dr_pipelines.validation.expectations import Database

PRINTED_WHOLE = {"search_path": "pg_catalog", "TimeZone": "UTC"}
"""Types are named with their schema, as the facts name them."""
HEAP_ONLY = {"enable_indexscan": "off", "enable_indexonlyscan": "off", "enable_bitmapscan": "off", "TimeZone": "UTC"}
"""An index may hide a row that its table has, or show one that it has not."""


def baseline_is_met(copy: Subject) -> CheckResult:
    """Every database of which facts were told. Raises `ServerError` and its kinds."""
    if copy.facts is None:
        return not_proven("baseline_is_met", "there are no facts of the source to make a baseline of")
    if isinstance(copy, RestoredCopy) and isinstance(why := facts_of(copy), str):
        return not_proven("baseline_is_met", why)
    terms = Terms(copy.plan.tolerance / 100, copy.plan.count_up_to_rows, copy.promises)
    there = copy.databases()
    results = [
        result
        for told in copy.facts.databases
        for result in (
            _database(copy.server(told.name), told, terms)
            if told.name in there
            else [unmet(told.name, "the database is there", "there is none of this name")]
        )
    ]
    seen = {"tables": sum(len(told.tables) for told in copy.facts.databases), "rows": _rows_seen(results)}
    found = judged("baseline_is_met", results, **seen, document=keep_page(copy, "baseline", results))
    doubt = _doubt(copy, copy.facts) if found.verdict is Verdict.FAIL else None
    if found.passed and (trouble := trouble_with_data(copy.facts)):
        doubt = f"not all of the source could be looked at: {in_words(trouble)}"
    return found if doubt is None else not_proven(found.name, f"{found.summary}, but {doubt}", **found.details)


def _doubt(copy: Subject, facts: SourceFacts) -> str | None:
    """Why what is not as it was told may have been so all the same, in a copy that stands there."""
    if (reason := facts.trouble.get("position")) is not None:
        return f"where the source told it is not exact: {reason}"
    there = copy.databases()
    for told in facts.databases if copy.server().in_recovery() else ():
        if told.name in there:
            with read_session(copy.server(told.name)) as session:
                if overlap := doubt_about(session, told, facts):
                    return f"{overlap} of the source ended while {told.name} was looked at"
    return None


def _database(server: Server, told: DatabaseFacts, terms: Terms) -> Iterator[SuiteResult]:
    # Imported here: it takes seconds.
    from dr_pipelines.validation.expectations import database

    if not told.tables:
        yield unasked(told.name, "it holds what it held", "it had no tables")
        return
    present = _present(server)
    rising = _rising_sequences(server)
    measured = [measures_of(table, told, terms, present, rising) for table in told.tables if table.full_name in present]
    with database(server.connection, settings=PRINTED_WHOLE) as opened:
        yield from _run(opened, [shape_of(told), *(one for one in measured if one.large)])
    with database(server.connection, settings=HEAP_ONLY) as opened:
        yield from _run(opened, [one for one in measured if not one.large])


def _run(opened: Database, measured: list[Measured]) -> Iterator[SuiteResult]:
    for one in measured:
        if one.query:
            yield opened.over_query(one.suite, one.query, values=True, named_by=one.named_by)
        else:
            (only,) = one.suite.expectations
            yield unasked(one.suite.name, only.says, only.skipped or "")


def _rows_seen(results: Sequence[SuiteResult]) -> int:
    """Those of the tables, and not of the measures."""
    counts = [outcome.observed for result in results for outcome in result.outcomes if outcome.column == ROWS]
    return sum(int(count) for count in counts if count.isdigit())


def _present(server: Server) -> frozenset[str]:
    rows = server.ask(
        "SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE c.relkind IN ('r', 'p')"
    )
    return frozenset(str(name) for (name,) in rows)


def _rising_sequences(server: Server) -> frozenset[str]:
    rows = server.ask(
        "SELECT n.nspname || '.' || c.relname FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid "
        "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE s.seqincrement > 0 AND NOT s.seqcycle"
    )
    return frozenset(str(name) for (name,) in rows)
