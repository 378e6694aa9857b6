"""A PostgreSQL server as we ask it: facts, readiness, slots, positions. SQL runs here and in `session`.

Raises only errors of `dr_pipelines.errors`. A connection lives for one question: the stream and the schedules ask
seldom, and a server that was replaced is met anew.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg import pq, sql
from psycopg.conninfo import make_conninfo

from dr_pipelines.errors import ServerError, ServerMisconfigured, ServerUnavailable
from dr_pipelines.lsn import Lsn, Timeline

OLDEST_SUPPORTED = 14_00_00
_REFUSALS = {
    "28P01": "check the password that the plan refers to.",
    "28000": "add a line for this host and role to the server's pg_hba.conf (with `replication` as the database too).",
    "3D000": "name a database that exists (connection.dbname).",
    "role": "name a role that exists and may log in (connection.user).",
    "sender": "run as a superuser: ALTER ROLE … REPLICATION, with the plan's connection.user.",
}
_STATES = ("28P01", "28000", "3D000")
_WORDS = {
    "28P01": "password authentication failed",
    "28000": "no pg_hba.conf entry",
    "3D000": 'database ".*" does not exist',
    "sender": "to start wal ?sender",
    "role": 'role ".*" (does not exist|is not permitted to log in)',
}


@dataclass(frozen=True)
class ServerConnection:
    """How a server is reached. `host` may be a directory with a Unix socket. The password never prints."""

    host: str
    port: int = 5432
    user: str = "postgres"
    dbname: str = "postgres"
    password: str | None = field(default=None, repr=False)
    sslmode: str = "prefer"
    application_name: str = "dr"

    def parameters(self) -> dict[str, str]:
        """As libpq's connection parameters."""
        given = {
            "host": self.host,
            "port": str(self.port),
            "user": self.user,
            "dbname": self.dbname,
            "sslmode": self.sslmode,
            "application_name": self.application_name,
            "connect_timeout": "10",
            # A server that hangs must not hang whoever asks it.
            "tcp_user_timeout": "30000",
            "keepalives_idle": "10",
            "keepalives_interval": "5",
            "keepalives_count": "3",
            "password": self.password,
        }
        return {name: value for name, value in given.items() if value is not None}

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True)
class ServerFacts:
    """Who the server is and how it is set. Sizes in bytes; `version_num` as `180004`."""

    system_id: str
    timeline: Timeline
    version: str
    version_num: int
    segment_size: int
    block_size: int
    data_checksums: bool
    wal_level: str
    summarize_wal: bool
    in_recovery: bool
    max_wal_senders: int

    @property
    def major(self) -> int:
        return self.version_num // 10_000


@dataclass(frozen=True)
class PhysicalSlot:
    """`lost`: the server removed WAL that the slot needed."""

    name: str
    restart_lsn: Lsn | None
    active: bool
    lost: bool


@dataclass(frozen=True)
class StandbyState:
    """One line of pg_stat_replication; `server_lsn` is how far the server itself is on its disk. A role without
    pg_monitor sees no more than that the line is there."""

    state: str | None
    sync_state: str | None
    flush_lsn: Lsn | None
    server_lsn: Lsn | None


@dataclass(frozen=True)
class Subscription:
    """A subscription to another server's changes. `slot` is on that server."""

    database: str
    name: str
    enabled: bool
    slot: str | None


