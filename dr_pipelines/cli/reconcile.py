"""`dr reconcile`: rows of databases against the files they point at."""

from __future__ import annotations

from typing import Annotated

import typer

from dr_pipelines import operations
from dr_pipelines.cli.context import FileSetName, IdentityFile, Json, TierOption, settings
from dr_pipelines.cli.output import Bars, end_as, out, print_checks, print_json, print_table
from dr_pipelines.cli.output import size as sized
from dr_pipelines.operations import Reconciliation, Repaired
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
        bool, typer.Option("--repair", help="Bring back what a snapshot has; what is replaced is kept beside it.")
    ] = False,
    settle: Annotated[
        float, typer.Option(min=0, help="Seconds until what differs on the source is looked at again.")
    ] = operations.SETTLED,
    tier: TierOption = None,
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
        )
    if as_json:
        told = {"file_set": seen.file_set, "against": seen.against, "repaired": seen.repaired, "check": seen.check}
        print_json(told)
    else:
        _show(seen)
        print_checks([seen.check])
    end_as(seen.check)


def _show(seen: Reconciliation) -> None:
    if seen.repaired is not None:
        _show_repaired(seen.repaired)
    counts = seen.found.counts
    for kind, rows in seen.check.details["findings"].items():
        told = [(row["path"], row.get("reference", ""), _told(row, ""), _told(row, "found_")) for row in rows[:_SHOWN]]
        print_table(f"{_TITLES[kind]}: {counts[kind]:,}", ("path", "reference", "row", "file"), told)
        if counts[kind] > len(told):
            out.print(f"and {counts[kind] - len(told):,} more; --json names up to 300 of each")


def _show_repaired(done: Repaired) -> None:
    out.print(f"{counted(len(done.restored), 'file')} restored, {counted(len(done.replaced), 'file')} replaced")
    for path in done.replaced[:_SHOWN]:
        out.print(f"replaced: {path}; what was there is {path}{done.aside}", soft_wrap=True)
    for path, why in [*done.not_repaired.items()][:_SHOWN]:
        out.print(f"not repaired: {path}: {why}", soft_wrap=True)


def _told(row: dict[str, object], prefix: str) -> str:
    size, digest = row.get(f"{prefix}size"), row.get(f"{prefix}sha256") or row.get(f"{prefix}etag")
    told = [sized(int(str(size)))] if size is not None else []
    return ", ".join([*told, *([str(digest)[:12]] if digest else [])]) or "-"
