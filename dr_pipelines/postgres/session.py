"""One connection that reads: what a transaction sees of a database, always printed in the same way.

Beside `server.py` the only module that runs SQL. What is asked does not belong here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from dr_pipelines.postgres.server import Server

_PRINTED = {
    "default_transaction_read_only": "on",
    "search_path": "pg_catalog",  # so that every other name is written with its schema
    "row_security": "off",  # what would be hidden from the role is an error
    "TimeZone": "UTC",
    "DateStyle": "ISO,YMD",
    "IntervalStyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "xmlbinary": "base64",
    "lc_monetary": "C",
    "quote_all_identifiers": "off",
    "jit": "off",
    "idle_in_transaction_session_timeout": "0",
}
"""Two servers that hold the same print the same."""

_PATIENT = {"statement_timeout": "0", "lock_timeout": "0"}
"""On a copy, which has the source's settings and no other work."""

_GENTLE = {"max_parallel_workers_per_gather": "0", "lock_timeout": "1s", "statement_timeout": "30s"}
"""On a server that has other work: nobody waits for us for long."""


class ReadSession:
    """Use through `read_session`. Outside `begin` each question sees what is committed then. Not thread-safe."""

    def __init__(self, server: Server, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        self._server, self._connection = server, connection

    @property
    def version_num(self) -> int:
        """As `180004`."""
        return self._connection.info.server_version

    def begin(self, first: str = "SELECT pg_current_snapshot()::text") -> tuple[Any, ...]:
        """A read-only transaction that sees what is committed now, and until the next `begin` or `end` nothing else.
        Returns the row that the `first` question gives, at once with the snapshot that is taken for it."""
        begin = f"ROLLBACK; BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {first}"
        with self._translated():
            cursor = self._connection.execute(sql.SQL(begin))
            while cursor.nextset():
                pass
            row = cursor.fetchone()
        return row or ()

    def end(self) -> None:
        with self._translated():
            self._connection.rollback()

    def ask(self, query: str, values: Sequence[Any] = (), *, seconds: float | None = None) -> list[tuple[Any, ...]]:
        """The rows of one question, in a part of the transaction that is undone: an error ends nothing else, and the
        locks of what was read are given back at once. `seconds` is how long it may take.

        Raises `ServerError` and its kinds.
        """
        with self._translated(), self._connection.transaction(force_rollback=True):
            if seconds is not None:
                self._connection.execute(f"SET LOCAL statement_timeout = {max(1, round(seconds * 1000))}")
            return self._connection.execute(sql.SQL(query), values or None).fetchall()

    def stream(self, query: str, values: Sequence[Any] = (), *, some: int = 20_000) -> Iterator[list[tuple[Any, ...]]]:
        """The rows of one question, as the transaction that `begin` began sees them, in lists of `some`: they are never
        in memory together. Raises as `ask`."""
        with self._translated(), self._connection.cursor("dr_rows") as cursor:
            cursor.execute(sql.SQL(query), values or None, binary=True)
            while rows := cursor.fetchmany(some):
                yield rows

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            raise self._server.error_of(error) from error


@contextmanager
def read_session(server: Server, dbname: str | None = None, *, gentle: bool = False) -> Iterator[ReadSession]:
    """A session in a database, by default the connection's own. A `gentle` one waits a second for a lock and runs a
    statement for half a minute, without parallel workers; another one waits, whatever the server's settings. Raises
    what `Server` raises."""
    given = server.connection if dbname is None else replace(server.connection, dbname=dbname)
    settings = _PRINTED | (_GENTLE if gentle else _PATIENT)
    options = " ".join(f"-c {name}={value}" for name, value in settings.items())
    try:
        conninfo = make_conninfo(**given.parameters(), options=options, client_encoding="utf8")
        with psycopg.connect(conninfo, autocommit=True) as connection:
            yield ReadSession(Server(given), connection)
    except psycopg.Error as error:
        raise Server(given).error_of(error) from error
