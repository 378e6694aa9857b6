"""BASE_BACKUP of the streaming replication protocol, spoken over psycopg's libpq wrapper.

One COPY stream carries every tablespace and, apart from them, PostgreSQL's backup_manifest, or in PostgreSQL 14 one for
each; an incremental first sends its parent's (`UPLOAD_MANIFEST`). Nothing touches the disk. Source: PostgreSQL manual,
"Streaming Replication Protocol".
"""

from __future__ import annotations

import select
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import psycopg
from psycopg import pq

from dr_pipelines.errors import BackupFailed, BackupInterrupted, ChainBroken, ServerMisconfigured, ServerUnavailable
from dr_pipelines.lsn import Lsn, Timeline
from dr_pipelines.postgres.server import ServerConnection

_UPLOAD_PIECE = 1024 * 1024
_SILENCE = 1800.0
"""Seconds without a byte after which a server is given up: a checkpoint or the summarizer may take its time."""
_ONE_STREAM = 150_000
"""The version from which on there is one COPY for everything, and options are in parentheses."""
_COPY = (pq.ExecStatus.COPY_OUT,)
# By code, as servers speak many languages.
_DAMAGED = "XX001"
_GOES_AWAY = "57P"


@dataclass(frozen=True)
class Position:
    lsn: Lsn
    timeline: Timeline


@dataclass(frozen=True)
class StreamedBackup:
    """What the server said around the stream. `tablespaces` maps oid to location."""

    start: Position
    stop: Position
    tablespaces: dict[int, str]
    backup_manifest: bytes


class Sink(Protocol):
    """Where the archives go."""

    def begin(self, tablespace: int | None) -> None:
        """An archive begins: of the base directory (None) or of a tablespace's oid."""
        ...

    def data(self, piece: memoryview) -> None: ...


def stream_base_backup(
    connection: ServerConnection,
    label: str,
    sink: Sink,
    *,
    parent_manifest: bytes | None = None,
    begins: Callable[[Position, int], None] = lambda start, size: None,
    progress: Callable[[int], None] | None = None,
) -> StreamedBackup:
    """Take one base backup. `begins` is called with the start and the bytes that a full has by the server's estimate,
    `progress` with the bytes of each piece. Raises `ServerUnavailable`, `ServerMisconfigured`, `ChainBroken` (an
    incremental cannot be taken, a full can), `BackupInterrupted` or `BackupFailed`."""
    session = _Session(connection)
    try:
        if parent_manifest is not None:
            session.upload_manifest(parent_manifest)
        session.send(_command(label, incremental=parent_manifest is not None, version=session.version))
        start = _position(session.result("start"))
        listed = session.result("tablespaces")
        spaces = _tablespaces(listed)
        begins(start, _estimate(listed))
        if session.version < _ONE_STREAM:
            manifest = _copies(session, listed, sink, progress)
        else:
            session.result("stream", _COPY)
            session.chain_is_accepted()
            manifest = _copy(session, sink, progress)
        stop = _position(session.result("end"))
        session.finish()
        return StreamedBackup(start, stop, spaces, manifest)
    except psycopg.Error as error:
        raise session.broke(error) from error
    finally:
        session.close()


def _command(label: str, *, incremental: bool, version: int) -> str:
    if version < _ONE_STREAM:
        return f"BASE_BACKUP LABEL '{label}' PROGRESS FAST NOWAIT MANIFEST 'yes'"
    options = [
        "MANIFEST 'yes'",
        "CHECKPOINT 'fast'",
        "WAL false",
        "WAIT false",
        "TABLESPACE_MAP false",
        "PROGRESS true",
    ]
    options += [f"LABEL '{label}'", *(["INCREMENTAL"] if incremental else [])]
    return f"BASE_BACKUP ({', '.join(options)})"


def _copies(session: _Session, listed: pq.abc.PGresult, sink: Sink, progress: Callable[[int], None] | None) -> bytes:
    """PostgreSQL 14: a COPY of its own for each archive, in the order of the list, and for the manifest."""
    for row in range(listed.ntuples):
        session.result("stream", _COPY)
        oid = listed.get_value(row, 0)
        sink.begin(None if oid is None else int(oid))
        while (piece := session.copy_data()) is not None:
            sink.data(piece)
            if progress is not None:
                progress(len(piece))
    session.result("backup_manifest", _COPY)
    manifest = bytearray()
    while (piece := session.copy_data()) is not None:
        manifest += piece
    return bytes(manifest)


def _copy(session: _Session, sink: Sink, progress: Callable[[int], None] | None) -> bytes:
    """The messages of the stream: `n` a new archive, `d` data, `p` progress, `m` the manifest begins."""
    manifest: bytearray | None = None
    while (message := session.copy_data()) is not None:
        kind = message[0]
        if kind == 0x64:  # d
            if manifest is not None:
                manifest += message[1:]
            else:
                sink.data(message[1:])
                if progress is not None:
                    progress(len(message) - 1)
        elif kind == 0x6E:  # n
            name = bytes(message[1:]).split(b"\0", 1)[0].decode()
            sink.begin(None if name == "base.tar" else int(name.removesuffix(".tar")))
        elif kind == 0x6D:  # m
            manifest = bytearray()
        elif kind != 0x70:  # p
            raise BackupFailed(f"the server sent a message of an unknown kind: {kind:#x}")
    if manifest is None:
        raise BackupFailed("the server sent no backup_manifest")
    return bytes(manifest)


