"""`dr incident`: while one is open, nothing is removed."""

from __future__ import annotations

from typing import Annotated

import typer

from dr_pipelines import operations
from dr_pipelines.cli.context import Json, settings, who
from dr_pipelines.cli.output import minute, out, print_json, print_table

incident_app = typer.Typer(suggest_commands=False, help="Incidents.", no_args_is_help=True)


@incident_app.command("open")
def open_incident(
    reason: Annotated[str, typer.Option("--reason", help="What happened.")], as_json: Json = False
) -> None:
    """Open an incident on every store: nothing is removed until it is closed."""
    incident = operations.open_incident(settings.site(), reason, who())
    print_json(incident) if as_json else out.print(f"incident {incident.id} is open: nothing is removed meanwhile")


@incident_app.command("close")
def close_incident(
    identity: Annotated[str, typer.Argument(metavar="ID", help="Of an open incident.")], as_json: Json = False
) -> None:
    """Close an incident on every store."""
    operations.close_incident(settings.site(), identity, who())
    print_json({"closed": identity}) if as_json else out.print(f"incident {identity} is closed")


@incident_app.command("list")
def list_incidents(as_json: Json = False) -> None:
    """The incidents that are open."""
    found = operations.list_incidents(settings.site())
    if as_json:
        print_json(found)
    elif found:
        rows = [(incident.id, minute(incident.at), incident.by, incident.reason) for incident in found]
        print_table("open incidents", ["id", "since (UTC)", "by", "reason"], rows)
    else:
        out.print("no incident is open")
