"""What stops expiry and prune of a server or a file set on a tier, each as a sentence with what to do. Pure.

The worst that retention can do is to remove the last good copies on a day on which something is wrong already. So
whatever looks wrong stops it: space costs money, and what is removed is gone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Generic, Protocol, TypeVar

from dr_pipelines.clock import CLOCK_DRIFT
from dr_pipelines.plan.values import format_duration
from dr_pipelines.repository.incidents import Incident
from dr_pipelines.repository.labels import Labelled
from dr_pipelines.repository.marks import VALIDATE
from dr_pipelines.retention.decisions import Retained
from dr_pipelines.retention.view import View

M = TypeVar("M", bound=Labelled)
HANDFUL = 3
"""So many chains, or snapshots, may always go at once: where few are kept, an ordinary day removes a large share."""

_MISSED = 3
_A_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Guard:
    """`name` is what stands against it, for programs."""

    name: str
    sentence: str
    hint: str


class Limits(Protocol):
    """What the plan says of its own carefulness."""

    @property
    def proven_within(self) -> timedelta: ...

    @property
    def largest_share(self) -> int: ...


@dataclass(frozen=True)
class Words:
    """How this is said of a thing: what it is, and the commands that take and prove one. `{}` is whose it is."""

    thing: str = "backup"
    take: str = "dr backup {} --full"
    verify: str = "dr verify {}"
    validate: str = "dr validate {}"
    take_another: str = "take another full"


@dataclass(frozen=True)
class Circumstances(Generic[M]):
    """`name`: of the server or file set; `views`: of every tier that can be read; `interval`: of full backups, the
    longest; `between`: of any two backups; `store_now`: the store's own clock, where it was asked."""

    name: str
    views: Sequence[View[M]]
    interval: timedelta
    between: timedelta
    incidents: Sequence[Incident] = ()
    store_now: datetime | None = None
    words: Words = Words()


def guards_of(
    planned: Retained, here: View[M], around: Circumstances[M], rules: Limits, *, yes: bool = False
) -> tuple[Guard, ...]:
    """`yes`: a person wants to remove more than the plan's share at once."""
    return (
        *_incidents(around),
        *_problems(here),
        *_clock(planned, around),
        *_silence(planned, around),
        *_proofs(planned, around, rules),
        *(() if yes else _share(planned, here, rules, around.words)),
    )


def _incidents(around: Circumstances[M]) -> Iterator[Guard]:
    for incident in around.incidents:
        yield Guard(
            "incident",
            f"incident {incident.id} is open: {incident.reason}",
            f"close it when it is over: `dr incident close {incident.id}`.",
        )


def _problems(here: View[M]) -> Iterator[Guard]:
    """What a scrub found lost on every tier is known to be: it would stop everything for ever."""
    problems = [problem for problem in here.known.problems if problem not in here.known.lost]
    if problems:
        more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
        yield Guard(
            "problems", f"not all that {here.tier} holds is understood: {problems[0]}{more}", f"`dr scrub {here.tier}`."
        )


def _clock(planned: Retained, around: Circumstances[M]) -> Iterator[Guard]:
    drift = None if around.store_now is None else planned.at - around.store_now
    if drift is not None and abs(drift) > CLOCK_DRIFT:
        which = "ahead of" if drift > timedelta(0) else "behind"
        yield Guard(
            "clock",
            f"this host's clock is {format_duration(abs(drift))} {which} that of {planned.tier}",
            "set the clock right (NTP), and run it again.",
        )
    newest, thing = _newest(around), around.words.thing
    if newest is not None and newest > planned.at + CLOCK_DRIFT:
        yield Guard(
            "clock",
            f"a {thing} was finished at {newest:%Y-%m-%d %H:%M} UTC, and this host's clock says "
            f"{planned.at:%Y-%m-%d %H:%M}",
            "set the clock right (NTP), and run it again; if it is right, that was taken while one was wrong: "
            f"{around.words.take_another}, and remove its manifest.json by hand.",
        )


def _silence(planned: Retained, around: Circumstances[M]) -> Iterator[Guard]:
    newest, allowed = _newest(around), _MISSED * around.interval
    if newest is not None and planned.at - newest > allowed:
        yield Guard(
            "silence",
            f"no {around.words.thing} of {around.name} was taken since {newest:%Y-%m-%d %H:%M} UTC: "
            "backups have stopped",
            f"find out why, and take one: `{around.words.take.format(around.name)}`.",
        )


def _proofs(planned: Retained, around: Circumstances[M], rules: Limits) -> Iterator[Guard]:
    """Where backups are restored to prove them, nothing less counts: bytes that are right may still not be a server."""
    by_restore = any(marks.validated() for view in around.views for marks in view.known.marks.values())
    proven = [
        backup.finished_at
        for view in around.views
        for backup in view.known.manifests
        if backup.label in view.restorable
        and (marks := view.known.marks.get(backup.label)) is not None
        and (proof := marks.proven()) is not None
        and (proof.kind == VALIDATE or not by_restore)
        and view.known.failed_validation(backup) is None
    ]
    # Nothing is proven before it is taken: where backups are a week apart, a week is no sign of trouble. Every full is
    # restored, of the incrementals a share.
    within = max(rules.proven_within, (around.interval if by_restore else around.between) + _A_DAY)
    stale = not proven or planned.at - max(proven) > within
    if planned.decisions and stale:
        newest = f"the newest is of {max(proven):%Y-%m-%d %H:%M} UTC" if proven else "none ever was"
        words = around.words
        how, command = ("proven good by a restore", words.validate) if by_restore else ("proven good", words.verify)
        yield Guard(
            "proof" if not by_restore else "proof by restore",
            f"no {words.thing} of the last {format_duration(within)} is {how}; {newest}",
            f"prove one: `{command.format(around.name)}`.",
        )


def _share(planned: Retained, here: View[M], rules: Limits, words: Words) -> Iterator[Guard]:
    """Counted in chains, a full with its incrementals, a snapshot with the polls after it: an ordinary day lets go of
    all that follow one."""
    roots: dict[str, str] = {}
    for one in sorted(here.known.manifests, key=lambda one: one.started_at):
        roots[one.label] = roots.get(one.counted_with or "", one.label)
    chains, touched = {*roots.values()}, {roots[decision.label] for decision in planned.expire}
    allowed = max(HANDFUL, len(chains) * rules.largest_share // 100)
    if len(touched) > allowed:
        of_chains = f"{words.thing}s of {len(touched)} of the {len(chains)} chains"
        alone = f"of the {len(chains)} {words.thing}s"
        counted = f"{len(planned.expire)} {of_chains if len(chains) < len(here.by_label) else alone}"
        yield Guard(
            "share",
            f"{counted} on {planned.tier} would go at once; the plan allows {rules.largest_share} %",
            "look at `dr retention plan`; if that is what you want, `dr retention apply --yes`.",
        )


def _newest(around: Circumstances[M]) -> datetime | None:
    times = (found.finished_at for view in around.views for found in view.known.manifests)
    return max(times, default=None)
