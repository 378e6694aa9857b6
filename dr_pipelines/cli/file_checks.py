"""`dr files check`, `accept`: is a snapshot well, and a person's word that an unusual one is."""

from __future__ import annotations

from typing import Annotated

import typer

from dr_pipelines import operations
from dr_pipelines.cli.context import FileSetName, IdentityFile, Json, settings, share_of, who
from dr_pipelines.cli.output import Bars, answer_checks, out, print_json


def accept(
    file_set: FileSetName,
    label: Annotated[str, typer.Argument(metavar="LABEL", help="A snapshot that was found unusual.")],
    reason: Annotated[str, typer.Option("--reason", help="Why it is well, for whoever asks later.")],
    as_json: Json = False,
) -> None:
    """Say that an unusual snapshot is well: what is older may be let go again."""
    site = settings.site()
    done = operations.accept_snapshot(site, file_set, label, reason=reason, by=who())
    missed = {tier: error.message for tier, error in done.missed.items()}
    if as_json:
        print_json({"label": label, "accepted": True, "on": done.on, "not_on": missed})
        return
    out.print(f"{label} is accepted on {' and '.join(done.on)}; it holds nothing older any more", soft_wrap=True)
    for tier, why in missed.items():
        out.print(
            f"{tier} could not be told: {why}. Where it decides alone it still holds what is older, until "
            f"`dr replicate {file_set}` tells it",
            soft_wrap=True,
        )


def check(
    file_set: FileSetName,
    label: Annotated[str, typer.Argument(metavar="LABEL", help="A snapshot's label, or latest.")] = "latest",
    identity: IdentityFile = None,
    sample: Annotated[
        str, typer.Option("--sample", metavar="SHARE", help="Read this share of its bytes, another one every day.")
    ] = "100%",
    as_json: Json = False,
) -> None:
    """Is a snapshot well? What `dr verify` reads, whether what changed is usual, its table against expectations."""
    site, share = settings.site(identity), share_of(sample)
    with Bars() as bars:
        checks = operations.check_snapshot(site, file_set, label, "primary", bars, sample=share)
    changes = operations.changes_are_usual(site, file_set, None if label == "latest" else label)
    judged = operations.judge_snapshot(site, file_set, label)
    answer_checks([*checks, changes, *judged.values()], as_json=as_json)
