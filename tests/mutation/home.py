"""The good repository that is damaged: a server with something of everything, backed up, encrypted, on two tiers."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dr_pipelines.embedded.postgres import EmbeddedPostgres, open_folder
from dr_pipelines.postgres.source_facts import WantedFacts
from dr_pipelines.repository.encryption import generate_identity
from dr_pipelines.repository.layout import BackupKind
from tests.support.live import Live
from tests.support.lived import TIERS, Lived
from tests.support.rich import make_rich

SUMMED = WantedFacts(checksums=("shop.*", "public.*"))
SETTINGS = {"summarize_wal": "on", "autovacuum": "off"}


@contextmanager
def good_home() -> Iterator[Lived]:
    """A full, an incremental on top of it, and some segments of WAL before, between and after them."""
    base = open_folder("dr-mutation-home-")
    key = generate_identity()
    server = EmbeddedPostgres(base / "data", settings=SETTINGS, initdb=("--wal-segsize=1",))
    home = Lived(base, (key.reveal(), str(key.recipient)), rows=900)
    try:
        server.start()
        home.repository().initialise()
        live = Live(server, home.repository(), base / "state")
        with live.streaming():
            make_rich(server)
            server.psql("CREATE TABLE orders (id int PRIMARY KEY, what text)")
            _work(server, 1, 300)
            home.full = live.take(BackupKind.FULL, SUMMED).label
            _work(server, 301, 600)
            home.incremental = live.take(BackupKind.INCREMENTAL, SUMMED).label
            _work(server, 601, 900)
        server.destroy()
        shutil.copytree(base / "primary", base / "secondary")
        _let_a_day_pass(base)
        yield home
    finally:
        server.kill()
        shutil.rmtree(base, ignore_errors=True)


def _let_a_day_pass(base: Path) -> None:
    """For the stores: what has just come to one tier may be on its way to the other."""
    yesterday = time.time() - 24 * 3600
    for path in (path for tier in TIERS for path in (base / tier).rglob("*")):
        os.utime(path, (yesterday, yesterday))


def _work(server: EmbeddedPostgres, first: int, last: int) -> None:
    """Rows that hardly compress, so that segments are full of records; then what is left of the open one is skipped."""
    server.psql(
        "INSERT INTO orders SELECT g, (SELECT string_agg(md5(g || '-' || n), '') FROM generate_series(1, 40) n) "
        f"FROM generate_series({first}, {last}) g"
    )
    server.psql("SELECT pg_switch_wal()")
