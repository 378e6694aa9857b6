"""The newest position at which a server's data were good."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from dr_pipelines.errors import UsageError
from dr_pipelines.lsn import Timeline
from dr_pipelines.operations.recovery import located
from dr_pipelines.operations.scratch import scratch_folder
from dr_pipelines.postgres.restore_plan import RecoveryTarget
from dr_pipelines.postgres.restore_request import RestoreRequest
from dr_pipelines.progress import Progress
from dr_pipelines.site import Site
from dr_pipelines.validation import last_good
from dr_pipelines.validation.last_good import LastGood, SearchRequest
from dr_pipelines.validation.questions import Question, amcheck_question, expectations_question, sql_question
from dr_pipelines.validation.search_window import Bound


@dataclass(frozen=True)
class LastGoodQuestion:
    """What a person asks. Data are good where `check`, an SQL condition, is true, the suite in the file `expectations`
    is met and, with `amcheck`, every table and B-tree is whole, all in `dbname` (by default that of the plan's
    connection). `timeout` is that of one statement. Copies are made in `scratch_dir`, by default where the plan's
    `validation` says."""

    check: str | None = None
    amcheck: bool = False
    expectations: Path | None = None
    dbname: str | None = None
    timeout: timedelta = timedelta(minutes=5)
    since: Bound = None
    until: Bound = None
    timeline: Timeline | None = None
    precision: timedelta = timedelta(0)
    scratch_dir: Path | None = None


def find_last_good(
    site: Site, server: str, question: LastGoodQuestion, progress: Progress, *, tier: str | None = None
) -> LastGood:
    """Search the recovery window of one tier, or of the first that can be restored from, with the WAL of all. Raises
    `UsageError` where nothing is asked, `CheckFailed` when the data are bad from the beginning."""
    questions = _questions(question, question.dbname or site.plan_of(server).connection.dbname)
    repositories, notes = site.readable_repositories(server, tier)
    for note in notes:
        progress.note(note)
    target = RecoveryTarget(timeline=question.timeline)
    asked = located(site, RestoreRequest(server, site.state_dir, target), tier)
    folder = scratch_folder(site, server, asked.os_user, question.scratch_dir)
    request = SearchRequest(
        replace(asked, target_dir=folder / "last-good"),
        questions,
        question.since,
        question.until,
        question.precision,
    )
    found = last_good.find_last_good(request, repositories, clock=site.clock, runner=site.runner, progress=progress)
    return replace(found, notes=(*notes, *found.notes))


def _questions(question: LastGoodQuestion, dbname: str) -> dict[str, Question]:
    seconds = question.timeout.total_seconds()
    found: dict[str, Question] = {}
    if question.check is not None and not question.check.strip(" \t\n;"):
        raise UsageError("--check is empty", hint='write it as "SELECT count(*) > 1000 FROM orders".')
    if question.check is not None:
        found[question.check] = sql_question(question.check, dbname, seconds)
    if question.expectations is not None:
        found[question.expectations.name] = expectations_question(question.expectations, dbname, seconds)
    if question.amcheck:
        found["amcheck"] = amcheck_question(dbname, seconds)
    if not found:
        raise UsageError(
            "nothing says what good data are",
            hint='name it with --check "SELECT <condition>", --expectations or --amcheck.',
        )
    return found
