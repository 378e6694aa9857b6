"""`dr objectives`: what the plan promises, what was measured, and what is left between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from dr_pipelines import operations
from dr_pipelines.checks import Verdict
from dr_pipelines.cli.context import Json, MaybeServer, settings
from dr_pipelines.cli.output import coloured, minute, out, print_json, print_table, size
from dr_pipelines.errors import CheckFailed, NotProven
from dr_pipelines.objectives.exposure import STREAM, Exposure
from dr_pipelines.objectives.judgement import Objective, read, told
from dr_pipelines.objectives.recovery_time import RecoveryTimes
from dr_pipelines.wording import counted

_TITLES = {"rpo": "recovery point objectives", "rto": "recovery time objectives"}


def objectives(server: MaybeServer = None, as_json: Json = False) -> None:
    """Every RPO and RTO of the plan against what was measured, or those of one server.

    Losses are measured from the stores and the server, recovery times are those of restores that were validated. Exits
    41 when a promise is broken or was never measured, 40 when one is not proven.
    """
    found = operations.objectives(settings.site(), server)
    if as_json:
        print_json(_document(found))
    else:
        for table in _TITLES:
            if lines := [line for line in found.lines if line.promise.table == table]:
                print_table(_TITLES[table], ["", "promised", "measured", "margin", ""], [_row(line) for line in lines])
        _show_lines(found.lines)
        _show_servers(found)
    _judge(found.lines)


def _document(found: operations.Objectives) -> dict[str, Any]:
    lines = [
        {
            "objective": line.promise.table,
            "name": line.promise.name,
            "servers": line.promise.servers,
            **line.check.details,
            "verdict": line.verdict,
            "summary": line.summary,
            "breaks_at": line.breaks_at,
        }
        for line in found.lines
    ]
    return {"objectives": lines, "exposures": {**found.exposures, **found.files}, "restores": found.restores}


def _row(line: Objective) -> tuple[Any, ...]:
    return line.promise.name, *read(line), _VERDICTS[line.verdict]


_PLACES = {STREAM: "the stream's host and the tiers"}
_VERDICTS = {Verdict.PASS: "met", Verdict.FAIL: "NOT MET", Verdict.NOT_PROVEN: "NOT PROVEN"}


def _short(seconds: float) -> str:
    return told(seconds) if seconds else "0 s"


def _show_lines(lines: Sequence[Objective]) -> None:
    for line in lines:
        told_more = f"; {line.forecast}" if line.forecast else ""
        out.print(coloured(line.verdict), f"  {line.promise.name}: {line.summary}{told_more}", soft_wrap=True)


def _show_servers(found: operations.Objectives) -> None:
    for server, exposures in (*found.exposures.items(), *found.files.items()):
        for place in exposures:
            out.print(
                f"{server}, were only {_PLACES.get(place.place, place.place)} left: {_exposed(place)} ({place.how})",
                soft_wrap=True,
            )
    for server, times in found.restores.items():
        for line in _restores(times):
            out.print(f"{server}: {line}", soft_wrap=True)


def _exposed(place: Exposure) -> str:
    if place.seconds is not None:
        return f"{_short(place.seconds)} lost at most"
    if not place.seen:
        return "not seen"
    return "everything lost" if place.at_least is None else "not known"


def _restores(times: RecoveryTimes) -> Iterator[str]:
    for tier, one in times.newest.items():
        yield f"restored from {tier} in {_short(one.seconds)} on {minute(one.at)} UTC, {size(one.bytes)} ({one.label})"
    if times.growth is not None:
        more = f", backups by {size(round(times.growth_bytes.per_day))}" if times.growth_bytes else ""
        yield f"restores grow by {times.growth.per_day:.2f} s a day{more} ({counted(times.growth.count, 'restore')})"
    for tier, why in times.unread.items():
        yield f"evidence on {tier} cannot be read: {why}"


def _judge(lines: Sequence[Objective]) -> None:
    """Raises `CheckFailed` or `NotProven`, with the hint of the first that is not met."""
    if not lines:
        raise NotProven("the plan promises nothing here", hint="name data_classes and systems in the plan.")
    for verdict, error, said in (
        (Verdict.FAIL, CheckFailed, "not met or never measured"),
        (Verdict.NOT_PROVEN, NotProven, "not proven"),
    ):
        if found := [line for line in lines if line.verdict is verdict]:
            names = ", ".join(line.promise.name for line in found)
            hint = next((line.hint for line in found if line.hint), None)
            raise error(f"{len(found)} of {len(lines)} objectives are {said}: {names}", hint=hint)
