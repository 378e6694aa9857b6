"""`dr find-last-good`: when the data were still right, and what made them wrong."""

from __future__ import annotations

import re
import shlex
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
from pydantic import TypeAdapter, ValidationError

from dr_pipelines import operations
from dr_pipelines.cli.context import IdentityFile, Json, TierOption, settings
from dr_pipelines.cli.output import Bars, instant, out, print_facts, print_json, size
from dr_pipelines.errors import UsageError
from dr_pipelines.lsn import Lsn, Timeline
from dr_pipelines.operations.last_good import LastGoodQuestion
from dr_pipelines.plan.values import PositiveDuration
from dr_pipelines.validation.last_good import LastGood
from dr_pipelines.validation.search_window import Bound, Point
from dr_pipelines.validation.touched import Touched, TouchedTable
from dr_pipelines.wording import counted


def find_last_good(
    server: Annotated[str, typer.Option("--server", help="A server of the plan.")],
    check: Annotated[
        str | None, typer.Option("--check", metavar="SQL", help="One boolean, true when the data are good.")
    ] = None,
    amcheck: Annotated[
        bool, typer.Option("--amcheck", help="Good is also that every table and B-tree is whole.")
    ] = False,
    expectations: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, metavar="FILE", help="Good is also that this suite is met."),
    ] = None,
    dbname: Annotated[str | None, typer.Option(help="Where to ask; default the plan's connection.dbname.")] = None,
    since: Annotated[
        str | None, typer.Option("--from", metavar="TIME|LSN", help="Where the data were good; default the oldest.")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="TIME|LSN", help="Where they were bad; default the newest.")
    ] = None,
    precision: Annotated[
        str, typer.Option(metavar="transaction|DURATION", help="How near: 'transaction', or as '10 minutes'.")
    ] = "transaction",
    timeout: Annotated[str, typer.Option(metavar="DURATION", help="For one statement of a check.")] = "5 minutes",
    timeline: Annotated[int | None, typer.Option(min=1, max=0xFFFFFFFF, help="Instead of the newest.")] = None,
    tier: TierOption = None,
    scratch_dir: Annotated[
        Path | None, typer.Option(help="Where a copy is made, with room for two; default as the plan says.")
    ] = None,
    identity: IdentityFile = None,
    as_json: Json = False,
) -> None:
    """Find the newest position at which a check holds, and the transaction after which it does not.

    The window is searched by halves on a scratch copy, which is restored once and replayed forward.
    """
    asked = LastGoodQuestion(
        check,
        amcheck,
        expectations,
        dbname,
        _duration("--timeout", timeout),
        _bound("--from", since),
        _bound("--until", until),
        Timeline(timeline) if timeline is not None else None,
        timedelta(0) if precision == "transaction" else _duration("--precision", precision),
        scratch_dir.absolute() if scratch_dir else None,
    )
    site = settings.site(identity)
    tier = site.tier_of(server, tier) if tier else None
    with Bars() as bars:
        found = operations.find_last_good(site, server, asked, bars, tier=tier)
    command = _restore_command(found, tier, asked.timeline)
    if as_json:
        print_json({**vars(found), "restore": command})
    else:
        _show(found, command, bars)


def _duration(option: str, text: str) -> timedelta:
    try:
        found: timedelta = TypeAdapter(PositiveDuration).validate_python(text)
    except ValidationError:
        raise UsageError(f"{option} is no duration: {text!r}", hint="write it as '30 seconds' or '2 hours'.") from None
    return found


_LSN = re.compile(r"[0-9A-Fa-f]+/[0-9A-Fa-f]+")


def _bound(option: str, text: str | None) -> Bound:
    if text is None:
        return None
    try:
        if _LSN.fullmatch(text):
            return Lsn.parse(text)
        at = instant(text)
        if at.tzinfo is None:
            raise ValueError(f"{text!r} has no zone: write it as 2026-11-23T10:00:00Z")
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from None
    return at


def _restore_command(found: LastGood, tier: str | None, timeline: Timeline | None) -> str:
    """What a person types to have the server as it was last good."""
    argv = ["dr", *(["--plan", str(settings.plan_path)] if settings.plan_path else []), "restore", found.server]
    argv += ["--to", "DIR", "--lsn", str(found.good.lsn), *([] if found.good.inclusive else ["--exclusive"])]
    argv += ["--timeline", str(timeline.id)] if timeline else []
    return shlex.join([*argv, *(["--tier", tier] if tier else [])])


def _show(found: LastGood, command: str, bars: Bars) -> None:
    effort = found.effort
    kept = f", {size(effort.kept)} of files kept and brought back" if effort.kept else ""
    facts = {
        "searched": f"{found.server} on {found.tier}, from {found.start} to {found.end}",
        "tried": f"{counted(len(found.probes), 'point')} with {counted(effort.restores, 'restore')} "
        f"({size(effort.restored)}) and {counted(effort.steps, 'step')} of replay{kept}",
    }
    if found.bad is None:
        print_facts({**facts, "answer": f"the data are good at the newest point: {_point(found.end)}"})
    else:
        print_facts({**facts, **_answer(found, found.bad)})
        out.print("restore to just before it: " + command, soft_wrap=True)
        if found.exact:
            out.print(
                "Both were looked at. Where data were good and bad in turn, this is one of several such places.",
                soft_wrap=True,
            )
    for note in found.notes:
        if not bars.is_on_screen(note):
            out.print(f"note: {note}", soft_wrap=True)


def _answer(found: LastGood, bad: Point) -> dict[str, str]:
    before = f", up to just before {bad.lsn}" if found.exact else ""
    answer = {"last good": _point(found.good) + before, "first bad": _point(bad)}
    if not found.exact:
        answer["between"] = "commits that were not tried; without --precision the search goes on to one transaction"
    if found.touched is not None:
        answer["it did"] = "\n           ".join(_deeds(found.touched))
    return answer


def _point(point: Point) -> str:
    return f"{point}, transaction {point.xid}" if point.xid is not None else str(point)


def _deeds(touched: Touched) -> list[str]:
    lines = [*map(_table, touched.tables), *touched.databases]
    if touched.catalog_changes:
        lines.append(f"{counted(touched.catalog_changes, 'row')} of the system catalogues (DDL)")
    if not touched.complete:
        lines.append("and perhaps more, in WAL that lies further back")
    return lines or ["nothing to rows of tables"]


def _table(table: TouchedTable) -> str:
    counts = {"inserted": table.inserted, "updated": table.updated, "deleted": table.deleted}
    deeds = [f"{number} {deed}" for deed, number in counts.items() if number]
    if table.removed:
        deeds.append("its file removed (dropped, truncated or rewritten)")
    return f"{table.database}: {table.name}: {', '.join(deeds)}"
