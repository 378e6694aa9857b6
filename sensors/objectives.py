"""Alarms when a promised RPO or RTO is broken, or is kept again: the checks' answers as events without a run."""
# No `from __future__ import annotations` here: Dagster reads the types of decorated functions.

import json
from collections.abc import Iterator

import dagster as dg

from dr_pipelines.jobs import promises_of
from dr_pipelines.metadata import OBJECTIVES, asset_key, check_evaluation, identifier
from dr_pipelines.objectives.promises import Promise
from dr_pipelines.plan import Plan
from dr_pipelines.resources import SiteResource

INTERVAL_SECONDS = 300


def objectives_sensor(server: str, asked: list[Promise]) -> dg.SensorDefinition:
    key = asset_key(server, OBJECTIVES)

    @dg.sensor(
        name=f"{identifier(server)}_objectives",
        description=f"Measures every RPO and RTO that rests on {server}, and reports which are not met.",
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def _sensor(context: dg.SensorEvaluationContext, site: SiteResource) -> dg.SensorResult:
        # Imported here: see resources.py.
        from dr_pipelines import operations

        told: dict[str, str] = json.loads(context.cursor or "{}")
        lines = operations.measure_objectives(site.site(), asked).lines
        # The numbers differ at every look: a verdict is news.
        said = {line.promise.check: str(line.verdict) for line in lines}
        news = [line for line in lines if said[line.promise.check] != told.get(line.promise.check)]
        wrong = [f"{line.promise.name}: {line.summary}" for line in lines if not line.check.passed]
        return dg.SensorResult(
            asset_events=[check_evaluation(key, line.check) for line in news],
            cursor=json.dumps(said),
            skip_reason="; ".join(wrong) or f"all {len(lines)} objectives are met",
        )

    return _sensor


def objectives_sensors(plan: Plan) -> Iterator[dg.SensorDefinition]:
    for server in plan.databases:
        if asked := promises_of(plan, server):
            yield objectives_sensor(server, asked)