class Server:
    """One PostgreSQL cluster."""

    def __init__(self, connection: ServerConnection) -> None:
        self.connection = connection

    def __repr__(self) -> str:
        return f"Server({self.connection})"

    # --- questions ------------------------------------------------------------------------------------------

    def facts(self) -> ServerFacts:
        row = self._row(
            """
            SELECT (SELECT system_identifier FROM pg_control_system())::text,
                   CASE WHEN pg_is_in_recovery() THEN (SELECT timeline_id FROM pg_control_checkpoint())
                        ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int END,
                   current_setting('server_version'), current_setting('server_version_num')::int,
                   pg_size_bytes(current_setting('wal_segment_size')), current_setting('block_size')::int,
                   current_setting('data_checksums') = 'on', current_setting('wal_level'),
                   coalesce(current_setting('summarize_wal', true), 'off') = 'on', pg_is_in_recovery(),
                   current_setting('max_wal_senders')::int
            """
        )
        return ServerFacts(row[0], Timeline(row[1]), *row[2:])

    def check_ready_for_backup(self) -> ServerFacts:
        """The facts, when the server and the role can give a backup. Raises `ServerMisconfigured` with what to set."""
        facts = self.facts()
        if facts.version_num < OLDEST_SUPPORTED:
            raise ServerMisconfigured(f"{self.connection} runs PostgreSQL {facts.version}; 14 is the oldest supported")
        if facts.wal_level == "minimal":
            raise ServerMisconfigured(
                f"{self.connection} runs with wal_level=minimal, which cannot be backed up while it runs",
                hint="set wal_level = replica and restart the server.",
            )
        if not self._row("SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = current_user")[0]:
            raise ServerMisconfigured(
                f"the role {self.connection.user} on {self.connection} has no right to replicate",
                hint=f"run: ALTER ROLE {self.connection.user} REPLICATION",
            )
        if facts.max_wal_senders == 0:
            raise ServerMisconfigured(
                f"{self.connection} has max_wal_senders=0", hint="set max_wal_senders = 10 and restart the server."
            )
        return facts

    def current_timeline(self) -> Timeline:
        """As a receiver is told it; a standby's control file may still name the one before."""
        return Timeline(int(self._replication(b"IDENTIFY_SYSTEM", 1)))

    def timeline_history(self, timeline: Timeline) -> bytes:
        """The history file. Timeline 1 has none, and the server may have lost an old one: `ServerError`."""
        return self._replication(f"TIMELINE_HISTORY {timeline.id}".encode(), 1)

    def waiting_commits(self) -> int:
        """Sessions whose commit waits for a synchronous standby. Raises `ServerMisconfigured` when the role may not see
        them."""
        waiting, seen = self._row(
            "SELECT count(*) FILTER (WHERE wait_event = 'SyncRep'), pg_has_role('pg_read_all_stats', 'USAGE') "
            "FROM pg_stat_activity"
        )
        if not seen:
            raise ServerMisconfigured(
                f"the role {self.connection.user} on {self.connection} may not see other sessions",
                hint=f"run: GRANT pg_monitor TO {self.connection.user}",
            )
        return int(waiting)

    def flush_lsn(self) -> Lsn:
        """The newest position that is on the server's disk."""
        return Lsn.parse(
            self._row(
                "SELECT (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() "
                "ELSE pg_current_wal_flush_lsn() END)::text"
            )[0]
        )

    def replayed_until(self) -> datetime | None:
        """When the newest transaction that recovery replayed was committed or rolled back, by the clock of the server
        that wrote it; None when there was none."""
        found: datetime | None = self._row("SELECT pg_last_xact_replay_timestamp()")[0]
        return found.astimezone(UTC) if found is not None else None

    def in_recovery(self) -> bool:
        return bool(self._row("SELECT pg_is_in_recovery()")[0])

    def replay_is_paused(self) -> bool:
        """A server in recovery that waits, as at its recovery target."""
        return bool(self._row("SELECT pg_get_wal_replay_pause_state() = 'paused'")[0])

    def superuser(self) -> str:
        """A superuser that can log in, the first one by preference. Raises `ServerMisconfigured`."""
        rows = self._rows("SELECT rolname FROM pg_roles WHERE rolsuper AND rolcanlogin ORDER BY oid LIMIT 1")
        if not rows:
            raise ServerMisconfigured(f"no superuser of {self.connection} can log in")
        return str(rows[0][0])

    def subscriptions(self) -> list[Subscription]:
        """Of all databases."""
        rows = self._rows(
            "SELECT datname, subname, subenabled, subslotname FROM pg_subscription "
            "JOIN pg_database ON pg_database.oid = subdbid ORDER BY datname, subname"
        )
        return [Subscription(*row) for row in rows]

    def slot(self, name: str) -> PhysicalSlot | None:
        rows = self._rows(
            "SELECT slot_name, restart_lsn::text, active, coalesce(wal_status = 'lost', false) "
            "FROM pg_replication_slots WHERE slot_name = %s AND slot_type = 'physical'",
            (name,),
        )
        if not rows:
            return None
        lsn = rows[0][1]
        return PhysicalSlot(rows[0][0], Lsn.parse(lsn) if lsn else None, rows[0][2], rows[0][3])

    def standby(self, application_name: str) -> StandbyState | None:
        """How the server sees a connected receiver; None when it is not connected."""
        rows = self._rows(
            "SELECT state, sync_state, flush_lsn::text, (CASE WHEN pg_is_in_recovery() "
            "THEN coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) ELSE pg_current_wal_flush_lsn() END)"
            "::text FROM pg_stat_replication "
            "WHERE application_name = %s ORDER BY flush_lsn DESC NULLS LAST LIMIT 1",
            (application_name,),
        )
        if not rows:
            return None
        state, sync_state, *positions = rows[0]
        return StandbyState(state, sync_state, *(Lsn.parse(text) if text else None for text in positions))

    def ask(
        self, query: str, values: Sequence[Any] = (), *, timeout: float = 0, lock_timeout: float = 0
    ) -> list[tuple[Any, ...]]:
        """The rows of a question that a person or a check asks, read-only: what it would write is an error. The
        timeouts are seconds (0: none); `sqlstate` 57014 and 55P03 of the error say that one was exceeded."""
        limits = f"-c statement_timeout={timeout * 1000:.0f} -c lock_timeout={lock_timeout * 1000:.0f}"
        with self._connected(options=f"-c default_transaction_read_only=on {limits}") as connection:
            cursor = connection.execute(sql.SQL(query), values or None)
            if cursor.description is None:
                raise ServerError(f"{self.connection} gave no rows, for this is no question: {query}")
            return cursor.fetchall()

    # --- changes --------------------------------------------------------------------------------------------

    def create_slot(self, name: str) -> PhysicalSlot:
        """A permanent physical slot that keeps WAL from now on."""
        self._row("SELECT 1 FROM pg_create_physical_replication_slot(%s, true)", (name,))
        made = self.slot(name)
        if made is None:
            raise ServerError(f"slot {name} vanished from {self.connection} as soon as it was made")
        return made

    def drop_slot(self, name: str) -> None:
        self._row("SELECT pg_drop_replication_slot(%s) IS NULL", (name,))

    def advance_slot(self, name: str, to: Lsn) -> None:
        """Let the server remove WAL before `to`. Going back is not possible and is left alone."""
        slot = self.slot(name)
        if slot is not None and slot.restart_lsn is not None and slot.restart_lsn < to:
            self._row("SELECT end_lsn::text FROM pg_replication_slot_advance(%s, %s::pg_lsn)", (name, str(to)))

    def switch_wal(self) -> Lsn:
        """Close the current segment; the LSN is where it ended."""
        return Lsn.parse(self._row("SELECT pg_switch_wal()::text")[0])

    def create_restore_point(self, name: str) -> Lsn:
        return Lsn.parse(self._row("SELECT pg_create_restore_point(%s)::text", (name,))[0])

    def write_message(self, text: str) -> None:
        """A record in the WAL that changes nothing, on the server's disk when this returns; waits for no standby."""
        options = "-c default_transaction_read_only=off -c synchronous_commit=local"
        with self._connected(options=options) as connection:
            connection.execute("SELECT pg_logical_emit_message(true, 'dr', %s)", (text,))

    def disable_subscription(self, name: str) -> None:
        """A subscription of the connection's database; its publisher is not asked. The server's event triggers do not
        fire."""
        with self._connected() as connection:
            connection.execute("SET session_replication_role = replica; SET default_transaction_read_only = off")
            connection.execute(sql.SQL("ALTER SUBSCRIPTION {} DISABLE").format(sql.Identifier(name)))

    # --- how ------------------------------------------------------------------------------------------------

    def _row(self, query: str, values: Sequence[Any] = ()) -> tuple[Any, ...]:
        rows = self._rows(query, values)
        if not rows:
            raise ServerError(f"{self.connection} gave no answer to: {query}")
        return rows[0]

    def _rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._connected() as connection:
            return connection.execute(sql.SQL(query), values or None).fetchall()

    def _replication(self, command: bytes, column: int) -> bytes:
        """One value of the answer to a command of the replication protocol."""
        with self._connected(replication="true") as connection:
            result = connection.pgconn.exec_(command)
            value = result.get_value(0, column) if result.status == pq.ExecStatus.TUPLES_OK else None
        if value is None:
            said = result.error_message.decode(errors="replace").strip()
            raise ServerError(f"{self.connection}: {said or 'no answer'} ({command.decode()})")
        return value

    @contextmanager
    def _connected(self, **more: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
        try:
            with psycopg.connect(make_conninfo(**self.connection.parameters(), **more), autocommit=True) as connection:
                yield connection
        except psycopg.Error as error:
            raise self.error_of(error) from error

    def error_of(self, error: psycopg.Error) -> ServerError:
        """libpq's errors in our words."""
        said = " ".join(str(error).split())
        refused = next((code for code in _REFUSALS if error.sqlstate == code or _says(code, said)), None)
        found = self._refusal(refused, said) if refused else self._error_of(error, said)
        found.sqlstate = error.sqlstate or (refused if refused in _STATES else None)
        return found

    def _refusal(self, code: str, said: str) -> ServerError:
        return ServerMisconfigured(f"{self.connection} refused the connection: {said}", hint=_REFUSALS[code])

    def _error_of(self, error: psycopg.Error, said: str) -> ServerError:
        if error.sqlstate is None or error.sqlstate.startswith(("08", "57P")):
            return ServerUnavailable(
                f"{self.connection} does not answer: {said}", hint="is the server up, and are host and port right?"
            )
        if error.sqlstate == "42501":
            return ServerMisconfigured(
                f"{self.connection}: {said}", hint="docs/operators-guide.md says what the role needs."
            )
        return ServerError(f"{self.connection}: {said}")


def _says(code: str, said: str) -> bool:
    """A refused connection carries its code only in words."""
    return "FATAL" in said and re.search(_WORDS[code], said, re.IGNORECASE) is not None
