"""What a person sees in Dagster of copies, retention, scrubs, recovery windows and objectives.

Like `metadata`, it decides nothing. Numbers are plain, so that Dagster plots them; `summary` is for people.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg
from rich.filesize import decimal

from dr_pipelines.checks import Verdict
from dr_pipelines.metadata import table

if TYPE_CHECKING:
    # For their names only: the code location must load fast.
    from dr_pipelines.operations import (
        AgingReport,
        EquivalenceReport,
        Objectives,
        ReplicationReport,
        RetentionReport,
        RetentionTable,
        ScrubReport,
        TierWindows,
        ValidationReport,
    )

MOST_ROWS = 300
"""Of a table: more would make the page slow, and the store has all of it."""


def replication_metadata(report: ReplicationReport) -> dict[str, Any]:
    """Sizes in bytes, times in seconds."""
    moved = report.bytes + report.wal_bytes
    labels = ", ".join(f"`{label}`" for label in report.labels) or "nothing new"
    rows = [
        ["copied", labels],
        ["backups", f"{report.objects} objects, {decimal(report.bytes)}; {report.already_there} were there already"],
        ["WAL", f"{report.wal_objects} objects, {decimal(report.wal_bytes)}"],
        ["time", f"{report.seconds:.1f} s"],
    ]
    return {
        "summary": dg.MetadataValue.md(table(["", ""], rows)),
        "tier": report.tier,
        "labels": ", ".join(report.labels),
        "objects": report.objects,
        "bytes": report.bytes,
        "already_there": report.already_there,
        "wal_objects": report.wal_objects,
        "wal_bytes": report.wal_bytes,
        "seconds": round(report.seconds, 3),
        **({"mb_per_second": round(moved / report.seconds / 1e6, 2)} if moved and report.seconds > 0 else {}),
    }


# --- retention ----------------------------------------------------------------------------------------------


def retention_metadata(tables: Sequence[RetentionTable], unread: Mapping[str, str]) -> dict[str, Any]:
    """One table for each tier: what is kept until when and why, what goes, and what stops it. Sizes in bytes."""
    entries: dict[str, Any] = {}
    for found in tables:
        entries[found.tier] = dg.MetadataValue.md(_retention_table(found))
        entries[f"{found.tier}_keeps"] = len(found.decisions) - len(found.expire)
        entries[f"{found.tier}_lets_go"] = len(found.expire)
        entries[f"{found.tier}_frees_bytes"] = found.frees
        if found.guards:
            entries[f"{found.tier}_frozen"] = "\n".join(f"{guard.sentence}; {guard.hint}" for guard in found.guards)
    for tier, why in unread.items():
        entries[f"{tier}_not_read"] = why
    return entries


def _retention_table(found: RetentionTable) -> str:
    rows = [
        [
            f"`{decision.label}`",
            "keep" if decision.keep else "**let go**",
            _day(decision.until) if decision.keep else "",
            decision.why,
            decimal(decision.stored_bytes),
        ]
        for decision in reversed(found.decisions)
    ]
    more = [f"and {len(rows) - MOST_ROWS} older ones"] if len(rows) > MOST_ROWS else []
    frozen = [f"**Nothing is removed:** {guard.sentence}. {guard.hint}" for guard in found.guards]
    pruned = [f"Of crashes and of what was let go before: {decimal(found.frees)} to be pruned."] if found.frees else []
    listed = table([found.thing, "", "until", "why", "stored"], rows[:MOST_ROWS]) if rows else f"no {found.thing}s"
    return "\n\n".join([*frozen, listed, *more, *pruned])


def _day(at: datetime | None) -> str:
    return "for ever" if at is None else f"{at:%Y-%m-%d}"


def applied_metadata(reports: Sequence[RetentionReport], aged: Sequence[AgingReport]) -> dict[str, Any]:
    """What went, and what moved to a colder storage class, tier by tier. Sizes in bytes."""
    entries: dict[str, Any] = {}
    for report in reports:
        tier = report.table.tier
        entries[f"{tier}_let_go"] = ", ".join(report.expired) or "nothing"
        entries[f"{tier}_pruned"] = ", ".join(report.pruned.labels) or "nothing"
        if report.table.thing == "backup":
            entries[f"{tier}_pruned_wal_objects"] = report.pruned.wal_objects
        else:
            entries[f"{tier}_pruned_archives"] = report.pruned.archives
        entries[f"{tier}_freed_bytes"] = report.pruned.bytes
        if report.table.guards:
            entries[f"{tier}_frozen"] = "\n".join(guard.sentence for guard in report.table.guards)
        if report.refused:
            entries[f"{tier}_stay"] = "\n".join(f"{label}: {why}" for label, why in report.refused.items())
        if report.evidence is not None:
            entries[f"{tier}_evidence"] = report.evidence
    for moved in aged:
        if moved.aged is not None and moved.plan.moves:
            entries[f"{moved.tier}_moved_objects"] = moved.aged.objects
            entries[f"{moved.tier}_moved_bytes"] = moved.aged.bytes
    return entries


# --- scrubs -------------------------------------------------------------------------------------------------


def scrub_metadata(report: ScrubReport) -> dict[str, Any]:
    """What was read, repaired and lost. Sizes in bytes, times in seconds."""
    size = sum(server.bytes for server in report.servers)
    faults = [[f"`{outcome.fault.key}`", outcome.fault.what, outcome.state.value] for outcome in report.outcomes]
    lost = [f"`{gone.label}`" for server in report.servers for gone in server.lost_backups]
    lost += [str(gone) for server in report.servers for gone in server.lost_wal]
    said = [report.check.summary]
    if faults:
        said.append(table(["object", "was", "now"], faults[:MOST_ROWS]))
    if lost:
        said.append("Restore points that are lost: " + ", ".join(lost))
    return {
        "summary": dg.MetadataValue.md("\n\n".join(said)),
        "objects": sum(server.objects for server in report.servers),
        "read": sum(server.read for server in report.servers),
        "offline": sum(server.offline for server in report.servers),
        "bytes": size,
        "faults": len(faults),
        "seconds": round(report.seconds, 3),
        **({"mb_per_second": round(size / report.seconds / 1e6, 2)} if report.seconds > 0 else {}),
        **({"evidence": report.evidence} if report.evidence is not None else {}),
    }


# --- validations --------------------------------------------------------------------------------------------


def validation_metadata(report: ValidationReport) -> dict[str, Any]:
    """What was restored, what it took (seconds, by phase; without waiting for cold storage it is the measured RTO), and
    each check's answer."""
    seen, speeds = report.validation, report.speeds
    marks = {Verdict.PASS: "pass", Verdict.FAIL: "**FAIL**", Verdict.NOT_PROVEN: "**not proven**"}
    checks = [[f"`{one.name}`", "skipped" if one.skipped else marks[one.verdict], one.summary] for one in report.checks]
    phases = [
        [name, f"{took:.1f} s", f"{speeds[name] / 1e6:.0f} MB/s" if name in speeds else ""]
        for name, took in seen.phases.items()
    ]
    return {
        "summary": dg.MetadataValue.md(report.check.summary),
        "checks": dg.MetadataValue.md(table(["check", "", "what was seen"], checks)),
        "phases": dg.MetadataValue.md(table(["phase", "took", ""], phases)),
        "verdict": str(seen.verdict),
        "label": seen.label,
        "chain": ", ".join(seen.chain),
        "tier": seen.tier,
        "bytes": seen.bytes,
        "wal_bytes": seen.wal_bytes,
        **({"rto_seconds": round(seen.recovery_seconds, 3)} if seen.reached is not None else {}),
        **{f"{name}_seconds": round(took, 3) for name, took in seen.phases.items()},
        **{f"{name}_mb_per_second": round(speed / 1e6, 2) for name, speed in speeds.items()},
        **({"reached_lsn": str(seen.reached)} if seen.reached is not None else {}),
        **({"evidence": report.evidence} if report.evidence is not None else {}),
    }


