"""The `dr` command: which commands there are, and how one ends."""

from __future__ import annotations

import itertools
import signal
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Annotated

import click
import typer

from dr_pipelines import __version__
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


@dataclass(frozen=True)
class _Command:
    """`what` in a module beside this one: a function, or an app with commands of its own. `help` where the first
    sentence of its docstring is not enough."""

    module: str
    what: str
    help: str | None = None


COMMANDS = {
    "plan": _Command("setup", "plan_app"),
    "key": _Command("setup", "key_app"),
    "repository": _Command("setup", "repository_app"),
    "store": _Command("aging", "store_app"),
    "wal": _Command("work", "wal_app"),
    "files": _Command("file_restores", "files_app"),
    "retention": _Command("retention", "retention_app"),
    "incident": _Command("incident", "incident_app"),
    "backup": _Command("work", "backup"),
    "list": _Command("work", "list_backups"),
    "verify": _Command("work", "verify", "Look at a stored backup: bytes, chain, WAL, copies."),
    "validate": _Command("validate", "validate", "Prove a backup: restore it, check it, remove it."),
    "prove-incrementals": _Command("equivalence", "prove_incrementals", "Compare incrementals with WAL, page by page."),
    "status": _Command("status", "status", "What each tier can bring back, and what is wrong."),
    "coverage": _Command("coverage", "coverage", "What is on a server and not in the plan."),
    "objectives": _Command("objectives", "objectives", "Promised RPO and RTO against what was measured."),
    "replicate": _Command("replicate", "replicate", "Copy to the other tiers what is due there."),
    "scrub": _Command("scrub", "scrub", "Read all objects of a tier, and repair them."),
    "reconcile": _Command("reconcile", "reconcile", "Rows of databases against the files they point at."),
    "restore": _Command("restore", "restore"),
    "find-last-good": _Command("last_good", "find_last_good", "Since which transaction the data are wrong."),
    "keep": _Command("retention", "keep", "Keep a backup, on every tier."),
}
"""In the order in which `dr --help` shows them."""


def make_app(only: str | None = None) -> typer.Typer:
    """With one command, or with all where `only` is none of them: what a command does not need is not imported."""
    app = typer.Typer(
        help="Disaster recovery for PostgreSQL and files: backs up, proves, restores. Works with no Dagster at hand.",
        epilog=EXIT_CODES,
        no_args_is_help=True,
        suggest_commands=False,  # click suggests by itself
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(_before)
    for name, command in {only: COMMANDS[only]}.items() if only in COMMANDS else COMMANDS.items():
        found = getattr(import_module(f"{__package__}.{command.module}"), command.what)
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=name)
        else:
            app.command(name, short_help=command.help)(found)
    return app


def _say_version(asked: bool) -> None:
    if asked:
        click.echo(f"dr {__version__}")
        raise typer.Exit


def _before(
    context: typer.Context,
    plan: Annotated[Path | None, typer.Option("--plan", help="The plan; default $DR_PLAN or dr_plan.yaml.")] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an unexpected error came from.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Say which version this is.", is_eager=True, callback=_say_version)
    ] = False,
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


def _asked(arguments: list[str]) -> str | None:
    """The command in ordered arguments."""
    words = iter(arguments)
    for word in words:
        if word == "--plan":
            next(words, None)
        elif not word.startswith("-"):
            return word
    return None


def main() -> None:
    """Run a command; every error becomes words and an exit code."""
    on_ending(_stop)
    settings.as_json = "--json" in sys.argv
    try:
        arguments = _arguments(sys.argv[1:])
        code = make_app(_asked(arguments))(arguments, standalone_mode=False)
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
