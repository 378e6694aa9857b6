"""The commands of `dr`."""

from __future__ import annotations

import signal
import threading
from datetime import datetime
from pathlib import Path
from typing import Annotated, get_args

import typer

from dr_pipelines import operations
from dr_pipelines.cli import output
from dr_pipelines.errors import PlanError, UsageError
from dr_pipelines.lsn import Lsn, Timeline
from dr_pipelines.plan import Plan
from dr_pipelines.plan.consistency import missing_secrets
from dr_pipelines.plan.load import default_plan_path, load_plan
from dr_pipelines.postgres.restore import RestoreRequest
from dr_pipelines.postgres.restore_plan import RecoveryTarget, UseIncrementals
from dr_pipelines.repository.encryption import generate_identity
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.site import Site

app = typer.Typer(help="Back up PostgreSQL and bring it back.", no_args_is_help=True, pretty_exceptions_enable=False)
plan_app, key_app, repository_app, store_app, wal_app = (typer.Typer(no_args_is_help=True) for _ in range(5))
app.add_typer(plan_app, name="plan", help="Check and show the plan.")
app.add_typer(key_app, name="key", help="Keys of encryption.")
app.add_typer(repository_app, name="repository", help="Where backups are kept.")
app.add_typer(store_app, name="store", help="Stores as they behave.")
app.add_typer(wal_app, name="wal", help="Continuous transaction logs.")

PlanFile = Annotated[Path | None, typer.Option("--plan", help="The plan; else $DR_PLAN, else dr_plan.yaml.")]
Json = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
Tier = Annotated[str, typer.Option(help="primary, secondary or archive.")]


def _plan(path: Path | None) -> Plan:
    return load_plan(path or default_plan_path())


def _site(path: Path | None) -> Site:
    return Site(_plan(path))


@plan_app.command("check")
def plan_check(plan: PlanFile = None) -> None:
    """Read the plan and look whether its secrets are there."""
    loaded = _plan(plan)
    if missing := missing_secrets(loaded):
        raise PlanError("secrets are missing:\n" + "\n".join(f"  {mistake}" for mistake in missing))
    output.say(f"the plan {loaded.name} is right: {len(loaded.databases)} servers, {len(loaded.storage)} stores")


@plan_app.command("show")
def plan_show(plan: PlanFile = None) -> None:
    """The plan as understood, with every default; secrets stay references."""
    output.say_json(_plan(plan))


@plan_app.command("schema")
def plan_schema() -> None:
    """The plan's JSON schema, for editors."""
    output.say_json(Plan.model_json_schema())


@key_app.command("new")
def key_new() -> None:
    """A new age identity on stdout, its recipient in a comment. Keep it off the backup host."""
    identity = generate_identity()
    output.say(f"# public key: {identity.recipient}\n{identity}")


@repository_app.command("init")
def repository_init(plan: PlanFile = None) -> None:
    """Make every tier of every server a repository."""
    for made in operations.initialise_repositories(_site(plan)):
        output.say(f"{made.store.name} is a repository")


@repository_app.command("list")
def repository_list(plan: PlanFile = None, as_json: Json = False) -> None:
    """Every server's repositories."""
    site = _site(plan)
    rows = [(server, tier, site.repository(server, tier).store.name)
            for server in site.plan.databases for tier in site.tiers(server)]  # fmt: skip
    if as_json:
        output.say_json([dict(zip(("server", "tier", "store"), row, strict=True)) for row in rows])
    else:
        output.say_table(("server", "tier", "store"), rows)


@repository_app.command("show")
def repository_show(server: str, tier: Tier = "primary", plan: PlanFile = None, as_json: Json = False) -> None:
    """A repository's id and the servers in it."""
    found = _site(plan).repository(server, tier)
    shown = {"id": found.check_format(), "store": found.store.name, "servers": found.servers()}
    (output.say_json if as_json else output.say_fields)(shown)


@store_app.command("check")
def store_check(store: str, plan: PlanFile = None, as_json: Json = False) -> None:
    """Try a store (by name or tier) with scratch objects."""
    output.say_checks(operations.check_store(_site(plan), store), as_json)


@app.command()
def backup(
    server: str,
    full: Annotated[bool, typer.Option("--full/--incremental", help="What to take.")] = False,
    plan: PlanFile = None,
    as_json: Json = False,
) -> None:
    """Take a backup into the primary tier."""
    with output.progress() as progress:
        kind = BackupKind.FULL if full else BackupKind.INCREMENTAL
        taken = operations.take_backup(_site(plan), server, kind, progress)
    (output.say_json if as_json else output.say_fields)(taken)


@app.command("list")
def list_backups(server: str, tier: Tier = "primary", plan: PlanFile = None, as_json: Json = False) -> None:
    """The backups of a server, oldest first; what is not understood is told too."""
    catalog = operations.list_backups(_site(plan), server, tier)
    if as_json:
        output.say_json(catalog)
        return
    columns = ("label", "kind", "parent", "finished", "stop LSN", "stored bytes")
    output.say_table(columns, [
        (one.label, one.kind, one.parent or "-", one.finished_at, one.stop_lsn, one.stored_size)
        for one in catalog.backups
    ])  # fmt: skip
    for problem in catalog.problems:
        output.say(f"problem: {problem}")


