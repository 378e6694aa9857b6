"""`dr reconcile`: rows of databases against the files they point at."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer

from dr_pipelines import operations
from dr_pipelines.cli.context import FileSetName, IdentityFile, Json, TierOption, Urgent, Wait, settings
from dr_pipelines.cli.output import Bars, end_as, out, print_checks, print_json, print_table
from dr_pipelines.cli.output import size as sized
from dr_pipelines.operations import Planned, Reconciliation, Repaired
from dr_pipelines.wording import counted

_SHOWN = 30
_TITLES = {
    "missing": "rows without their file",
    "extra": "files without a row",
    "size": "files of another size",
    "digest": "files of another content",
}


def reconcile(
    file_set: FileSetName,
    against: Annotated[
        str, typer.Option(metavar="live|SNAPSHOT|TIME", help="What the rows are held against.")
    ] = "live",
    database_at: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Ask a restored server there instead of the plan's.")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every file whose row names a digest, or that is listed by its row.")
    ] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Bring back what a snapshot has, as is told without this; nothing is lost.")
    ] = False,
    settle: Annotated[
        float, typer.Option(min=0, help="Seconds until what differs on the source is looked at again.")
    ] = operations.SETTLED,
    tier: TierOption = None,
    wait: Wait = False,
    urgent: Urgent = False,
    identity: IdentityFile = None,
    as_json: Json = False,
) -> None:
    """Compare the rows that point at files with the files.

    Exits 41 when rows lack their file, files have no row, or sizes or digests differ; 40 when that was not proven.
    """
    site = settings.site(identity)
    with Bars() as bars:
        seen = operations.reconcile(
            site,
            file_set,
            bars,
            against=against,
            database_at=database_at,
            tier=tier,
            read_all=verify,
            settled=settle,
            mend=repair,
            plan_only=not repair,
            wait=wait,
            urgent=urgent,
        )
    if as_json:
        names = ("file_set", "against", "planned", "repaired", "check")
        print_json({name: getattr(seen, name) for name in names})
    else:
        _show(seen)
        print_checks([seen.check])
    end_as(seen.check)


def _show(seen: Reconciliation) -> None:
    if seen.repaired is not None:
        _show_repaired(seen.repaired)
    if seen.planned is not None:
        _show_planned(seen.planned, seen.file_set)
    counts = seen.found.counts
    for kind, rows in seen.check.details["findings"].items():
        told = [(row["path"], row.get("reference", ""), _told(row, ""), _told(row, "found_")) for row in rows[:_SHOWN]]
        print_table(f"{_TITLES[kind]}: {counts[kind]:,}", ("path", "reference", "row", "file"), told)
        if counts[kind] > len(told):
            out.print(f"and {counts[kind] - len(told):,} more; --json names up to 300 of each")


def _show_repaired(done: Repaired) -> None:
    out.print(f"{counted(len(done.restored), 'file')} restored, {counted(len(done.replaced), 'file')} replaced")
    _list(f"replaced: {path}; what was there is {kept}" for path, kept in done.replaced.items())
    _list(f"not repaired: {path}: {why}" for path, why in done.not_repaired.items())
    _list(done.notes)


def _show_planned(would: Planned, file_set: str) -> None:
    if would.unknown is not None:
        out.print(f"what a snapshot could repair cannot be told here: {would.unknown}", soft_wrap=True)
        return
    _list(f"would come back: {path} from {label}" for path, label in would.restored.items())
    _list(f"would be replaced, and kept: {path} from {label}" for path, label in would.replaced.items())
    _list(f"cannot be repaired: {path}: {why}" for path, why in would.not_repaired.items())
    if count := len(would.restored) + len(would.replaced):
        out.print(f"`dr reconcile {file_set} --repair` repairs {counted(count, 'file')}", soft_wrap=True)


def _list(lines: Iterable[str]) -> None:
    shown = [*lines]
    for line in shown[:_SHOWN]:
        out.print(line, soft_wrap=True)
    if len(shown) > _SHOWN:
        out.print(f"and {len(shown) - _SHOWN:,} more; --json names them all")


def _told(row: dict[str, object], prefix: str) -> str:
    size, digest = row.get(f"{prefix}size"), row.get(f"{prefix}sha256") or row.get(f"{prefix}etag")
    told = [sized(int(str(size)))] if size is not None else []
    return ", ".join([*told, *([str(digest)[:12]] if digest else [])]) or "-"
