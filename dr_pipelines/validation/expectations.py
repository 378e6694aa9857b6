"""The only door to Great Expectations (and pandas): a suite in, a `SuiteResult` out. Its import takes seconds.

Contexts are ephemeral: nothing is written, nothing is sent. One evaluation at a time; names of data sources are used
again, as the library keeps what belongs to each.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import re
import runpy
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import great_expectations as gx
import pandas as pd
import sqlalchemy as sa
from great_expectations.data_context.types.base import ProgressBarsConfig
from great_expectations.expectations.expectation_configuration import ExpectationConfiguration
from great_expectations.expectations.metadata_types import FailureSeverity

from dr_pipelines.checks import Verdict
from dr_pipelines.errors import PlanError
from dr_pipelines.postgres.server import ServerConnection
from dr_pipelines.validation.outcomes import MOST_NAMED, as_judged, expected_of, first_line, hide, outcome_of
from dr_pipelines.validation.suites import Expectation, Outcome, Severity, Suite, SuiteResult, rows_of, unproven

_ONE_AT_A_TIME = threading.RLock()
_READS = {"default_transaction_read_only": "on", "statement_timeout": "0", "lock_timeout": "0"}
"""Whatever the source of the copy lets its applications do."""
_PLACE = "dr"
"""In the meta of each expectation: its place in the suite, for results come in another order."""


class SuiteUnreadable(PlanError):
    """A suite of the operator's own that cannot be understood."""


@dataclass(frozen=True)
class OwnSuite:
    """A suite as Great Expectations has it, of the operator's own."""

    name: str
    expectations: tuple[Any, ...]


def run_over_records(suite: Suite, records: Sequence[Mapping[str, Any]], *, named_by: str) -> SuiteResult:
    """Over rows that were made for it. `named_by` is the column that says which row is meant."""
    columns = [*records[0]] if records else _columns(suite)
    # As objects: whole numbers stay whole beside a None.
    return _over_frame(suite, pd.DataFrame([*records], columns=columns, dtype=object), named_by)


def run_over_columns(suite: Suite, columns: Mapping[str, Sequence[Any]], *, named_by: str) -> SuiteResult:
    """The same over columns of one length: quick also where there are hundreds of thousands of rows."""
    return _over_frame(suite, pd.DataFrame({**columns}, dtype=object), named_by)


def _over_frame(suite: Suite, frame: pd.DataFrame, named_by: str) -> SuiteResult:
    with _library() as context:
        source = context.data_sources.add_or_update_pandas("records")
        batch = source.add_dataframe_asset("rows").add_batch_definition_whole_dataframe("all")
        return _run(batch.get_batch({"dataframe": frame}), suite, values=True, named_by=named_by)


class Database:
    """A database whose tables and queries suites are run over; through `database`."""

    def __init__(self, source: Any) -> None:
        self._source = source

    def over_table(self, suite: Suite | OwnSuite, schema: str, table: str, *, values: bool) -> SuiteResult:
        """`values`: what is found may be shown; otherwise only numbers and times are, for it is people's data."""
        return self._over(
            suite, lambda: self._source.add_table_asset("rows", table_name=table, schema_name=schema), values
        )

    def over_query(
        self, suite: Suite | OwnSuite, query: str, *, values: bool, named_by: str | None = None
    ) -> SuiteResult:
        """Over the rows of a SELECT. `named_by`: the column that says which row is meant."""
        return self._over(suite, lambda: self._source.add_query_asset("rows", query=query), values, named_by)

    def _over(self, suite: Suite | OwnSuite, asset: Any, values: bool, named_by: str | None = None) -> SuiteResult:
        try:
            for old in [*self._source.assets]:
                self._source.delete_asset(old.name)
            batch = asset().add_batch_definition_whole_table("all").get_batch()
            return _run(batch, suite, values=values, named_by=named_by)
        except Exception as error:  # noqa: BLE001  whatever the library raises: nothing is proven
            return unproven(suite.name, first_line(error), declared=len(suite.expectations))


