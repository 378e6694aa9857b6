"""From the plan's words to a store or a bucket: the right one, under its prefix, trying again what is transient."""

from __future__ import annotations

from typing import Any

from dr_pipelines.clock import Clock
from dr_pipelines.errors import PlanError
from dr_pipelines.plan.stores import AzureStorePlan, S3StorePlan, StorePlan
from dr_pipelines.storage.attempts import Attempts
from dr_pipelines.storage.base import ObjectStore
from dr_pipelines.storage.bucket import Bucket
from dr_pipelines.storage.bucket_service import BucketService
from dr_pipelines.storage.local import LocalStore
from dr_pipelines.storage.retrying_bucket import RetryingBucket
from dr_pipelines.storage.wrappers import Prefixed, Retrying


def open_store(plan: StorePlan, name: str, *, clock: Clock) -> ObjectStore:
    """No connection is made yet. Raises `SecretMissing`."""
    return wrapped(_bare(plan, name), plan.prefix, clock)


def open_bucket(plan: StorePlan, name: str, *, clock: Clock) -> Bucket:
    """The same place as a bucket of other people's objects. No connection is made yet. Raises `SecretMissing`, and
    `PlanError` for a directory, which is none."""
    return RetryingBucket(_service(plan, name), Attempts(clock), prefix=plan.prefix)


def wrapped(store: ObjectStore, prefix: str, clock: Clock) -> ObjectStore:
    """A bare store as everything else uses it."""
    retrying = Retrying(store, clock)
    return Prefixed(retrying, prefix) if prefix.strip("/") else retrying


# The SDKs are slow to import and a plan seldom needs both.


def _bare(plan: StorePlan, name: str) -> ObjectStore:
    if isinstance(plan, S3StorePlan):
        from dr_pipelines.storage.s3 import S3Store

        return S3Store(_s3_client(plan), plan.bucket, name, profile=plan.profile, lock_mode=plan.lock_mode)
    if isinstance(plan, AzureStorePlan):
        from dr_pipelines.storage.azure import AzureStore

        return AzureStore(_container(plan), name, lock=plan.lock.mode if plan.lock else None)
    return LocalStore(plan.path, name)


def _service(plan: StorePlan, name: str) -> BucketService:
    if isinstance(plan, S3StorePlan):
        from dr_pipelines.storage.s3_objects import S3Objects

        return S3Objects(_s3_client(plan), plan.bucket, name, profile=plan.profile)
    if isinstance(plan, AzureStorePlan):
        from dr_pipelines.storage.azure_objects import AzureObjects

        return AzureObjects(_container(plan), name)
    raise PlanError(f"{name} is a directory, not a bucket", hint="write the source as type: directory, with its path.")


def _s3_client(plan: S3StorePlan) -> Any:
    from dr_pipelines.storage.s3 import make_client

    return make_client(
        endpoint=plan.endpoint,
        region=plan.region,
        access_key_id=plan.access_key_id.reveal() if plan.access_key_id else None,
        secret_access_key=plan.secret_access_key.reveal() if plan.secret_access_key else None,
    )


def _container(plan: AzureStorePlan) -> Any:
    from dr_pipelines.storage.azure_container import make_container_client

    secret = plan.account_key or plan.sas_token
    return make_container_client(
        plan.account_url,
        plan.container,
        credential=secret.reveal() if secret else None,
        api_version=plan.api_version,
    )
