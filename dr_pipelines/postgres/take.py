"""Taking a base backup into a repository.

The order is what makes a crash harmless: claim, packs, backup_manifest, index, facts, break-glass bundle, our manifest
last.
An incremental that the server refuses becomes a full at once, with the reason on record.
"""

from __future__ import annotations

import contextlib
import json
import platform
from dataclasses import dataclass
from pathlib import Path

from dr_pipelines import __version__
from dr_pipelines.clock import Clock
from dr_pipelines.errors import BackupFailed, BackupInterrupted, ChainBroken, DrError, RepositoryError
from dr_pipelines.lsn import Lsn, Timeline, WalSegment
from dr_pipelines.postgres import backup_manifest
from dr_pipelines.postgres.backup_memory import BackupMemory
from dr_pipelines.postgres.base_backup import Position, StreamedBackup, stream_base_backup
from dr_pipelines.postgres.server import Server, ServerFacts
from dr_pipelines.postgres.source_facts import WantedFacts, facts_seconds, take_facts
from dr_pipelines.postgres.tar_stream import END, Header, TarWalk, Zeros, renamed
from dr_pipelines.postgres.trust import (
    parent_of,
    reason_for_base,
    reason_for_doubt,
    reason_for_full,
    reason_of_proof,
    reason_of_timeline,
)
from dr_pipelines.progress import Progress
from dr_pipelines.repository.archive_writer import ArchiveWriter
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.repository.manifest import (
    FIRST_WITH_INCREMENTALS,
    BackupManifest,
    Tablespace,
    WalRange,
)
from dr_pipelines.repository.repository import BackupWriter, Repository
from dr_pipelines.repository.source_facts import encode_facts

_TABLESPACES = "pg_tblspc"
_SEAL_PATIENCE = 120.0
_ORDINARY_FACTS = WantedFacts()


@dataclass(frozen=True)
class SealedWal:
    """What an hourly point is below PostgreSQL 17: the WAL up to `end` is closed and in the repository."""

    server: str
    system_id: str
    timeline: Timeline
    end: Lsn


@dataclass(frozen=True)
class _Wish:
    """What was asked for, what is done and why."""

    asked: BackupKind
    parent: BackupManifest | None
    parent_manifest: bytes | None
    reason: str | None

    @property
    def kind(self) -> BackupKind:
        return BackupKind.FULL if self.parent is None else BackupKind.INCREMENTAL


def take_backup(
    server: Server,
    repository: Repository,
    name: str,
    kind: BackupKind,
    *,
    state_dir: Path,
    clock: Clock,
    progress: Progress,
    facts: WantedFacts = _ORDINARY_FACTS,
) -> BackupManifest | SealedWal:
    """Take one backup of the server that the plan calls `name`; it exists when this returns. `facts` is what it is to
    tell of itself, for a restored copy to be held against.

    `state_dir` is where this host keeps each backup's backup_manifest, because it cannot read what it encrypted.
    Raises `ServerUnavailable`, `ServerMisconfigured`, `BackupFailed` or what the store raises; the repository is
    then as before.
    """
    repository.check_format()
    ready = server.check_ready_for_backup()
    memory = BackupMemory(state_dir / name)
    wish = _wish(repository, name, kind, ready, memory)
    if wish is None:
        return seal_wal(server, repository, name, clock=clock, progress=progress)
    take = _Taking(server, repository, name, ready, memory, clock, progress, facts)
    try:
        return take.run(wish)
    except ChainBroken as error:
        progress.note(f"the chain cannot be continued, a full is taken: {error.message}")
        return take.run(_Wish(kind, None, None, error.message))


def seal_wal(server: Server, repository: Repository, name: str, *, clock: Clock, progress: Progress) -> SealedWal:
    """Close the open segment and wait until the repository holds it. A standby cannot close one: there it is what was
    replayed until now, and the open segment's head counts.

    Raises `BackupFailed` when it does not come within two minutes.
    """
    facts, timeline = server.facts(), server.current_timeline()
    end = server.flush_lsn() if facts.in_recovery else server.switch_wal()
    last = WalSegment.containing(Lsn(max(0, end.value - 1)), timeline, facts.segment_size)
    archive = repository.wal(name, facts.system_id)
    wanted = end if facts.in_recovery else last.end
    progress.phase(f"WAL of {name} up to {end} on its way to {repository.tier}")
    deadline = clock.monotonic() + _SEAL_PATIENCE
    while not any(there.timeline == timeline and there.end >= wanted for there in archive.ranges()):
        if clock.monotonic() > deadline:
            raise BackupFailed(
                f"WAL segment {last} of {name} did not reach {repository.tier} within {_SEAL_PATIENCE:.0f} seconds",
                hint=f"is `dr wal stream {name}` running? `dr status` shows it.",
            )
        clock.wait(0.5)
    return SealedWal(name, facts.system_id, timeline, end)


