"""A restore from a tier whose packs and WAL are offline, on real parts: it asks, ends or waits, and brings back all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from dr_pipelines.clock import FixedClock
from dr_pipelines.commands import Runner
from dr_pipelines.embedded.postgres import EmbeddedPostgres, bin_dir, open_folder, os_user
from dr_pipelines.errors import RecallPending
from dr_pipelines.lsn import Lsn
from dr_pipelines.plan.stores import AzureStorePlan, S3StorePlan, StorePlan
from dr_pipelines.plan.terms import StorageTerms
from dr_pipelines.postgres.restore import RestoreReport, restore
from dr_pipelines.postgres.restore_plan import LATEST, RecoveryTarget
from dr_pipelines.postgres.restore_preview import preview
from dr_pipelines.progress import Silent
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.layout import BackupKind, Role, role_of
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.repository.repository import Repository
from dr_pipelines.storage.azure import AzureStore
from dr_pipelines.storage.base import Availability, Body, ObjectStore, read_all
from dr_pipelines.storage.local import LocalStore
from dr_pipelines.storage.memory import MemoryStore
from dr_pipelines.storage.s3 import S3Store
from dr_pipelines.storage.wrappers import Forwarding, ReadOnly
from tests.support import forked
from tests.support.azure_front import azure_front
from tests.support.cold_files import Waiting
from tests.support.live import Live, running
from tests.support.stores import azurite_container, moto_bucket
from tests.support.strict_s3 import finish_restores, hold_restores

NOW = datetime(2026, 11, 26, tzinfo=UTC)
HOURS = 15
SEGMENT = 1 << 20
AZURE = AzureStorePlan(type="azure", account_url="https://a.example", container="cold")
AWS = S3StorePlan(type="s3", profile="aws", bucket="cold")


@dataclass
class Saved:
    """A backup with its WAL, 200 rows, and who took it is gone. `between`: after 100 of them."""

    live: Live
    primary: Repository
    full: BackupManifest
    between: Lsn


@pytest.fixture(scope="module")
def saved() -> Iterator[Saved]:
    folder = open_folder("dr-test-")
    server = EmbeddedPostgres(folder / "data", 18, settings={}, initdb=("--wal-segsize=1",))
    primary = Repository(LocalStore(folder / "primary", "primary"), Codec(1), "primary")
    primary.initialise()
    live = Live(server, primary, folder / "state")
    try:
        server.start()
        server.psql("CREATE TABLE orders AS SELECT g AS id FROM generate_series(1, 99) g")
        with live.streaming():
            full = live.take(BackupKind.FULL)
            server.psql("INSERT INTO orders VALUES (100)")
            between = Lsn.parse(server.psql("SELECT pg_current_wal_insert_lsn()"))
            for _ in range(4):
                server.psql("SELECT pg_switch_wal()")
                server.psql("INSERT INTO orders SELECT max(id) + g FROM orders, generate_series(1, 25) g GROUP BY g")
            server.psql("SELECT pg_switch_wal()")
            server.destroy()
        yield Saved(live, primary, full, between)
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)


class Asked(Forwarding):
    """Counts what is asked for."""

    def __init__(self, store: ObjectStore) -> None:
        super().__init__(store)
        self.recalled: list[tuple[str, bool]] = []

    def recall(self, key: str, *, urgent: bool = False) -> Availability:
        self.recalled.append((key, urgent))
        return super().recall(key, urgent=urgent)


@dataclass
class Archive:
    """A tier with all packs and WAL offline; `arrive` brings what was asked for."""

    repository: Repository
    store: Asked
    clock: Waiting
    terms: StorageTerms

    def restore(
        self, saved: Saved, folder: Path, *, target: RecoveryTarget = LATEST, wait: bool = False, urgent: bool = False
    ) -> RestoreReport:
        request = replace(
            saved.live.request(folder / "restored", target),
            wait=wait,
            urgent=urgent,
            terms={"archive": self.terms},
        )
        return restore(request, [self.repository], clock=self.clock, runner=Runner(), progress=Silent())


def archive_on(
    store: ObjectStore, name: str, arrive: Callable[[], None], described: StorePlan, saved: Saved
) -> Archive:
    for info in saved.primary.store.list():
        bulk = role_of(info.key) is Role.BULK
        body = Body.of(read_all(saved.primary.store, info.key))
        store.put(info.key, body, storage_class=name if bulk else None)
    asked = Asked(store)
    return Archive(Repository(ReadOnly(asked), Codec(1), "archive"), asked, Waiting(arrive), StorageTerms(described))


@pytest.fixture
def archive(azurite_port: int, saved: Saved) -> Iterator[Archive]:
    """On Azure's rules."""
    with azure_front(azurite_port) as front:
        container = azurite_container(front.endpoint)
        yield archive_on(AzureStore(container, "cold"), "Archive", front.release, AZURE, saved)