# --- recovery windows ---------------------------------------------------------------------------------------


def windows_metadata(
    server: str, tiers: Sequence[TierWindows], *, promised: timedelta, now: datetime
) -> dict[str, Any]:
    """A chart of tiers over time, a table of the windows and of the gaps, and how far each tier reaches back."""
    from dr_pipelines.reports.recoverability import Row, draw

    rows = [Row(found.tier, found.systems, found.promised, found.error) for found in tiers]
    chart = base64.b64encode(draw(f"What can be restored of {server}", rows, now)).decode()
    windows = [
        [found.tier, f"{window.start_at:%Y-%m-%d %H:%M}", f"{window.end_at:%Y-%m-%d %H:%M}", window.timeline.id,
         f"`{window.start}` to `{window.end}`", len(window.points)]
        for found in tiers for system in found.systems for window in (*system.windows, *system.branches)
    ]  # fmt: skip
    gaps = [
        [found.tier, f"{gap.start_at:%Y-%m-%d %H:%M}", f"{gap.end_at:%Y-%m-%d %H:%M}" if gap.end_at else "now", gap.why]
        for found in tiers for system in found.systems for gap in system.gaps
    ]  # fmt: skip
    entries: dict[str, Any] = {
        "chart": dg.MetadataValue.md(f"![recovery windows](data:image/svg+xml;base64,{chart})"),
        "windows": dg.MetadataValue.md(
            table(["tier", "from (UTC)", "to", "timeline", "LSN", "backups"], windows[:MOST_ROWS])
        ),
        "promised_seconds": promised.total_seconds(),
    }
    if gaps:
        entries["gaps"] = dg.MetadataValue.md(table(["tier", "from (UTC)", "to", "why"], gaps[:MOST_ROWS]))
    for found in tiers:
        newest = found.systems[-1].windows[-1:] if found.systems else ()
        for window in newest:
            entries[f"{found.tier}_reaches_back_seconds"] = round((now - window.start_at).total_seconds())
        if found.error is not None:
            entries[f"{found.tier}_not_seen"] = found.error
    return entries


