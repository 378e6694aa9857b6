"""Schedules watch the tiers: scrubbing, canaries, and every hour the recovery windows, the objectives and the
rows that point at files."""
# No `from __future__ import annotations` here: Dagster reads the types of decorated functions.

from collections.abc import Iterator

import dagster as dg

from dr_pipelines.backed_up import everything, file_sets
from dr_pipelines.jobs import (
    canary_job_name,
    equivalence_job_name,
    objectives_job_name,
    promises_of,
    references_job_name,
    scrub_job_name,
    windows_job_name,
)
from dr_pipelines.plan import Plan

HOURLY = "45 * * * *"
"""After the hour's incremental and its copies, as a rule."""
AFTER_WINDOWS = "50 * * * *"
BETWEEN = "25 * * * *"


def schedule(job: str, cron: str, description: str) -> dg.ScheduleDefinition:
    @dg.schedule(
        name=f"{job}_schedule",
        job_name=job,
        description=description,
        cron_schedule=cron,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
    def _schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        return dg.RunRequest(run_key=f"{job}:{context.scheduled_execution_time:%Y-%m-%dT%H:%M}")

    return _schedule


def tier_schedules(plan: Plan) -> Iterator[dg.ScheduleDefinition]:
    for backed_up in everything(plan):
        name = backed_up.name
        for tier in backed_up.tiers:
            when = plan.scrub.schedule
            told = f"Scrubs the {tier} tier of {name}: {when.text}, in UTC."
            yield schedule(scrub_job_name(name, tier), when.cron, told)
        told = f"Attacks locked objects of {name}: {plan.canary.text}, in UTC."
        yield schedule(canary_job_name(name), plan.canary.cron, told)
    for server, asked in plan.databases.items():
        if asked.schedule.incremental is not None:
            due = asked.validation.equivalence
            told = f"Compares incrementals of {server} with their full and WAL: {due.text}, in UTC."
            yield schedule(equivalence_job_name(server), due.cron, told)
        yield schedule(windows_job_name(server), HOURLY, f"Computes the recovery windows of {server} every hour.")
        if promises_of(plan, server):
            told = f"Measures the objectives of {server} every hour."
            yield schedule(objectives_job_name(server), AFTER_WINDOWS, told)
    for backed_up in file_sets(plan):
        if backed_up.has_references:
            told = f"Holds the rows that point at {backed_up.name} against its files every hour."
            yield schedule(references_job_name(backed_up.name), BETWEEN, told)
