"""Was there anything to see? A copy without a row proves nothing, however many checks found nothing wrong in it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dr_pipelines.checks import CheckResult, failed, not_proven, passed
from dr_pipelines.postgres.server import Server
from dr_pipelines.repository.source_facts import DatabaseFacts
from dr_pipelines.validation.subject import RestoredCopy
from dr_pipelines.wording import counted

DATA_WAS_SEEN = "data_was_seen"

# Tables that an extension brought are there in an empty database too; unlogged ones are empty in every copy.
_TABLES = """
SELECT format('%I.%I', n.nspname, c.relname), pg_relation_size(c.oid) > 0
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
  AND NOT EXISTS (
    SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
  )
ORDER BY pg_relation_size(c.oid) DESC
"""


@dataclass(frozen=True)
class Sight:
    """Over the databases that were looked into: how many tables of users they have, and one that has a row."""

    databases: tuple[str, ...] = ()
    tables: int = 0
    row_in: str | None = None

    def __add__(self, other: Sight) -> Sight:
        return Sight((*self.databases, *other.databases), self.tables + other.tables, self.row_in or other.row_in)


def look(copy: RestoredCopy, databases: Iterable[str]) -> Sight:
    """Raises `ServerError`."""
    seen = Sight()
    for name in databases:
        server = copy.server(name)
        tables = server.ask(_TABLES)
        held = (f"{name}.{table}" for table, has_pages in tables if has_pages and _has_row(server, table))
        seen += Sight((name,), len(tables), seen.row_in or next(held, None))
    return seen


def data_was_seen(seen: Sight, told: Sequence[DatabaseFacts] = ()) -> CheckResult:
    """`told` are facts of the databases that were looked into, of just there: what the source had, the copy must."""
    details = {"databases": list(seen.databases), "tables": seen.tables, "row_in": seen.row_in}
    if seen.row_in is not None:
        where = f"tables seen: {seen.tables}, databases: {len(seen.databases)}"
        return passed(DATA_WAS_SEEN, f"there are rows in {seen.row_in}; {where}", **details)
    tables = [table for database in told for table in database.tables if not table.unlogged]
    rows = sum(table.rows or 0 for table in tables if not table.partitioned)
    what = "no table" if not seen.tables else f"no row in {counted(seen.tables, 'table')}"
    if (tables and not seen.tables) or rows:
        source = f"tables ({len(tables)}) with {rows} rows or more"
        return failed(DATA_WAS_SEEN, f"the restored copy has {what}, and its source had {source}", **details)
    return not_proven(DATA_WAS_SEEN, f"there was nothing to look at: the restored copy has {what}", **details)


def _has_row(server: Server, table: str) -> bool:
    ((found,),) = server.ask(f"SELECT EXISTS (SELECT FROM ONLY {table})")
    return bool(found)
