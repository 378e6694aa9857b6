"""Jobs: selections of assets by group and key, so that nothing but `definitions` imports the rims."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import dagster as dg

from dr_pipelines.metadata import DATABASE_BACKUPS, FULL_BACKUP, INCREMENTAL_BACKUP, asset_key, group_of, identifier
from dr_pipelines.plan import Plan

if TYPE_CHECKING:
    # Dagster has no public name for what `define_asset_job` returns.
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition as Job


def backup_job_name(server: str, thing: str) -> str:
    return f"{identifier(server)}_{thing}"


def backup_job(server: str, thing: str) -> Job:
    """`shop_full_backup`: takes one backup and runs the checks that belong to it."""
    return dg.define_asset_job(
        name=backup_job_name(server, thing),
        description=f"Take one {thing.replace('_', ' ')} of {server}.",
        selection=dg.AssetSelection.groups(group_of(server, DATABASE_BACKUPS))
        & dg.AssetSelection.assets(asset_key(server, thing)),
        tags={"dr/server": server},
    )


def backup_jobs(plan: Plan) -> Iterator[Job]:
    for server, asked in plan.databases.items():
        yield backup_job(server, FULL_BACKUP)
        if asked.schedule.incremental is not None:
            yield backup_job(server, INCREMENTAL_BACKUP)
