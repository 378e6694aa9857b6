"""The WAL archive: an external asset. `dr wal stream` writes it; a sensor reports what the repository holds of it."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg

from dr_pipelines.metadata import DATABASE_BACKUPS, WAL_ARCHIVE, asset_key, group_of, owners, store_kind
from dr_pipelines.plan import Plan


def wal_archives(plan: Plan) -> Iterator[dg.AssetSpec]:
    for server in plan.databases:
        yield dg.AssetSpec(
            key=asset_key(server, WAL_ARCHIVE),
            group_name=group_of(server, DATABASE_BACKUPS),
            kinds={"postgres", store_kind(plan, server)},
            owners=owners(plan),
            tags={"dr/server": server},
            description=f"WAL of {server}, as the repository on its primary tier holds it. "
            f"The service `dr wal stream {server}` ships it; nothing here is materialized by a run.",
        )
