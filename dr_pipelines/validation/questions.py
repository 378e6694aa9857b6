"""What is asked of a restored copy to tell whether its data are good: an SQL condition, a suite of Great
Expectations, or what amcheck finds.

A question is a function of the copy as it stands, read-only, in recovery.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dr_pipelines.checks import Verdict
from dr_pipelines.errors import NotProven, ServerError, UsageError
from dr_pipelines.postgres.scratch import ScratchServer
from dr_pipelines.postgres.server import Server
from dr_pipelines.validation.own_expectations import results_of, suite_file
from dr_pipelines.validation.suites import judged
from dr_pipelines.wording import counted

LOCK_WAIT = 0.2
"""Seconds. In a copy that stands still only replay holds locks, and it never lets go of them."""
_TIMED_OUT = "57014"
_LOCKED = "55P03"
_OUR_TROUBLE = ("08", "53", "57", "58")
"""Classes of SQLSTATE that tell of the copy's machine, not of its data."""

_CORRUPTED = "XX"
"""The class of SQLSTATE for pages and indexes that are not whole: the question was well asked."""


@dataclass(frozen=True)
class Answer:
    """`said` is what is shown for it; `is_error`: PostgreSQL refused the question, which counts as bad."""

    good: bool
    said: str
    is_error: bool = False


Question = Callable[[ScratchServer], Answer]


class Locked(NotProven):
    """What is asked about is locked by a transaction that was open where the copy stands."""


def sql_question(check: str, dbname: str, timeout: float) -> Question:
    """`check` must give one row of one boolean. `timeout` in seconds.

    The question raises `UsageError` for another answer, `NotProven` for NULL and when it takes too long, `Locked`, and
    `ServerError` when the copy itself has trouble.
    """

    def ask(copy: ScratchServer) -> Answer:
        server = copy.server(dbname)
        try:
            rows = server.ask(check, timeout=timeout, lock_timeout=LOCK_WAIT)
        except ServerError as error:
            return _of_error(error, server, timeout)
        return _one_boolean(rows)

    return ask


def amcheck_question(dbname: str, timeout: float) -> Question:
    """Whether amcheck finds every table and every B-tree of a database whole. `timeout` in seconds, for each.

    The question raises `NotProven` where the extension or anything to look at is not there.
    """

    def ask(copy: ScratchServer) -> Answer:
        server = copy.server(dbname)
        try:
            schema = server.ask(
                "SELECT quote_ident(nspname) FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace "
                "WHERE extname = 'amcheck'"
            )
            found = server.ask(_RELATIONS, lock_timeout=LOCK_WAIT) if schema else []
            for name, oid, is_index in found:
                check = (_INDEX if is_index else _TABLE).format(schema=schema[0][0], oid=int(oid))
                troubles = server.ask(check, timeout=timeout, lock_timeout=LOCK_WAIT)
                if troubles and not is_index:
                    return Answer(False, f"{name}: {troubles[0][0]}")
        except ServerError as error:
            return _of_error(error, server, timeout)
        if not schema:
            raise NotProven(
                f"the extension amcheck is not in database {dbname}, and a copy in recovery cannot be given it",
                hint="run CREATE EXTENSION amcheck on the server: what is restored from then on has it.",
            )
        if not found:
            raise NotProven(f"there is no table or index in database {dbname} for amcheck to look at")
        return Answer(True, f"{len(found)} tables and indexes: all are whole")

    return ask


def expectations_question(path: Path, dbname: str, timeout: float) -> Question:
    """Whether a database meets a suite of Great Expectations, which is named and written as `own_expectations` says.
    `timeout` in seconds, for each statement.

    The question raises `NotProven` where not everything could be evaluated, and `Locked`.
    """
    file = suite_file(path, dbname)
    settings = {"statement_timeout": f"{timeout * 1000:.0f}", "lock_timeout": f"{LOCK_WAIT * 1000:.0f}"}

    def ask(copy: ScratchServer) -> Answer:
        server = copy.server(dbname)
        try:
            found = judged("expectations", [*results_of(server, [file], settings)])
        except ServerError as error:
            return _of_error(error, server, timeout)
        if found.verdict is Verdict.NOT_PROVEN:
            # The library tells no SQLSTATE; the copy speaks English.
            raise (Locked if "lock timeout" in found.summary else NotProven)(found.summary)
        return Answer(found.passed, found.summary)

    return ask


_RELATIONS = """
SELECT c.oid::regclass::text, c.oid, c.relkind = 'i'
FROM pg_class c LEFT JOIN pg_index i ON i.indexrelid = c.oid LEFT JOIN pg_am a ON a.oid = c.relam
WHERE c.relpersistence = 'p'
  AND (c.relkind IN ('r', 'm', 't') AND a.amname = 'heap'
       OR c.relkind = 'i' AND a.amname = 'btree' AND i.indisready AND i.indisvalid)
ORDER BY c.oid
"""
_INDEX = "SELECT {schema}.bt_index_check({oid}::regclass, true)"
_TABLE = "SELECT msg FROM {schema}.verify_heapam({oid}::regclass)"


def _one_boolean(rows: list[tuple[object, ...]]) -> Answer:
    if len(rows) != 1 or len(rows[0]) != 1:
        width = len(rows[0]) if rows else 0
        raise UsageError(
            f"the check gave {counted(len(rows), 'row')} of {counted(width, 'column')}, not one boolean",
            hint="write it as SELECT <condition>, for example: SELECT count(*) > 1000 FROM orders.",
        )
    (value,) = rows[0]
    if value is None:
        raise NotProven(
            "the check gave NULL, which is neither good nor bad",
            hint="say what an empty table means, for example with coalesce(…, false).",
        )
    if not isinstance(value, bool):
        raise UsageError(f"the check gave {value!r}, not a boolean", hint="write it as SELECT <condition>.")
    return Answer(value, "true" if value else "false")


def _of_error(error: ServerError, server: Server, timeout: float) -> Answer:
    state, said = error.sqlstate, error.message.removeprefix(f"{server.connection}: ")
    if state == _LOCKED:
        raise Locked(f"what the check looks at is locked where the copy stands: {said}") from error
    if state == _TIMED_OUT:
        raise NotProven(
            f"the check did not answer within {timeout:g} s", hint="give it more with --timeout, or ask for less."
        ) from error
    if state is None or state.startswith(_OUR_TROUBLE):
        raise error
    return Answer(False, said, is_error=not state.startswith(_CORRUPTED))
