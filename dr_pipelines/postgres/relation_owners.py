"""Which relations files belong to, as a server's catalogs say: for whoever compares files and names what differs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from dr_pipelines.postgres.page_compare import RelationFile, SequencePair
from dr_pipelines.postgres.pages import SequenceState, sequence_state
from dr_pipelines.postgres.server import Server

_DATABASES = "SELECT oid::int8, datname FROM pg_database WHERE datallowconn"
# A table of TOAST is named after the table that it serves, an index after its table.
_OWNERS = """
SELECT pg_relation_filepath(c.oid), format('%%I.%%I', n.nspname, c.relname), coalesce(i.indisready, true),
       (SELECT format('%%I.%%I', tn.nspname, t.relname) FROM pg_class t JOIN pg_namespace tn ON tn.oid = t.relnamespace
        WHERE t.reltoastrelid = coalesce(i.indrelid, c.oid) OR (t.oid = i.indrelid AND t.relkind <> 't')
        ORDER BY t.reltoastrelid = coalesce(i.indrelid, c.oid) DESC LIMIT 1),
       s.seqincrement, s.seqmin, s.seqmax, s.seqcycle
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_index i ON i.indexrelid = c.oid LEFT JOIN pg_sequence s ON s.seqrelid = c.oid
WHERE pg_relation_filepath(c.oid) = ANY(%s)
"""


@dataclass(frozen=True)
class Counting:
    """How a sequence counts."""

    increment: int
    least: int
    greatest: int
    cycles: bool


@dataclass(frozen=True)
class Owner:
    """`name` as `schema.relation`, `of` the table that an index or TOAST belongs to. An index that is not `is_ready` is
    being built, and nobody reads it."""

    database: str
    name: str
    of: str | None
    is_ready: bool
    counting: Counting | None

    def __str__(self) -> str:
        return f"{self.name} (of {self.of}) in {self.database}" if self.of else f"{self.name} in {self.database}"


@dataclass(frozen=True)
class Owners:
    """`known` by file; a file of another folder of `databases` belongs to no transaction that was committed."""

    known: Mapping[RelationFile, Owner]
    databases: frozenset[str]

    def is_committed(self, file: RelationFile) -> bool:
        return file in self.known or _database_of(file) not in self.databases

    def name(self, file: RelationFile) -> str:
        return str(self.known.get(file, file))


def find_owners(server_of: Callable[[str], Server], files: Iterable[RelationFile]) -> Owners:
    """`server_of` gives the server with a connection to a database. Databases that take no connections stay unknown."""
    databases = {str(oid): str(name) for oid, name in server_of("postgres").ask(_DATABASES)}
    databases[_SHARED] = "postgres"
    by_database: dict[str, list[RelationFile]] = defaultdict(list)
    for file in files:
        by_database[_database_of(file)].append(file)
    known: dict[RelationFile, Owner] = {}
    for oid, those in by_database.items():
        if oid in databases:
            by_path = {str(file): file for file in those}
            for path, *row in server_of(databases[oid]).ask(_OWNERS, [list(by_path)]):
                known[by_path[path]] = _owner(databases[oid], *row)
    return Owners(known, frozenset(databases))


_SHARED = "global"


def _database_of(file: RelationFile) -> str:
    return file.folder.rpartition("/")[2]


def _owner(
    database: str,
    name: str,
    ready: bool,
    of: str | None,
    increment: int | None,
    least: int,
    greatest: int,
    cycles: bool,
) -> Owner:
    counting = None if increment is None else Counting(increment, least, greatest, cycles)
    return Owner(database, name, of, ready, counting)


# --- sequences ----------------------------------------------------------------------------------------------


def is_ahead_by_its_log(pair: SequencePair, counting: Counting | None) -> bool:
    """A server logs a sequence up to 32 values ahead, and replay knows no more than that it may have gone as far: both
    must end at one value."""
    left, right = sequence_state(pair.left), sequence_state(pair.right)
    if left is None or right is None or counting is None:
        return False
    one, other = left[0], right[0]
    return one.is_called and other.is_called and _end_of_log(one, counting) == _end_of_log(other, counting)


def _end_of_log(state: SequenceState, counting: Counting) -> int:
    value = state.last_value
    for _ in range(min(state.logged_ahead, _MOST_LOGGED)):
        value += counting.increment
        if counting.cycles and value > counting.greatest:
            value = counting.least
        elif counting.cycles and value < counting.least:
            value = counting.greatest
    return value


_MOST_LOGGED = 32
