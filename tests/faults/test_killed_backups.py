"""Backups that are killed, and several that begin at once: what they leave hinders no other."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from dr_pipelines import operations
from dr_pipelines.clock import FixedClock, SystemClock
from dr_pipelines.embedded.postgres import EmbeddedPostgres
from dr_pipelines.embedded.stores import EmbeddedS3
from dr_pipelines.plan import load_plan
from dr_pipelines.progress import Silent
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.repository.repository import Repository
from dr_pipelines.site import Site
from dr_pipelines.storage.s3 import S3Store
from dr_pipelines.storage.wrappers import Retrying
from tests.support.forked import Forked
from tests.support.programs import StreamProgram, write_plan
from tests.support.stores import rclone_bucket
from tests.support.streams import insert, restored_ids

CLOCK = SystemClock()


def kill_a_backup(plan: Path, once: str) -> str:
    """SIGKILL to `dr backup` as soon as there is a file of its that matches `once`; the label that it leaves."""
    backups = plan.parent / "disk" / "servers" / "shop" / "backups"
    while True:
        before = set(backups.glob("*"))
        process = Forked(["backup", "shop"], {**os.environ, "DR_PLAN": str(plan)})
        while not (found := [path for path in backups.glob(f"*/{once}") if path.parents[1] not in before]):
            assert not process.ended()
            CLOCK.wait(0.002)
        process.kill()
        if not (found[0].parents[1] / "manifest.json").exists():
            return found[0].parents[1].name
        shutil.rmtree(found[0].parents[1])  # it was faster: as if it had never been


def test_what_killed_backups_leave_hinders_nothing(postgres18: EmbeddedPostgres, folder: Path) -> None:
    server, plan = postgres18, write_plan(folder, postgres18)
    site = Site(load_plan(plan))
    repository = site.repository("shop", "primary")
    repository.initialise()
    server.psql("CREATE TABLE filler AS SELECT repeat('x', 2000) FROM generate_series(1, 45000)")
    server.psql("CREATE TABLE t (id int, note text)")
    left = [kill_a_backup(plan, "claims/*.json"), kill_a_backup(plan, "packs/*.zst")]
    assert list(operations.list_backups(site, "shop").unfinished) == left
    assert not repository.backups("shop")

    with StreamProgram(plan) as stream:
        stream.until_streaming()
        full = operations.take_backup(site, "shop", BackupKind.FULL, Silent())
        assert isinstance(full, BackupManifest)
        left.append(kill_a_backup(plan, "packs/*.zst"))
        insert(server, 1)
        incremental = operations.take_backup(site, "shop", BackupKind.INCREMENTAL, Silent())
        assert isinstance(incremental, BackupManifest)
        assert incremental.parent == full.label
        insert(server, 2)
        assert stream.stop()[0] == 0
    catalog = operations.list_backups(site, "shop")
    assert ([backup.label for backup in catalog.backups], catalog.problems) == ([full.label, incremental.label], ())
    assert sorted(catalog.unfinished) == sorted(left)
    for label in (full.label, incremental.label):
        assert all(check.passed for check in operations.verify_backup(site, "shop", label, "primary", Silent()))
    assert operations.wal_has_no_gap(site, "shop").passed
    assert restored_ids(repository, folder / "restored") == [1, 2]


def test_writers_that_begin_at_once_have_labels_of_their_own(shared_s3: EmbeddedS3, codec: Codec) -> None:
    """On a store that ignores conditions on a put."""
    client, bucket = rclone_bucket(shared_s3)
    store = Retrying(S3Store(client, bucket, name="primary"), CLOCK)  # as it is used: rclone may be too busy
    repository = Repository(store, codec, "primary")
    repository.initialise()
    clocks = [FixedClock(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)) for _ in range(6)]
    with ThreadPoolExecutor(len(clocks)) as pool:
        writers = list(pool.map(lambda clock: repository.begin("shop", BackupKind.FULL, clock=clock), clocks))
    assert len({writer.label for writer in writers}) == len(clocks)
