"""The canary against S3's own rules, and against a service that has holes."""

from __future__ import annotations

from dr_pipelines.checks import Verdict
from dr_pipelines.clock import SystemClock
from dr_pipelines.replication.immutability import locks_hold
from dr_pipelines.repository import layout
from dr_pipelines.storage.base import read_all
from dr_pipelines.storage.s3 import S3Store
from tests.support.stores import moto_bucket


def _store(port_or_endpoint: int | str) -> S3Store:
    client, bucket = moto_bucket(port_or_endpoint, ObjectLockEnabledForBucket=True)
    return S3Store(client, bucket, "bucket", profile="aws")


def test_locks_of_s3_hold(strict_s3: str) -> None:
    store = _store(strict_s3)
    check = locks_hold(store, "secondary", clock=SystemClock())
    assert check.passed, check
    assert len(check.details["tries"]) > 4
    (evidence,) = store.list(layout.EVIDENCE)
    assert check.details["canary"].encode() in read_all(store, evidence.key)


def test_a_service_that_lets_a_lock_be_shortened_is_found_out(moto_port: int) -> None:
    check = locks_hold(_store(moto_port), "secondary", clock=SystemClock())
    assert check.verdict is Verdict.FAIL
    assert "credentials" in check.summary


def test_a_bucket_without_lock_fails(moto_port: int) -> None:
    client, bucket = moto_bucket(moto_port)
    check = locks_hold(S3Store(client, bucket, "bucket", profile="aws"), "secondary", clock=SystemClock())
    assert check.verdict is Verdict.FAIL
    assert "cannot lock" in check.summary
