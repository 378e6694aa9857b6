"""`dr files restore`, `versions`, `diff`: files brought back, and what is known of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dr_pipelines import operations
from dr_pipelines.cli.context import IdentityFile, Json, TierOption, settings
from dr_pipelines.cli.files import FileSetName, files_app
from dr_pipelines.cli.output import Bars, out, print_facts, print_json, size
from dr_pipelines.files.restore import FilesReport

__all__ = ["files_app"]

SnapshotName = Annotated[
    str, typer.Argument(metavar="SNAPSHOT", help="A label, `latest`, or an instant: 2026-11-23T14:05:00Z.")
]


@files_app.command("restore")
def restore(
    file_set: FileSetName,
    snapshot: SnapshotName,
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="A directory.")],
    path: Annotated[
        list[str] | None,
        typer.Option("--path", help="Only this file, folder or pattern (`*`, `?`, `[…]`, `**`). May repeat."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what is there and differs; otherwise it stays.")
    ] = False,
    tier: TierOption = None,
    identity: IdentityFile = None,
    as_json: Json = False,
) -> None:
    """Bring files back: all of a snapshot, or some. Verified beside the target, then moved into it."""
    site = settings.site(identity)
    tier = site.tier_of(file_set, tier) if tier else None
    with Bars() as bars:
        report = operations.restore_files(
            site, file_set, snapshot, target.absolute(), bars, paths=path or (), overwrite=overwrite, tier=tier
        )
    if as_json:
        print_json(report)
    else:
        _show_report(report)
    report.require_whole()


def _show_report(report: FilesReport) -> None:
    facts: dict[str, Any] = {
        "restored": f"{report.files:,} files, {size(report.bytes)}, {report.directories:,} directories, "
        f"{report.links:,} links",
        "from": f"{report.snapshot} of {report.file_set}",
        "to": report.target,
        "read": f"{size(report.fetched_bytes)} in {report.packs:,} packs",
        "took": f"{report.seconds:.1f} s",
    }
    facts |= {"there already": f"{report.same:,} as they should be"} if report.same else {}
    facts |= {"kept": f"{len(report.kept):,} that differ; --overwrite replaces them"} if report.kept else {}
    print_facts(facts)
    for kept in report.kept[:10]:
        out.print(f"kept: {kept}", soft_wrap=True)
    for failed, why in [*report.failed.items()][:100]:
        out.print(f"not restored: {failed}: {why}", soft_wrap=True)
