"""What assets and sensors are handed: the plan made live. Plain objects come out; nothing happens at import.

Secrets are read when a store or server is opened, inside a run: they are never part of a resource's configuration,
which Dagster stores and shows.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from dr_pipelines.clock import SystemClock
from dr_pipelines.plan import load_plan

if TYPE_CHECKING:
    from dr_pipelines.site import Site


class SiteResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The site that a plan describes."""

    plan_path: str = Field(description="The DR plan, a YAML file.")

    def now(self) -> datetime:
        return SystemClock().now()

    def site(self) -> Site:
        """Raises `PlanError`, `SecretMissing`."""
        # Imported here: boto3, Azure's SDK and psycopg are needed in a run, not to load the code location.
        from dr_pipelines.site import Site
        from dr_pipelines.store_resources import LazyStores

        plan, clock = load_plan(Path(self.plan_path)), SystemClock()
        return Site(plan, clock=clock, stores=LazyStores(plan, clock))