_HOUR = timedelta(hours=1)


def rows(report: RestoreReport) -> int:
    with running(report.data_dir) as recovered:
        return int(recovered.psql("SELECT count(*) FROM orders"))


def test_a_restore_asks_ends_and_goes_on_when_the_bytes_are_there(saved: Saved, archive: Archive, folder: Path) -> None:
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(RecallPending, match="all were asked for just now") as first:
        archive.restore(saved, folder, urgent=True)
    assert first.value.exit_code == 31 and not first.value.transient
    assert first.value.hint is not None and "--wait" in first.value.hint
    assert sorted(path.name for path in folder.iterdir()) == before
    bulk = {info.key for info in archive.store.list() if role_of(info.key) is Role.BULK}
    asked = {key for key, _ in archive.store.recalled}
    assert {pack.key for pack in saved.full.archive.packs} <= asked <= bulk  # WAL before the backup is not needed
    assert all(urgent for _, urgent in archive.store.recalled)
    archive.store.recalled.clear()
    with pytest.raises(RecallPending, match="all were asked for before"):
        archive.restore(saved, folder)
    assert archive.store.recalled == []
    archive.clock.arrive()
    report = archive.restore(saved, folder)
    assert rows(report) == 200 and archive.store.recalled == [] and archive.clock.waited == []


def dr(env: dict[str, str], *argv: str, code: int = 0) -> Any:
    """The one JSON document of a command that ends with `code`."""
    done = forked.dr(*argv, "--json", env=env)
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_the_command_ends_with_its_own_exit_code_until_the_bytes_are_there(
    saved: Saved, strict_s3: str, folder: Path
) -> None:
    hold_restores(strict_s3)
    client, bucket = moto_bucket(strict_s3)
    archive_on(S3Store(client, bucket, "cold", profile="aws"), "GLACIER", lambda: None, AWS, saved)
    cold = {
        "type": "s3", "profile": "aws", "endpoint": strict_s3, "bucket": bucket, "access_key_id": "${ENV:KEY}",
        "secret_access_key": "${ENV:KEY}", "classes": [{"name": "GLACIER"}],
        "prices": {"GLACIER": {"keep": 0, "read": 5e6}},
    }  # fmt: skip
    shop = {
        "connection": {"host": "127.0.0.1"}, "schedule": {"full": "daily"}, "bin_dir": str(bin_dir(18)),
        "storage": {"primary": "disk", "archive": "cold"}, "os_user": os_user(),
    }  # fmt: skip
    plan = {
        "version": 1, "name": "test", "state_dir": "state", "encryption": "none", "databases": {"shop": shop},
        "storage": {"disk": {"type": "local", "path": "gone"}, "cold": cold},
    }  # fmt: skip
    (folder / "plan.yaml").write_text(yaml.dump(plan))
    env = {**os.environ, "DR_PLAN": str(folder / "plan.yaml"), "KEY": "testtest"}
    to = ("restore", "shop", "--to", str(folder / "restored"), "--tier", "archive")

    (tier,) = dr(env, *to, "--preview")["tiers"]
    packs = sum(pack.size for pack in saved.full.archive.packs)
    assert tier["offline_bytes"] >= packs and tier["cost"] == pytest.approx(tier["offline_bytes"] / 1e9 * 5e6)
    assert tier["recall_seconds"] == 5 * 3600 and tier["arriving_objects"] == 0
    told = dr(env, *to, code=31)
    assert "all were asked for just now" in told["error"] and told["exit_code"] == 31
    assert "--wait" in told["hint"] and not (folder / "restored").exists()
    finish_restores(strict_s3)
    report = dr(env, *to)
    with running(Path(report["data_dir"])) as recovered:
        assert recovered.psql("SELECT count(*) FROM orders") == "200"


