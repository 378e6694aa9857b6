"""A chain whose incrementals do not give what its WAL gives is ended: a full is asked for, at once."""
# No `from __future__ import annotations` here: Dagster reads the types of decorated functions.

from collections.abc import Iterator

import dagster as dg

from assets.partitions import daily, partition_of
from dr_pipelines.jobs import backup_job_name
from dr_pipelines.metadata import FULL_BACKUP, TIER, identifier
from dr_pipelines.plan import Plan
from dr_pipelines.plan.model import ServerPlan
from dr_pipelines.resources import SiteResource

INTERVAL_SECONDS = 300
PARTITION = "dagster/partition"
"""Dagster's tag of the partition that a run is for."""


def unequal_chain_sensor(server: str, asked: ServerPlan) -> dg.SensorDefinition:
    job, days = backup_job_name(server, FULL_BACKUP), daily(asked.since)

    @dg.sensor(
        name=f"{identifier(server)}_unequal_chain",
        job_name=job,
        description=f"Takes a full of {server} when incrementals of the newest one were found not to give what its WAL "
        "gives, whoever found it.",
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def _sensor(context: dg.SensorEvaluationContext, site: SiteResource) -> dg.RunRequest | dg.SkipReason:
        # Imported here: see resources.py.
        from dr_pipelines.postgres.trust import chain_to_replace

        due = chain_to_replace(site.site().read_only_repository(server, TIER).catalog(server))
        if due is None:
            return dg.SkipReason("the newest full's incrementals are not known to be wrong")
        label, reason = due
        context.log.info(f"a full is due: {reason}")
        # One a day, until there is a newer full.
        day = partition_of(days, site.now())
        return dg.RunRequest(run_key=f"{server}:{FULL_BACKUP}:after:{label}:{day}", tags={PARTITION: day})

    return _sensor


def unequal_chain_sensors(plan: Plan) -> Iterator[dg.SensorDefinition]:
    for server, asked in plan.databases.items():
        if asked.schedule.incremental is not None:
            yield unequal_chain_sensor(server, asked)