def _wish(
    repository: Repository, name: str, kind: BackupKind, facts: ServerFacts, memory: BackupMemory
) -> _Wish | None:
    """None: an hourly point below PostgreSQL 17, which WAL gives where there is a full that it can follow."""
    if kind is BackupKind.FULL:
        return _Wish(kind, None, None, None)
    catalog = repository.catalog(name)
    parent = parent_of(catalog.usable, facts)
    if facts.version_num < FIRST_WITH_INCREMENTALS:
        reason = reason_for_base(parent, facts)
        return _Wish(kind, None, None, reason) if reason else None
    reason = reason_for_full(parent, facts) or reason_of_proof(parent, catalog)
    if parent is None or reason is not None:
        return _Wish(kind, None, None, reason)
    try:
        repository.chain(parent)
        known = memory.recall(parent) or _read_back(repository, parent)
    except RepositoryError as error:
        return _Wish(kind, None, None, error.message)
    if known is None:
        return _Wish(kind, None, None, f"this host no longer has the backup_manifest of {parent.label}")
    return _Wish(kind, parent, known, None)


def _read_back(repository: Repository, parent: BackupManifest) -> bytes | None:
    """The parent's backup_manifest from the repository; None on a host without the identity."""
    if not repository.codec.can_decrypt and parent.encoding.recipients:
        return None
    try:
        return repository.codec.decode(b"".join(repository.store.open(parent.backup_manifest.key)))
    except DrError:
        return None