@contextmanager
def database(connection: ServerConnection, *, settings: Mapping[str, str]) -> Iterator[Database]:
    """Read-only, with PostgreSQL's settings for each session; no connection is left."""
    given = connection.parameters()
    url = sa.URL.create(
        "postgresql+psycopg",
        given.pop("user"),
        given.pop("password", None),
        database=given.pop("dbname"),
        query={**given, "options": _options({**_READS, **settings})},
    )
    with _library() as context:
        source = context.data_sources.add_or_update_sql(
            "database", connection_string=url.render_as_string(hide_password=False)
        )
        try:
            yield Database(source)
        finally:
            with contextlib.suppress(Exception):  # it has two: one to try the connection, one to ask
                source.get_engine().dispose()
                source.get_execution_engine().close()
            context.data_sources.delete("database")


def _options(settings: Mapping[str, str]) -> str:
    return " ".join(f"-c {name}={value}" for name, value in settings.items())


def load_suite(path: Path, name: str) -> OwnSuite:
    """From the library's JSON, or a Python program that defines `suite`, which is run. Raises `SuiteUnreadable`."""
    try:
        with _library():
            made = (
                runpy.run_path(str(path))["suite"]
                if path.suffix == ".py"
                else gx.ExpectationSuite(name=path.stem, expectations=_of_json(json.loads(path.read_text())))
            )
            found = tuple(made.expectations)
    except Exception as error:  # an operator's program may raise anything
        said = "it defines no `suite`" if isinstance(error, KeyError) and path.suffix == ".py" else first_line(error)
        raise SuiteUnreadable(
            f"{path.name} is no readable suite: {said}",
            hint="docs/operators-guide.md, Expectations, shows one that works.",
        ) from error
    if not found:
        raise SuiteUnreadable(f"{path.name} declares no expectations", hint="write some, or remove it.")
    return OwnSuite(name, found)


def _of_json(given: Any) -> list[Any]:
    """Each as an object: the library leaves out one that is there twice, and takes one it does not know as it is."""
    return [
        ExpectationConfiguration(
            type=one["type"],
            kwargs=one.get("kwargs", {}),
            meta=one.get("meta"),
            description=one.get("description"),
            severity=FailureSeverity(one.get("severity", "critical")),
        ).to_domain_obj()
        for one in given["expectations"]
    ]


# --- one evaluation -----------------------------------------------------------------------------------------


@contextmanager
def _library() -> Iterator[Any]:
    """Its context; what it prints, and what it warns of, is not for our output."""
    with _ONE_AT_A_TIME, contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield _context()


@functools.cache
def _context() -> Any:
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
    return context


def _run(batch: Any, suite: Suite | OwnSuite, *, values: bool, named_by: str | None = None) -> SuiteResult:
    asked, words = _asked(suite)
    for place, one in asked.items():
        one.meta = {**(one.meta or {}), _PLACE: place}
    counted = gx.expectations.ExpectTableRowCountToBeBetween(min_value=0, meta={_PLACE: -1})
    shape: dict[str, Any] = {
        "result_format": "COMPLETE" if values else "SUMMARY",
        "partial_unexpected_count": MOST_NAMED if values else 0,
    }
    if named_by is not None:
        shape["unexpected_index_column_names"] = [named_by]
    raw = batch.validate(
        gx.ExpectationSuite(name=suite.name, expectations=[*asked.values(), counted]),
        result_format=shape,
    )
    by_place = {result.expectation_config.meta[_PLACE]: result for result in raw.results}
    rows = by_place.pop(-1).result.get("observed_value")
    raw.results = [by_place[place] for place in sorted(by_place)]
    if not values:
        for result in raw.results:
            hide(result)
    skipped = {
        place: Outcome(one.says, one.column, "", expected_of(one.arguments), Verdict.NOT_PROVEN, one.severity, True)
        for place, one in enumerate(words)
        if one.skipped is not None
    }
    outcomes = {place: outcome_of(words[place], result, rows, named_by) for place, result in by_place.items()}
    as_judged(raw, [(by_place[place], outcome) for place, outcome in outcomes.items()])
    for place, outcome in skipped.items():
        reason = words[place].skipped or ""
        outcomes[place] = Outcome(**{**vars(outcome), "observed": reason})
    return SuiteResult(suite.name, len(words), tuple(outcomes[place] for place in sorted(outcomes)), rows, raw)


