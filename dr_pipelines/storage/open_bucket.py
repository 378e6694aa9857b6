"""From the plan's words to a bucket of other people's objects, trying again what is transient."""

from __future__ import annotations

from dr_pipelines.clock import Clock
from dr_pipelines.errors import PlanError
from dr_pipelines.plan.stores import AzureStorePlan, S3StorePlan, StorePlan
from dr_pipelines.storage.attempts import Attempts
from dr_pipelines.storage.bucket import Bucket
from dr_pipelines.storage.bucket_service import BucketService
from dr_pipelines.storage.open import container, s3_client
from dr_pipelines.storage.retrying_bucket import RetryingBucket


def open_bucket(plan: StorePlan, name: str, *, clock: Clock) -> Bucket:
    """The same place as `open_store` opens. No connection is made yet. Raises `SecretMissing`, and `PlanError` for a
    directory, which is none."""
    return RetryingBucket(_service(plan, name), Attempts(clock), prefix=plan.prefix)


def _service(plan: StorePlan, name: str) -> BucketService:
    if isinstance(plan, S3StorePlan):
        from dr_pipelines.storage.s3_objects import S3Objects

        return S3Objects(s3_client(plan), plan.bucket, name, profile=plan.profile)
    if isinstance(plan, AzureStorePlan):
        from dr_pipelines.storage.azure_objects import AzureObjects

        return AzureObjects(container(plan), name)
    raise PlanError(f"{name} is a directory, not a bucket", hint="write the source as type: directory, with its path.")
