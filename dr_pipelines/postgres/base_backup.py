"""BASE_BACKUP of the streaming replication protocol, spoken over psycopg's libpq wrapper.

One COPY stream carries every tablespace and, apart from them, PostgreSQL's backup_manifest; an incremental first sends
its parent's (`UPLOAD_MANIFEST`). Nothing touches the disk. Source: PostgreSQL manual, "Streaming Replication Protocol".
"""

from __future__ import annotations

import select
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from psycopg import pq

from dr_pipelines.errors import BackupFailed, ChainBroken, ServerMisconfigured, ServerUnavailable
from dr_pipelines.lsn import Lsn, Timeline
from dr_pipelines.postgres.server import ServerConnection

_UPLOAD_PIECE = 1024 * 1024
_SILENCE = 1800.0
"""Seconds without a byte after which a server is given up: a checkpoint or the summarizer may take its time."""
_COPY = (pq.ExecStatus.COPY_OUT,)


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
    begins: Callable[[int], None] = lambda size: None,
    progress: Callable[[int], None] | None = None,
) -> StreamedBackup:
    """Take one base backup. `begins` is called with the bytes that a full has by the server's estimate, `progress` with
    the bytes of each piece. Raises `ServerUnavailable`, `ServerMisconfigured`, `ChainBroken` (an incremental cannot be
    taken, a full can) or `BackupFailed`."""
    session = _Session(connection)
    try:
        if parent_manifest is not None:
            session.upload_manifest(parent_manifest)
        options = [
            "MANIFEST 'yes'",
            "CHECKPOINT 'fast'",
            "WAL false",
            "WAIT false",
            "TABLESPACE_MAP false",
            "PROGRESS true",
        ]
        options += [f"LABEL '{label}'", *(["INCREMENTAL"] if parent_manifest is not None else [])]
        session.send(f"BASE_BACKUP ({', '.join(options)})")
        start = _position(session.result("start"))
        listed = session.result("tablespaces")
        spaces = _tablespaces(listed)
        begins(_estimate(listed))
        session.result("stream", _COPY)
        manifest = _copy(session, sink, progress)
        stop = _position(session.result("end"))
        session.finish()
        return StreamedBackup(start, stop, spaces, manifest)
    finally:
        session.close()


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
        parameters = {**connection.parameters(), "replication": "true", "client_encoding": "UTF8"}
        conninfo = " ".join(f"{name}={_quoted(value)}" for name, value in parameters.items())
        self._pg = pq.PGconn.connect(conninfo.encode())
        self._pg.notice_handler = self._notice
        if self._pg.status != pq.ConnStatus.OK:
            said = self._said(self._pg.error_message)
            self._pg.finish()
            if "FATAL" in said:
                raise ServerMisconfigured(
                    f"{self._where} refused a replication connection: {said}",
                    hint="pg_hba.conf needs a `replication` line for this host, the role REPLICATION, and a sender.",
                )
            raise ServerUnavailable(f"{self._where} does not answer: {said}", hint="is the server up?")

    def upload_manifest(self, manifest: bytes) -> None:
        self.send("UPLOAD_MANIFEST")
        self.result("upload", (pq.ExecStatus.COPY_IN,))
        for start in range(0, len(manifest), _UPLOAD_PIECE):
            self._pg.put_copy_data(manifest[start : start + _UPLOAD_PIECE])
        self._pg.put_copy_end()
        self.finish()

    def send(self, command: str) -> None:
        self._pg.send_query(command.encode())

    def result(self, what: str, wanted: tuple[pq.ExecStatus, ...] = (pq.ExecStatus.TUPLES_OK,)) -> pq.abc.PGresult:
        """The next result. Raises what the server says when it is not `wanted`."""
        result = self._next()
        if result is None:
            raise BackupFailed(f"{self._where} ended the backup before its {what}")
        if result.status not in wanted:
            raise self._failure(self._said(result.error_message) or f"unexpected answer {result.status} to {what}")
        return result

    def finish(self) -> None:
        """Read to the end of a command. Raises its error."""
        while (result := self._next()) is not None:
            if result.status not in (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK):
                raise self._failure(self._said(result.error_message))

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
        try:
            if wait and not select.select([self._pg.socket], [], [], _SILENCE)[0]:
                raise TimeoutError(f"nothing came for {_SILENCE / 60:.0f} minutes")
            self._pg.consume_input()
        except Exception as error:
            raise BackupFailed(
                f"the connection to {self._where} broke during the backup: {error}",
                hint="the repository is as before; run the backup again when the server is up.",
            ) from error

    def _notice(self, notice: pq.abc.PGresult) -> None:
        self._warnings.append(self._said(notice.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b""))

    def _failure(self, said: str) -> BackupFailed:
        if "summar" in said and "WAL" in said:
            return ChainBroken(f"{self._where}: {said}")
        if "manifest" in said and "checksum verification" not in said:
            return ChainBroken(f"{self._where}: {said}")
        if "checksum verification" in said:
            pages = "\n".join(text for text in self._warnings if "checksum" in text)
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