@app.command()
def verify(
    server: str, label: str = "latest", tier: Tier = "primary", plan: PlanFile = None, as_json: Json = False
) -> None:
    """Read a backup whole and compare it; look for gaps in the WAL."""
    site = _site(plan)
    with output.progress() as progress:
        results = operations.verify_backup(site, server, label, tier, progress)
    output.say_checks([*results, operations.wal_has_no_gap(site, server, tier)], as_json)


@app.command()
def status(plan: PlanFile = None, as_json: Json = False) -> None:
    """Every server as it stands."""
    states = operations.status(_site(plan))
    if as_json:
        output.say_json(states)
        return
    rows = [(state.server, tier.tier, tier.newest_full.label if tier.newest_full else "-",
             tier.newest_backup.label if tier.newest_backup else "-", tier.wal_end or "-")
            for state in states for tier in state.tiers]  # fmt: skip
    output.say_table(("server", "tier", "newest full", "newest backup", "WAL end"), rows)
    for state in states:
        for warning in state.warnings:
            output.say(f"warning: {state.server}: {warning}")


@app.command()
def restore(
    server: str,
    target_dir: Path,
    time: Annotated[str | None, typer.Option(help="Stop at this time, with its zone.")] = None,
    lsn: Annotated[str | None, typer.Option(help="Stop at this LSN.")] = None,
    xid: Annotated[str | None, typer.Option(help="Stop at this transaction.")] = None,
    name: Annotated[str | None, typer.Option(help="Stop at this restore point.")] = None,
    immediate: Annotated[bool, typer.Option("--immediate", help="Stop as soon as consistent.")] = False,
    exclusive: Annotated[bool, typer.Option("--exclusive", help="Stop just before the target.")] = False,
    timeline: int | None = None,
    label: str | None = None,
    tier: str | None = None,
    use_incrementals: str = "auto",
    bin_dir: Path | None = None,
    os_user: str | None = None,
    tablespace: Annotated[list[str] | None, typer.Option(help="OLD=NEW, as often as needed.")] = None,
    preview: Annotated[bool, typer.Option("--preview", help="Tell, do nothing.")] = False,
    plan: PlanFile = None,
    as_json: Json = False,
) -> None:
    """Bring a server back into an empty directory."""
    site = _site(plan)
    target = _target(time, lsn, xid, name, immediate, not exclusive, timeline)
    request = RestoreRequest(
        server, target_dir, target, label, _use(use_incrementals), bin_dir, os_user,
        tablespaces=_tablespaces(tablespace or []),
    )  # fmt: skip
    show = output.say_json if as_json else output.say_fields
    if preview:
        show(operations.preview_restore(site, request, tier=tier))
        return
    with output.progress() as progress:
        report = operations.restore(site, request, progress, tier=tier)
    show(report)


def _target(
    time: str | None, lsn: str | None, xid: str | None, name: str | None, immediate: bool, inclusive: bool,
    timeline: int | None,
) -> RecoveryTarget:  # fmt: skip
    if sum(given is not None for given in (time, lsn, xid, name)) + immediate > 1:
        raise UsageError("more than one recovery target", hint="Give one of --time, --lsn, --xid, --name, --immediate.")
    on = None if timeline is None else Timeline(timeline)
    try:
        if time is not None:
            return RecoveryTarget("time", datetime.fromisoformat(time), inclusive, on)
        if lsn is not None:
            return RecoveryTarget("lsn", Lsn.parse(lsn), inclusive, on)
    except ValueError as error:
        raise UsageError(f"not a recovery target: {error}") from error
    if xid is not None:
        return RecoveryTarget("xid", xid, inclusive, on)
    if name is not None:
        return RecoveryTarget("name", name, inclusive, on)
    return RecoveryTarget("immediate" if immediate else "latest", None, inclusive, on)


def _use(given: str) -> UseIncrementals:
    known: tuple[UseIncrementals, ...] = get_args(UseIncrementals)
    for one in known:
        if one == given:
            return one
    raise UsageError(f"not a way to use incrementals: {given!r}", hint=f"Give one of: {', '.join(known)}.")


def _tablespaces(given: list[str]) -> dict[str, Path]:
    pairs = [text.partition("=") for text in given]
    if wrong := [old for old, sign, new in pairs if not (old and sign and new)]:
        raise UsageError(f"not a tablespace mapping: {wrong[0]!r}", hint="Write it as --tablespace OLD=NEW.")
    return {old: Path(new) for old, _, new in pairs}


@wal_app.command("stream")
def wal_stream(server: str, plan: PlanFile = None) -> None:
    """Ship WAL as it is written until told to stop (SIGTERM or SIGINT)."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    operations.stream_wal(_site(plan), server, stop)
