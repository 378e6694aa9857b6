"""The plan's stores opened through Dagster's own resources do on real servers what the bare ones do."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dr_pipelines.clock import SystemClock
from dr_pipelines.embedded.stores import EmbeddedS3
from dr_pipelines.errors import ObjectExists, SecretMissing
from dr_pipelines.plan.references import Secret
from dr_pipelines.plan.stores import AzureStorePlan, LockPlan, S3StorePlan, StorePlan
from dr_pipelines.storage.base import Body, ObjectStore, read_all
from dr_pipelines.storage.open import open_store
from tests.support.stores import AZURITE_KEY, azurite_container, moto_bucket, rclone_bucket

Keep = Callable[[str], Secret]


@pytest.fixture
def keep(tmp_path: Path) -> Keep:
    """Puts a secret where a plan finds it."""

    def kept(secret: str) -> Secret:
        path = tmp_path / f"secret-{len(list(tmp_path.iterdir()))}"
        path.write_text(secret)
        return Secret(f"${{FILE:{path}}}", tmp_path)

    return kept


def _opened(plan: StorePlan) -> ObjectStore:
    from dr_pipelines.store_resources import open_through_dagster  # seconds to import

    return open_through_dagster("tier", plan, SystemClock())


def _assert_serves(store: ObjectStore) -> None:
    for key in ("a/b", "a/c"):
        store.put(key, Body.of(b"content"))
    assert read_all(store, "a/b") == b"content"
    with pytest.raises(ObjectExists):
        store.put("a/b", Body.of(b"other"))
    store.delete("a/c")
    assert [(info.key, info.size) for info in store.list()] == [("a/b", 7)]


def test_rclone(shared_s3: EmbeddedS3, keep: Keep) -> None:
    (client, bucket), access = rclone_bucket(shared_s3), shared_s3.access
    plan = S3StorePlan(
        type="s3",
        endpoint=access.endpoint,
        bucket=bucket,
        prefix="some/prefix",
        access_key_id=keep(access.access_key_id),
        secret_access_key=keep(access.secret_access_key),
    )
    _assert_serves(_opened(plan))
    assert client.get_object(Bucket=bucket, Key="some/prefix/a/b")["Body"].read() == b"content"


def test_moto_as_aws(moto_port: int, keep: Keep) -> None:
    client, bucket = moto_bucket(moto_port)
    endpoint, key = f"http://127.0.0.1:{moto_port}", keep("test")
    plan = S3StorePlan(
        type="s3", profile="aws", endpoint=endpoint, bucket=bucket, access_key_id=key, secret_access_key=key
    )
    store = _opened(plan)
    assert store.capabilities.conditional_put
    _assert_serves(store)
    assert client.get_object(Bucket=bucket, Key="a/b")["Body"].read() == b"content"


@pytest.mark.parametrize("opened", [_opened, lambda plan: open_store(plan, "tier", clock=SystemClock())])
@pytest.mark.parametrize(("lock", "mode"), [({"mode": "governance"}, "GOVERNANCE"), ({}, "COMPLIANCE")])
def test_objects_are_locked_in_the_plan_s_mode(
    moto_port: int, keep: Keep, opened: Callable[[StorePlan], ObjectStore], lock: dict[str, Any], mode: str
) -> None:
    client, bucket = moto_bucket(moto_port, ObjectLockEnabledForBucket=True)
    endpoint, key = f"http://127.0.0.1:{moto_port}", keep("test")
    plan = S3StorePlan(
        type="s3", profile="aws", endpoint=endpoint, bucket=bucket, prefix="some/prefix", lock=LockPlan(**lock),
        access_key_id=key, secret_access_key=key,
    )  # fmt: skip
    opened(plan).put("a", Body.of(b"x"), retain_until=datetime.now(UTC) + timedelta(days=1))
    assert client.head_object(Bucket=bucket, Key="some/prefix/a")["ObjectLockMode"] == mode


@pytest.mark.parametrize("by", ["key", "token"])
def test_azurite(azurite_port: int, keep: Keep, by: str) -> None:
    from azure.storage.blob import ContainerSasPermissions, generate_container_sas

    account = f"http://127.0.0.1:{azurite_port}"
    container = azurite_container(account)
    token = generate_container_sas(
        "devstoreaccount1",
        container.container_name,
        AZURITE_KEY,
        permission=ContainerSasPermissions(read=True, write=True, delete=True, list=True),
        expiry=datetime.now(UTC) + timedelta(hours=1),
    )
    plan = AzureStorePlan(
        type="azure",
        account_url=f"{account}/devstoreaccount1",
        container=container.container_name,
        account_key=keep(AZURITE_KEY) if by == "key" else None,
        sas_token=keep(token) if by == "token" else None,
    )
    _assert_serves(_opened(plan))
    assert container.download_blob("a/b").readall() == b"content"


def test_a_run_needs_the_secrets_of_its_own_tier_only(shared_s3: EmbeddedS3, keep: Keep, tmp_path: Path) -> None:
    from dr_pipelines.plan.model import Plan
    from dr_pipelines.store_resources import LazyStores

    there, absent = keep("x"), Secret(f"${{FILE:{tmp_path / 'absent'}}}", tmp_path)
    plans = {
        name: S3StorePlan(
            type="s3", endpoint=shared_s3.access.endpoint, bucket="bucket", access_key_id=key, secret_access_key=key
        )
        for name, key in (("near", there), ("far", absent))
    }
    stores = LazyStores(Plan.model_construct(storage=plans), SystemClock())
    assert [*stores] == ["near", "far"]
    assert stores["near"] is stores["near"]
    with pytest.raises(SecretMissing):
        stores["far"]
