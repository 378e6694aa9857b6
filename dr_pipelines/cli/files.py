"""`dr files`: snapshots of file sets."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from dr_pipelines import operations
from dr_pipelines.checks import CheckResult
from dr_pipelines.cli.context import FileSetName, Json, TierOption, settings
from dr_pipelines.cli.file_checks import accept, check
from dr_pipelines.cli.output import Bars, minute, out, plain, print_facts, print_json, print_table, size, span
from dr_pipelines.errors import CheckFailed
from dr_pipelines.repository.snapshot_manifest import Snapshot
from dr_pipelines.repository.snapshots import SnapshotCatalog
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
    facts |= {"unreadable": f"{counts.unreadable:,} files: the snapshot is partial"} if taken.partial else {}
    facts |= {"unusual": changes.summary} if changes is not None and not changes.passed else {}
    return facts


@files_app.command("poll")
def poll(file_set: FileSetName, as_json: Json = False) -> None:
    """Look at the rows that point at files, and copy now what is new or changed since the last snapshot."""
    site = settings.site()
    with Bars() as bars:
        seen = operations.poll(site, file_set, bars)
    if as_json:
        print_json({"at": seen.at, "changed": seen.changed, "snapshot": seen.snapshot, "is_whole": seen.is_whole})
        return
    if seen.snapshot is not None:
        print_facts(_facts(seen.snapshot, operations.changes_seen(site, file_set, seen.snapshot.label)))
    told = f"{counted(seen.changed, 'path')} changed" if seen.changed else "nothing changed"
    out.print(f"{told}; every row of {minute(seen.at)} UTC has its file here, if it had one there")


@files_app.command("list")
def list_snapshots(file_set: FileSetName, tier: TierOption = None, as_json: Json = False) -> None:
    """The snapshots on a tier."""
    site = settings.site()
    tier = site.tier_of(file_set, tier or "primary")
    catalog = operations.list_snapshots(site, file_set, tier)
    if as_json:
        print_json(plain(catalog))
        return
    if not catalog.snapshots:
        out.print(f"no snapshots of {file_set} on {tier}")
    else:
        print_table(f"{file_set} on {tier}", _COLUMNS, [_row(catalog, one) for one in catalog.snapshots])
    for problem in catalog.problems:
        out.print(problem, soft_wrap=True)
    for place in operations.file_exposures(site, file_set):
        if place.place == tier and place.seconds is not None:
            out.print(f"file RPO: {span(place.seconds)} would be lost ({place.how})", soft_wrap=True)


_COLUMNS = ("snapshot", "taken", "files", "size", "new", "changed", "removed", "added", "state")


def _row(catalog: SnapshotCatalog, one: Snapshot) -> tuple[str, ...]:
    counts = one.counts
    numbers = (f"{count:,}" for count in (counts.new, counts.changed, counts.removed))
    return (
        one.label, minute(one.started_at), f"{counts.files:,}", size(counts.bytes), *numbers,
        size(counts.stored_bytes), _state(catalog, one),
    )  # fmt: skip


def _state(catalog: SnapshotCatalog, one: Snapshot) -> str:
    if (trouble := catalog.trouble(one)) is not None:
        return trouble
    told = ["unusual"] if catalog.is_unusual(one.label) else []
    told += [f"partial: {one.counts.unreadable:,} unreadable"] if one.partial else []
    proof = catalog.marks[one.label].proven()
    return ", ".join([*told, f"proven {minute(proof.at)}" if proof else "not proven"])
