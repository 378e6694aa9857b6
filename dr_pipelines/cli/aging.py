"""`dr store age`: old packs and WAL move to the storage classes of the plan."""

from __future__ import annotations

from typing import Annotated

import typer

from dr_pipelines import operations
from dr_pipelines.cli.context import TIER, Json, settings
from dr_pipelines.cli.output import Bars, out, print_json, print_table, size
from dr_pipelines.cli.setup import store_app
from dr_pipelines.errors import NotProven, StoreError
from dr_pipelines.operations import AgingReport
from dr_pipelines.wording import counted

__all__ = ["age", "store_app"]


@store_app.command("age")
def age(
    tier: Annotated[str, typer.Argument(metavar=TIER, help="A tier, or the name of its store.")],
    server: Annotated[str | None, typer.Option("--server", help="Of one server or file set of the plan only.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would move.")] = False,
    as_json: Json = False,
) -> None:
    """Move what has grown old to the storage classes that the plan names.

    What a recovery within the window reads never goes where it must be recalled, and nothing goes where it is charged
    for longer than it is kept.
    """
    site = settings.site()
    places = {server: site.tier_of(server, tier)} if server else site.users_on(tier)
    with Bars() as bars:
        reports = [operations.age_storage(site, name, where, bars, dry_run=dry_run) for name, where in places.items()]
    if as_json:
        print_json(reports)
    for report in reports:
        if not as_json:
            _show(report)
    for report in reports:
        _raise_trouble(report, dry_run=dry_run)


def _show(report: AgingReport) -> None:
    plan, aged = report.plan, report.aged
    verb = "would move" if aged is None else "to move"
    if plan.moves:
        rows = [(name, objects, size(moved)) for name, (objects, moved) in plan.by_class().items()]
        print_table(f"{report.name} on {report.tier}: {verb}", ["to", "objects", "bytes"], rows)
    else:
        out.print(f"{report.name} on {report.tier}: nothing is old enough to move", soft_wrap=True)
    for held in plan.held:
        out.print(f"{counted(held.objects, 'object')} ({size(held.bytes)}) stay: {held.reason}", soft_wrap=True)
    if aged is not None and plan.moves:
        out.print(f"moved: {counted(aged.objects, 'object')}, {size(aged.bytes)}", soft_wrap=True)


def _raise_trouble(report: AgingReport, *, dry_run: bool) -> None:
    if report.guards and not dry_run:
        guard = report.guards[0]
        raise NotProven(f"nothing is moved on {report.tier}: {guard.sentence}", hint=guard.hint)
    if report.aged is not None and report.aged.refused:
        key, why = next(iter(report.aged.refused.items()))
        raise StoreError(
            f"{counted(len(report.aged.refused), 'object')} of {report.tier} could not be moved; {key}: {why}",
            hint=f"`dr store check {report.tier}` says what the store can do; the rest was moved.",
        )
