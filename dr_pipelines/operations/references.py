"""The rows of databases that point at the files of a set, as the plan names them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import groupby
from typing import Any

from dr_pipelines.errors import UsageError
from dr_pipelines.plan.file_sets import ReferencePlan
from dr_pipelines.postgres.references import read_rows, says_when
from dr_pipelines.postgres.server import Server
from dr_pipelines.postgres.session import read_session
from dr_pipelines.reconcile.rows import folder_of, rows_table, together
from dr_pipelines.site import Site

Find = Callable[[str, str], Server]
"""A server by its name in the plan, and a database."""


@dataclass(frozen=True)
class References:
    """Of one file set, by name. `find`: where their databases are asked."""

    named: Mapping[str, ReferencePlan]
    find: Find = field(repr=False)
    gentle: bool = True

    @property
    def folders(self) -> tuple[bytes, ...]:
        """Below which files should have a row."""
        return tuple({folder_of(one.prefix) for one in self.named.values()})

    @property
    def listed_by_rows(self) -> tuple[str, ...]:
        """Those whose bucket is listed from the rows themselves: that a file is listed does not prove it there."""
        return tuple(name for name, one in self.named.items() if one.supabase is not None)

    @property
    def say_when(self) -> bool:
        """Whether the rows of all say when they were written."""
        return all(says_when(one) for one in self.named.values())

    @property
    def dated(self) -> References:
        """Those whose rows say when they were written."""
        return replace(self, named={name: one for name, one in self.named.items() if says_when(one)})

    def of_server(self, server: str) -> References:
        return replace(self, named={name: one for name, one in self.named.items() if one.server == server})

    def read(self, *, since: datetime | None = None, before: datetime | None = None) -> Any:
        """All rows, in one snapshot of each database. Raises `ServerError`."""

        def home(name: str) -> tuple[str, str]:
            return self.named[name].server, self.named[name].database

        found = []
        for (server, database), names in groupby(sorted(self.named, key=home), key=home):
            with read_session(self.find(server, database), gentle=self.gentle) as session:
                session.begin()
                for name in names:
                    one = self.named[name]
                    rows = read_rows(session, one, since=since, before=before)
                    found.append(rows_table(name, one.prefix, rows, exact=one.supabase is not None))
        return together(found)

    def nothing(self) -> Any:
        """A table without rows."""
        return together([])


def references_of(site: Site, file_set: str, *, database_at: str | None = None) -> References:
    """`database_at`: another place where the databases are asked, `HOST:PORT` (a directory with a socket is a host).
    Raises `UsageError` when the plan names no references."""
    named = site.file_set(file_set).references
    if not named:
        raise UsageError(
            f"the plan names no rows that point at {file_set}",
            hint=f"name them in file_storage.{file_set}.references: server, table and path, or supabase.",
        )
    if database_at is None:
        return References(named, lambda server, database: _in(site.server(server), database))
    host, port = _address(database_at)

    def find(server: str, database: str) -> Server:
        there = replace(site.server(server).connection, host=host, port=port)
        return _in(Server(there), database)

    return References(named, find, gentle=False)


def _in(server: Server, database: str) -> Server:
    return Server(replace(server.connection, dbname=database))


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UsageError(f"no address of a server: {text!r}", hint="write it as HOST:PORT, as in 127.0.0.1:5433.")
    return host.strip("[]"), int(port)
