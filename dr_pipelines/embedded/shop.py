"""The demo's shop: a database worth saving, and customers who write down what was promised to them."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import psycopg

SCHEMA = """
CREATE TABLE users (
    id bigint PRIMARY KEY,
    email text NOT NULL UNIQUE,
    name text NOT NULL,
    country char(2) NOT NULL,
    created_at timestamptz NOT NULL
);
CREATE TABLE orders (
    id bigint PRIMARY KEY,
    user_id bigint NOT NULL,
    status text NOT NULL CHECK (status IN ('new', 'paid', 'shipped', 'returned')),
    total_cents integer NOT NULL CHECK (total_cents > 0),
    note text NOT NULL,
    ordered_at timestamptz NOT NULL
);
CREATE TABLE payments (
    id bigint PRIMARY KEY,
    order_id bigint NOT NULL,
    method text NOT NULL,
    amount_cents integer NOT NULL,
    reference text NOT NULL,
    paid_at timestamptz NOT NULL
);
"""

# Values come from hashes of the row's number: the same shop every time, made by the server, as text that does not
# compress to nothing.
ROWS = """
INSERT INTO users
SELECT n, 'user' || n || '@shop.example', initcap(substr(md5('name' || n), 1, 9)),
       (ARRAY['DE', 'FR', 'PL', 'SE', 'US'])[1 + abs(hashint8(n)) %% 5],
       timestamptz '2025-01-01 00:00Z' + n * interval '37 seconds'
FROM generate_series(1, %(users)s) AS n;
INSERT INTO orders
SELECT n, 1 + abs(hashint8(n)::bigint) %% %(users)s,
       (ARRAY['paid', 'shipped', 'shipped', 'returned'])[1 + abs(hashint8(n + 7)) %% 4],
       500 + abs(hashint8(n + 1)) %% 50000, md5('note' || n) || md5('more' || n),
       timestamptz '2025-06-01 00:00Z' + n * interval '11 seconds'
FROM generate_series(1, %(orders)s) AS n;
INSERT INTO payments
SELECT n, n, (ARRAY['card', 'transfer', 'wallet'])[1 + abs(hashint8(n)) %% 3],
       500 + abs(hashint8(n + 1)) %% 50000, md5('payment' || n),
       timestamptz '2025-06-01 00:01Z' + n * interval '11 seconds'
FROM generate_series(1, %(orders)s) AS n;
"""

CONSTRAINTS = """
ALTER TABLE orders ADD FOREIGN KEY (user_id) REFERENCES users;
ALTER TABLE payments ADD FOREIGN KEY (order_id) REFERENCES orders;
CREATE INDEX ON orders (user_id);
CREATE INDEX ON payments (order_id);
CREATE TABLE payments_archive AS SELECT * FROM payments WHERE id <= 10000;
ANALYZE;
"""

_FIRST_ID = 1_000_000_000
"""Ids of the write load begin here, so that they are told from those of the filling."""
_PER_WRITER = 100_000_000


def fill(conninfo: str, scale: float = 1.0) -> None:
    """Build the shop; scale 1 is about 200 MB on disk."""
    sizes = {"users": int(100_000 * scale), "orders": int(600_000 * scale)}
    with psycopg.connect(conninfo, cursor_factory=psycopg.ClientCursor, autocommit=True) as connection:
        # Nobody was promised these rows yet: waiting for each of these commits would only cost time.
        connection.execute("SET synchronous_commit = off")
        connection.execute("SET maintenance_work_mem = '256MB'")
        connection.execute(SCHEMA)
        connection.execute(ROWS, sizes)
        connection.execute(CONSTRAINTS)


def size(conninfo: str) -> int:
    """Bytes of the database on disk."""
    return int(_value(conninfo, "SELECT pg_database_size(current_database())"))


def orders_of_load(conninfo: str) -> set[int]:
    """Ids of the write load's orders that are there with their payment."""
    with psycopg.connect(conninfo) as connection:
        rows = connection.execute(
            "SELECT o.id FROM orders o JOIN payments p ON p.order_id = o.id WHERE o.id >= %s", (_FIRST_ID,)
        )
        return {row[0] for row in rows}


def drop_archive(conninfo: str) -> str:
    """The bad transaction: drop `payments_archive`. Returns the LSN right before it."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        found = connection.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
        connection.execute("DROP TABLE payments_archive")
        assert found is not None
        return str(found[0])


def rows_of_archive(conninfo: str) -> int | None:
    """None when the table is not there."""
    if _value(conninfo, "SELECT to_regclass('payments_archive')") is None:
        return None
    return int(_value(conninfo, "SELECT count(*) FROM payments_archive"))


class WriteLoad:
    """Customers who order and pay without a pause. After a commit has returned, and only then, the order's id is
    appended to the file `acknowledged`: what is in it must never be lost."""

    def __init__(self, conninfo: str, acknowledged: Path, writers: int = 6) -> None:
        self._conninfo = conninfo
        self._path = acknowledged
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._count = 0
        self._threads = [
            threading.Thread(target=self._write, args=(writer,), name=f"writer-{writer}", daemon=True)
            for writer in range(writers)
        ]

    @property
    def count(self) -> int:
        """Commits that were acknowledged."""
        return self._count

    @property
    def running(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ask the writers to end after the commit they are in, and wait for them."""
        self._stop.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(10)

    def _write(self, writer: int) -> None:
        first = _FIRST_ID + writer * _PER_WRITER
        try:
            with psycopg.connect(self._conninfo, autocommit=True) as connection, self._path.open("a") as file:
                for number in range(first, first + _PER_WRITER):
                    if self._stop.is_set():
                        return
                    _order_and_pay(connection, number)
                    file.write(f"{number}\n")
                    file.flush()
                    with self._lock:
                        self._count += 1
        except psycopg.OperationalError:
            return  # the server is gone; a commit in flight was not acknowledged


def _order_and_pay(connection: psycopg.Connection[tuple[object, ...]], number: int) -> None:
    with connection.transaction():
        connection.execute(
            "INSERT INTO orders VALUES (%s, %s, 'new', %s, md5(%s::text), now())",
            (number, 1 + number % 1000, 500 + number % 50000, number),
        )
        connection.execute(
            "INSERT INTO payments VALUES (%s, %s, 'card', %s, md5(%s::text), now())",
            (number, number, 500 + number % 50000, number),
        )


def _value(conninfo: str, query: str) -> Any:
    with psycopg.connect(conninfo) as connection:
        found = connection.execute(query.encode()).fetchone()
        return None if found is None else found[0]
