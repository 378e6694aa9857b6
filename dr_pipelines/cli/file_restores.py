"""`dr files restore`, `versions`, `diff`: files brought back, and what is known of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dr_pipelines import operations
from dr_pipelines.cli.context import FileSetName, IdentityFile, Json, TierOption, Urgent, Wait, settings
from dr_pipelines.cli.files import files_app
from dr_pipelines.cli.output import Bars, minute, out, print_facts, print_json, print_table, size, span
from dr_pipelines.errors import UsageError
from dr_pipelines.wording import counted

if TYPE_CHECKING:
    # For their names only: a snapshot needs none of them.
    from dr_pipelines.files.restore import FilesReport
    from dr_pipelines.files.restore_preview import FilesPreview
    from dr_pipelines.files.versions import Version

__all__ = ["files_app"]

_SHOWN = 100
"""Paths of a difference, unless all are asked for."""
SnapshotName = Annotated[
    str, typer.Argument(metavar="SNAPSHOT", help="A label, `latest`, or an instant: 2026-11-23T14:05:00Z.")
]


@files_app.command("restore")
def restore(
    file_set: FileSetName,
    snapshot: SnapshotName,
    target: Annotated[Path | None, typer.Argument(metavar="[TARGET]", help="A directory.")] = None,
    to_store: Annotated[
        str | None, typer.Option("--to-store", metavar="STORE[/PREFIX]", help="A bucket of the plan instead.")
    ] = None,
    path: Annotated[
        list[str] | None,
        typer.Option("--path", help="Only this file, folder or pattern (`*`, `?`, `[…]`, `**`). May repeat."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what is there and differs; otherwise it stays.")
    ] = False,
    version: Annotated[
        str | None,
        typer.Option("--version", metavar="SHA256", help="This version of the one --path, by its first digits."),
    ] = None,
    tier: TierOption = None,
    wait: Wait = False,
    urgent: Urgent = False,
    preview: Annotated[
        bool, typer.Option("--preview", help="Only say what it would read, and what of that is offline.")
    ] = False,
    identity: IdentityFile = None,
    as_json: Json = False,
) -> None:
    """Bring files back: all of a snapshot, or some. Verified beside the target, then moved into it."""
    if (target is None) == (to_store is None):
        raise UsageError("name one target: a directory, or a bucket with --to-store")
    place = target.absolute() if target is not None else operations.StorePlace.parse(str(to_store))
    site = settings.site(identity)
    tier = site.tier_of(file_set, tier) if tier else None
    if preview:
        with Bars() as bars:
            seen = operations.preview_files(
                site, file_set, snapshot, place, bars,
                paths=path or (), overwrite=overwrite, version=version, tier=tier, urgent=urgent,
            )  # fmt: skip
        print_json(seen) if as_json else _show_preview(seen)
        return
    with Bars() as bars:
        report = operations.restore_files(
            site, file_set, snapshot, place, bars,
            paths=path or (), overwrite=overwrite, version=version, tier=tier, wait=wait, urgent=urgent,
        )  # fmt: skip
    if as_json:
        print_json(report)
    else:
        _show_report(report)
    report.require_whole()


def _show_preview(seen: FilesPreview) -> None:
    facts: dict[str, Any] = {
        "would restore": f"{counted(seen.files, 'file')}, {size(seen.bytes)}",
        "from": f"{seen.snapshot} of {seen.file_set}",
        "to": seen.target,
        "would read": f"{size(seen.stored_bytes)} in {counted(seen.packs, 'pack')}",
        "reading costs": f"{seen.cost:.2f}",
    }
    if seen.offline_objects:
        asked = f", {seen.arriving_objects:,} on their way" if seen.arriving_objects else ""
        facts["offline"] = (
            f"{counted(seen.offline_objects, 'object')} of {' and '.join(seen.offline_tiers)}, "
            f"{size(seen.offline_bytes)}, with something of {counted(seen.offline_files, 'file')}{asked}"
        )
        facts["recall takes"] = f"up to {span(seen.recall_seconds)}; --wait asks for them and waits"
    print_facts(facts)
    for note in seen.notes:
        out.print(f"note: {note}", soft_wrap=True)


def _show_report(report: FilesReport) -> None:
    files, links = counted(report.files, "file"), counted(report.links, "link")
    directories = counted(report.directories, "directory", "directories")
    facts: dict[str, Any] = {
        "restored": f"{files}, {size(report.bytes)}, {directories}, {links}",
        "from": f"{report.snapshot} of {report.file_set}",
        "to": report.target,
        "read": f"{size(report.fetched_bytes)} in {counted(report.packs, 'pack')}",
        "took": f"{report.seconds:.1f} s",
    }
    facts |= {"there already": f"{report.same:,} as they should be"} if report.same else {}
    facts |= {"kept": f"{len(report.kept):,} that differ; --overwrite replaces them"} if report.kept else {}
    print_facts(facts)
    for note in report.notes:
        out.print(f"note: {note}", soft_wrap=True)
    for kept in report.kept[:10]:
        out.print(f"kept: {kept}", soft_wrap=True)
    for failed, why in [*report.failed.items()][:100]:
        out.print(f"not restored: {failed}: {why}", soft_wrap=True)


@files_app.command("versions")
def versions(
    file_set: FileSetName,
    path: Annotated[str, typer.Argument(metavar="PATH", help="Relative to the source.")],
    tier: TierOption = None,
    identity: IdentityFile = None,
    as_json: Json = False,
) -> None:
    """Each version of a file, with the snapshots that hold it."""
    site = settings.site(identity)
    tier = site.tier_of(file_set, tier) if tier else None
    with Bars() as bars:
        found = operations.file_versions(site, file_set, os.fsencode(path), bars, tier=tier)
    if as_json:
        print_json(found)
        return
    columns = ("version", "size", "modified", "first", "last", "snapshots")
    print_table(f"{path} of {file_set}", columns, [_version_row(one) for one in found])


def _version_row(one: Version) -> tuple[Any, ...]:
    named = f"→ {one.target}" if one.target else one.error or one.kind
    return (
        one.sha256[:12] if one.sha256 else named, size(one.size) if one.sha256 and one.size is not None else None,
        minute(one.modified) if one.modified else None, one.first, one.last, f"{one.snapshots:,}",
    )  # fmt: skip


@files_app.command("diff")
def diff(
    file_set: FileSetName,
    before: SnapshotName,
    after: Annotated[str, typer.Argument(metavar="SNAPSHOT|live", help="Another one, or the source as it is now.")],
    contents: Annotated[
        bool, typer.Option("--contents", help="Read the source's files, where it is compared with one.")
    ] = False,
    every: Annotated[bool, typer.Option("--all", help="Show all changes, not only the first hundred.")] = False,
    tier: TierOption = None,
    identity: IdentityFile = None,
    as_json: Json = False,
) -> None:
    """What was added, changed and removed. Two snapshots are compared by SHA-256, the source by size and time."""
    site = settings.site(identity)
    tier = site.tier_of(file_set, tier) if tier else None
    with Bars() as bars:
        found = operations.diff_files(
            site, file_set, before, after, bars, contents=contents, most=None if every else _SHOWN, tier=tier
        )
    if as_json:
        print_json(found)
        return
    for change in found.changes:
        sizes = [size(one) for one in (change.before, change.after) if one is not None]
        out.print(f"{change.what:<8} {change.path}  ({' → '.join(dict.fromkeys(sizes))})", soft_wrap=True)
    total = sum(found.counts.values())
    if total > len(found.changes):
        out.print(f"… and {total - len(found.changes):,} more: --all shows them", soft_wrap=True)
    for path, why in found.unread.items():
        out.print(f"not read: {path}: {why}", soft_wrap=True)
    told = ", ".join(f"{count:,} {_WORDS.get(what, what)}" for what, count in found.counts.items())
    out.print(f"{found.before} → {found.after}, by {found.compared}: {told}", soft_wrap=True)


_WORDS = {"type": "of another type", "mode": "with another mode or owner"}