@dataclass
class Memory:
    """An archive in memory, where asking takes 15 hours; each look of a restore that waits takes one."""

    clock: FixedClock
    store: MemoryStore
    archive: Archive


@pytest.fixture
def memory(saved: Saved) -> Memory:
    clock = FixedClock(NOW)
    store = MemoryStore("cold", clock, classes=("Cool", "Archive"), offline=("Archive",), latency=HOURS * _HOUR)
    return Memory(clock, store, archive_on(store, "Archive", lambda: clock.advance(_HOUR), AZURE, saved))


def test_a_restore_waits_and_goes_on_by_itself(saved: Saved, memory: Memory, folder: Path) -> None:
    report = memory.archive.restore(saved, folder, wait=True)
    assert rows(report) == 200
    assert len(memory.archive.clock.waited) == HOURS and "recall" in report.phases
    assert any("waiting for it" in note for note in report.notes)


def test_wal_beyond_the_target_and_what_is_at_hand_are_not_asked_for(
    saved: Saved, memory: Memory, folder: Path
) -> None:
    first, *others = (pack.key for pack in saved.full.archive.packs)
    memory.store.recall(first)
    memory.clock.advance(HOURS * _HOUR)
    with pytest.raises(RecallPending):
        memory.archive.restore(saved, folder, target=RecoveryTarget("lsn", saved.between))
    asked = {key for key, _ in memory.archive.store.recalled}
    wal = {key for key in asked if key not in others}
    assert asked >= set(others) and first not in asked
    assert len(wal) == saved.between.value // SEGMENT - saved.full.start_lsn.value // SEGMENT + 1
    memory.clock.advance(HOURS * _HOUR)
    report = memory.archive.restore(saved, folder, target=RecoveryTarget("lsn", saved.between))
    assert rows(report) == 100


class _Aging(Forwarding):
    """The tier's WAL moves to its offline class as soon as a pack is read."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store)
        self._memory = store

    def open(self, key: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        if "/packs/" in key:
            for info in self._memory.list():
                if "/wal/" in info.key and role_of(info.key) is Role.BULK:
                    self._memory.set_class(info.key, "Archive")
        return super().open(key, offset=offset, length=length)


@pytest.mark.parametrize(("kind", "wait"), [("latest", True), ("latest", False), ("lsn", False)])
def test_wal_that_turns_out_offline_in_replay_is_asked_for_too(
    saved: Saved, folder: Path, kind: str, wait: bool
) -> None:
    target = LATEST if kind == "latest" else RecoveryTarget("lsn", saved.between)
    clock = FixedClock(NOW)
    store = MemoryStore("cold", clock, classes=("Cool", "Archive"), offline=("Archive",), latency=HOURS * _HOUR)
    archive = archive_on(store, "Cool", lambda: clock.advance(_HOUR), AZURE, saved)
    archive = replace(archive, repository=Repository(_Aging(store), Codec(1), "archive"))
    if wait:
        assert rows(archive.restore(saved, folder, wait=True)) == 200
        assert len(archive.clock.waited) == HOURS
        return
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(RecallPending, match="all were asked for just now"):
        archive.restore(saved, folder, target=target)
    assert sorted(path.name for path in folder.iterdir()) == before


def test_a_tier_at_hand_comes_before_one_that_must_be_recalled(saved: Saved, memory: Memory, folder: Path) -> None:
    request = replace(saved.live.request(folder / "restored"), terms={"archive": memory.archive.terms})
    tiers = [memory.archive.repository, Repository(saved.primary.store, Codec(1), "secondary")]
    seen = preview(request, tiers, runner=Runner(), progress=Silent())
    assert [(tier.tier, tier.is_chosen) for tier in seen.tiers] == [("archive", False), ("secondary", True)]
    report = restore(request, tiers, clock=memory.archive.clock, runner=Runner(), progress=Silent())
    assert (report.tier, memory.archive.store.recalled) == ("secondary", [])
