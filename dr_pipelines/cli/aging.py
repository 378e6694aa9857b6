"""`dr store age` and `recall`: old packs and WAL move to the storage classes of the plan, and are asked for again."""

from __future__ import annotations

from typing import Annotated

import typer

from dr_pipelines import operations
from dr_pipelines.cli.context import TIER, Json, Name, Urgent, Wait, settings
from dr_pipelines.cli.output import Bars, out, print_json, print_table, size, span
from dr_pipelines.cli.setup import store_app
from dr_pipelines.errors import NotProven, StoreError
from dr_pipelines.operations import AgingReport
from dr_pipelines.wording import counted

__all__ = ["age", "recall", "store_app"]


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


@store_app.command("recall")
def recall(
    tier: Annotated[str, typer.Argument(metavar=TIER, help="A tier, or the name of its store.")],
    name: Name,
    label: Annotated[
        str | None, typer.Argument(metavar="[LABEL]", help="A backup, with what it builds on, or a snapshot; `latest`.")
    ] = None,
    key: Annotated[list[str] | None, typer.Option("--key", help="This object. May repeat.")] = None,
    wait: Wait = False,
    urgent: Urgent = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what is offline, and what it costs.")] = False,
    as_json: Json = False,
) -> None:
    """Ask for what lies offline on a tier: to verify it, to copy it elsewhere, to repair another tier from it.

    A restore asks for what it needs by itself. What has arrived can be read for seven days.
    """
    site = settings.site()
    with Bars() as bars:
        done = operations.recall_stored(
            site, name, site.tier_of(name, tier), bars,
            label=label, keys=key or (), wait=wait, urgent=urgent, look_only=dry_run,
        )  # fmt: skip
    if as_json:
        print_json(done)
        return
    told = f"{done.offline_objects} of {counted(done.objects, 'object')} on {done.tier}"
    if not done.offline_objects:
        out.print(f"all of {counted(done.objects, 'object')} on {done.tier} can be read", soft_wrap=True)
    elif done.is_here:
        out.print(f"{told} were offline ({size(done.offline_bytes)}), and can be read now", soft_wrap=True)
    else:
        state = "are offline" if dry_run else "are on their way"
        before = f", {done.arriving_objects} were asked for before" if done.arriving_objects else ""
        takes = f"they take up to {span(done.seconds)}; reading all costs about {done.cost:.2f}"
        out.print(f"{told} {state} ({size(done.offline_bytes)}{before}): {takes}", soft_wrap=True)


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
