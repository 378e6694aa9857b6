"""`dr backup`, `list`, `verify`, `status`, `restore`, `wal stream`: the daily work and the bad day."""

from __future__ import annotations

import signal
import threading
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from dr_pipelines import operations
from dr_pipelines.cli.context import IdentityFile, Json, MaybeServer, ServerName, TierOption, settings
from dr_pipelines.cli.output import (
    Bars,
    err,
    minute,
    moment,
    out,
    print_checks,
    print_facts,
    print_json,
    print_table,
    size,
)
from dr_pipelines.cli.setup import judge, show_backups
from dr_pipelines.errors import CheckFailed, NotProven, UsageError
from dr_pipelines.lsn import Lsn, Timeline
from dr_pipelines.postgres.neutralise import NOTES_FILE
from dr_pipelines.postgres.restore import RestoreReport
from dr_pipelines.postgres.restore_plan import RecoveryTarget, UseIncrementals
from dr_pipelines.postgres.restore_preview import RestorePreview
from dr_pipelines.postgres.restore_request import RecoveryAction, RestoreRequest
from dr_pipelines.postgres.tablespaces import parse_mapping
from dr_pipelines.postgres.take import SealedWal
from dr_pipelines.repository.layout import BackupKind

wal_app = typer.Typer(suggest_commands=False, help="The write-ahead log.", no_args_is_help=True)


def backup(
    server: ServerName,
    incremental: Annotated[bool, typer.Option("--incremental/--full", help="What to take.")] = False,
    as_json: Json = False,
) -> None:
    """Take a backup now."""
    kind = BackupKind.INCREMENTAL if incremental else BackupKind.FULL
    with Bars() as bars:
        taken = operations.take_backup(settings.site(), server, kind, bars)
    if as_json:
        print_json(taken)
        return
    if isinstance(taken, SealedWal):
        out.print(f"WAL of {server} is sealed and stored up to {taken.end} (incrementals need PostgreSQL 17)")
        return
    facts: dict[str, Any] = {
        "label": taken.label,
        "kind": taken.kind.value,
        "size": f"{size(taken.archive.size)}, {size(taken.stored_size)} stored",
        "took": f"{(taken.finished_at - taken.started_at).total_seconds():.1f} s",
        "LSN": f"{taken.start_lsn} to {taken.stop_lsn}, timeline {taken.timeline.id}",
    }
    facts |= {"full, because": taken.kind_reason} if taken.kind_reason else {}
    facts |= {"provisional": taken.provisional} if taken.provisional else {}
    print_facts(facts)


def list_backups(server: MaybeServer = None, tier: TierOption = None, as_json: Json = False) -> None:
    """The backups on a tier, of one server or of all."""
    show_backups(server, tier or "primary", as_json=as_json)


def verify(
    server: ServerName,
    label: Annotated[str, typer.Argument(help="A backup's label, or latest.")] = "latest",
    tier: TierOption = None,
    identity: IdentityFile = None,
    as_json: Json = False,
) -> None:
    """Read a backup whole and compare it; look for gaps in the WAL.

    Each object is compared with its SHA-256 and, with an identity, each file with PostgreSQL's own checksum.
    """
    site, where = settings.site(identity), tier or "primary"
    with Bars() as bars:
        checks = operations.verify_backup(site, server, label, where, bars)
    checks.append(operations.wal_has_no_gap(site, server, where))
    if as_json:
        print_json(checks)
    else:
        print_checks(checks)
    judge(checks)


def status(as_json: Json = False) -> None:
    """What each tier holds of each server, and its WAL stream.

    Exits 41 when something is wrong, 40 when a tier cannot be read.
    """
    states = operations.status(settings.site())
    if as_json:
        print_json(states)
    else:
        _show_states(states)
    _judge_states(states)


def _judge_states(states: list[operations.ServerState]) -> None:
    """Raises `NotProven` when a tier could not be seen, `CheckFailed` when what was seen is wrong."""
    unseen = [f"{state.server} on {tier.tier}" for state in states for tier in state.tiers if tier.error]
    if unseen:
        raise NotProven(f"cannot be read: {', '.join(unseen)}", hint="each warning above names the reason.")
    wrong = [state.server for state in states if state.warnings or any(tier.problems for tier in state.tiers)]
    if wrong:
        raise CheckFailed(f"not as planned: {', '.join(wrong)}", hint="each warning above names what to do.")


def _show_states(states: list[operations.ServerState]) -> None:
    for state in states:
        rows = [
            (
                tier.tier,
                minute(tier.newest_full.finished_at) if tier.newest_full else None,
                minute(tier.newest_backup.finished_at) if tier.newest_backup else None,
                tier.wal_end,
                "cannot be read" if tier.error else "",
            )
            for tier in state.tiers
        ]
        columns = ["tier", "newest full (UTC)", "newest backup", "WAL up to", ""]
        print_table(state.server, columns, rows)
        if (stream := state.stream) is not None:
            behind = "" if stream.lag_bytes is None else f" ({size(stream.lag_bytes)} behind the server)"
            out.print(
                f"stream: {stream.state}, received {stream.received_lsn}{behind}, "
                f"{stream.sync_state or 'no word of the server'}, seen {moment(stream.updated_at)}",
                soft_wrap=True,
            )
            for tier_name, at in stream.tiers.items():
                waits = "" if at.lag_bytes is None else f", {size(at.lag_bytes)} wait in the spool"
                out.print(f"shipped to {tier_name}: {at.shipped_lsn}{waits}", soft_wrap=True)
            if stream.sync_state in ("sync", "quorum"):
                out.print(
                    "a commit whose wait is cancelled returns with a warning only, and may be lost", soft_wrap=True
                )
        problems = [f"{problem} (on {tier.tier})" for tier in state.tiers for problem in tier.problems]
        for warning in (*state.warnings, *problems):
            out.print(f"warning: {warning}", style="yellow", soft_wrap=True)


