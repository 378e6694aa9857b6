"""A server that lived, was backed up to two tiers, and is gone: made once, and copied for each test that damages it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from dr_pipelines.embedded.postgres import EmbeddedPostgres, bin_dir, open_folder, os_user
from dr_pipelines.lsn import Lsn
from dr_pipelines.plan import Plan
from dr_pipelines.postgres.catalogue import QUESTIONS
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.repository.manifest import BackupManifest, StoredObject, encode
from dr_pipelines.repository.repository import Repository
from dr_pipelines.repository.source_facts import DatabaseFacts, SourceFacts, TableFacts, encode_facts
from dr_pipelines.site import Site
from dr_pipelines.storage.base import Body, ObjectStore
from dr_pipelines.storage.local import LocalStore
from tests.support.live import Live

TIERS = ("primary", "secondary")


@dataclass
class Lived:
    """`shop` had two rows in `orders` when the full was taken, `told` rows at `lsn`, and `rows` at the end; its
    database `void` is empty. The incremental builds on the full."""

    base: Path
    keys: tuple[str, str]
    full: str = ""
    incremental: str = ""
    lsn: Lsn = field(default_factory=lambda: Lsn(0))
    told: int = 3
    rows: int = 4

    def copy(self, to: Path) -> Lived:
        for tier in TIERS:
            shutil.copytree(self.base / tier, to / tier)
        return Lived(to, self.keys, self.full, self.incremental, self.lsn)

    def plan(self, *, key: bool = True, validation: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        identity, recipient = self.keys
        (self.base / "identity.txt").write_text(identity)
        encryption = {"recipients": [recipient], **({"identity": f"${{FILE:{self.base}/identity.txt}}"} if key else {})}
        server = {
            "connection": {"host": "127.0.0.1", "user": "postgres"},
            "schedule": {"full": "daily", "incremental": "hourly"},
            "storage": {tier: tier for tier in TIERS},
            "wal": {"synchronous": False},
            "bin_dir": str(bin_dir(18)),
            "validation": {"amcheck": False, **(validation or {})},  # the embedded server has none
            **({"os_user": user} if (user := os_user()) else {}),
        }
        return {
            "version": 1, "name": "test", "state_dir": str(self.base / "state"), "encryption": encryption,
            "storage": {tier: {"type": "local", "path": str(self.base / tier)} for tier in TIERS},
            "databases": {"shop": {**server, **more}},
        }  # fmt: skip

    def site(self, *, stores: dict[str, ObjectStore] | None = None, **given: Any) -> Site:
        """`stores` take the place of those of a tier."""
        ready = {tier: LocalStore(self.base / tier, tier) for tier in TIERS} | (stores or {})
        identity = None if given.get("key", True) is False else self.keys[0]
        plan = self.plan(**{**given, "key": False})
        return Site(Plan.model_validate(plan), stores=ready, identity=identity)

    def repository(self, tier: str = "primary") -> Repository:
        codec = Codec(1, (self.keys[1],), (self.keys[0],))
        return Repository(LocalStore(self.base / tier, tier), codec, tier)

    def packs(self, label: str, tier: str = "primary") -> list[Path]:
        return sorted((self.base / tier).glob(f"servers/shop/backups/{label}/packs/*"))

    def wal(self, tier: str = "primary") -> list[Path]:
        return sorted(path for path in (self.base / tier).glob("servers/shop/wal/*/*/*/*") if path.is_file())

    def age(self, label: str, by: timedelta) -> None:
        """It was taken earlier, everywhere."""
        for tier in TIERS:
            repository = self.repository(tier)
            backup = repository.backup("shop", label)
            times = {"started_at": backup.started_at - by, "finished_at": backup.finished_at - by}
            older = encode(backup.model_copy(update=times))
            repository.store.put(backup.layout.manifest, Body.of(older), if_absent=False)

    def tell(self, label: str, *databases: DatabaseFacts | None, tier: str = "primary") -> BackupManifest:
        """Facts become those of a backup, as if its source had told them; None: it told none."""
        repository = self.repository(tier)
        backup = repository.backup("shop", label)
        told: StoredObject | None = None
        if given := tuple(found for found in databases if found is not None):
            data = encode_facts(SourceFacts(system_id=backup.system_id, questions=QUESTIONS, databases=given))
            body, key = Body.of(repository.codec.encode(data)), backup.layout.facts(repository.codec.suffix)
            repository.store.put(key, body, if_absent=False)
            told = StoredObject(key=key, size=body.size, sha256=body.sha256)
        changed = backup.model_copy(update={"facts": told})
        repository.store.put(backup.layout.manifest, Body.of(encode(changed)), if_absent=False)
        return changed

    def facts(
        self, name: str = "postgres", *, lsn: Lsn | None = None, tables: Sequence[str] = ("orders",)
    ) -> DatabaseFacts:
        told = tuple(TableFacts(schema_name="public", name=table, rows=self.told) for table in tables)
        return DatabaseFacts(
            name=name, lsn=self.lsn if lsn is None else lsn, snapshot="1:1:", tables=told, taken_at=datetime.now(UTC)
        )


@contextmanager
def lived(keys: tuple[str, str]) -> Iterator[Lived]:
    base = open_folder("dr-test-lived-")
    server = EmbeddedPostgres(base / "data", 18, settings={"summarize_wal": "on"}, initdb=("--wal-segsize=1",))
    made = Lived(base, keys)
    try:
        server.start()
        made.repository().initialise()
        live = Live(server, made.repository(), base / "state")
        with live.streaming():
            server.psql("CREATE DATABASE void")
            server.psql("CREATE TABLE orders AS SELECT generate_series(1, 2) AS id")
            made.full = live.take(BackupKind.FULL).label
            made.incremental = live.take(BackupKind.INCREMENTAL).label
            server.psql("INSERT INTO orders VALUES (3)")
            made.lsn = server.server.flush_lsn()
            server.psql("INSERT INTO orders VALUES (4)")
        server.destroy()
        shutil.copytree(base / "primary", base / "secondary")
        yield made
    finally:
        server.kill()
        shutil.rmtree(base, ignore_errors=True)