def _asked(suite: Suite | OwnSuite) -> tuple[dict[int, Any], list[Expectation]]:
    """The library's expectations by their place in the suite, and our words for all of them."""
    if isinstance(suite, OwnSuite):
        return dict(enumerate(suite.expectations)), [_words(one) for one in suite.expectations]
    return {
        place: ExpectationConfiguration(
            type=one.type,
            kwargs=dict(one.arguments),
            severity=FailureSeverity(str(one.severity)),
            description=one.says,
            meta={},
        ).to_domain_obj()
        for place, one in enumerate(suite.expectations)
        if one.skipped is None
    }, [*suite.expectations]


def _words(one: Any) -> Expectation:
    given = one.configuration
    says = one.description or given.type.removeprefix("expect_").replace("_", " ")
    return Expectation(given.type, says, given.kwargs, Severity(str(given.severity.value)))


def _columns(suite: Suite) -> list[str]:
    named = (
        value
        for one in suite.expectations
        for key, value in one.arguments.items()
        if key in ("column", "column_A", "column_B")
    )
    return [*dict.fromkeys(named)]


# --- for people ---------------------------------------------------------------------------------------------

_STYLE = """
body { font: 15px/1.45 sans-serif; margin: 2em; color: #1d2530 } h1 { font-size: 1.5em } h2 { font-size: 1.2em }
table { border-collapse: collapse; width: 100%; margin: .5em 0 1.5em } th, td { border-bottom: 1px solid #ccd3da;
text-align: left; vertical-align: top; padding: .35em .6em } .sticky, .collapse { display: none }
.badge { background: #eef1f4; padding: 0 .3em } .text-success::before { content: "met" }
i.text-danger::before { content: "not met" } .text-warning::before { content: "raised an error" }
.text-danger, .FAILED, .not { color: #c62828; font-weight: bold } .text-success, .met { color: #1a7f37 }
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""Whatever is in the page, a browser loads and runs nothing of it."""
_LOADS_OR_LEADS_AWAY = re.compile(
    r"<script\b.*?</script>|<link\b[^>]*>|<img\b[^>]*>|<!--.*?-->|<nav\b.*?</nav>|<a\b[^>]*data-toggle.*?</a>|</?a\b[^>]*>"
    r'|\son\w+="[^"]*"',
    re.DOTALL | re.IGNORECASE,
)


def data_docs(title: str, results: Sequence[SuiteResult]) -> bytes:
    """One page of HTML that loads nothing: the table of all expectations, and Great Expectations' Data Docs of each
    suite."""
    from great_expectations.render.renderer import ValidationResultsPageRenderer

    with _library():
        renderer = ValidationResultsPageRenderer()
        pages = [renderer.render(result.raw) for result in results if result.raw is not None]
        bodies = [_body(_view().render(page)) for page in pages]
    head = (
        f"<!doctype html><html><head><meta charset='utf-8'><title>{escape(title)}</title>"
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}"><style>{_STYLE}</style></head>'
    )
    body = [f"<body><h1>{escape(title)}</h1>", _table(rows_of(results, most=None)), *bodies, "</body></html>"]
    return "\n".join([head, *body]).encode()


@functools.cache
def _view() -> Any:
    """One for all pages: it keeps the templates that it compiled, which takes longer than to fill them."""
    from great_expectations.render.view import DefaultJinjaPageView

    return DefaultJinjaPageView()


def _table(rows: Sequence[Mapping[str, str]]) -> str:
    if not rows:
        return ""
    head = "".join(f"<th>{escape(name)}</th>" for name in rows[0])
    body = "".join(
        f"<tr class='{escape(row['result'])}'>" + "".join(f"<td>{escape(cell)}</td>" for cell in row.values()) + "</tr>"
        for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _body(page: str) -> str:
    inner = re.search(r"<body\b[^>]*>(.*)</body>", page, re.DOTALL | re.IGNORECASE)
    return _LOADS_OR_LEADS_AWAY.sub("", inner[1] if inner else page)