# --- objectives ---------------------------------------------------------------------------------------------


def objectives_metadata(found: Objectives) -> dict[str, Any]:
    """A table of promised, measured and margin, and the numbers behind it, in seconds."""
    from dr_pipelines.objectives.judgement import read

    rows = [
        [line.promise.table.upper(), line.promise.name, *read(line), str(line.verdict), line.summary]
        for line in found.lines
    ]
    columns = ["", "", "promised", "measured", "margin", "", "how"]
    entries: dict[str, Any] = {
        "objectives": dg.MetadataValue.md(table(columns, rows)),
        "not_met": sum(not line.check.passed for line in found.lines),
    }
    for line in found.lines:
        if line.measured is not None:
            thing = "rpo_exposure" if line.promise.table == "rpo" else "rto"
            entries[f"{thing}_seconds_{line.promise.name}"] = round(line.measured, 3)
    for server, exposures in found.exposures.items():
        seconds = {place.place: place.seconds for place in exposures if place.seconds is not None}
        entries |= {f"rpo_exposure_seconds_{server}_{place}": round(known, 3) for place, known in seconds.items()}
    for server, times in found.restores.items():
        for tier, newest in times.newest.items():
            entries[f"rto_seconds_{server}_{tier}"] = round(newest.seconds, 3)
            entries[f"restored_bytes_{server}_{tier}"] = newest.bytes
    return entries


# --- equivalence --------------------------------------------------------------------------------------------


def equivalence_metadata(report: EquivalenceReport) -> dict[str, Any]:
    """Times in seconds; what was counted of pages is with the check too."""
    seen = report.check.details
    rows = [
        ["compared", " → ".join(f"`{label}`" for label in report.chain) or "nothing"],
        ["pages", f"{seen.get('pages', 0)} of {seen.get('relations', 0)} relations"],
        *[["differs", found] for found in seen.get("differences", ())],
        *[[f"not used any more on {tier}", ", ".join(labels)] for tier, labels in (report.marked or {}).items()],
        ["time", f"{report.seconds:.1f} s"],
    ]
    entries: dict[str, Any] = {
        "summary": dg.MetadataValue.md(table(["", ""], rows)),
        "tier": report.tier,
        "seconds": round(report.seconds, 3),
        "evidence": report.evidence,
        **{name: seen[name] for name in ("lsn", "relations", "pages", "masked") if name in seen},
        **{f"{phase.replace(' ', '_')}_seconds": round(took, 3) for phase, took in (report.phases or {}).items()},
    }
    return {name: value for name, value in entries.items() if value is not None}