class _Taking:
    """One backup from begin to commit."""

    def __init__(
        self,
        server: Server,
        repository: Repository,
        name: str,
        facts: ServerFacts,
        memory: BackupMemory,
        clock: Clock,
        progress: Progress,
        wanted: WantedFacts,
    ) -> None:
        self._server, self._repository, self._name = server, repository, name
        self._facts, self._memory, self._clock, self._progress = facts, memory, clock, progress
        self._wanted = wanted

    def run(self, wish: _Wish) -> BackupManifest:
        started, began = self._clock.now(), self._clock.monotonic()
        writer = self._repository.begin(self._name, wish.kind, clock=self._clock)
        try:
            archive = writer.archive()
            sink = _Sink(archive)
            phase = f"backup {writer.label}"
            self._progress.phase("checkpoint")

            def begins(start: Position, size: int) -> None:
                _require_same_timeline(wish.parent, start)
                # How much of it an incremental will be, nobody knows.
                self._progress.phase(phase, None if wish.parent else size)

            streamed = stream_base_backup(
                self._server.connection,
                writer.label,
                sink,
                parent_manifest=wish.parent_manifest,
                begins=begins,
                progress=self._progress.advance,
            )
            sink.finish()
            stored = archive.close()
            told = backup_manifest.parse(streamed.backup_manifest)
            facts = self._take_facts(writer.label, streamed.stop.lsn, self._clock.monotonic() - began)
            manifest = BackupManifest(
                **self._described(writer, wish, streamed, told),
                started_at=started,
                finished_at=self._clock.now(),
                archive=stored,
                backup_manifest=writer.put_encoded("backup_manifest", streamed.backup_manifest),
                index=writer.put_encoded("index", json.dumps({"members": sink.members}).encode()),
                facts=None if facts is None else writer.put_encoded("facts", facts),
            )
            committed = writer.commit(manifest)
        except BaseException:
            writer.abandon()
            raise
        with contextlib.suppress(OSError):  # it is only an accelerator: without it the next backup is a full
            self._memory.keep(committed.label, streamed.backup_manifest, facts)
        return committed

    def _take_facts(self, label: str, after: Lsn, took: float) -> bytes | None:
        """None when there are none: nothing that goes wrong here may cost the backup."""
        self._progress.phase(f"facts of {self._name}")
        try:
            found = take_facts(
                self._server,
                self._wanted,
                after=after,
                label=label,
                system_id=self._facts.system_id,
                seconds=facts_seconds(took),
                clock=self._clock,
            )
            for about, trouble in found.trouble.items():
                self._progress.note(f"facts of {self._name}, {about}: {trouble}")
            return encode_facts(found)
        except Exception as error:  # noqa: BLE001 - the backup is there, whatever happened to its facts
            said = error.message if isinstance(error, DrError) else f"{type(error).__name__}: {error}"
            self._progress.note(f"{label} has no facts of its source, and no copy can be held against it: {said}")
            return None

    def _described(
        self, writer: BackupWriter, wish: _Wish, streamed: StreamedBackup, told: backup_manifest.ServerManifest
    ) -> dict[str, object]:
        facts = self._facts
        if streamed.start.timeline != streamed.stop.timeline:
            raise BackupInterrupted("the server changed its timeline during the backup", hint="run the backup again.")
        if told.system_id not in (None, facts.system_id):
            raise BackupInterrupted(
                f"system {told.system_id} was backed up where {facts.system_id} had answered before",
                hint="the address leads to two clusters; name one in the plan (databases).",
            )
        return {
            "server": self._name,
            "label": writer.label,
            "kind": wish.kind,
            "asked_kind": wish.asked,
            "kind_reason": wish.reason,
            "provisional": reason_for_doubt(facts) if wish.kind is BackupKind.INCREMENTAL else None,
            "parent": wish.parent.label if wish.parent else None,
            "tool_version": __version__,
            "taken_on": platform.node(),
            "system_id": facts.system_id,
            "postgres_version": facts.version,
            "postgres_version_num": facts.version_num,
            "segment_size": facts.segment_size,
            "block_size": facts.block_size,
            "data_checksums": facts.data_checksums,
            "timeline": streamed.start.timeline,
            "start_lsn": streamed.start.lsn,
            "stop_lsn": streamed.stop.lsn,
            "wal_ranges": [
                WalRange(timeline=needed.timeline, start=needed.start, end=needed.end) for needed in told.wal_ranges
            ],
            "tablespaces": [Tablespace(oid=oid, location=where) for oid, where in streamed.tablespaces.items()],
            "encoding": self._repository.codec.encoding,
        }


def _require_same_timeline(parent: BackupManifest | None, start: Position) -> None:
    """The gate again, by what the backup itself begins with: a standby's control file may name the timeline before, and
    a server may be promoted in between. Raises `ChainBroken`."""
    if parent is not None and parent.timeline != start.timeline:
        raise ChainBroken(reason_of_timeline(parent, start.timeline))


class _Sink:
    """Joins the server's archives into one tar: tablespaces under `pg_tblspc/<oid>/`, their links left out, so that
    any tar program unpacks it without writing through a link."""

    def __init__(self, archive: ArchiveWriter) -> None:
        self.members: list[tuple[str, int, int]] = []
        self._archive = archive
        self._walk = TarWalk()
        self._prefix = ""

    def begin(self, tablespace: int | None) -> None:
        """What came before is whole; its end is left out, so archives follow each other without a seam."""
        self._walk.finish()
        self._walk = TarWalk()
        self._prefix = "" if tablespace is None else f"{_TABLESPACES}/{tablespace}/"

    def data(self, piece: memoryview) -> None:
        if self._walk.skip(len(piece)):  # the common case: all of it lies within one member
            self._archive.write(piece)
            return
        for event in self._walk.feed(piece):
            if isinstance(event, Header):
                self._header(event)
            elif not isinstance(event, Zeros):  # tar programs would stop there, before the next archive
                self._archive.write(event.data)

    def finish(self) -> None:
        self._walk.finish()
        self._archive.write(END)

    def _header(self, event: Header) -> None:
        member, raw = event.member, event.raw
        if member.kind == "link" and member.name.startswith(f"{_TABLESPACES}/"):
            return
        name = self._prefix + member.name
        if self._prefix:
            raw = renamed(raw, name + ("/" if member.kind == "directory" else ""))
        if member.kind == "file":
            self.members.append((name, self._archive.size, member.size))
        self._archive.write(raw)
