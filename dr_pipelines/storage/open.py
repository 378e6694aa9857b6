"""From the plan's words to a store: the right one, under its prefix, trying again what is transient."""

from __future__ import annotations

from typing import Any

from dr_pipelines.clock import Clock
from dr_pipelines.plan.stores import AzureStorePlan, S3StorePlan, StorePlan
from dr_pipelines.storage.base import ObjectStore
from dr_pipelines.storage.local import LocalStore
from dr_pipelines.storage.wrappers import Prefixed, Retrying


def open_store(plan: StorePlan, name: str, *, clock: Clock) -> ObjectStore:
    """No connection is made yet. Raises `SecretMissing`."""
    return wrapped(_bare(plan, name), plan.prefix, clock)


def wrapped(store: ObjectStore, prefix: str, clock: Clock) -> ObjectStore:
    """A bare store as everything else uses it."""
    retrying = Retrying(store, clock)
    return Prefixed(retrying, prefix) if prefix.strip("/") else retrying


# The SDKs are slow to import and a plan seldom needs both.


def _bare(plan: StorePlan, name: str) -> ObjectStore:
    if isinstance(plan, S3StorePlan):
        from dr_pipelines.storage.s3 import S3Store

        return S3Store(s3_client(plan), plan.bucket, name, profile=plan.profile, lock_mode=plan.lock_mode)
    if isinstance(plan, AzureStorePlan):
        from dr_pipelines.storage.azure import AzureStore

        return AzureStore(container(plan), name, lock=plan.lock.mode if plan.lock else None)
    return LocalStore(plan.path, name)


def s3_client(plan: S3StorePlan) -> Any:
    from dr_pipelines.storage.s3 import make_client

    return make_client(
        endpoint=plan.endpoint,
        region=plan.region,
        access_key_id=plan.access_key_id.reveal() if plan.access_key_id else None,
        secret_access_key=plan.secret_access_key.reveal() if plan.secret_access_key else None,
    )


def container(plan: AzureStorePlan) -> Any:
    from dr_pipelines.storage.azure_container import make_container_client

    secret = plan.account_key or plan.sas_token
    return make_container_client(
        plan.account_url,
        plan.container,
        credential=secret.reveal() if secret else None,
        api_version=plan.api_version,
    )
