"""`dr prove-incrementals`: full and incrementals, merged, against full and WAL."""

from __future__ import annotations

from typing import Annotated

import typer

from dr_pipelines import operations
from dr_pipelines.checks import Verdict
from dr_pipelines.cli.context import IdentityFile, Json, ServerName, TierOption, settings
from dr_pipelines.cli.output import Bars, out, print_json, span
from dr_pipelines.errors import CheckFailed, NotProven
from dr_pipelines.operations.equivalence import EquivalenceReport


def prove_incrementals(
    server: ServerName,
    label: Annotated[str | None, typer.Option("--label", help="An incremental; the newest when left out.")] = None,
    tier: TierOption = None,
    identity: IdentityFile = None,
    as_json: Json = False,
) -> None:
    """Compare incrementals with the WAL of their full, page by page.

    Both are restored to scratch directories, so there must be room for two servers. Exits 0 when they are equal, 41
    when they are not (no restore uses them any more, and the next backup is a full), 40 when it could not be seen.
    """
    site = settings.site(identity)
    where = site.tier_of(server, tier) if tier else None
    with Bars() as bars:
        report = operations.prove_incrementals(site, server, bars, tier=where, label=label)
    print_json(report) if as_json else _show(report)
    check = report.check
    if check.verdict is not Verdict.PASS:
        error = CheckFailed if check.verdict is Verdict.FAIL else NotProven
        raise error(check.summary, hint=check.details.get("hint") or _NEXT[check.verdict].format(server=server))


_NEXT = {
    Verdict.FAIL: "the next backup is a full by itself; to have one now: `dr backup {server} --full`.",
    Verdict.NOT_PROVEN: "mend what is named, then run `dr prove-incrementals {server}` again.",
}


def _show(report: EquivalenceReport) -> None:
    for found in report.check.details.get("differences", ()):
        out.print(f"differs: {found}", style="red", soft_wrap=True)
    for tier, labels in (report.marked or {}).items():
        out.print(f"not used any more on {tier}: {', '.join(labels)}", soft_wrap=True)
    if report.check.verdict is Verdict.PASS:
        out.print(report.check.summary, soft_wrap=True)
    if report.chain:
        out.print(
            f"took {span(report.seconds)}; kept as {report.evidence or 'nothing'} on {report.tier}", soft_wrap=True
        )
