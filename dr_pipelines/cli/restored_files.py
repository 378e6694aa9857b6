"""What `dr restore --with-files` says of the files that came back beside a server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dr_pipelines.cli.output import moment, out, print_facts, size, span
from dr_pipelines.operations import FilesRestored
from dr_pipelines.wording import counted

_SHOWN = 30


def show_files(restored: Sequence[FilesRestored]) -> None:
    for one in restored:
        out.print("")
        print_facts(_facts(one))
        for path in one.missing_named[:_SHOWN]:
            out.print(f"no version: {path}", soft_wrap=True)
        if one.missing > _SHOWN:
            out.print(f"and {one.missing - _SHOWN:,} more; --json names up to 300", soft_wrap=True)
        failed = one.report.failed if one.report is not None else {}
        for path, why in [*failed.items()][:_SHOWN]:
            out.print(f"not restored: {path}: {why}", soft_wrap=True)


def _facts(one: FilesRestored) -> dict[str, Any]:
    facts: dict[str, Any] = {"files": f"{one.file_set} to {one.target}", "as of": moment(one.at)}
    facts |= {"trouble": one.trouble} if one.trouble else {}
    if one.used:
        facts["from"] = ", ".join(f"{label}: {counted(count, 'file')}" for label, count in one.used.items())
    if one.rows:
        facts["rows"] = (
            f"{one.rows:,}: {one.proven:,} have the file of their digest, {one.likely:,} one of that time, "
            f"{one.doubtful:,} only a later one, {one.missing:,} none"
        )
    known = f"a snapshot that began {span(one.rpo_seconds)} before" if one.rpo_seconds is not None else "no snapshot"
    facts["other files"] = f"as in {known} (the file RPO of what no row names)"
    if one.report is not None:
        files = counted(one.report.files, "file")
        facts["restored"] = f"{files}, {size(one.report.bytes)}, in {one.report.seconds:.1f} s"
    return facts
