"""`dr backup`, `list`, `verify`, `wal stream`: the daily work."""

from __future__ import annotations

import contextlib
import sys
import threading
from typing import Annotated, Any

import typer

from dr_pipelines import operations
from dr_pipelines.cli.context import IdentityFile, Json, MaybeName, Name, ServerName, TierOption, settings, share_of
from dr_pipelines.cli.listing import show_held
from dr_pipelines.cli.output import (
    Bars,
    answer_checks,
    moment,
    out,
    print_facts,
    print_json,
    size,
)
from dr_pipelines.endings import on_ending
from dr_pipelines.postgres.take import SealedWal
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.repository.owners import FileSetOwner

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


def list_backups(name: MaybeName = None, tier: TierOption = None, as_json: Json = False) -> None:
    """The backups and snapshots on a tier, of one server or file set or of all."""
    show_held(name, tier or "primary", as_json=as_json)


def verify(
    name: Name,
    label: Annotated[str, typer.Argument(help="The label of a backup or snapshot, or latest.")] = "latest",
    tier: TierOption = None,
    identity: IdentityFile = None,
    sample: Annotated[
        str,
        typer.Option(
            "--sample", metavar="SHARE", help="How much of its bytes to read, as 10%; another part every day."
        ),
    ] = "100%",
    as_json: Json = False,
) -> None:
    """Read a backup or a snapshot of files whole and compare it with all that is known of it, without restoring it.

    Each object is compared with its SHA-256 and, with an identity, each file with its checksum. A backup's chain and
    the WAL after it, recipients, locks and the copies on other tiers are looked at too.
    """
    site, share = settings.site(identity), share_of(sample)
    is_of_files = isinstance(site.owner(name), FileSetOwner)
    where = site.tier_of(name, tier or "primary")
    with Bars() as bars:
        if is_of_files:
            checks = operations.check_snapshot(site, name, label, where, bars, sample=share)
        else:
            found = operations.find_backup(site, label, where, name)
            checks = operations.check_backup(site, name, found.label, where, bars, sample=share)
    answer_checks(checks, as_json=as_json)


@wal_app.command("stream")
def wal_stream(server: ServerName, as_json: Json = False) -> None:
    """Receive and ship WAL: a service of its own.

    Ends on SIGTERM or Ctrl-C, once what was received is shipped.
    """
    site, stop = settings.site(), threading.Event()
    on_ending(lambda *_: stop.set())
    to = sys.stderr if as_json else sys.stdout

    def say(line: str) -> None:
        # A log that is gone, full or of an old encoding must not end the stream.
        with contextlib.suppress(OSError, ValueError):
            print(line, file=to, flush=True)

    operations.stream_wal(site, server, stop, lambda said: say(f"{moment(site.clock.now())}: {said}"))
    say("stopped; what was received is shipped")
    if as_json:
        print_json({"server": server, "state": "stopped"})
