"""What there is on a server now, by name: what a plan may have missed."""

from __future__ import annotations

from dataclasses import dataclass, field

from dr_pipelines.errors import DrError
from dr_pipelines.postgres.catalogue_queries import USER_SCHEMA
from dr_pipelines.postgres.server import Server
from dr_pipelines.postgres.session import ReadSession, read_session


@dataclass(frozen=True)
class DatabaseInventory:
    """`tables` without those of extensions, as `schema.name`; partitions with the table that they are of."""

    schemas: frozenset[str]
    extensions: frozenset[str]
    tables: dict[str, str]


@dataclass(frozen=True)
class Inventory:
    """`trouble` says which databases could not be looked into, and why."""

    databases: dict[str, DatabaseInventory] = field(default_factory=dict)
    tablespaces: frozenset[str] = frozenset()
    trouble: dict[str, str] = field(default_factory=dict)


def read_inventory(server: Server) -> Inventory:
    """Raises `ServerError` and its kinds when the server does not answer at all."""
    databases: dict[str, DatabaseInventory] = {}
    trouble: dict[str, str] = {}
    with read_session(server, gentle=True) as session:
        names = _names(session, "SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY 1")
        tablespaces = _names(session, "SELECT quote_ident(spcname) FROM pg_tablespace")
    for name in names:
        try:
            with read_session(server, name, gentle=True) as session:
                databases[name] = _database(session)
        except DrError as error:
            trouble[name] = error.message
    return Inventory(databases, frozenset(tablespaces), trouble)


def _database(session: ReadSession) -> DatabaseInventory:
    tables = session.ask(
        f"""
        SELECT n.nspname || '.' || c.relname, rn.nspname || '.' || r.relname
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace AND {USER_SCHEMA}
        LEFT JOIN pg_class r ON r.oid = pg_partition_root(c.oid) LEFT JOIN pg_namespace rn ON rn.oid = r.relnamespace
        WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND NOT EXISTS (SELECT FROM pg_depend d
              WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
        ORDER BY 1
        """
    )
    return DatabaseInventory(
        frozenset(_names(session, f"SELECT quote_ident(n.nspname) FROM pg_namespace n WHERE {USER_SCHEMA}")),
        frozenset(_names(session, "SELECT quote_ident(extname) FROM pg_extension")),
        {name: root or name for name, root in tables},
    )


def _names(session: ReadSession, query: str) -> list[str]:
    return [str(name) for (name,) in session.ask(query)]