def restore(
    server: ServerName,
    to: Annotated[Path, typer.Option("--to", help="A directory that is empty or not there yet.")],
    time: Annotated[str | None, typer.Option(help="An instant with its zone: 2026-11-23T14:05:00Z.")] = None,
    lsn: Annotated[str | None, typer.Option(help="A position: 0/3000148.")] = None,
    xid: Annotated[str | None, typer.Option(help="A transaction id.")] = None,
    name: Annotated[str | None, typer.Option(help="A restore point made by pg_create_restore_point.")] = None,
    immediate: Annotated[bool, typer.Option("--immediate", help="The end of the backup itself.")] = False,
    exclusive: Annotated[bool, typer.Option("--exclusive", help="Stop just before the target.")] = False,
    timeline: Annotated[
        int | None, typer.Option(min=1, max=0xFFFFFFFF, help="Follow this timeline instead of the newest.")
    ] = None,
    label: Annotated[str | None, typer.Option(help="Start from this backup.")] = None,
    tier: TierOption = None,
    use_incrementals: Annotated[str, typer.Option(help="auto, always or never.")] = "auto",
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
        str, typer.Option("--action", "--target-action", help="At the target: promote, pause (read-only) or shutdown.")
    ] = "promote",
    start: Annotated[bool, typer.Option("--start", help="Leave the restored server running.")] = False,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Where it listens; as before without it.")] = None,
    socket_dir: Annotated[Path | None, typer.Option(help="Where its Unix socket is; /tmp without it.")] = None,
    preview: Annotated[bool, typer.Option("--preview", help="Only say what it would give.")] = False,
    identity: IdentityFile = None,
    as_json: Json = False,
) -> None:
    """Restore a server to any instant. Without a target: to the newest commit that there is."""
    if use_incrementals not in ("auto", "always", "never"):
        raise UsageError(f"--use-incrementals takes auto, always or never, not {use_incrementals!r}")
    choice: UseIncrementals = use_incrementals  # type: ignore[assignment]
    if action not in ("promote", "pause", "shutdown"):
        raise UsageError(f"--action takes promote, pause or shutdown, not {action!r}")
    at_target: RecoveryAction = action  # type: ignore[assignment]
    request = RestoreRequest(
        server,
        to.absolute(),
        _target(time, lsn, xid, name, immediate, timeline, inclusive=not exclusive),
        label=label,
        use_incrementals=choice,
        action=at_target,
        start=start,
        port=port,
        socket_dir=socket_dir.absolute() if socket_dir else None,
        tablespaces=parse_mapping(tablespace or []),
    )
    site = settings.site(identity)
    if preview:
        with Bars() as bars:
            seen = operations.preview_restore(site, request, bars, tier=tier)
        _show_preview(seen, as_json=as_json)
        return
    with Bars() as bars:
        report = operations.restore(site, request, bars, tier=tier)
    _show_report(report, as_json=as_json)


@wal_app.command("stream")
def wal_stream(server: ServerName, as_json: Json = False) -> None:
    """Receive and ship WAL until told to stop (SIGTERM or Ctrl-C): a service of its own."""
    site, stop = settings.site(), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    say = err.print if as_json else out.print
    say(f"streaming WAL of {server}; its state is in {site.state_dir / server / 'stream.json'}", soft_wrap=True)
    operations.stream_wal(site, server, stop, lambda said: say(f"{moment(site.clock.now())}: {said}", soft_wrap=True))
    if as_json:
        print_json({"server": server, "state": "stopped"})
    else:
        out.print("stopped; what was received is shipped")


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
                return RecoveryTarget("time", _instant(str(time)), inclusive, on)
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
    return RecoveryTarget("latest", None, True, on)


def _instant(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no instant: write it as 2026-11-23T10:00:00Z") from None


def _show_preview(seen: RestorePreview, *, as_json: bool) -> None:
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
            "estimated": f"{seen.estimated_seconds:.0f} s",
        }
    )
    for note in seen.notes:
        out.print(f"note: {note}", soft_wrap=True)


def _state(report: RestoreReport) -> str:
    stays = {"promote": "", "pause": ", pauses there until it is promoted", "shutdown": ", ends there until it is told"}
    return f"{stays[report.action]}; the server {'runs' if report.running else 'is stopped'}"


def _show_report(report: RestoreReport, *, as_json: bool) -> None:
    if as_json:
        print_json({**{"seconds": report.seconds}, **{k: v for k, v in vars(report).items()}})
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
    for note in report.notes:
        out.print(f"note: {note}", soft_wrap=True)
    for purpose, command in report.commands.items():
        out.print(f"{purpose}: {command}", soft_wrap=True)
    out.print(f"what was switched off, and how to let the server out: {report.data_dir / NOTES_FILE}", soft_wrap=True)
