"""Ways in which a restored copy can differ from its source: as SQL in a database of its own, as bytes of its files."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

BLOCK = 8192
UNSEEN = {"foreign server elsewhere": "what options say may be a secret, and facts hold none"}
"""What no check can see, and why."""
_QUIETLY = "SET session_replication_role = replica; "
"""No trigger runs, and no foreign key is looked at."""
_TABLES = ("shop.customers", "shop.orders", 'shop."odd ""name%"', "shop.lines")

Sql = Callable[[random.Random], str]


def _order(rng: random.Random) -> int:
    return rng.randrange(1, 501)


ROWS: dict[str, Sql] = {
    "table emptied": lambda rng: f"TRUNCATE {rng.choice(_TABLES)} CASCADE",
    "rows gone": lambda rng: f"{_QUIETLY}DELETE FROM shop.orders WHERE id % {rng.randrange(2, 90)} = 0",
    "one row gone": lambda rng: f"{_QUIETLY}DELETE FROM shop.orders WHERE id = {_order(rng)}",
    "one row more": lambda rng: f"INSERT INTO shop.lines VALUES ('2026-06-01', {rng.randrange(10**6)})",
    "one row twice": lambda rng: 'INSERT INTO shop."odd ""name%" SELECT * FROM shop."odd ""name%" LIMIT 1',
    "one value changed": lambda rng: f"{_QUIETLY}UPDATE shop.orders SET total = total + 0.01 WHERE id = {_order(rng)}",
    "one bit of a value": lambda rng: (
        f"{_QUIETLY}UPDATE shop.orders SET picture = set_bit(picture, {(bit := rng.randrange(128))}, "
        f"1 - get_bit(picture, {bit})) WHERE id = {_order(rng)}"
    ),
    "one value lost": lambda rng: f"UPDATE shop.customers SET born = NULL WHERE id = {rng.randrange(1, 51)}",
    "two values exchanged": lambda rng: (
        f"{_QUIETLY}UPDATE shop.orders SET total = CASE id WHEN {(one := _order(rng))} THEN {one % 500 + 1} ELSE {one} END "
        f"WHERE id IN ({one}, {one % 500 + 1})"
    ),
    "orphans": lambda rng: f"{_QUIETLY}DELETE FROM shop.customers WHERE id = {rng.randrange(1, 51)}",
    "foreign key gone, with orphans": lambda rng: (
        "ALTER TABLE shop.orders DROP CONSTRAINT orders_customer_fkey; "
        f"DELETE FROM shop.customers WHERE id = {rng.randrange(1, 51)}"
    ),
    "partition emptied": lambda rng: "TRUNCATE shop.lines_2026",
    "large object gone": lambda rng: "SELECT lo_unlink(oid) FROM pg_largeobject_metadata",
    "large object changed": lambda rng: "SELECT lo_put(oid, 0, '\\x03') FROM pg_largeobject_metadata",
    "sequence set back": lambda rng: f"SELECT setval('shop.orders_id_seq', {rng.randrange(1, 499)})",
    "identity set back": lambda rng: f"SELECT setval(pg_get_serial_sequence('shop.customers', 'id'), {rng.randrange(1, 49)})",
    "materialised view emptied": lambda rng: "REFRESH MATERIALIZED VIEW shop.sums WITH NO DATA",
    "everything gone": lambda rng: "DROP SCHEMA shop CASCADE",
}  # fmt: skip


def _says(text: str) -> Sql:
    return lambda rng: text


CATALOGUE: dict[str, Sql] = {
    name: _says(text)
    for name, text in {
        "table gone": "DROP TABLE shop.orders CASCADE",
        "table more": "CREATE TABLE shop.more (id int)",
        "table renamed": "ALTER TABLE shop.orders RENAME TO orders_old",
        "table in another schema": "ALTER TABLE shop.orders SET SCHEMA public",
        "sequence unlogged": "ALTER SEQUENCE shop.falling SET UNLOGGED",
        "table of another owner": "ALTER TABLE shop.orders OWNER TO office",
        "column gone": "ALTER TABLE shop.orders DROP COLUMN body CASCADE",
        "column more": "ALTER TABLE shop.orders ADD COLUMN more int",
        "column renamed": "ALTER TABLE shop.orders RENAME COLUMN body TO corpus",
        "column of another type": "ALTER TABLE shop.customers ALTER COLUMN note TYPE varchar(10)",
        "NOT NULL gone": "ALTER TABLE shop.customers ALTER COLUMN name DROP NOT NULL",
        "default gone": "ALTER TABLE shop.orders ALTER COLUMN state DROP DEFAULT",
        "generated column plain": "ALTER TABLE shop.customers ALTER COLUMN upper_name DROP EXPRESSION",
        "primary key gone": "ALTER TABLE shop.orders DROP CONSTRAINT orders_pkey",
        "foreign key gone": "ALTER TABLE shop.orders DROP CONSTRAINT orders_customer_fkey",
        "check constraint gone": "ALTER DOMAIN shop.amount DROP CONSTRAINT amount_check",
        "index gone": "DROP INDEX shop.orders_at",
        "index more": "CREATE INDEX more ON shop.orders (total)",
        "index of other columns": "DROP INDEX shop.orders_at; CREATE INDEX orders_at ON shop.orders (total)",
        "index invalid": "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'shop.orders_at'::regclass",
        "partition detached": "ALTER TABLE shop.lines DETACH PARTITION shop.lines_rest",
        "partition gone": "DROP TABLE shop.lines_2026",
        "row security off": "ALTER TABLE shop.orders DISABLE ROW LEVEL SECURITY",
        "policy gone": "DROP POLICY own ON shop.orders",
        "policy wider": "ALTER POLICY own ON shop.orders USING (true)",
        "grant gone": "REVOKE INSERT ON shop.orders FROM clerk",
        "grant to everybody": "GRANT SELECT ON shop.customers TO PUBLIC",
        "grant on a column gone": "REVOKE UPDATE (note) ON shop.customers FROM clerk",
        "grant on a schema gone": "REVOKE USAGE ON SCHEMA shop FROM clerk",
        "function for everybody": "GRANT EXECUTE ON FUNCTION shop.touch() TO PUBLIC",
        "default privileges gone": "ALTER DEFAULT PRIVILEGES IN SCHEMA shop REVOKE SELECT ON TABLES FROM office",
        "trigger off": "ALTER TABLE shop.orders DISABLE TRIGGER touched",
        "trigger gone": "DROP TRIGGER touched ON shop.orders",
        "event trigger off": "ALTER EVENT TRIGGER seen DISABLE",
        "rule gone": "DROP RULE no_more ON shop.lines_rest",
        "function changed": "CREATE OR REPLACE FUNCTION shop.touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
        "function with its owner's rights": "ALTER FUNCTION shop.touch() SECURITY DEFINER",
        "aggregate gone": "DROP AGGREGATE shop.total (numeric)",
        "view changed": "CREATE OR REPLACE VIEW shop.open AS SELECT * FROM shop.orders WHERE state = 'paid'",
        "view gone": "DROP VIEW shop.open",
        "type with one value more": "ALTER TYPE shop.state ADD VALUE 'sent'",
        "sequence gone": "DROP SEQUENCE shop.falling",
        "sequence counts otherwise": "ALTER SEQUENCE shop.falling INCREMENT -2",
        "statistics gone": "DROP STATISTICS shop.both",
        "comment gone": "COMMENT ON TABLE shop.orders IS NULL",
        "extension gone": "DROP EXTENSION vector",
        "publication narrower": "ALTER PUBLICATION few DROP TABLE shop.customers",
        "foreign server elsewhere": "ALTER SERVER far OPTIONS (SET host 'near')",
        "user mapping gone": "DROP USER MAPPING FOR clerk SERVER far",
        "schema more": "CREATE SCHEMA more",
        "replica identity": "ALTER TABLE shop.orders REPLICA IDENTITY FULL",
        "storage parameter": "ALTER TABLE shop.orders SET (fillfactor = 50)",
        "collation of a column": 'ALTER TABLE shop.customers ALTER COLUMN note TYPE text COLLATE "POSIX"',
    }.items()
}

CLUSTER: dict[str, str] = {
    "role gone": "DROP ROLE {name}",
    "role a superuser": "ALTER ROLE {name} SUPERUSER",
    "role without login": "ALTER ROLE {name} NOLOGIN",
    "role without password": "ALTER ROLE {name} PASSWORD NULL",
    "role that passes by row security": "ALTER ROLE {name} BYPASSRLS",
    "role with other settings": "ALTER ROLE {name} RESET statement_timeout",
    "membership gone": "REVOKE office FROM {name}",
    "database of another owner": "ALTER DATABASE {name} OWNER TO office",
    "database with other settings": "ALTER DATABASE {name} SET work_mem = '1MB'",
    "database closed to everybody": "REVOKE CONNECT ON DATABASE {name} FROM PUBLIC",
    "collation version of another library": "UPDATE pg_database SET datcollversion = '1.0' WHERE datname = '{name}'",
}
"""Of a role or a database of that name."""


@dataclass(frozen=True)
class Spot:
    """A relation's file, and where in it."""

    relation: str
    spoil: Callable[[Path, random.Random], None]


