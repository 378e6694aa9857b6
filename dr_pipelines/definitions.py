"""The code location: what Dagster shows of a plan. Loading it needs the plan alone: no secret, store or server."""
# No `from __future__ import annotations` here: Dagster reads the types of decorated functions.

from pathlib import Path

import dagster as dg

from assets.checks import backup_checks
from assets.database_backups import RETRIES, database_backups
from assets.equivalence import equivalence_assets
from assets.expectations import expectation_checks
from assets.file_snapshots import file_snapshots
from assets.integrity import integrity_checks
from assets.objectives import objectives_assets
from assets.recovery_windows import windows_assets
from assets.replicas import replica_assets
from assets.retention import retention_assets
from assets.scrubs import scrub_assets
from assets.tier_checks import tier_checks
from assets.validations import validation_assets, validation_checks
from assets.wal_archive import wal_archives
from dr_pipelines.jobs import backup_jobs, tier_jobs
from dr_pipelines.plan import default_plan_path, load_plan
from dr_pipelines.resources import SiteResource
from schedules.backups import backup_schedules
from schedules.tiers import tier_schedules
from sensors.backups_due import due_sensors
from sensors.expectations import expectation_sensors
from sensors.expiry import expiry_sensors
from sensors.objectives import objectives_sensors
from sensors.polls import poll_sensors
from sensors.replication import replication_sensors
from sensors.unequal_chains import unequal_chain_sensors
from sensors.validation import validation_sensors
from sensors.wal_archive import wal_sensors


def build_definitions(plan_path: Path, *, retries: dg.RetryPolicy = RETRIES) -> dg.Definitions:
    """Raises `PlanError` when the plan is wrong."""
    plan = load_plan(plan_path)
    jobs = {job.name: job for job in (*backup_jobs(plan), *tier_jobs(plan))}
    return dg.Definitions(
        assets=[
            *database_backups(plan, retries),
            *wal_archives(plan),
            *file_snapshots(plan, retries),
            *replica_assets(plan, retries),
            *retention_assets(plan, retries),
            *scrub_assets(plan, retries),
            *windows_assets(plan, retries),
            *validation_assets(plan, retries),
            *equivalence_assets(plan, retries),
            *objectives_assets(plan, retries),
        ],
        asset_checks=[
            *backup_checks(plan),
            *integrity_checks(plan),
            *tier_checks(plan),
            *validation_checks(plan),
            *expectation_checks(plan),
        ],
        jobs=list(jobs.values()),
        schedules=[*backup_schedules(plan), *tier_schedules(plan)],
        sensors=[
            *due_sensors(plan),
            *wal_sensors(plan),
            *poll_sensors(plan, jobs),
            *replication_sensors(plan, jobs),
            *expiry_sensors(plan, jobs),
            *objectives_sensors(plan),
            *validation_sensors(plan, jobs),
            *expectation_sensors(plan),
            *unequal_chain_sensors(plan),
        ],
        resources={"site": SiteResource(plan_path=str(plan_path.absolute()))},
        # A run is one backup and its checks, one after the other: a process for each would only cost seconds.
        executor=dg.in_process_executor,
    )


@dg.definitions
def defs() -> dg.Definitions:
    """Of the plan that `$DR_PLAN` names. Called by Dagster when it loads the location, not by an import."""
    return build_definitions(default_plan_path())
