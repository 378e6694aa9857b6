"""`dr validate`: a backup restored to prove it."""

from __future__ import annotations

from typing import Annotated

import typer

from dr_pipelines import operations
from dr_pipelines.checks import CheckResult, Verdict
from dr_pipelines.cli.context import IdentityFile, Json, ServerName, TierOption, settings
from dr_pipelines.cli.output import Bars, end_as, print_checks, print_facts, print_json, print_table, size
from dr_pipelines.operations import ValidationReport
from dr_pipelines.repository.validations import Validation

_APART = ("recall", "validate")
"""Phases that are no part of a recovery."""


def validate(
    server: ServerName,
    label: Annotated[str, typer.Option(help="A backup's label, or latest.")] = "latest",
    tier: TierOption = None,
    identity: IdentityFile = None,
    as_json: Json = False,
) -> None:
    """Restore a backup from one tier alone to a scratch server, check it, and remove it.

    What was seen is kept on the tier as evidence and as a proof beside the backup; what it took is the measured RTO.
    Exits 41 when it failed: no restore begins with that backup then, until it is proven again; 40 when not proven.
    """
    site = settings.site(identity)
    where = site.tier_of(server, tier or "primary")
    with Bars() as bars:
        report = operations.validate_backup(site, server, label, where, bars)
    if as_json:
        seen = report.validation
        print_json({**vars(report), "recovery_seconds": seen.recovery_seconds, "speeds": report.speeds})
    else:
        _show(report)
    end_as(report.check)


def _show(report: ValidationReport) -> None:
    seen = report.validation
    print_checks(_worth_a_line(report))
    rows = [
        (name, f"{seconds:.1f} s", f"{speed / 1e6:.0f} MB/s" if (speed := report.speeds.get(name)) else "")
        for name, seconds in seen.phases.items()
    ]
    if recovering := [row for row in rows if row[0] not in _APART]:
        print_table("phases", ["", "took", ""], recovering)
    apart = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in seen.phases.items() if name in _APART)
    print_facts(
        {
            "backup": f"{' → '.join(seen.chain)} on {seen.tier}",
            "reached": seen.reached or "nothing",
            "bytes": f"{size(seen.bytes)} and {size(seen.wal_bytes)} of WAL",
            "recovery took": _rto(seen) + f" (and apart from it: {apart})",
            "evidence": report.evidence or "could not be kept",
            "verdict": seen.verdict.value.upper() + (f": {seen.summary}" if report.check.passed else ""),
        }
    )


def _worth_a_line(report: ValidationReport) -> list[CheckResult]:
    """Where the backup was not restored, what could not be looked at for that reason has no line of its own."""
    if report.validation.reached is not None:
        return [*report.checks]
    return [check for check in report.checks if check.verdict is not Verdict.NOT_PROVEN]


def _rto(seen: Validation) -> str:
    took = f"{seen.recovery_seconds:.1f} s"
    return f"{took}, the measured RTO" if seen.reached else f"{took} until it ended: no RTO was measured"
