"""The primary is lost with its server; what was replicated brings everything back."""

from __future__ import annotations

from pathlib import Path

from dr_pipelines.clock import SystemClock
from dr_pipelines.embedded.postgres import EmbeddedPostgres
from dr_pipelines.embedded.stores import EmbeddedS3
from dr_pipelines.operations import replica_equals, replica_is_current, replicate
from dr_pipelines.progress import Silent
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.repository.repository import Repository
from dr_pipelines.storage.s3 import S3Store
from dr_pipelines.storage.wrappers import Retrying
from tests.support.live import Live, running
from tests.support.replicas import Counting, site_of
from tests.support.stores import moto_bucket, rclone_bucket

CLOCK = SystemClock()


def test_the_secondary_alone_brings_everything_back(
    postgres18: EmbeddedPostgres, folder: Path, shared_s3: EmbeddedS3, moto_port: int, codec: Codec
) -> None:
    """From one S3 server to another, encrypted, by a site that has no key."""
    server = postgres18
    primary = Counting(Retrying(S3Store(*rclone_bucket(shared_s3), name="primary"), CLOCK))
    secondary = Counting(Retrying(S3Store(*moto_bucket(moto_port), name="secondary", profile="aws"), CLOCK))
    takes = Codec(1, [str(recipient) for recipient in codec.recipients])
    repository = Repository(primary, takes, "primary")
    for store in (primary, secondary):
        Repository(store, takes, store.name).initialise()
    site = site_of({"primary": primary, "secondary": secondary}, clock=CLOCK)
    live = Live(server, repository, folder / "state")
    server.psql("CREATE TABLE orders AS SELECT g AS id FROM generate_series(1, 1000) g")
    with live.streaming():
        full = live.take(BackupKind.FULL)
        server.psql("INSERT INTO orders VALUES (1001)")
        assert replicate(site, "shop", "secondary", Silent()).labels == (full.label,)
        incremental = live.take(BackupKind.INCREMENTAL)
        server.psql("INSERT INTO orders VALUES (1002)")
        server.destroy()
    secondary.puts.clear()
    report = replicate(site, "shop", "secondary", Silent())
    assert report.labels == (incremental.label,)
    assert not [key for key in secondary.puts if full.label in key]  # what is there is not copied again
    secondary.puts.clear()
    assert replicate(site, "shop", "secondary", Silent()).wal_objects == 0
    assert secondary.puts == []
    assert replica_is_current(site, "shop", "secondary").passed
    for label in (full.label, incremental.label):
        assert replica_equals(site, "shop", label, "secondary").passed

    for info in [*primary.list()]:
        primary.delete(info.key)
    lost = Live(server, Repository(secondary, codec, "secondary"), folder / "state")
    for use_incrementals in ("always", "never"):
        restored = lost.restore(folder / use_incrementals, use_incrementals=use_incrementals)
        with running(restored.data_dir) as recovered:
            assert recovered.psql("SELECT count(*) FROM orders") == "1002"
