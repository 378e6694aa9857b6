"""Each promise against what was measured: a verdict, a margin, a sentence, and what to do.

A promise to lose nothing can be kept by the WAL stream alone. Any other loss is judged by the stores, on the tier that
has the most: a backup host that is lost with its server is a common disaster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from dr_pipelines.checks import CheckResult, Verdict
from dr_pipelines.objectives.exposure import STREAM, Exposure
from dr_pipelines.objectives.promises import Promise
from dr_pipelines.objectives.recovery_time import RecoveryTimes, Way, unmeasured, ways
from dr_pipelines.objectives.trend import used_up_at
from dr_pipelines.plan.model import SystemPlan
from dr_pipelines.plan.values import format_duration

NEVER = "never measured"
_GRAVITY = {Verdict.FAIL: 0, Verdict.NOT_PROVEN: 1, Verdict.PASS: 2}


@dataclass(frozen=True)
class Objective:
    """One line of the plan's tables. `measured` in seconds, None where it never was; where it is known only to lie
    between two, `at_least` is the lower one. `breaks_at` is when growth will have used up the margin; `forecast` says
    it, or why it cannot be said. `unknown` stands where there is no number."""

    promise: Promise
    verdict: Verdict
    summary: str
    measured: float | None = None
    at_least: float | None = None
    breaks_at: datetime | None = None
    forecast: str | None = None
    hint: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    unknown: str = NEVER

    @property
    def margin(self) -> float | None:
        """Seconds between what was promised and what was measured; below 0 the promise is broken."""
        return None if self.measured is None else self.promise.promised.total_seconds() - self.measured

    @property
    def check(self) -> CheckResult:
        told = {
            "promised_seconds": self.promise.promised.total_seconds(),
            "measured_seconds": _rounded(self.measured),
            "at_least_seconds": _rounded(self.at_least) if self.measured is None else None,
            "margin_seconds": _rounded(self.margin),
            "forecast": self.forecast,
            "hint": self.hint,
        }
        kept = {name: value for name, value in told.items() if value is not None}
        return CheckResult(self.promise.check, self.verdict, self.summary, {**kept, **self.details})


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


# --- RPO ----------------------------------------------------------------------------------------------------


def judge_loss(
    promise: Promise, exposures: Sequence[Exposure], files: Mapping[str, Sequence[Exposure]] | None = None
) -> Objective:
    """`exposures` are of the server that the data is on: the stream's, and each tier's; `files` those of each file set
    that is backed up. Data on a server and in files is lost as far as the worse of them."""
    if not promise.file_sets:
        return _rows_lost(promise, exposures)
    parts = [_files_lost(promise, name, (files or {}).get(name, ())) for name in promise.file_sets]
    if promise.server is not None:
        parts.insert(0, _rows_lost(promise, exposures))
    return min(parts, key=lambda part: (_GRAVITY[part.verdict], -(part.measured or 0.0)))


def _files_lost(promise: Promise, file_set: str, exposures: Sequence[Exposure]) -> Objective:
    if not exposures:
        hint = f"name source and storage in file_storage.{file_set}."
        return _never(promise, f"the files of {file_set} are not backed up", hint)
    best, *_ = tiers = sorted(exposures, key=_rank)
    verdict = best.within(promise.promised)
    mend = None if verdict is Verdict.PASS else f"take one: `dr files snapshot {file_set}`."
    return _loss(promise, verdict, f"{file_set}: {_told_of(best)}", best, tiers, mend)


def _rows_lost(promise: Promise, exposures: Sequence[Exposure]) -> Objective:
    if promise.server is None:
        hint = f"name its server and tables in {promise.path}."
        return _never(promise, "the plan names no server that this data is on", hint)
    stream = [found for found in exposures if found.place == STREAM]
    tiers = sorted((found for found in exposures if found.place != STREAM), key=_rank)
    if not promise.promised:
        return _nothing_lost(promise, stream[0], tiers)
    best = next((tier for tier in tiers if tier.within(promise.promised) is Verdict.PASS), tiers[0])
    verdict = best.within(promise.promised)
    mend = None if verdict is Verdict.PASS else f"`dr status` shows what keeps WAL of {promise.server} from its tiers."
    return _loss(promise, verdict, _told_of(best), best, exposures, mend)


def _nothing_lost(promise: Promise, stream: Exposure, tiers: Sequence[Exposure]) -> Objective:
    """What is not claimed is not kept; what is lost then is what the stores say."""
    best, places = tiers[0], [stream, *tiers]
    if stream.within(promise.promised) is Verdict.PASS:
        said = f"{stream.how}; were the stream's host lost too, {_lost(best)} on {best.place}"
        return _loss(promise, Verdict.PASS, said, stream, places)
    verdict = Verdict.FAIL if stream.seen else Verdict.NOT_PROVEN
    mend = f"run `dr wal stream {promise.server}` as a service; `dr status` says what else it needs."
    return _loss(promise, verdict, f"{stream.how}; {_told_of(best)}", best, places, mend)


def _loss(
    promise: Promise, verdict: Verdict, said: str, by: Exposure, places: Sequence[Exposure], mend: str | None = None
) -> Objective:
    unknown = "everything" if by.seen else "not seen"
    details = {
        f"rpo_exposure_seconds_{place.place}": _rounded(place.seconds) for place in places if place.seconds is not None
    }
    return Objective(promise, verdict, said, by.seconds, by.at_least, hint=mend, details=details, unknown=unknown)


def _rank(exposure: Exposure) -> tuple[bool, float, float]:
    """The least first; what could not be seen comes last."""
    known = [float("inf") if seconds is None else seconds for seconds in (exposure.seconds, exposure.at_least)]
    return (not exposure.seen, known[0], known[1])


def _told_of(exposure: Exposure) -> str:
    return f"{_lost(exposure)} on {exposure.place}: {exposure.how}"


def _lost(exposure: Exposure) -> str:
    if exposure.at_least is None:
        return "everything would be lost" if exposure.seen else "nobody knows what would be lost"
    if exposure.seconds is None:
        return f"at least {told(exposure.at_least)} would be lost"
    if exposure.at_least < exposure.seconds and exposure.at_least > 0:
        return f"{told(exposure.at_least)} to {told(exposure.seconds)} would be lost"
    return f"{told(exposure.seconds)} would be lost"


# --- RTO ----------------------------------------------------------------------------------------------------


def judge_time(
    promise: Promise, systems: Mapping[str, SystemPlan], times: Mapping[str, RecoveryTimes], now: datetime
) -> Objective:
    """A system is back when it is restored itself, after everything that it depends on; `times` are those of every
    server on the way."""
    found = ways(systems, promise.name)
    longest = max(found, key=lambda way: way.seconds(times))
    seconds, missing = longest.seconds(times), unmeasured(systems, promise.name, times)
    if missing:
        return _unmeasured(promise, missing, seconds, times)
    breaks_at, forecast = _forecast(promise, found, times, now)
    details = _measurements(promise, times, longest)
    said = _as_measured(promise, longest, times, seconds)
    if seconds > promise.promised.total_seconds():
        hint = f"`dr restore {longest.servers[-1]} --to DIR --preview` shows which tier and chain are the fastest."
        return Objective(promise, Verdict.FAIL, said, seconds, seconds, hint=hint, details=details)
    for server in promise.servers:
        if (trouble := _not_current(times[server])) is not None:
            hint = f"`dr validate {server}` restores a backup and measures it."
            return Objective(
                promise, Verdict.NOT_PROVEN, f"{said}; {trouble}", seconds, seconds, breaks_at, forecast, hint, details
            )
    return Objective(promise, Verdict.PASS, said, seconds, seconds, breaks_at, forecast, details=details)


def _not_current(times: RecoveryTimes) -> str | None:
    if times.spoilt is not None:
        return f"the newest restore of {times.server} failed ({times.spoilt})"
    if times.stale is not None:
        return f"since {times.stale:%Y-%m-%d %H:%M} UTC there should be a newer measurement of {times.server}"
    return None


def _unmeasured(
    promise: Promise, missing: Sequence[str], seconds: float, times: Mapping[str, RecoveryTimes]
) -> Objective:
    """Never measured is a failure; where the evidence could not be read, nobody knows."""
    unread = [f"{tier}: {why}" for server in promise.servers for tier, why in times[server].unread.items()]
    own = promise.name in missing
    others = [name for name in missing if name != promise.name]
    said = [f"its own recovery was {NEVER}{'' if promise.server else ' (the plan names no server for it)'}"] * own
    said += [f"nor was that of {' and '.join(others)}, which it depends on" if own else
             f"{' and '.join(others)}, which it depends on, was {NEVER}"] * bool(others)  # fmt: skip
    known = f"; what was measured of what it needs takes {told(seconds)}" if seconds else ""
    blind = f"; evidence cannot be read on {', '.join(unread)}" if unread and promise.server else ""
    hint = (
        f"`dr validate {promise.server}` restores a backup and measures it."
        if promise.server
        else f"name the server that {promise.path} is restored from, or take the promise out of the plan."
    )
    verdict = Verdict.NOT_PROVEN if blind else Verdict.FAIL
    summary, unknown = "; ".join(said) + known + blind, "not seen" if blind else NEVER
    return Objective(promise, verdict, summary, None, None, hint=hint, unknown=unknown)


def _as_measured(promise: Promise, way: Way, times: Mapping[str, RecoveryTimes], seconds: float) -> str:
    parts = []
    for server in way.servers:
        if (worst := times[server].worst) is not None:
            parts.append(f"{server} {told(worst.seconds)} from {worst.tier} on {worst.at:%Y-%m-%d}")
    whole = f" = {told(seconds)}" if len(parts) > 1 else ""
    within = format_duration(promise.promised)
    return f"the slowest of the latest restores: {' + '.join(parts)}{whole}; promised {within}"


def _forecast(
    promise: Promise, found: Sequence[Way], times: Mapping[str, RecoveryTimes], now: datetime
) -> tuple[datetime | None, str]:
    """By the way whose growth uses up its margin first."""
    breaks: list[datetime] = []
    for way in found:
        per_day = way.growth(times)
        if per_day is None:
            return None, "growth cannot be told yet: that takes five restores from a tier over three days"
        margin = promise.promised.total_seconds() - way.seconds(times)
        if margin >= 0 and (at := used_up_at(margin, per_day, now)) is not None:
            breaks.append(at)
    if not breaks:
        return None, "no growth that would break it within ten years"
    return min(breaks), f"at this growth it breaks on {min(breaks):%Y-%m-%d}"


def _measurements(promise: Promise, times: Mapping[str, RecoveryTimes], way: Way) -> dict[str, Any]:
    newest = {
        f"rto_seconds_{server}_{tier}": round(point.seconds, 3)
        for server in promise.servers
        for tier, point in times[server].newest.items()
    }
    growth = way.growth(times)
    return newest | ({} if growth is None else {"growth_seconds_per_day": round(growth, 4)})


def _never(promise: Promise, why: str, hint: str) -> Objective:
    return Objective(promise, Verdict.FAIL, f"{NEVER}: {why}", hint=hint)


def read(line: Objective) -> tuple[str, str, str]:
    """Promised, measured and margin, as a person reads them."""
    if line.margin is None:
        margin = "-"
    else:
        margin = f"-{_number(max(-line.margin, 0.1))}" if line.margin < 0 else _number(line.margin)
    if line.measured is not None:
        seen = _number(line.measured)
    else:
        seen = line.unknown if line.at_least is None else f"over {_number(line.at_least)}"
    return format_duration(line.promise.promised), seen, margin


def _number(seconds: float) -> str:
    return told(seconds) if seconds else "0 s"


def told(seconds: float) -> str:
    """As a person says it, with no more digits than a measurement has."""
    if 0 < seconds < 0.05:
        return "under 0.1 s"
    if seconds < 60:
        return f"{seconds:.{int(seconds < 10)}f} s" if seconds else "nothing"
    step = 1 if seconds < 7200 else 60
    return format_duration(timedelta(seconds=step * round(seconds / step)))


__all__ = ["Objective", "judge_loss", "judge_time", "read", "told"]
