"""`dr replicate`: copies on the other tiers."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from dr_pipelines import operations
from dr_pipelines.cli.context import TIER, Json, MaybeName, settings
from dr_pipelines.cli.output import Bars, out, print_json, size
from dr_pipelines.errors import DrError, UsageError
from dr_pipelines.operations import ReplicationReport
from dr_pipelines.site import Site
from dr_pipelines.wording import counted


def replicate(
    name: MaybeName = None,
    tier: Annotated[
        str | None, typer.Option("--tier", metavar=TIER, help="Where to; every other tier when left out.")
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option("--label", help="This backup and what it builds on, or this snapshot; may be repeated."),
    ] = None,
    source: Annotated[str, typer.Option("--from", metavar=TIER, help="Where the copies are read.")] = "primary",
    wal: Annotated[bool, typer.Option("--wal/--no-wal", help="Whether to bring WAL too.")] = True,
    as_json: Json = False,
) -> None:
    """Bring to the other tiers what the plan sends there and they lack.

    Every object is compared with its SHA-256 on the way. No key is needed. A tier that fails delays no other.
    """
    site = settings.site()
    if name is None and label:
        raise UsageError("--label goes with one server or file set", hint="name it: `dr replicate NAME --label …`.")
    answers: dict[str, dict[str, Any]] = {}
    errors: list[DrError] = []
    with Bars() as bars:
        for each, start, to in _places(site, name, tier, source):
            try:
                done: Any = operations.replicate(site, each, to, bars, labels=label or None, wal=wal, source=start)
            except DrError as error:
                done = {"error": error.message}
                errors.append(error)
            answers.setdefault(each, {})[to] = done
    if as_json:
        print_json(answers if name is None else answers[name])
    else:
        for each, on in answers.items():
            for to, answer in on.items():
                out.print(f"{'' if name else f'{each} to '}{to}: {_told(answer)}", soft_wrap=True)
    if errors:
        raise errors[0]


def _places(site: Site, name: str | None, tier: str | None, source: str) -> list[tuple[str, str, str]]:
    """Of what, from which tier, to which. Without a name, whatever the plan sends anywhere (to that tier or store)."""
    if name is not None:
        start = site.tier_of(name, source)
        tiers = [site.tier_of(name, tier)] if tier else _tiers(site, name, start)
        return [(name, start, to) for to in tiers]
    found = []
    for each in site.users:
        stores = dict(site.storage_of(each).items())
        start = next((one for one, store in stores.items() if source in (one, store)), source)
        for to in operations.replicated_tiers(site, each):
            if to != start and start in stores and tier in (None, to, stores[to]):
                found.append((each, start, to))
    if not found:
        raise UsageError("the plan sends no copies there", hint="`dr plan show` shows what goes where.")
    return found


def _tiers(site: Site, name: str, source: str) -> list[str]:
    tiers = [tier for tier in operations.replicated_tiers(site, name) if tier != source]
    if not tiers:
        section = "file_storage" if name in site.plan.file_storage else "databases"
        raise UsageError(
            f"the plan sends no copies of {name} to another tier",
            hint=f"name a secondary or archive store in {section}.{name}.storage.",
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
    wal = f" and {counted(answer.wal_objects, 'object')} of WAL" if answer.wal_objects else ""
    what = counted(len(answer.labels), answer.kind)
    return f"{what}{wal}, {size(copied)} in {answer.seconds:.1f} s{rate}{labels}"
