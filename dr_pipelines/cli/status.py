"""`dr status`: what stands, tier by tier."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from dr_pipelines import operations
from dr_pipelines.checks import Verdict
from dr_pipelines.cli.context import Json, settings
from dr_pipelines.cli.file_listing import lost
from dr_pipelines.cli.output import minute, moment, out, print_json, print_table, size, span
from dr_pipelines.errors import CheckFailed, NotProven, UsageError
from dr_pipelines.postgres.recovery_windows import RecoveryWindow, SystemWindows
from dr_pipelines.wording import counted

State: TypeAlias = operations.ServerState | operations.FileSetState
_VERDICTS = {Verdict.FAIL: "not kept", Verdict.NOT_PROVEN: "not proven"}


def status(
    chart: Annotated[
        Path | None, typer.Option(metavar="FILE.svg", help="Draw there what can be restored, tiers over time.")
    ] = None,
    as_json: Json = False,
) -> None:
    """What each tier holds of each server and file set, and the servers' WAL streams.

    Exits 41 when something is wrong, 40 when a tier cannot be read.
    """
    site = settings.site()
    states = operations.status(site)
    if chart is not None:
        windows = {state.server: [tier.windows for tier in state.tiers] for state in states}
        _write(chart, operations.recoverability_chart(site, windows))
    files = operations.file_status(site)
    if as_json:
        print_json([*states, *files])
    else:
        for state in states:
            _show_server(state)
        for found in files:
            _show_files(found)
    _judge([*states, *files])


def _write(file: Path, data: bytes) -> None:
    try:
        file.write_bytes(data)
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}", hint="name another file to --chart.") from error


def _judge(states: Sequence[State]) -> None:
    """Raises `NotProven` when a tier could not be seen, `CheckFailed` when what was seen is wrong."""
    unseen = [f"{state.name} on {tier.tier}" for state in states for tier in state.tiers if tier.error]
    if unseen:
        raise NotProven(f"cannot be read: {', '.join(unseen)}", hint="each warning above names the reason.")
    wrong = [state.name for state in states if state.warnings or any(tier.problems for tier in state.tiers)]
    if wrong:
        raise CheckFailed(f"not as planned: {', '.join(wrong)}", hint="each warning above names what to do.")


def _show_server(state: operations.ServerState) -> None:
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
    for tier in state.tiers:
        for line in _windows(tier.windows):
            out.print(f"{tier.tier}: {line}", soft_wrap=True)
    if (stream := state.stream) is not None:
        behind = "" if stream.lag_bytes is None else f" ({size(stream.lag_bytes)} behind the server)"
        out.print(
            f"stream: {stream.state}, received {stream.received_lsn or 'nothing yet'}{behind}, "
            f"{stream.sync_state or 'no word of the server'}, seen {moment(stream.updated_at)}",
            soft_wrap=True,
        )
        for tier_name, at in stream.tiers.items():
            waits = "" if at.lag_bytes is None else f", {size(at.lag_bytes)} wait in the spool"
            out.print(f"shipped to {tier_name}: {at.shipped_lsn or 'nothing yet'}{waits}", soft_wrap=True)
        if stream.sync_state in ("sync", "quorum"):
            out.print("a commit whose wait is cancelled returns with a warning only, and may be lost", soft_wrap=True)
    _show_troubles(state)


def _show_files(state: operations.FileSetState) -> None:
    rows = [
        (
            tier.tier,
            minute(newest.started_at) if (newest := tier.newest) else None,
            span((state.at - newest.started_at).total_seconds()) if newest else None,
            lost(tier.exposure),
            tier.snapshots,
            f"{newest.counts.files:,}" if newest else None,
            "cannot be read" if tier.error else "",
        )
        for tier in state.tiers
    ]
    columns = ["tier", "newest snapshot (UTC)", "age", "file RPO", "snapshots", "files", ""]
    print_table(state.file_set, columns, rows)
    if state.polls is not None and state.polls.until is not None:
        out.print(f"polled: every row of {moment(state.polls.until)} was looked at", soft_wrap=True)
    _show_troubles(state)


def _show_troubles(state: State) -> None:
    for tier in state.tiers:
        if tier.lag is not None:
            out.print(f"copied to {tier.tier}: {tier.lag}", soft_wrap=True)
    problems = [f"{problem} (on {tier.tier})" for tier in state.tiers for problem in tier.problems]
    for warning in (*state.warnings, *problems):
        out.print(f"warning: {warning}", style="yellow", soft_wrap=True)


def _windows(found: operations.TierWindows) -> Iterator[str]:
    """The newest system first, which is what `dr restore` restores."""
    for system in reversed(found.systems):
        of = "" if system is found.systems[-1] else f"the former system {system.system_id}: "
        yield from (of + line for line in _system(system))
    if found.kept is not None and found.systems and not found.kept.passed:
        yield f"the recovery window that the plan promises is {_VERDICTS[found.kept.verdict]}: {found.kept.summary}"


def _system(system: SystemWindows) -> Iterator[str]:
    wide = [window for window in system.windows if not window.is_point]
    for window in reversed(wide):
        yield f"any instant {_span(window)}"
    if single := [window.points[0] for window in system.windows if window.is_point]:
        oldest = min(single, key=lambda point: point.at)
        yield f"{counted(len(single), 'single restore point')}, the oldest {oldest.label}"
    for gap in system.gaps:
        if gap.end is None or any(window.start == gap.end for window in wide if window is not wide[0]):
            yield f"gap since {minute(gap.start_at)} UTC: {gap.why}"
    for window in system.branches:
        yield f"with --timeline {window.timeline.id} also any instant {_span(window)}"
    yield from (*system.troubles, *system.notes)


def _span(window: RecoveryWindow) -> str:
    """Not `up to now`: an idle server writes no WAL, and its window ends with the last that it wrote."""
    assumed = ", as far as can be seen without a key" if window.assumed else ""
    return (
        f"from {minute(window.start_at)} UTC ({window.start}) on, WAL up to {window.end}, stored at "
        f"{minute(window.end_at)} UTC, {counted(len(window.points), 'backup')}{assumed}"
    )
