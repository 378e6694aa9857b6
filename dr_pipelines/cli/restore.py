"""`dr restore`: the bad day."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from dr_pipelines import operations
from dr_pipelines.cli.context import IdentityFile, Json, ServerName, TierOption, Urgent, Wait, settings
from dr_pipelines.cli.output import Bars, instant, out, print_facts, print_json, print_table, size, span
from dr_pipelines.cli.restored_files import show_files
from dr_pipelines.errors import UsageError
from dr_pipelines.lsn import Lsn, Timeline
from dr_pipelines.postgres.neutralise import NOTES_FILE
from dr_pipelines.postgres.restore import RestoreReport
from dr_pipelines.postgres.restore_plan import RecoveryTarget, UseIncrementals
from dr_pipelines.postgres.restore_preview import RestorePreview, TierEstimate
from dr_pipelines.postgres.restore_request import RecoveryAction, RestoreRequest
from dr_pipelines.postgres.tablespaces import parse_mapping
from dr_pipelines.wording import counted


def restore(
    server: ServerName,
    to: Annotated[Path, typer.Option("--to", help="A directory that is empty or not there yet.")],
    time: Annotated[str | None, typer.Option(help="An instant with its zone: 2026-11-23T14:05:00Z.")] = None,
    lsn: Annotated[str | None, typer.Option(help="A position: 0/3000148.")] = None,
    xid: Annotated[str | None, typer.Option(help="A transaction id.")] = None,
    name: Annotated[str | None, typer.Option(help="A restore point made by pg_create_restore_point.")] = None,
    immediate: Annotated[bool, typer.Option("--immediate", help="The end of the backup itself.")] = False,
    exclusive: Annotated[bool, typer.Option("--exclusive", help="Stop just before --time, --lsn or --xid.")] = False,
    timeline: Annotated[
        int | None, typer.Option(min=1, max=0xFFFFFFFF, help="Follow this timeline instead of the newest.")
    ] = None,
    label: Annotated[str | None, typer.Option(help="Start from this backup.")] = None,
    even_failed: Annotated[
        bool, typer.Option("--even-failed", help="Take also a backup whose validation, or comparison with WAL, failed.")
    ] = False,
    tier: TierOption = None,
    use_incrementals: Annotated[UseIncrementals, typer.Option(help="Merge them, or replay WAL instead.")] = "auto",
    tablespace: Annotated[
        list[str] | None,
        typer.Option(
            "-T",
            "--tablespace-mapping",
            metavar="OLD=NEW",
            help="New directory of a tablespace, by old location or oid; else <to>_tablespaces/<oid>. May repeat.",
        ),
    ] = None,
    action: Annotated[
        RecoveryAction,
        typer.Option("--action", "--target-action", help="What happens at the target; pause stays read-only there."),
    ] = "promote",
    start: Annotated[bool, typer.Option("--start", help="Leave the restored server running.")] = False,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Where it listens; as before without it.")] = None,
    socket_dir: Annotated[Path | None, typer.Option(help="Where its Unix socket is; /tmp without it.")] = None,
    wait: Wait = False,
    urgent: Urgent = False,
    with_files: Annotated[
        bool, typer.Option("--with-files", help="Also the files of that instant: the sets that have rows in it.")
    ] = False,
    file_set: Annotated[
        list[str] | None, typer.Option("--files", metavar="SET", help="Of these file sets only. May repeat.")
    ] = None,
    files_to: Annotated[
        Path | None, typer.Option(help="A folder for a folder of each set; <to>-files without it.")
    ] = None,
    preview: Annotated[bool, typer.Option("--preview", help="Only say what it would give.")] = False,
    identity: IdentityFile = None,
    as_json: Json = False,
) -> None:
    """Restore a server to any instant. Without a target: to the newest commit that there is."""
    request = RestoreRequest(
        server,
        to.absolute(),
        _target(time, lsn, xid, name, immediate, timeline, inclusive=not exclusive),
        label=label,
        even_failed=even_failed,
        use_incrementals=use_incrementals,
        action=action,
        start=start,
        port=port,
        socket_dir=socket_dir.absolute() if socket_dir else None,
        tablespaces=parse_mapping(tablespace or []),
        wait=wait,
        urgent=urgent,
    )
    site = settings.site(identity)
    tier = site.tier_of(server, tier) if tier else None
    if preview:
        with Bars() as bars:
            seen = operations.preview_restore(site, request, bars, tier=tier)
        _show_preview(seen, bars, as_json=as_json)
        return
    if with_files or file_set or files_to:
        with Bars() as bars:
            point = operations.restore_with_files(
                site,
                request,
                bars,
                file_sets=file_set or (),
                files_to=files_to.absolute() if files_to else None,
                tier=tier,
            )
        if as_json:
            print_json({**_plain(point.database), "files": [{**vars(one)} for one in point.files]})
        else:
            _show_report(point.database, bars, as_json=False)
            show_files(point.files)
        point.require_whole()
        return
    with Bars() as bars:
        report = operations.restore(site, request, bars, tier=tier)
    _show_report(report, bars, as_json=as_json)


def _target(
    time: str | None,
    lsn: str | None,
    xid: str | None,
    name: str | None,
    immediate: bool,
    timeline: int | None,
    *,
    inclusive: bool,
) -> RecoveryTarget:
    given = {"time": time, "lsn": lsn, "xid": xid, "name": name, "immediate": immediate or None}
    chosen = [kind for kind, value in given.items() if value is not None]
    if len(chosen) > 1:
        raise UsageError(f"only one target can be reached, not {' and '.join(chosen)}")
    on = Timeline(timeline) if timeline is not None else None
    try:
        match chosen:
            case ["time"]:
                return RecoveryTarget("time", instant(str(time)), inclusive, on)
            case ["lsn"]:
                return RecoveryTarget("lsn", Lsn.parse(str(lsn)), inclusive, on)
            case ["xid"]:
                return RecoveryTarget("xid", xid, inclusive, on)
            case ["name"]:
                return RecoveryTarget("name", name, inclusive, on)
            case ["immediate"]:
                return RecoveryTarget("immediate", None, inclusive, on)
    except ValueError as error:
        raise UsageError(str(error), hint="`dr restore --help` shows how targets are written.") from None
    return RecoveryTarget("latest", None, inclusive, on)


def _show_preview(seen: RestorePreview, bars: Bars, *, as_json: bool) -> None:
    if as_json:
        print_json(seen)
        return
    print_facts(
        {
            "target": seen.target,
            "tier": seen.tier,
            "chain": " → ".join(seen.chain),
            "WAL": f"from {seen.wal_start}, up to {seen.reachable_end} can be reached",
            "bytes": f"{size(seen.bytes)} from {size(seen.stored_bytes)} stored, {size(seen.wal_bytes)} of WAL",
            "newest commit": seen.newest_commit or "not known",
            "estimated": span(seen.estimated_seconds),
        }
    )
    if len(seen.tiers) > 1 or any(tier.offline_objects for tier in seen.tiers):
        columns = ["tier", "takes about", "reading costs", "offline"]
        print_table("what each tier would take", columns, [_row(tier) for tier in seen.tiers])
    _show_notes(seen.notes, bars)


def _row(tier: TierEstimate) -> tuple[str, ...]:
    offline = f"{counted(tier.offline_objects, 'object')}, {size(tier.offline_bytes)}" if tier.offline_objects else "-"
    return (
        f"{tier.tier} (chosen)" if tier.is_chosen else tier.tier,
        span(tier.estimated_seconds),
        f"{tier.cost:.2f}",
        f"{offline}, {tier.arriving_objects} on their way" if tier.arriving_objects else offline,
    )


def _show_notes(notes: Iterable[str], bars: Bars) -> None:
    for note in notes:
        if not bars.is_on_screen(note):
            out.print(f"note: {note}", soft_wrap=True)


def _state(report: RestoreReport) -> str:
    stays = {"promote": "", "pause": ", pauses there until it is promoted", "shutdown": ", ends there until it is told"}
    return f"{stays[report.action]}; the server {'runs' if report.running else 'is stopped'}"


def _plain(report: RestoreReport) -> dict[str, Any]:
    return {"seconds": report.seconds, **vars(report)}


def _show_report(report: RestoreReport, bars: Bars, *, as_json: bool) -> None:
    if as_json:
        print_json(_plain(report))
        return
    phases = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in report.phases.items())
    print_facts(
        {
            "restored": f"{report.server} to {report.data_dir}",
            "from": f"{report.tier}: {' → '.join(report.chain)}",
            "target": report.target,
            "reached": f"{report.reached_lsn}, now on timeline {report.timeline.id}{_state(report)}",
            "bytes": f"{size(report.bytes)} and {size(report.wal_bytes)} of WAL",
            "took": f"{report.seconds:.1f} s ({phases})",
        }
    )
    _show_notes(report.notes, bars)
    for purpose, command in report.commands.items():
        out.print(f"{purpose}: {command}", soft_wrap=True)
    out.print(f"what was switched off, and how to let the server out: {report.data_dir / NOTES_FILE}", soft_wrap=True)
