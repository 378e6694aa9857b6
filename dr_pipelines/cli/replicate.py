"""`dr replicate`: copies on the other tiers."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from dr_pipelines import operations
from dr_pipelines.cli.context import TIER, Json, ServerName, settings
from dr_pipelines.cli.output import Bars, out, print_json, size
from dr_pipelines.errors import DrError, UsageError
from dr_pipelines.operations import ReplicationReport
from dr_pipelines.site import Site
from dr_pipelines.wording import counted


def replicate(
    server: ServerName,
    tier: Annotated[
        str | None, typer.Option("--tier", metavar=TIER, help="Where to; every other tier when left out.")
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", help="This backup and what it builds on; may be repeated.")
    ] = None,
    source: Annotated[str, typer.Option("--from", metavar=TIER, help="Where the copies are read.")] = "primary",
    wal: Annotated[bool, typer.Option("--wal/--no-wal", help="Whether to bring WAL too.")] = True,
    as_json: Json = False,
) -> None:
    """Bring to the other tiers what the plan sends there and they lack.

    Every object is compared with its SHA-256 on the way. No key is needed. A tier that fails delays no other.
    """
    site = settings.site()
    tier, source = site.tier_of(server, tier) if tier else None, site.tier_of(server, source)
    answers: dict[str, Any] = {}
    errors: list[DrError] = []
    with Bars() as bars:
        for name in (tier,) if tier else _tiers(site, server, source):
            try:
                answers[name] = operations.replicate(
                    site, server, name, bars, labels=label or None, wal=wal, source=source
                )
            except DrError as error:
                answers[name] = {"error": error.message}
                errors.append(error)
    if as_json:
        print_json(answers)
    else:
        for name, answer in answers.items():
            out.print(f"{name}: {_told(answer)}", soft_wrap=True)
    if errors:
        raise errors[0]


def _tiers(site: Site, server: str, source: str) -> list[str]:
    tiers = [tier for tier in operations.replicated_tiers(site, server) if tier != source]
    if not tiers:
        raise UsageError(
            f"the plan sends no copies of {server} to another tier",
            hint=f"name a secondary or archive store in databases.{server}.storage.",
        )
    return tiers


def _told(answer: Any) -> str:
    if not isinstance(answer, ReplicationReport):
        return f"failed: {answer['error']}"
    copied = answer.bytes + answer.wal_bytes
    if not answer.labels and not answer.wal_objects:
        return "nothing was missing"
    rate = f", {size(int(copied / answer.seconds))}/s" if answer.seconds > 0 else ""
    labels = f": {', '.join(answer.labels)}" if answer.labels else ""
    return (
        f"{counted(len(answer.labels), 'backup')} and {counted(answer.wal_objects, 'object')} of WAL, {size(copied)} "
        f"in {answer.seconds:.1f} s{rate}{labels}"
    )
