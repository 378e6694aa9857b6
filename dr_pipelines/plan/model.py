"""The DR plan: what the operator promises, typed. It says nothing about how it is done.

Every section of a company's written plan has its place here. The values are accepted as such plans write them, so
its JSON blocks can be pasted in.
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_serializer, field_validator, model_validator

from dr_pipelines.errors import SecretMissing
from dr_pipelines.plan.file_sets import FileSetPlan
from dr_pipelines.plan.policies import ReplicationPlan, RetentionPlan, ScrubPlan
from dr_pipelines.plan.references import SECRET_PATTERN, Secret, is_reference
from dr_pipelines.plan.stores import PlanPath, StorePlan
from dr_pipelines.plan.tiers import TierPlan
from dr_pipelines.plan.validation import ValidationPlan
from dr_pipelines.plan.values import (
    SLOT_PATTERN,
    Duration,
    Model,
    Name,
    PositiveDuration,
    Recipient,
    Schedule,
    ScheduleField,
    left_out,
)

Steps = tuple[str, ...]


# --- storage ------------------------------------------------------------------------------------------------


class EncryptionPlan(Model):
    """age recipients that backups are encrypted to; the identity is needed only where things are restored."""

    recipients: tuple[Recipient, ...] = Field(min_length=1)
    identity: Secret | None = None

    def public_keys(self) -> tuple[str, ...]:
        """The recipients themselves. Raises `SecretMissing` naming a reference that has no value here."""
        for recipient in self.recipients:
            if is_reference(recipient):
                raise SecretMissing(
                    f"encryption.recipients: {recipient} is not set",
                    hint="export the public key that `dr key new` printed, and run `dr plan check`.",
                )
        return self.recipients


class CompressionPlan(Model):
    """zstd's level, of backups and WAL, and of `files`. Level 1 measured best for a database: level 3 costs three times
    the CPU for the same size. Of text and the like level 2 leaves an eighth less for a sixth more CPU."""

    level: int = Field(default=1, ge=1, le=19)
    files: int = Field(default=2, ge=1, le=19)


# --- databases ----------------------------------------------------------------------------------------------


class ConnectionPlan(Model):
    """How the server is reached, with a role that has REPLICATION."""

    host: str = Field(min_length=1)
    port: int = Field(default=5432, ge=1, le=65535)
    user: str = "postgres"
    dbname: str = "postgres"
    password: Secret | None = None
    sslmode: Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] = "prefer"


class BackupSchedulePlan(Model):
    full: ScheduleField
    incremental: ScheduleField | None = None
    transaction_logs: Literal["continuous"] = "continuous"

    @model_validator(mode="after")
    def _incrementals_lie_between_fulls(self) -> BackupSchedulePlan:
        if self.incremental is not None and self.incremental.interval >= self.full.interval:
            raise ValueError("incrementals must come more often than fulls")
        return self


class WalPlan(Model):
    """The WAL stream. `synchronous` makes a commit wait for the backup host: RPO 0. `slot` defaults to dr_<server>."""

    synchronous: bool = True
    slot: str | None = Field(default=None, pattern=SLOT_PATTERN)
    tiers: tuple[Literal["primary", "secondary", "archive"], ...] = ("primary",)
    ship_open_every: PositiveDuration = Field(default="5 seconds", validate_default=True)


class ServerPlan(Model):
    """One PostgreSQL cluster. `since` is the first day on which Dagster expects backups: set once, when it joins."""

    connection: ConnectionPlan
    schedule: BackupSchedulePlan
    retention: RetentionPlan = left_out()
    storage: TierPlan
    replication: ReplicationPlan = left_out()
    since: date = date(2026, 1, 1)
    wal: WalPlan = left_out()
    validation: ValidationPlan = left_out()
    bin_dir: PlanPath | None = None
    os_user: str | None = None


# --- promises -----------------------------------------------------------------------------------------------


def _rto(value: Any) -> Any:
    return {"rto": value} if isinstance(value, str) else value


def _rpo(value: Any) -> Any:
    return {"rpo": value} if isinstance(value, str) else value


class SystemPlan(Model):
    """A system that must be back within `rto`; `stop`, `start` and `probe` are commands, word by word."""

    rto: PositiveDuration
    server: str | None = None
    depends_on: tuple[str, ...] = ()
    stop: tuple[str, ...] | None = None
    start: tuple[str, ...] | None = None
    probe: tuple[str, ...] | None = None


class DataClassPlan(Model):
    """Data of which at most `rpo` may be lost."""

    rpo: Duration
    server: str | None = None
    tables: tuple[str, ...] = ()
    file_sets: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _tables_are_somewhere(self) -> DataClassPlan:
        if self.tables and self.server is None:
            raise ValueError("tables need the server that they are on")
        return self


System = Annotated[SystemPlan, BeforeValidator(_rto, json_schema_input_type=SystemPlan | str)]
DataClass = Annotated[DataClassPlan, BeforeValidator(_rpo, json_schema_input_type=DataClassPlan | str)]


class RecoveryPlan(Model):
    procedures: dict[Name, Steps] = {}
    scenarios: dict[Name, Steps] = {}


class TestingPlan(Model):
    monthly: Steps = ()
    quarterly: Steps = ()


class Contact(Model):
    name: str
    role: str
    reach: tuple[str, ...] = Field(min_length=1)


class InternalCommunication(Model):
    emergency_contacts: tuple[Contact, ...] = ()
    response_team: tuple[Contact, ...] = ()
    status_update_every: PositiveDuration | None = None
    progress_report_every: PositiveDuration | None = None


class ExternalCommunication(Model):
    customer_notification_template: str | None = None
    status_page: str | None = None
    social_media: tuple[str, ...] = ()
    support_tickets: str | None = None


class CommunicationPlan(Model):
    internal: InternalCommunication = left_out()
    external: ExternalCommunication = left_out()
    channels: dict[Name, Secret] = {}


class DocumentationPlan(Model):
    incident: Steps = ()
    recovery: Steps = ()


# --- the plan -----------------------------------------------------------------------------------------------


class Plan(Model):
    """The whole plan. Sections refer to each other by name; `consistency.mistakes` says where they contradict. `canary`
    is when locked objects are attacked, to prove that they hold."""

    version: Literal[1]
    name: Name
    state_dir: PlanPath = Field(default=".dr", validate_default=True)
    storage: dict[Name, StorePlan] = Field(min_length=1)
    encryption: EncryptionPlan | None
    compression: CompressionPlan = left_out()
    scrub: ScrubPlan = left_out()
    canary: ScheduleField = Field(default="weekly", validate_default=True)
    databases: dict[Name, ServerPlan] = {}
    file_storage: dict[Name, FileSetPlan] = {}
    systems: dict[Name, dict[Name, System]] = {}
    data_classes: dict[Name, DataClass] = {}
    recovery: RecoveryPlan = left_out()
    testing: TestingPlan = left_out()
    communication: CommunicationPlan = left_out()
    documentation: DocumentationPlan = left_out()

    @field_validator("encryption", mode="before", json_schema_input_type=EncryptionPlan | Literal["none"])
    @classmethod
    def _none_is_a_decision(cls, value: Any) -> Any:
        if value is None:
            raise ValueError("name recipients (`dr key new` makes a key), or write `encryption: none`")
        return None if value == "none" else value

    @field_serializer("encryption")
    def _none_is_written(self, value: EncryptionPlan | None) -> EncryptionPlan | Literal["none"]:
        return "none" if value is None else value


def plan_schema() -> dict[str, Any]:
    """The JSON Schema of a plan as it is written: what is not free text may be a reference too."""
    schema: dict[str, Any] = _or_reference(Plan.model_json_schema())
    return schema


def _or_reference(node: Any) -> Any:
    if isinstance(node, list):
        return [_or_reference(inner) for inner in node]
    if not isinstance(node, dict):
        return node
    if node.get("pattern") == SECRET_PATTERN:
        return node
    if {"enum", "pattern"} & set(node) or node.get("type") in ("integer", "boolean"):
        return {"anyOf": [node, {"type": "string", "pattern": r"\$\{(ENV|FILE):.+\}"}]}
    return {key: value if key == "propertyNames" else _or_reference(value) for key, value in node.items()}


__all__ = ["plan_schema", "Plan", "Schedule", "ServerPlan", "StorePlan"]
