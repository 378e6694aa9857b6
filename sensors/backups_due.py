"""Watches whether today's full and this hour's incremental are there, also when no run was ever launched for them."""
# No `from __future__ import annotations` here: Dagster reads the types of decorated functions.

import json
from collections.abc import Iterator

import dagster as dg

from assets.checks import look_for_due_backup, looked
from dr_pipelines.metadata import FULL_BACKUP, INCREMENTAL_BACKUP, asset_key, check_evaluation, identifier
from dr_pipelines.plan import Plan
from dr_pipelines.plan.model import ServerPlan
from dr_pipelines.repository.due import BACKUP_IS_THERE
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.resources import SiteResource

INTERVAL_SECONDS = 60


def due_sensor(server: str, asked: ServerPlan) -> dg.SensorDefinition:
    looks = {FULL_BACKUP: look_for_due_backup(server, BackupKind.FULL, asked.schedule.full)}
    if asked.schedule.incremental is not None:
        looks[INCREMENTAL_BACKUP] = look_for_due_backup(server, BackupKind.INCREMENTAL, asked.schedule.incremental)

    @dg.sensor(
        name=f"{identifier(server)}_backups_due",
        description=f"Reports whether the backups of {server} that were due are there.",
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def _sensor(context: dg.SensorEvaluationContext, site: SiteResource) -> dg.SensorResult:
        told = json.loads(context.cursor or "{}")
        found = {thing: looked(BACKUP_IS_THERE, look, site) for thing, look in looks.items()}
        # A partition, a verdict and a sentence: only when one of them changes is there news.
        said = {thing: f"{result.verdict}: {result.summary}" for thing, result in found.items()}
        news = [thing for thing in found if said[thing] != told.get(thing)]
        return dg.SensorResult(
            asset_events=[check_evaluation(asset_key(server, thing), found[thing]) for thing in news],
            cursor=json.dumps(said),
            skip_reason="; ".join(said.values()) if news else "nothing new",
        )

    return _sensor


def due_sensors(plan: Plan) -> Iterator[dg.SensorDefinition]:
    for server, asked in plan.databases.items():
        yield due_sensor(server, asked)