class _Session:
    """A replication connection that never blocks within libpq, so that other threads go on."""

    def __init__(self, connection: ServerConnection) -> None:
        self._where = str(connection)
        self._warnings: list[str] = []
        self._asks_for_chain = False
        parameters = {**connection.parameters(), "replication": "true", "client_encoding": "UTF8"}
        conninfo = " ".join(f"{name}={_quoted(value)}" for name, value in parameters.items())
        self._pg = pq.PGconn.connect(conninfo.encode())
        self._pg.notice_handler = self._notice
        if self._pg.status != pq.ConnStatus.OK:
            said = self._said(self._pg.error_message)
            self._pg.finish()
            raise self._refusal(said, conninfo.encode())

    def _refusal(self, said: str, conninfo: bytes) -> ServerMisconfigured | ServerUnavailable:
        if "max_wal_senders" in said:  # a setting's name is the same in every language
            return ServerUnavailable(
                f"{self._where} has no free WAL sender: {said}",
                hint="raise max_wal_senders and restart the server, or wait until another backup or standby has ended.",
            )
        if pq.PGconn.ping(conninfo) == pq.Ping.OK:
            return ServerMisconfigured(
                f"{self._where} refused a replication connection: {said}",
                hint="pg_hba.conf needs a `replication` line for this host, and the role REPLICATION.",
            )
        return ServerUnavailable(f"{self._where} does not answer: {said}", hint="is the server up?")

    @property
    def version(self) -> int:
        """180004 is 18.4."""
        return self._pg.server_version

    def upload_manifest(self, manifest: bytes) -> None:
        self._asks_for_chain = True
        self.send("UPLOAD_MANIFEST")
        self.result("upload", (pq.ExecStatus.COPY_IN,))
        for start in range(0, len(manifest), _UPLOAD_PIECE):
            self._pg.put_copy_data(manifest[start : start + _UPLOAD_PIECE])
        self._pg.put_copy_end()
        self.finish()

    def chain_is_accepted(self) -> None:
        """What the server says from now on is not about the chain."""
        self._asks_for_chain = False

    def send(self, command: str) -> None:
        self._pg.send_query(command.encode())

    def result(self, what: str, wanted: tuple[pq.ExecStatus, ...] = (pq.ExecStatus.TUPLES_OK,)) -> pq.abc.PGresult:
        """The next result. Raises what the server says when it is not `wanted`."""
        result = self._next()
        if result is None:
            raise BackupFailed(f"{self._where} ended the backup before its {what}")
        if result.status not in wanted:
            raise self._failure(result, f"unexpected answer {result.status} to {what}")
        return result

    def finish(self) -> None:
        """Read to the end of a command. Raises its error."""
        while (result := self._next()) is not None:
            if result.status not in (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK):
                raise self._failure(result, f"unexpected answer {result.status}")

    def copy_data(self) -> memoryview | None:
        """One message of the COPY, or None at its end."""
        idle = False
        while True:
            count, data = self._pg.get_copy_data(1)
            if count > 0:
                return data
            if count == -1:
                return None
            self._read(wait=idle)
            idle = True  # a fast server has sent more by now, so waiting is for the second try

    def close(self) -> None:
        self._pg.finish()

    def _next(self) -> pq.abc.PGresult | None:
        while self._pg.is_busy():
            self._read()
        return self._pg.get_result()

    def _read(self, *, wait: bool = True) -> None:
        if wait and not select.select([self._pg.socket], [], [], _SILENCE)[0]:
            raise self.broke(TimeoutError(f"nothing came for {_SILENCE / 60:.0f} minutes"))
        self._pg.consume_input()

    def broke(self, error: Exception) -> BackupInterrupted:
        return BackupInterrupted(
            f"the connection to {self._where} broke during the backup: {self._said(str(error).encode())}",
            hint="the repository is as before; run the backup again when the server is up.",
        )

    def _notice(self, notice: pq.abc.PGresult) -> None:
        self._warnings.append(self._said(notice.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b""))

    def _failure(self, result: pq.abc.PGresult, otherwise: str) -> BackupFailed:
        code, said, detail = (
            self._said(result.error_field(field) or b"")
            for field in (
                pq.DiagnosticField.SQLSTATE,
                pq.DiagnosticField.MESSAGE_PRIMARY,
                pq.DiagnosticField.MESSAGE_DETAIL,
            )
        )
        said = (f"{said} ({detail.rstrip('.')})" if detail else said) or self._said(result.error_message) or otherwise
        if code.startswith(_GOES_AWAY) or self._pg.status != pq.ConnStatus.OK:
            return self.broke(RuntimeError(said))
        if self._asks_for_chain:  # if it is for another reason, the full that is tried next fails by it too
            return ChainBroken(f"the server refuses it: {said}")
        if code == _DAMAGED:
            pages = "\n".join(self._warnings)
            return BackupFailed(
                f"{self._where} found damaged pages while it was backed up: {said}\n{pages}".rstrip(),
                hint="the data files are corrupt: see the server's log, run pg_amcheck, and restore what is damaged.",
            )
        return BackupFailed(f"{self._where}: {said}", hint="the repository is as before.")

    @staticmethod
    def _said(text: bytes) -> str:
        return text.decode(errors="replace").strip()


def _position(result: pq.abc.PGresult) -> Position:
    lsn, timeline = result.get_value(0, 0), result.get_value(0, 1)
    if lsn is None or timeline is None:
        raise BackupFailed("the server did not say where the backup begins or ends")
    return Position(Lsn.parse(lsn.decode()), Timeline(int(timeline)))


def _tablespaces(result: pq.abc.PGresult) -> dict[int, str]:
    found = {}
    for row in range(result.ntuples):
        oid, location = result.get_value(row, 0), result.get_value(row, 1)
        if oid is not None:
            found[int(oid)] = (location or b"").decode()
    return found


def _estimate(result: pq.abc.PGresult) -> int:
    """Bytes of all tablespaces; the server counts in kB."""
    return 1024 * sum(int(result.get_value(row, 2) or 0) for row in range(result.ntuples))


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
