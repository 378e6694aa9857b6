"""`dr files check`, `accept`: is a snapshot well, and a person's word that an unusual one is."""

from __future__ import annotations

from typing import Annotated

import typer

from dr_pipelines import operations
from dr_pipelines.cli.context import FileSetName, Json, settings
from dr_pipelines.cli.output import out, print_json
from dr_pipelines.cli.retention import who


def accept(
    file_set: FileSetName,
    label: Annotated[str, typer.Argument(metavar="LABEL", help="A snapshot that was found unusual.")],
    reason: Annotated[str, typer.Option("--reason", help="Why it is well, for whoever asks later.")],
    as_json: Json = False,
) -> None:
    """Say that an unusual snapshot is well: what is older may be let go again."""
    site = settings.site()
    operations.accept_snapshot(site, file_set, label, reason=reason, by=who())
    if as_json:
        print_json({"label": label, "accepted": True})
    else:
        out.print(f"{label} is accepted; it holds nothing older any more", soft_wrap=True)
