"""Looks at rows that point at files as often as the plan's `poll` says, and asks for a run when there is something to
copy.

The look is made in the code location's own process: every half minute a run that finds nothing would cost more than
what it looks for. What is copied is a run's: it may take long, it is seen in the UI, and it shares the pool of the
file set's snapshots. The look itself takes turns with them by the lock that every snapshot and poll of this host has.
"""
# No `from __future__ import annotations` here: Dagster reads the types of decorated functions.

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import TypeAdapter

from dr_pipelines.backed_up import BackedUp, file_sets
from dr_pipelines.errors import Busy, DrError
from dr_pipelines.file_metadata import poll_metadata
from dr_pipelines.jobs import Job, poll_job_name
from dr_pipelines.metadata import POLL, UNFINISHED, asset_key
from dr_pipelines.plan import Plan
from dr_pipelines.resources import SiteResource
from sensors.background import PATIENCE_SECONDS, Background

if TYPE_CHECKING:
    from dr_pipelines.operations import Looked, Polled

SHOWN_EVERY = timedelta(minutes=15)
"""Looks that found nothing are told together: the history of what would be lost, and not an event every few seconds."""
AGAIN_AFTER = timedelta(minutes=2)
"""A copy that failed is tried again no sooner, however often rows are looked at."""


@dataclass(frozen=True)
class Quiet:
    """The looks that found nothing since they were last told, at `told_at`: how many, and the most that a loss would
    have cost meanwhile."""

    told_at: datetime | None = None
    looks: int = 0
    exposed: timedelta | None = None

    def and_now(self, exposed: timedelta | None) -> "Quiet":
        most = max((one for one in (self.exposed, exposed) if one is not None), default=None)
        return Quiet(self.told_at, self.looks + 1, most)

    def is_due(self, now: datetime) -> bool:
        return self.told_at is None or not timedelta(0) <= now - self.told_at < SHOWN_EVERY


_Cursor = TypeAdapter(Quiet)


def poll_sensor(
    backed_up: BackedUp, every: timedelta, job: Job, patience: float = PATIENCE_SECONDS
) -> dg.SensorDefinition:
    name, key = backed_up.name, asset_key(backed_up.name, POLL)
    looks: Background[Polled | Looked] = Background()

    @dg.sensor(
        name=poll_job_name(name),
        description=f"Looks at the rows that point at files of {name}, and copies those that are new or changed before "
        "they are overwritten.",
        minimum_interval_seconds=max(1, int(every.total_seconds())),
        default_status=dg.DefaultSensorStatus.RUNNING,
        job=job,
    )
    def _sensor(context: dg.SensorEvaluationContext, site: SiteResource) -> dg.SensorResult:
        # Imported here: see resources.py.
        from dr_pipelines import operations
        from dr_pipelines.progress import Silent

        quiet = _Cursor.validate_json(context.cursor) if context.cursor else Quiet()
        live, now = site.site(), site.now()
        last = _last_run(context.instance, name)
        if last is not None and last.dagster_run.status in UNFINISHED:
            operations.note_waiting(live, name)
            return _said(quiet, f"the run of the last poll is {last.dagster_run.status.value.lower()}")
        if last is not None and _has_just_failed(last, now):
            return _said(quiet, "the run of the last poll failed: another is asked for two minutes after it")
        looks.begin(name, 0, lambda: operations.look_at_rows(live, name, Silent()))
        ended = looks.ended([name], patience)
        if not ended:
            return _said(quiet, "the look at the rows is not at its end")
        try:
            found = ended[name].promised.result()
        except Busy as busy:
            return _said(quiet, f"{busy.message}: the next tick looks")
        except DrError as error:
            return _said(quiet, f"the rows could not be looked at: {error.message}")
        if isinstance(found, operations.Looked):
            return dg.SensorResult(
                run_requests=[dg.RunRequest(run_key=f"{name}:{POLL}:{found.at.isoformat()}")],
                cursor=_Cursor.dump_json(quiet).decode(),
            )
        quiet = quiet.and_now(found.exposed)
        told = f"nothing changed; every row of {found.at:%Y-%m-%d %H:%M:%S} UTC has its file here, if it had one"
        if not quiet.is_due(now):
            return _said(quiet, told)
        seen = poll_metadata(found.at, 0, quiet.exposed) | {"looks": quiet.looks}
        return _said(Quiet(now), told, dg.AssetObservation(key, metadata=seen))

    return _sensor


def _said(quiet: Quiet, why: str, *events: dg.AssetObservation) -> dg.SensorResult:
    return dg.SensorResult(asset_events=[*events], cursor=_Cursor.dump_json(quiet).decode(), skip_reason=why)


def _last_run(instance: dg.DagsterInstance, name: str) -> dg.RunRecord | None:
    return next(iter(instance.get_run_records(dg.RunsFilter(job_name=poll_job_name(name)), limit=1)), None)


def _has_just_failed(last: dg.RunRecord, now: datetime) -> bool:
    ended = last.create_timestamp if last.end_time is None else datetime.fromtimestamp(last.end_time, now.tzinfo)
    return last.dagster_run.status is dg.DagsterRunStatus.FAILURE and now - ended < AGAIN_AFTER


def poll_sensors(plan: Plan, jobs: Mapping[str, Job]) -> Iterator[dg.SensorDefinition]:
    for backed_up in file_sets(plan):
        if backed_up.polled_every is not None:
            yield poll_sensor(backed_up, backed_up.polled_every, jobs[poll_job_name(backed_up.name)])
