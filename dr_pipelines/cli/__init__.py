"""The `dr` command: the only place that prints and exits."""

from __future__ import annotations

import itertools
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated

import click
import typer

from dr_pipelines.cli import (
    aging,
    coverage,
    equivalence,
    files,
    incident,
    last_good,
    objectives,
    replicate,
    restore,
    retention,
    scrub,
    setup,
    status,
    validate,
    work,
)
from dr_pipelines.cli.context import settings
from dr_pipelines.cli.output import print_error
from dr_pipelines.endings import give_up, on_ending, raise_when_safe
from dr_pipelines.errors import DrError, UsageError

EXIT_CODES = (
    "Exit codes: 0 well, 1 an unexpected error, 2 wrong usage, 3 the plan or a secret, 10 a store, 11 integrity, "
    "12 the repository, 13 a key, 20 PostgreSQL, 21 a backup, 22 a program, 30 a restore, 31 bytes are "
    "on their way out of cold storage, 40 not proven, 41 a check failed, "
    "129, 130 or 143 stopped by SIGHUP, SIGINT or SIGTERM."
)

app = typer.Typer(
    help="Disaster recovery for PostgreSQL: backs up, proves, restores. Works with no Dagster at hand.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    suggest_commands=False,  # click suggests by itself
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(setup.plan_app, name="plan")
app.add_typer(setup.key_app, name="key")
app.add_typer(setup.repository_app, name="repository")
setup.store_app.command("age")(aging.age)
app.add_typer(setup.store_app, name="store")
app.add_typer(work.wal_app, name="wal")
app.add_typer(files.files_app, name="files")
app.add_typer(retention.retention_app, name="retention")
app.add_typer(incident.incident_app, name="incident")
app.command("backup")(work.backup)
app.command("list")(work.list_backups)
app.command("verify", short_help="Look at a stored backup: bytes, chain, WAL, copies.")(work.verify)
app.command("validate", short_help="Prove a backup: restore it, check it, remove it.")(validate.validate)
app.command("prove-incrementals", short_help="Compare incrementals with WAL, page by page.")(
    equivalence.prove_incrementals
)
app.command("status", short_help="What each tier can bring back, and what is wrong.")(status.status)
app.command("coverage", short_help="What is on a server and not in the plan.")(coverage.coverage)
app.command("objectives", short_help="Promised RPO and RTO against what was measured.")(objectives.objectives)
app.command("replicate", short_help="Copy to the other tiers what is due there.")(replicate.replicate)
app.command("scrub", short_help="Read all objects of a tier, and repair them.")(scrub.scrub)
app.command("restore")(restore.restore)
app.command("find-last-good", short_help="Since which transaction the data are wrong.")(last_good.find_last_good)
app.command("keep", short_help="Keep a backup, on every tier.")(retention.keep)


@app.callback()
def _before(
    context: typer.Context,
    plan: Annotated[Path | None, typer.Option("--plan", help="The plan; default $DR_PLAN or dr_plan.yaml.")] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an unexpected error came from.")] = False,
) -> None:
    settings.plan_path = plan
    settings.debug = debug
    settings.command = f"dr {context.invoked_subcommand}"


class _Stopped(SystemExit):
    """A signal; not an `Exception`, so that work in hand is abandoned and nothing takes it for a failure to retry."""


def _stop(number: int, frame: FrameType | None) -> None:
    # What was in hand is undone now; a second signal must not cut that short.
    on_ending(signal.SIG_IGN)
    raise_when_safe(_Stopped(128 + number), frame, before=give_up)


def _arguments(given: list[str]) -> list[str]:
    """`--plan` and `--debug` in front of the command, wherever they were written."""
    before: list[str] = []
    rest: list[str] = []
    words = iter(given)
    for word in words:
        if word == "--":
            return [*before, *rest, word, *words]
        if word == "--plan":
            before += [word, *itertools.islice(words, 1)]
        elif word == "--debug" or word.startswith("--plan="):
            before.append(word)
        else:
            rest.append(word)
    return before + rest


def main() -> None:
    """Run a command; every error becomes words and an exit code."""
    on_ending(_stop)
    settings.as_json = "--json" in sys.argv
    try:
        code = app(_arguments(sys.argv[1:]), standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as asked:
        click.echo(asked.format_message())
        code = UsageError.exit_code
    except Exception as error:
        if settings.debug and not isinstance(error, DrError | click.ClickException | click.exceptions.Abort):
            raise
        told = _told(error)
        print_error(told, as_json=settings.as_json)
        code = told.exit_code
    except _Stopped as stopped:
        code = int(str(stopped.code))
        told = DrError(f"stopped by {signal.Signals(code - 128).name}", hint="what was in hand is abandoned, not kept.")
        told.exit_code = code
        print_error(told, as_json=settings.as_json)
    sys.exit(code if isinstance(code, int) else 0)


def _told(error: Exception) -> DrError:
    """Any error as one of ours."""
    if isinstance(error, DrError):
        if isinstance(error, UsageError) and error.hint is None:
            error.hint = f"run `{settings.command} --help`."
        return error
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        said = error.format_message().rstrip(".")
        return UsageError(
            said[:1].lower() + said[1:], hint=f"run `{context.command_path if context else 'dr'} --help`."
        )
    if isinstance(error, click.exceptions.Abort):
        return DrError("aborted")
    return DrError(
        f"unexpected error: {type(error).__name__}: {error}",
        hint="run the command again as `dr --debug …` to see where it came from.",
    )
