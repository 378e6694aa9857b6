"""`dr scrub`: a tier read against its digests and repaired."""

from __future__ import annotations

from typing import Annotated

import typer

from dr_pipelines import operations
from dr_pipelines.checks import Verdict
from dr_pipelines.cli.context import TIER, Json, settings, share_of
from dr_pipelines.cli.output import Bars, out, print_facts, print_json, size, span
from dr_pipelines.errors import IntegrityError, NotProven
from dr_pipelines.operations.scrub import ScrubReport
from dr_pipelines.wording import counted


def scrub(
    tier: Annotated[str, typer.Argument(metavar=TIER, help="A tier, or a store of the plan.")],
    server: Annotated[str | None, typer.Option("--server", help="One server or file set of the plan only.")] = None,
    sample: Annotated[
        str | None,
        typer.Option("--sample", metavar="SHARE", help="How much to read, as 10%; default the plan's."),
    ] = None,
    no_repair: Annotated[bool, typer.Option("--no-repair", help="Only look.")] = False,
    as_json: Json = False,
) -> None:
    """Read every object against its SHA-256, and repair it from another tier.

    Exits 0 when all is well or was repaired, 11 when no tier holds good bytes, 40 when it could not be read.
    """
    site, share = settings.site(), None if sample is None else share_of(sample)
    with Bars() as bars:
        report = operations.scrub(site, tier, bars, server=server, sample=share, repair=not no_repair)
    print_json(report) if as_json else _show(report)
    if report.check.verdict is Verdict.FAIL:
        hint = "each loss is named above; take a full backup now (`dr backup SERVER --full`)."
        raise IntegrityError(report.check.summary, hint="run it without --no-repair." if no_repair else hint)
    if report.check.verdict is Verdict.NOT_PROVEN:
        hint = report.check.details.get("hint") or f"mend what is named, then run `dr scrub {tier}` again."
        raise NotProven(report.check.summary, hint=hint)


def _show(report: ScrubReport) -> None:
    for outcome in report.outcomes:
        fault, by = outcome.fault, f", {outcome.by}" if outcome.by else ""
        out.print(f"{outcome.state.value}: {fault.key} ({fault.what}{by})", soft_wrap=True)
    for result in report.servers:
        facts = {
            "server": f"{result.server} on {result.tier}",
            "read": f"{result.read} of {counted(result.objects, 'object')}, {size(result.bytes)}",
        }
        if result.offline:
            facts["not read"] = f"{counted(result.offline, 'object')} must be recalled first"
        if result.sample.share < 100:
            facts["sample"] = f"{result.sample.share} %; the next run goes on from there"
        print_facts(facts)
        for text in result.lost:
            out.print(f"lost: {text}", style="red", soft_wrap=True)
        for note in result.notes:
            out.print(f"note: {note}", style="yellow", soft_wrap=True)
    out.print(f"{report.check.summary} ({span(report.seconds)})", soft_wrap=True)
