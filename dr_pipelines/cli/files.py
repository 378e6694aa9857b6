"""`dr files`: snapshots of file sets."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from dr_pipelines import operations
from dr_pipelines.checks import CheckResult
from dr_pipelines.cli.context import FileSetName, Json, TierOption, settings
from dr_pipelines.cli.file_checks import accept, check
from dr_pipelines.cli.file_listing import show_snapshots
from dr_pipelines.cli.output import Bars, minute, out, plain, print_facts, print_json, size
from dr_pipelines.errors import Busy, CheckFailed
from dr_pipelines.repository.snapshot_manifest import Snapshot
from dr_pipelines.wording import counted

files_app = typer.Typer(
    suggest_commands=False, help="Files: snapshots, versions, differences, restores.", no_args_is_help=True
)
files_app.command("check")(check)
files_app.command("accept")(accept)


@files_app.command("snapshot")
def snapshot(
    file_set: FileSetName,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every file, also those that seem to be as they were.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Take a snapshot now. Only files that are new or changed are read."""
    site = settings.site()
    with Bars() as bars:
        taken = operations.take_snapshot(site, file_set, bars, read_all=verify)
    changes = operations.changes_seen(site, file_set, taken.label)
    if as_json:
        print_json(plain(taken) | {"changes": plain(changes) if changes else None})
    else:
        print_facts(_facts(taken, changes))
    if changes is not None and not changes.passed:
        raise CheckFailed(
            f"{changes.summary}; nothing older is let go",
            hint=f"`dr files diff {file_set} {taken.parent} {taken.label}` shows what changed; when that is well, "
            f"`dr files accept {file_set} {taken.label} --reason …`.",
        )
    if taken.partial and site.file_set(file_set).partial == "fail":
        raise CheckFailed(
            f"{taken.label} is partial: {counted(taken.counts.unreadable, 'file')} could not be read",
            hint=f"`dr files diff {file_set} {taken.label} live` names them; what was read is safe.",
        )


def _facts(taken: Snapshot, changes: CheckResult | None) -> dict[str, Any]:
    counts = taken.counts
    facts: dict[str, Any] = {
        "label": taken.label,
        "files": f"{counts.files:,}, {size(counts.bytes)}",
        "since the last": f"{counts.new:,} new, {counts.changed:,} changed, {counts.removed:,} removed",
        "read": f"{size(counts.read_bytes)}, {size(counts.new_bytes)} of it new, {size(counts.stored_bytes)} stored",
        "took": f"{(taken.finished_at - taken.started_at).total_seconds():.1f} s",
    }
    facts |= {"unreadable": f"{counted(counts.unreadable, 'file')}: the snapshot is partial"} if taken.partial else {}
    facts |= {"unusual": changes.summary} if changes is not None and not changes.passed else {}
    return facts


@files_app.command("poll")
def poll(
    file_set: FileSetName,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing when nothing was copied.")] = False,
    as_json: Json = False,
) -> None:
    """Look at the rows that point at files, and copy now what is new or changed since the last snapshot.

    While a snapshot or another poll of it is under way on this host nothing is done, and that is well: the next poll
    looks. `dr status` says when none has for several intervals of the plan's `poll`.
    """
    site = settings.site()
    try:
        with Bars(quiet=quiet) as bars:
            seen = operations.poll(site, file_set, bars)
    except Busy as busy:
        if as_json:
            print_json({"waits": busy.message})
        elif not quiet:
            out.print(f"{busy.message}: the next poll looks", soft_wrap=True)
        return
    if as_json:
        print_json({
            "at": seen.at, "changed": seen.changed, "snapshot": seen.snapshot, "is_whole": seen.is_whole,
            "exposed": seen.exposed,
        })  # fmt: skip
        return
    if seen.snapshot is not None:
        print_facts(_facts(seen.snapshot, operations.changes_seen(site, file_set, seen.snapshot.label)))
    if seen.snapshot is not None or not quiet:
        told = f"{counted(seen.changed, 'path')} changed" if seen.changed else "nothing changed"
        out.print(f"{told}; every row of {minute(seen.at)} UTC has its file here, if it had one there", soft_wrap=True)


@files_app.command("list")
def list_snapshots(file_set: FileSetName, tier: TierOption = None, as_json: Json = False) -> None:
    """The snapshots on a tier."""
    site = settings.site()
    tier = site.tier_of(file_set, tier or "primary")
    catalog = operations.list_snapshots(site, file_set, tier)
    if as_json:
        print_json(plain(catalog))
        return
    show_snapshots(site, file_set, tier, catalog)
