"""Stores as the plan writes them: buckets, containers, directories, and how objects lie in them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, model_validator

from dr_pipelines.plan.addresses import Address, Bucket, Prefix, same_address
from dr_pipelines.plan.classes import StorageClass
from dr_pipelines.plan.references import Secret
from dr_pipelines.plan.values import Days, Duration, Model, left_out


def _from_base(value: Any, info: ValidationInfo) -> Any:
    """Paths are relative to the plan's folder; `~` is the home of whoever reads the plan."""
    if not isinstance(value, str | Path):
        raise ValueError("write the path as text")
    if not str(value) or "\0" in str(value):
        raise ValueError("not a path")
    try:
        return (info.context or {}).get("base", Path()) / Path(value).expanduser()
    except RuntimeError:
        raise ValueError("nobody of this name has a home here") from None


PlanPath = Annotated[Path, BeforeValidator(_from_base)]

_OF_AWS = r"(^|[/.])s3[.-][a-z0-9.-]*amazonaws\.com$"
"""A bucket's name is one in all of AWS, by whichever address."""


class LockPlan(Model):
    """Objects of this store are immutable for as long as retention keeps them. Naming it is requiring it: a store that
    cannot lock then fails its check."""

    mode: Literal["compliance", "governance"] = "compliance"


class AgedClassPlan(Model):
    """Packs and WAL are in the storage class `name` once they are as old as `after`. What recovery is planned with
    (manifests, marks, evidence) always stays in the store's ordinary class."""

    name: str = Field(min_length=1)
    after: Duration = Field(default="0 minutes", validate_default=True)


class PricePlan(Model):
    """What a storage class costs, in the currency of the operator's bill: `keep` a GB and month, `read` a GB."""

    keep: float = Field(ge=0)
    read: float = Field(default=0, ge=0)


class BucketExpectations(Model):
    """How the bucket must be set up; what is not named is not compared. `rules`: lifecycle rules by name that may
    remove or move current objects; any other that does is drift."""

    versioning: bool | None = None
    encryption: str | None = None
    default_lock: Days | None = None
    rules: tuple[str, ...] = ()


class _Kept(Model):
    """What holds for stores of any kind that a company rents."""

    lock: LockPlan | None = None
    classes: tuple[AgedClassPlan, ...] = ()
    prices: dict[str, PricePlan] = {}
    settings: BucketExpectations = left_out()

    def price_of(self, facts: StorageClass, *, urgent: bool = False) -> PricePlan:
        """The plan's own, or else the rough list price in US dollars."""
        read = facts.urgent_read if urgent else facts.read
        return self.prices.get(facts.name) or PricePlan(keep=facts.keep, read=read)


class S3StorePlan(_Kept):
    """A bucket of any S3-compatible endpoint. Without keys, AWS's own chain of credentials is used."""

    type: Literal["s3"]
    profile: Literal["aws", "supabase", "generic"] = "generic"
    endpoint: Address | None = None
    region: str = "us-east-1"
    bucket: Bucket
    prefix: Prefix = ""
    access_key_id: Secret | None = None
    secret_access_key: Secret | None = None

    @model_validator(mode="after")
    def _whole(self) -> S3StorePlan:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("access_key_id and secret_access_key come together")
        if self.profile != "aws" and self.endpoint is None:
            raise ValueError(f"profile {self.profile} needs an endpoint")
        return self

    @property
    def lock_mode(self) -> Literal["COMPLIANCE", "GOVERNANCE"]:
        """As S3 writes it."""
        return "GOVERNANCE" if self.lock is not None and self.lock.mode == "governance" else "COMPLIANCE"

    @property
    def place(self) -> tuple[str, ...]:
        """Where it is, for comparing two stores."""
        where = "aws" if self.endpoint is None else same_address(self.endpoint)
        return ("s3", "aws" if re.search(_OF_AWS, where) else where, self.bucket.lower())


class AzureStorePlan(_Kept):
    """A container of Azure Blob Storage. Without a key or token, Azure's default credential is used."""

    type: Literal["azure"]
    account_url: Address
    container: Bucket
    prefix: Prefix = ""
    account_key: Secret | None = None
    sas_token: Secret | None = None
    api_version: str | None = None

    @property
    def place(self) -> tuple[str, ...]:
        return ("azure", same_address(self.account_url), self.container)


class LocalStorePlan(Model):
    """A directory of this machine."""

    type: Literal["local"]
    path: PlanPath
    prefix: Prefix = ""

    @property
    def place(self) -> tuple[str, ...]:
        return ("local", str(self.path.resolve()))


StorePlan = Annotated[S3StorePlan | AzureStorePlan | LocalStorePlan, Field(discriminator="type")]
