"""Watches whether the backups and snapshots of today and of this hour are there, and whether rows that point at
files are polled, also when no run was ever launched for them."""
# No `from __future__ import annotations` here: Dagster reads the types of decorated functions.

import json
from collections.abc import Iterator

import dagster as dg

from assets.checks import looked, looks_for_due
from dr_pipelines.backed_up import BackedUp, everything
from dr_pipelines.metadata import asset_key, check_evaluation, identifier
from dr_pipelines.plan import Plan
from dr_pipelines.resources import SiteResource

INTERVAL_SECONDS = 60


def due_sensor(backed_up: BackedUp) -> dg.SensorDefinition:
    name = backed_up.name
    looks = looks_for_due(backed_up)

    @dg.sensor(
        name=f"{identifier(name)}_backups_due",
        description=f"Reports whether the {backed_up.noun}s of {name} that were due are there"
        + ("." if backed_up.polled_every is None else ", and its polls were made."),
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def _sensor(context: dg.SensorEvaluationContext, site: SiteResource) -> dg.SensorResult:
        told = json.loads(context.cursor or "{}")
        found = {thing: looked(check, look, site) for thing, (check, look) in looks.items()}
        # A partition, a verdict and a sentence: only when one of them changes is there news.
        said = {thing: f"{result.verdict}: {result.summary}" for thing, result in found.items()}
        news = [thing for thing in found if said[thing] != told.get(thing)]
        return dg.SensorResult(
            asset_events=[check_evaluation(asset_key(name, thing), found[thing]) for thing in news],
            cursor=json.dumps(said),
            skip_reason="; ".join(said.values()) if news else "nothing new",
        )

    return _sensor


def due_sensors(plan: Plan) -> Iterator[dg.SensorDefinition]:
    for backed_up in everything(plan):
        yield due_sensor(backed_up)
