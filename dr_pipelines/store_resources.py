"""The plan's stores through Dagster's own resources for S3 and Azure Blob, with the settings that backups need.

Imported inside a run only: dagster-aws and dagster-azure take seconds to import.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dagster_aws.s3 import S3Resource
from dagster_azure.blob import (
    AzureBlobStorageDefaultCredential,
    AzureBlobStorageKeyCredential,
    AzureBlobStorageResource,
    AzureBlobStorageSASTokenCredential,
)

from dr_pipelines.clock import Clock
from dr_pipelines.plan import Plan
from dr_pipelines.plan.references import Secret
from dr_pipelines.plan.stores import AzureStorePlan, S3StorePlan, StorePlan
from dr_pipelines.storage.azure import AzureStore
from dr_pipelines.storage.azure_container import make_container_client
from dr_pipelines.storage.base import ObjectStore
from dr_pipelines.storage.open import open_store, wrapped
from dr_pipelines.storage.s3 import S3Store, make_client


def _revealed(secret: Secret | None) -> str | None:
    return None if secret is None else secret.reveal()


class TierS3Resource(S3Resource):
    """dagster-aws's resource, whose client has the addressing, checksums, pool and timeouts of our stores."""

    @classmethod
    def of(cls, plan: S3StorePlan) -> TierS3Resource:
        return cls(
            region_name=plan.region,
            endpoint_url=plan.endpoint,
            aws_access_key_id=_revealed(plan.access_key_id),
            aws_secret_access_key=_revealed(plan.secret_access_key),
        )

    def get_client(self) -> Any:
        return make_client(
            endpoint=self.endpoint_url,
            region=self.region_name or "us-east-1",
            access_key_id=self.aws_access_key_id,
            secret_access_key=self.aws_secret_access_key,
        )


class TierAzureResource(AzureBlobStorageResource):
    """dagster-azure's resource, which also gives the client of one container."""

    @classmethod
    def of(cls, plan: AzureStorePlan) -> TierAzureResource:
        return cls(account_url=plan.account_url, credential=_azure_credential(plan))

    def container_client(self, container: str, api_version: str | None) -> Any:
        return make_container_client(
            self.account_url, container, credential=self._raw_credential(), api_version=api_version
        )


def _azure_credential(plan: AzureStorePlan) -> Any:
    if plan.account_key is not None:
        return AzureBlobStorageKeyCredential(key=plan.account_key.reveal())
    if plan.sas_token is not None:
        return AzureBlobStorageSASTokenCredential(token=plan.sas_token.reveal())
    return AzureBlobStorageDefaultCredential()


def open_through_dagster(name: str, plan: StorePlan, clock: Clock) -> ObjectStore:
    if isinstance(plan, S3StorePlan):
        client = TierS3Resource.of(plan).get_client()
        store: ObjectStore = S3Store(client, plan.bucket, name, profile=plan.profile, lock_mode=plan.lock_mode)
    elif isinstance(plan, AzureStorePlan):
        container = TierAzureResource.of(plan).container_client(plan.container, plan.api_version)
        store = AzureStore(container, name, lock=plan.lock.mode if plan.lock else None)
    else:
        return open_store(plan, name, clock=clock)
    return wrapped(store, plan.prefix, clock)


class LazyStores(Mapping[str, ObjectStore]):
    """The plan's stores by name, each opened when it is first asked for: a run needs the secrets of its tier only."""

    def __init__(self, plan: Plan, clock: Clock) -> None:
        self._plan, self._clock = plan, clock
        self._open: dict[str, ObjectStore] = {}

    def __getitem__(self, name: str) -> ObjectStore:
        if name not in self._open:
            self._open[name] = open_through_dagster(name, self._plan.storage[name], self._clock)
        return self._open[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._plan.storage)

    def __len__(self) -> int:
        return len(self._plan.storage)