def _tuples(page: bytes) -> tuple[int, int]:
    """Where a page's items lie. Source: PostgreSQL, bufpage.h."""
    _, upper, special = struct.unpack_from("<HHH", page, 12)
    return upper, special


def _flip_in_tuples(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    block = rng.randrange(len(data) // BLOCK)
    page = memoryview(data)[block * BLOCK : (block + 1) * BLOCK]
    upper, special = _tuples(bytes(page))
    page[rng.randrange(upper, special) if upper < special else rng.randrange(24, BLOCK)] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def _garbage(path: Path, rng: random.Random) -> None:
    """Over many items, as a write of something else: of an index its keys, whatever their alignment."""
    data = bytearray(path.read_bytes())
    block = len(data) // BLOCK - 1
    upper, special = _tuples(bytes(data[block * BLOCK :]))
    first = block * BLOCK + upper
    size = min(256, special - upper)
    data[first : first + size] = rng.randbytes(size)
    path.write_bytes(data)


def _zero_page(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    block = rng.randrange(len(data) // BLOCK)
    data[block * BLOCK : (block + 1) * BLOCK] = bytes(BLOCK)
    path.write_bytes(data)


def _cut_page(path: Path, rng: random.Random) -> None:
    path.write_bytes(path.read_bytes()[:-BLOCK])


def _cut_within(path: Path, rng: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: -rng.randrange(1, BLOCK)])


def _empty(path: Path, rng: random.Random) -> None:
    path.write_bytes(b"")


_CHANGES: Mapping[str, Callable[[Path, random.Random], None]] = {
    "one bit": _flip_in_tuples,
    "garbage over its items": _garbage,
    "a page zeroed": _zero_page,
    "a page cut off": _cut_page,
    "cut within a page": _cut_within,
    "file empty": _empty,
    "file gone": lambda path, rng: path.unlink(),
}
_RELATIONS = {"table": "shop.orders", "index": "shop.orders_pkey", "catalogue": "pg_catalog.pg_attribute"}
FILES: dict[str, Spot] = {
    f"{kind}: {how}": Spot(relation, spoil) for kind, relation in _RELATIONS.items() for how, spoil in _CHANGES.items()
}
