"""What this host knows of its polls of a file set, and whether they are as frequent as planned."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from dr_pipelines.checks import CheckResult
from dr_pipelines.objectives.polls import Polls, rows_are_polled
from dr_pipelines.site import Site

_Polls = TypeAdapter(Polls)


def polls_of(site: Site, file_set: str) -> Polls:
    try:
        return _Polls.validate_json(_file(site, file_set).read_bytes())
    except (OSError, ValidationError):
        return Polls()


def note_waiting(site: Site, file_set: str) -> None:
    """A poll would have been made, but one or a snapshot is under way."""
    remember(site, file_set, replace(polls_of(site, file_set), tried_at=site.clock.now(), waits=True, trouble=None))


def check_polls(site: Site, file_set: str) -> CheckResult | None:
    """Whether rows are looked at as often as planned. None where the plan asks for no polls."""
    plan = site.file_set(file_set)
    if plan.poll is None:
        return None
    polls, longest = polls_of(site, file_set), plan.schedule.longest_interval
    return rows_are_polled(file_set, polls, plan.poll, longest=longest, now=site.clock.now())


def remember(site: Site, file_set: str, polls: Polls) -> None:
    """What cannot be put down counts as not polled, and is no other harm."""
    path = _file(site, file_set)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".new-") as new:
            whole = Path(new) / path.name
            whole.write_bytes(_Polls.dump_json(polls))
            whole.replace(path)


def _file(site: Site, file_set: str) -> Path:
    return site.state_dir / "files" / file_set / "polls.json"
