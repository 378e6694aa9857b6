"""The `dr` command: the only place that prints and exits."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import click
import typer

from dr_pipelines.cli import setup, work
from dr_pipelines.cli.context import settings
from dr_pipelines.cli.output import err, print_error
from dr_pipelines.errors import DrError

app = typer.Typer(
    help="Disaster recovery for PostgreSQL: backs up, proves, restores. Works with no Dagster at hand.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(setup.plan_app, name="plan")
app.add_typer(setup.key_app, name="key")
app.add_typer(setup.repository_app, name="repository")
app.add_typer(setup.store_app, name="store")
app.add_typer(work.wal_app, name="wal")
app.command("backup")(work.backup)
app.command("list")(work.list_backups)
app.command("verify")(work.verify)
app.command("status")(work.status)
app.command("restore")(work.restore)


@app.callback()
def _before(
    plan: Annotated[Path | None, typer.Option("--plan", help="The plan; default $DR_PLAN or dr_plan.yaml.")] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an unexpected error came from.")] = False,
) -> None:
    settings.plan_path = plan
    settings.debug = debug


def main() -> None:
    """Run a command; every error becomes words and an exit code."""
    try:
        app(standalone_mode=False)
    except DrError as error:
        print_error(error, as_json=settings.as_json)
        sys.exit(error.exit_code)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except Exception as error:
        if settings.debug:
            raise
        err.print(f"unexpected error: {type(error).__name__}: {error}", markup=False, soft_wrap=True)
        err.print("run the command again as `dr --debug …` to see where it came from")
        sys.exit(1)
