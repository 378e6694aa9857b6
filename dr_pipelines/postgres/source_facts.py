"""Taking a server's facts when it was backed up: all of its databases as they were at one position of the WAL.

It is read after the backup, and never costs it: what cannot be read is put down as trouble, nobody waits for us, and it
takes no longer than a share of the backup itself. How a copy is compared does not belong here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase

from dr_pipelines.clock import Clock
from dr_pipelines.errors import DrError, ServerError
from dr_pipelines.lsn import Lsn
from dr_pipelines.postgres.catalogue import QUESTIONS, Catalogue, read_cluster, read_database, signature
from dr_pipelines.postgres.server import Server
from dr_pipelines.postgres.session import ReadSession, read_session
from dr_pipelines.postgres.sight import NOTHING, Moment, Sight, begin_and_look, look
from dr_pipelines.postgres.table_facts import (
    LARGE_OBJECTS,
    ListedTable,
    count_rows,
    list_sequences,
    list_tables,
    newest_times,
    sequence_states,
    table_versions,
)
from dr_pipelines.repository.source_facts import DatabaseFacts, SequenceFacts, SourceFacts, TableFacts

MOST_DATABASES = 32
"""Each is a connection for as long as facts are taken."""
_LEAST_SECONDS = 2.0
_SHARE_OF_BACKUP = 0.25
_SHARE_OF_SUMS = 0.5
_SUM_OF_A_ROW, _SUM_OF_A_BYTE = 2e-6, 1e-8
"""Seconds that summing takes, about."""
_STILL_SECONDS = 2.0
"""How long a moment is sought in which no transaction ends."""
_SEQUENCES_SECONDS = 1.0
"""How long it may take until the values of sequences that were read are before the position."""
_BEHIND_SECONDS = 10.0
"""How long a standby may take until it has what the backup needs."""
_LONGEST_PAUSE, _IMPATIENCE = 0.004, 0.97
"""Between a look and the snapshots, in seconds; a busy server gives only shorter ones."""


@dataclass(frozen=True)
class WantedFacts:
    """Tables up to `count_up_to_rows` by the server's statistics are counted; the rows of tables whose name is in
    `checksums` (or fits a pattern there, as `sales.*`) are summed too."""

    count_up_to_rows: int = 10_000_000
    checksums: tuple[str, ...] = ()

    def sums(self, table: TableFacts) -> bool:
        return table.full_name == LARGE_OBJECTS or any(fnmatchcase(table.full_name, name) for name in self.checksums)


@dataclass
class _Database:
    """One that is looked at. `sight` is that of the transaction in `session`."""

    name: str
    session: ReadSession
    sequences: list[SequenceFacts]
    sequence_states: Mapping[tuple[str, str], tuple[str, int | None]]
    sight: Sight = NOTHING
    listed: list[ListedTable] = field(default_factory=list)
    facts: dict[int, TableFacts] = field(default_factory=dict)
    objects: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    signature: str = ""
    stable: bool = True

    def told(self, lsn: Lsn, taken_at: datetime) -> DatabaseFacts:
        return DatabaseFacts(
            name=self.name,
            lsn=lsn,
            snapshot=str(self.sight),
            taken_at=taken_at,
            stable=self.stable,
            tables=tuple(self.facts[table.oid] for table in self.listed),
            sequences=tuple(self.sequences),
            objects=self.objects,
        )


def facts_seconds(backup_seconds: float) -> float:
    """How long the facts of a backup that took so long may take."""
    return max(_LEAST_SECONDS, backup_seconds * _SHARE_OF_BACKUP)


def take_facts(
    server: Server, wanted: WantedFacts, *, after: Lsn, label: str, system_id: str, seconds: float, clock: Clock
) -> SourceFacts:
    """What the server says of itself at a position that is not before `after`, within about `seconds`. Two records with
    the backup's label are written to its WAL, so that a copy can be stopped exactly there. Raises `ServerError` and its
    kinds where nothing could be read."""
    return _Facts(server, wanted, label, clock, seconds).take(after, system_id)


class _Facts:
    """One reading. `trouble` by what it concerns, as `SourceFacts` has it."""

    def __init__(self, server: Server, wanted: WantedFacts, label: str, clock: Clock, seconds: float) -> None:
        self._server, self._wanted, self._label, self._clock = server, wanted, label, clock
        self._began, self._seconds = clock.monotonic(), seconds
        self._trouble: dict[str, str] = {}

    def take(self, after: Lsn, system_id: str) -> SourceFacts:
        with ExitStack() as stack:
            watcher = stack.enter_context(read_session(self._server, gentle=True))
            databases = self._open(stack, watcher)
            moment = self._stand_still(watcher, databases, after)
            taken_at = self._clock.now()
            self._write_record(moment)
            cluster = read_cluster(databases[0].session) if databases else Catalogue({})
            self._note("cluster", cluster.trouble)
            for database in databases:
                self._read_catalogue(database)
            self._read_rows(databases)
            for database in databases:
                self._confirm(database)
            if databases and _lasting(read_cluster(databases[0].session)) != _lasting(cluster):
                self._note("cluster", {"roles and databases": "they were changed while they were read"})
                for database in databases:  # definitions name roles
                    database.stable = False
            return SourceFacts(
                system_id=system_id,
                questions=QUESTIONS,
                in_recovery=moment.written is None,
                databases=tuple(database.told(moment.lsn, taken_at) for database in databases),
                cluster=cluster.objects,
                trouble=self._trouble,
            )

    # --- at one position ---

    def _open(self, stack: ExitStack, watcher: ReadSession) -> list[_Database]:
        """The connection's own database first: it tells of the cluster."""
        rows = watcher.ask(
            "SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate "
            "ORDER BY datname <> current_database(), datname"
        )
        names = [str(name) for (name,) in rows]
        for name in names[MOST_DATABASES:]:
            self._trouble[name] = f"not looked at: facts are taken of {MOST_DATABASES} databases at most"
        opened: list[_Database] = []
        for name in names[:MOST_DATABASES]:
            with self._noting(name):
                session = stack.enter_context(read_session(self._server, name, gentle=True))
                states = sequence_states(session)
                opened.append(_Database(name, session, list_sequences(session), states))
        return opened

    def _stand_still(self, watcher: ReadSession, databases: Sequence[_Database], after: Lsn) -> Moment:
        """Every transaction begins between two looks that see the same: nothing ended in between, and what had been let
        go just before had time to be seen. Where that is not to be had in time, what the last transaction said of the
        position when it began: as near as can be, and the snapshots say what they saw."""
        moment = look(watcher)
        self._write_record(moment)
        sequences = look(watcher).written
        began, pause = self._clock.monotonic(), _LONGEST_PAUSE
        while True:
            before = look(watcher)
            self._clock.wait(pause)
            last = before
            for database in databases:
                last = begin_and_look(database.session)
                database.sight = last.sight
            waited = self._clock.monotonic() - began
            if before.lsn < after:
                if waited > _BEHIND_SECONDS:
                    raise ServerError(f"{before.lsn} is confirmed only, which is before the backup's end, {after}")
                continue
            lagging = sequences is not None and before.lsn < sequences
            if lagging and waited < _SEQUENCES_SECONDS:
                continue
            if (still := _still(before, look(watcher), databases)) or waited > _STILL_SECONDS:
                if not still and before.written is None:
                    self._note("position", {str(last.lsn): "the standby went on replaying while it was read"})
                if lagging:
                    _forget_sequences(databases)
                return before if still else last
            pause *= _IMPATIENCE

    def _write_record(self, moment: Moment) -> None:
        """Something that begins behind the position, or a copy could not be stopped there while the server is idle."""
        if moment.written is not None:
            with self._noting("record"):
                self._server.write_message(self._label)

    # --- what is seen there ---

    def _read_catalogue(self, database: _Database) -> None:
        with self._noting(f"{database.name} data"):
            database.listed = list_tables(database.session)
            database.facts = {table.oid: table.facts for table in database.listed}
            _forget_sequences([database], _begun_anew(database))
        with self._noting(f"{database.name} catalogue"):
            database.signature = signature(database.session)
        read = read_database(database.session)
        database.objects = read.objects
        self._note(f"{database.name} catalogue", read.trouble)

    def _read_rows(self, databases: Sequence[_Database]) -> None:
        """What is summed first, and the small before the large: time may run out."""
        all_of_them = [(table, database) for database in databases for table in database.listed]
        known = {table.facts.full_name for table, _ in all_of_them}
        unknown = [name for name in self._wanted.checksums if not any(fnmatchcase(full, name) for full in known)]
        self._note("checksums", {name: "there is no such table" for name in unknown})
        summed = [found for database in databases for found in self._summed(database)]
        for place, (table, database) in enumerate(sorted(summed, key=_size)):
            self._sum(table, database, still_to_come=len(summed) - place)
        for table, database in sorted(all_of_them, key=_size):
            facts = database.facts[table.oid]
            if facts.rows is None and not facts.partitioned and not facts.unlogged:
                self._count(table, database)
        for table, database in all_of_them:
            if table.facts.partitioned:
                database.facts[table.oid] = _with_leaves(database.facts[table.oid], table, database.facts)

    def _summed(self, database: _Database) -> Iterator[tuple[ListedTable, _Database]]:
        """Of a partitioned table of which a part lies on another server, its own parts: no copy asks elsewhere."""
        chosen = {table.oid: table for table in database.listed if self._wanted.sums(table.facts)}
        for table in [*chosen.values()]:
            if table.facts.partitioned and not all(oid in database.facts for oid in table.leaves):
                del chosen[table.oid]
                chosen |= {leaf.oid: leaf for leaf in database.listed if leaf.oid in table.leaves}
        yield from ((table, database) for table in chosen.values() if not table.facts.unlogged)

    def _sum(self, table: ListedTable, database: _Database, still_to_come: int) -> None:
        left = self._seconds * _SHARE_OF_SUMS - self._elapsed()
        leaves = [database.facts[oid] for oid in table.leaves if oid in database.facts] or [table.facts]
        rows, size = sum(leaf.estimated_rows for leaf in leaves), sum(leaf.bytes for leaf in leaves)
        cost = rows * _SUM_OF_A_ROW + size * _SUM_OF_A_BYTE
        share = 100 if cost == 0 else max(1, min(100, int(100 * left / still_to_come / cost)))
        with self._noting(f"{database.name} data", f"{table.facts.full_name}: "):
            database.facts[table.oid] = count_rows(database.session, table, share=share, seconds=self._left())

    def _count(self, table: ListedTable, database: _Database) -> None:
        if not table.readable:
            self._note(
                f"{database.name} data", {table.facts.full_name: f"{self._server.connection.user} may not read it"}
            )
            return
        try:
            counted = table.facts.estimated_rows <= self._wanted.count_up_to_rows and self._elapsed() < self._seconds
            look_at = count_rows if counted else newest_times
            database.facts[table.oid] = look_at(database.session, table, seconds=self._left())
        except DrError as error:
            if self._elapsed() < self._seconds:  # else it took too long, and is as one that is too large
                self._note(f"{database.name} data", {table.facts.full_name: error.message})

    def _confirm(self, database: _Database) -> None:
        """Definitions are as of now and not as of the snapshot, a table that was emptied or rewritten looks empty to
        every snapshot, and a sequence may have been set back: what changed in between is not told, or told as not
        stable."""
        with self._noting(database.name):
            database.session.end()
            versions = table_versions(database.session)
            database.stable = signature(database.session) == database.signature
            changed = {table.oid for table in database.listed if versions.get(table.oid) != table.version}
            for table in database.listed:
                if changed & {table.oid, *table.leaves}:
                    self._forget_rows(database, table.oid)

    def _forget_rows(self, database: _Database, oid: int) -> None:
        facts = database.facts[oid]
        if facts.checksum is not None:
            self._note(f"{database.name} data", {facts.full_name: "it was changed while it was read"})
        database.facts[oid] = facts.model_copy(update={"rows": None, "checksum": None})

    # --- how ---

    def _elapsed(self) -> float:
        return self._clock.monotonic() - self._began

    def _left(self) -> float:
        """Seconds; never none at all: what is quick is always there."""
        return max(1.0, self._seconds - self._elapsed())

    def _note(self, about: str, trouble: Mapping[str, str]) -> None:
        told = [f"{name}: {reason}" for name, reason in trouble.items()]
        earlier = [self._trouble[about]] if about in self._trouble else []
        if told:
            self._trouble[about] = "; ".join([*earlier, *told])

    @contextmanager
    def _noting(self, about: str, prefix: str = "") -> Iterator[None]:
        try:
            yield
        except DrError as error:
            earlier = f"{self._trouble[about]}; " if about in self._trouble else ""
            self._trouble[about] = f"{earlier}{prefix}{error.message}"


