"""After each backup: what it left is held against expectations, in the code location's own process.

A run for each backup would load Great Expectations anew, which takes longer than a small backup; here it is loaded at
the first one, and never to load the code location. The jobs `<name>_<thing>_expectations` are for people.
"""
# No `from __future__ import annotations` here: Dagster reads the types of decorated functions.

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import TypeAlias

import dagster as dg

from assets.expectations import judge, unseen
from dr_pipelines.backed_up import BackedUp, everything
from dr_pipelines.checks import CheckResult
from dr_pipelines.errors import StoreUnavailable
from dr_pipelines.metadata import asset_key, check_evaluation, identifier
from dr_pipelines.plan import Plan
from dr_pipelines.resources import SiteResource
from sensors.background import PATIENCE_SECONDS, Background, Begun

INTERVAL_SECONDS = 30
Found: TypeAlias = Mapping[str, CheckResult]


@dataclass(frozen=True)
class Told:
    """What a tick leaves to the next, of one kind of backup: the event of the one that was judged last, of the one that
    was waited for, and the trouble that was reported of it."""

    judged: int | None = None
    waits: int | None = None
    trouble: str | None = None

    def troubled(self, event: int, found: Found) -> "tuple[Told, Found]":
        """Looked at again by the next tick; reported when it is news."""
        said = next(iter(found.values())).summary
        return Told(self.judged, event, said), {} if (event, said) == (self.waits, self.trouble) else found


def expectations_sensor(backed_up: BackedUp, patience: float = PATIENCE_SECONDS) -> dg.SensorDefinition:
    name, things, judging = backed_up.name, backed_up.things, Background[Found]()

    @dg.sensor(
        name=f"{identifier(name)}_expectations",
        description=f"Holds the new {backed_up.noun}s of {name} against expectations.",
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def _sensor(context: dg.SensorEvaluationContext, site: SiteResource) -> dg.SensorResult:
        cursor = json.loads(context.cursor or "{}")
        told = {thing: Told(**cursor.get(thing, {})) for thing in things}
        newest = {thing: _newest(context.instance, name, thing) for thing in things}
        new = {thing: event for thing, event in newest.items() if event and event.storage_id != told[thing].judged}
        for thing in new:
            judging.begin(thing, new[thing].storage_id, partial(judge, site, backed_up, thing))
        ended = judging.ended([*new], patience)
        events: list[dg.AssetCheckEvaluation] = []
        for thing, event in new.items():
            told[thing], found = _outcome(backed_up, told[thing], event.storage_id, ended.get(thing))
            events += [check_evaluation(asset_key(name, thing), one, _of(event, one)) for one in found.values()]
        said = [f"{event.asset_key.path[-1]}: {event.check_name}: {event.description}" for event in events]
        return dg.SensorResult(
            asset_events=events,
            cursor=json.dumps({thing: asdict(one) for thing, one in told.items()}),
            skip_reason="; ".join(said) or ("a judgement is under way" if new else f"no new {backed_up.noun}"),
        )

    return _sensor


def _newest(instance: dg.DagsterInstance, name: str, thing: str) -> dg.EventLogRecord | None:
    return next(iter(instance.fetch_materializations(asset_key(name, thing), limit=1).records), None)


def _outcome(backed_up: BackedUp, told: Told, event: int, ended: Begun[Found] | None) -> tuple[Told, Found]:
    """What is told from now on, and what is to be reported: a judgement; why there is none; nothing yet."""
    if ended is None and told.waits != event:
        return Told(told.judged, event), {}
    if ended is None and told.trouble is not None:
        return told, {}  # a store that is down answers some looks late and others never: one alarm is enough
    if ended is None:
        silent = StoreUnavailable("the stores have not answered since the look before")
        return told.troubled(event, unseen(backed_up, silent))
    error = ended.promised.exception()
    return (
        (Told(ended.of), ended.promised.result()) if error is None else told.troubled(event, unseen(backed_up, error))
    )


def _of(event: dg.EventLogRecord, found: CheckResult) -> dg.EventLogRecord | None:
    """The event, unless the backup that was looked at is another one, as one that was taken by hand."""
    materialized = event.asset_materialization
    label = materialized.metadata.get("label") if materialized else None
    seen = found.details.get("backup")
    return event if seen is None or (label is not None and label.value == seen) else None


def expectation_sensors(plan: Plan) -> Iterator[dg.SensorDefinition]:
    for backed_up in everything(plan):
        yield expectations_sensor(backed_up)
