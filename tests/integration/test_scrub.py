"""`dr scrub` over HTTP: bytes that go bad on the disk of one store are repaired from a bucket of another; what both
have lost is named and marked; an overwritten object of a versioned bucket is healed by its own old version."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from dr_pipelines import operations
from dr_pipelines.checks import Verdict
from dr_pipelines.clock import SystemClock
from dr_pipelines.commands import Completed
from dr_pipelines.embedded.stores import EmbeddedS3, S3Access
from dr_pipelines.operations import ScrubReport
from dr_pipelines.plan import load_plan
from dr_pipelines.progress import Silent
from dr_pipelines.replication.repair import State
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.repository import Repository
from dr_pipelines.site import Site
from dr_pipelines.storage.base import Body, ObjectStore, read_all
from dr_pipelines.storage.s3 import S3Store
from dr_pipelines.storage.wrappers import Retrying
from tests.support import forked
from tests.support.stores import moto_bucket, rclone_client
from tests.support.tiers import BACKUPS, CHILD, FIRST, FULL, content, tier


@dataclass
class Tiers:
    """The primary's objects are files in `disk`; the secondary's bucket has versions and locks."""

    folder: Path
    disk: Path
    primary: ObjectStore
    secondary: ObjectStore
    client: Any
    bucket: str
    access: S3Access

    def dr(self, *argv: str) -> Completed:
        secrets = {
            "DISK_KEY": self.access.access_key_id, "DISK_SECRET": self.access.secret_access_key,
            "BUCKET_KEY": "test", "BUCKET_SECRET": "testtest",
        }  # fmt: skip
        env = {**os.environ, "DR_PLAN": str(self.folder / "plan.yaml"), **secrets}
        return forked.dr(*argv, env=env)

    def scrub(self, where: str, *, repair: bool = True) -> ScrubReport:
        site = Site(load_plan(self.folder / "plan.yaml"), stores={"disk": self.primary, "bucket": self.secondary})
        return operations.scrub(site, where, Silent(), repair=repair)

    def spoil_for_good(self, key: str) -> None:
        """In the bucket, with no old version left."""
        there = {"Bucket": self.bucket, "Key": key}
        self.client.delete_object(**there, VersionId=self.client.head_object(**there)["VersionId"])
        self.secondary.put(key, Body.of(b"so has the other one"))

    def flip(self, key: str) -> None:
        path = self.disk / key
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)


@pytest.fixture
def tiers(s3_server: EmbeddedS3, moto_port: int, tmp_path: Path) -> Tiers:
    client, bucket = moto_bucket(moto_port, ObjectLockEnabledForBucket=True)
    access = s3_server.access
    keys = {"access_key_id": "${ENV:DISK_KEY}", "secret_access_key": "${ENV:DISK_SECRET}"}
    moto = {
        "access_key_id": "${ENV:BUCKET_KEY}",
        "secret_access_key": "${ENV:BUCKET_SECRET}",
        "endpoint": f"http://127.0.0.1:{moto_port}",
    }
    plan = {
        "version": 1, "name": "test", "encryption": "none",
        "storage": {
            "disk": {"type": "s3", "endpoint": access.endpoint, "bucket": "bucket", **keys},
            "bucket": {"type": "s3", "profile": "generic", "bucket": bucket, "lock": {}, **moto},
        },
        "databases": {"shop": {
            "connection": {"host": "db"}, "schedule": {"full": "daily"},
            "storage": {"primary": "disk", "secondary": "bucket"},
        }},
    }  # fmt: skip
    (tmp_path / "plan.yaml").write_text(yaml.dump(plan))
    found = Tiers(
        tmp_path,
        tmp_path / "s3" / "bucket",
        # Bytes are changed behind the server's back: it may need a moment, as any store may.
        Retrying(S3Store(rclone_client(s3_server), "bucket", "disk"), SystemClock()),
        Retrying(S3Store(client, bucket, "bucket", profile="aws"), SystemClock()),
        client,
        bucket,
        access,
    )
    tier("primary", store=found.primary)
    tier("secondary", store=found.secondary)
    return found


def test_a_tier_is_repaired_from_the_other_and_what_both_lost_is_named_and_marked(tiers: Tiers) -> None:
    whole = content(tier("primary"))
    pack = FULL.archive.packs[0].key
    wal = next(key for key in whole if "000000000006." in key)
    for key in (pack, wal):
        tiers.flip(key)
    shutil.rmtree(tiers.disk / BACKUPS[2].layout.prefix / "packs")
    report = tiers.scrub("primary")
    assert report.check.passed
    assert {outcome.fault.key: (outcome.state, outcome.by) for outcome in report.outcomes} == {
        key: (State.REPAIRED, "secondary") for key in (pack, wal, BACKUPS[2].archive.packs[0].key)
    }
    assert content(Repository(tiers.primary, Codec(1), "primary")) == whole
    evidence = json.loads(read_all(tiers.primary, report.evidence or ""))
    assert len(evidence["servers"][0]["faults"]) == 3
    assert evidence["verdict"] == "pass"

    damaged = (FULL.archive.packs[0].key, next(key for key in whole if "000000000004." in key))
    for key in damaged:
        tiers.flip(key)
        tiers.spoil_for_good(key)
    assert tiers.scrub("primary", repair=False).check.verdict is Verdict.FAIL
    assert not [*tiers.primary.list(FULL.layout.damages)]
    told = tiers.dr("scrub", "primary")
    assert told.returncode == 11
    for line in (f"lost: {FIRST}: {damaged[0]} is damaged", f"lost: {CHILD}: it builds on {FIRST}"):
        assert line in told.stdout
    assert "lost: every instant after 0/400000" in told.stdout


def test_what_was_overwritten_or_deleted_in_a_versioned_bucket_is_healed_by_its_old_version(tiers: Tiers) -> None:
    whole = content(tier("secondary"))
    packs = [made.archive.packs[0].key for made in BACKUPS]
    shutil.rmtree(tiers.disk / "servers")  # the other tier has nothing
    tiers.secondary.put(packs[0], Body.of(b"overwritten by a thief"), if_absent=False)
    tiers.secondary.delete(packs[1])
    report = tiers.scrub("secondary")
    assert report.check.passed
    assert [outcome.by for outcome in report.outcomes] == ["an old version on secondary"] * 2
    assert content(Repository(tiers.secondary, Codec(1), "secondary")) == whole

    for key, data in whole.items():  # as replication would
        tiers.primary.put(key, Body.of(data))
    tiers.flip(packs[2])
    tiers.secondary.put(packs[2], Body.of(b"overwritten by a thief"), if_absent=False)
    report = tiers.scrub("primary")
    assert [outcome.by for outcome in report.outcomes] == ["an old version on secondary"]
    assert content(Repository(tiers.primary, Codec(1), "primary")) == whole
