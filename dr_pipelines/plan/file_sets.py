"""What the plan says about files: what is read, how often, how long its versions are kept, what is unusual."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Annotated, Literal

from pydantic import Field, model_validator

from dr_pipelines.plan.policies import ReplicatedTier
from dr_pipelines.plan.stores import PlanPath
from dr_pipelines.plan.tiers import TierPlan
from dr_pipelines.plan.values import Duration, Model, Name, PositiveDuration, ScheduleField, Share, left_out


class DirectorySource(Model):
    """A tree of this machine. `exclude`: names, or paths from its root, that are left out with what is below them;
    `*`, `?` and `[…]` as in a shell."""

    type: Literal["directory"]
    path: PlanPath
    exclude: tuple[str, ...] = ()


class BucketSource(Model):
    """A bucket or container, described like a store."""

    type: Literal["bucket"]
    store: str


FileSource = Annotated[DirectorySource | BucketSource, Field(discriminator="type")]


class FileReplicationPlan(Model):
    """What is sent to a tier: `everything`; `monthly`, the newest snapshot of each month; or `nothing`. A copy that is
    later than `lag` is an alarm."""

    send: Literal["everything", "monthly", "nothing"] = "everything"
    lag: PositiveDuration = Field(default="1 hour", validate_default=True)


class AnomalyPlan(Model):
    """From which share of a file set's files, beside the snapshot before, a snapshot is unusual and nothing older is
    let go: that were `changed`, that `vanished` with their content, that were `renamed` to one new ending, that turned
    `incompressible` (of those that compressed before). Shares of fewer than `at_least` files are never unusual."""

    changed: Share = Field(default="30 %", validate_default=True)
    vanished: Share = Field(default="20 %", validate_default=True)
    renamed: Share = Field(default="10 %", validate_default=True)
    incompressible: Share = Field(default="20 %", validate_default=True)
    at_least: int = Field(default=20, ge=1)


class ReferencePlan(Model):
    """Rows that point at files of the set: of a server's database, a table (`public.documents`) with the column that
    holds the path and, where there is one, the column of its SHA-256 in hex (`digest`), size in bytes, or the instant
    when the row was last written (`changed`, a timestamp with time zone): what `poll` looks for. A path in the column
    is relative to the folder `prefix` in the file set. With `supabase` the table is Supabase Storage's own
    `storage.objects`, of the bucket named there. Names of tables and columns are written as in SQL."""

    server: str
    database: str = "postgres"
    supabase: str | None = None
    table: str | None = None
    path: str | None = None
    digest: str | None = None
    size: str | None = None
    changed: str | None = None
    prefix: str = ""

    @model_validator(mode="after")
    def _one_of_both(self) -> ReferencePlan:
        if self.supabase is not None:
            if self.table or self.path or self.digest or self.size or self.changed:
                raise ValueError("a bucket of Supabase says itself where its rows are; leave out table and columns")
        elif not (self.table and self.path):
            raise ValueError("name the table and the column that holds the path (or `supabase: BUCKET`)")
        return self


class FileSetPlan(Model):
    """Files that are backed up together. Every snapshot is kept for `retention` (`tiers` says where for how long
    instead); without `versioning` only the newest. What is let go can be undone for `grace`; letting go stops when it
    would remove more than `largest_share` of a tier's snapshots, and when none was proven `proven_within` until now.

    `partial`: whether a snapshot that lacks files that could not be read fails its check, or only warns. `sample` is
    the share of its stored bytes that its check reads.
    `references` are the rows of databases that point at the files; `poll` is how often those that changed are looked at
    between two snapshots, so that versions are copied before they are overwritten. A poll that copied something is kept
    for `keep_polls`: what lived for less than the time between two snapshots is in nothing else.
    """

    schedule: ScheduleField
    retention: PositiveDuration
    versioning: bool = True
    source: FileSource | None = None
    storage: TierPlan | None = None
    since: date = date(2026, 1, 1)
    replication: dict[ReplicatedTier, FileReplicationPlan] = {}
    tiers: dict[Literal["primary", "secondary", "archive"], PositiveDuration] = {}
    grace: Duration = Field(default="3 days", validate_default=True)
    largest_share: Share = Field(default="30 %", validate_default=True)
    proven_within: PositiveDuration = Field(default="3 days", validate_default=True)
    partial: Literal["fail", "warn"] = "fail"
    sample: Share = Field(default="10 %", validate_default=True)
    anomalies: AnomalyPlan = left_out()
    references: dict[Name, ReferencePlan] = {}
    poll: PositiveDuration | None = None
    keep_polls: PositiveDuration = Field(default="2 days", validate_default=True)

    @property
    def is_backed_up(self) -> bool:
        """Whether the plan says what is read and where it goes; a set of which it does not is only promised."""
        return self.source is not None and self.storage is not None

    @property
    def rows_name_all(self) -> bool:
        """Whether every file has a row: what no row names is not looked at between two snapshots."""
        return any(not one.prefix.strip("/") for one in self.references.values())

    @property
    def most_lost(self) -> timedelta:
        """What passes between two looks at all of it, as planned."""
        longest = self.schedule.longest_interval
        return min(self.poll, longest) if self.poll is not None and self.rows_name_all else longest

    def retention_on(self, tier: str) -> timedelta:
        return {str(name): kept for name, kept in self.tiers.items()}.get(tier, self.retention)

    def sent_to(self, tier: str) -> FileReplicationPlan | None:
        """None for the primary, which nothing is copied to. By default cold storage gets what is kept for months."""
        if tier == "primary":
            return None
        asked = {str(name): sent for name, sent in self.replication.items()}
        usual = {"send": "monthly", "lag": "1 day"} if tier == "archive" else {}
        return asked.get(tier) or FileReplicationPlan.model_validate(usual)