def _still(before: Moment, now: Moment, databases: Sequence[_Database]) -> bool:
    if now.written is None:  # a standby's snapshot does not name what runs; what it replayed is what it sees
        return before.lsn == now.lsn
    sights = (now.sight, *(database.sight for database in databases))
    return all(before.sight.sees_what(sight) for sight in sights)


def _forget_sequences(databases: Sequence[_Database], which: Collection[tuple[str, str]] | None = None) -> None:
    """Of all of them, or of some, by schema and name."""
    for database in databases:
        database.sequences = [
            found.model_copy(update={"last_value": None})
            if which is None or (found.schema_name, found.name) in which
            else found
            for found in database.sequences
        ]


def _begun_anew(database: _Database) -> set[tuple[str, str]]:
    """Sequences whose value was read before they were set back: a copy at the position may rightly be behind."""
    now = sequence_states(database.session)
    return {
        name
        for name, (version, far) in database.sequence_states.items()
        if name not in now or now[name][0] != version or (far is not None and (now[name][1] or 0) < far)
    }


def _lasting(cluster: Catalogue) -> Mapping[str, Mapping[str, str]]:
    return {kind: objects for kind, objects in cluster.objects.items() if kind != "replication slot"}


def _size(found: tuple[ListedTable, _Database]) -> int:
    return found[0].facts.bytes


def _with_leaves(facts: TableFacts, table: ListedTable, known: Mapping[int, TableFacts]) -> TableFacts:
    """A partitioned table has the rows of its leaves."""
    leaves = [known[oid] for oid in table.leaves if oid in known]
    counted = [leaf.rows for leaf in leaves if leaf.rows is not None]
    whole = len(counted) == len(table.leaves)
    rows = facts.rows if facts.rows is not None else sum(counted) if whole else None
    return facts.model_copy(update={"rows": rows, "estimated_rows": sum(leaf.estimated_rows for leaf in leaves)})
