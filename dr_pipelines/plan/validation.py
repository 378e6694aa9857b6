"""What the plan says about proving backups: what is restored how often, what is looked at, what is tolerated."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dr_pipelines.plan.stores import PlanPath
from dr_pipelines.plan.values import Duration, Model, ScheduleField, Share

ValidatedTier = Literal["primary", "secondary", "archive"]


class ValidationPlan(Model):
    """Every full is restored to a scratch server below `scratch_dir` (by default in the plan's state_dir), replayed and
    judged; of the incrementals, a share of `incrementals`. The tiers take turns.

    `sample` is the share of a backup's stored bytes that its integrity check reads. `checksums` are tables whose rows
    are summed at the source and in the copy (by default those that data classes name); tables up to
    `count_up_to_rows` by the server's statistics are counted, of others the count is estimated, and a difference of up
    to `tolerance` is tolerated there. `expectations` is a folder of suites of Great Expectations, beside the plan.
    `amcheck` and `page_checksums` are checks that cannot be made everywhere: without the extension, or in a cluster
    that has no data checksums, nothing is proven until they are left out here. `equivalence` is when full and
    incrementals, merged, are compared with full and WAL, block by block.
    """

    incrementals: Share = Field(default="5 %", validate_default=True)
    tiers: tuple[ValidatedTier, ...] = Field(default=("primary", "secondary"), min_length=1)
    sample: Share = Field(default="10 %", validate_default=True)
    checksums: tuple[str, ...] | None = None
    count_up_to_rows: int = Field(default=10_000_000, ge=0)
    tolerance: Share = Field(default="10 %", validate_default=True)
    amcheck: bool = True
    page_checksums: bool = True
    expectations: PlanPath = Field(default="expectations", validate_default=True)
    equivalence: ScheduleField = Field(default="weekly", validate_default=True)
    within: Duration = Field(default="1 day", validate_default=True)
    """A full that was not validated so long after it was taken is an alarm."""
    scratch_dir: PlanPath | None = None
