"""What a tier holds, for `dr list` and `dr repository list`."""

from __future__ import annotations

from collections import Counter
from typing import Any

from dr_pipelines import operations
from dr_pipelines.cli.context import settings
from dr_pipelines.cli.output import minute, out, print_json, print_table, size
from dr_pipelines.errors import DrError
from dr_pipelines.repository.catalog import Catalog
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.repository.marks import Marks


def show_backups(server: str | None, tier: str, *, as_json: bool) -> None:
    """One server's catalog, or every server's. One that cannot be read does not hide the others."""
    site = settings.site()
    if server is not None:
        tier = site.tier_of(server, tier)
        catalog = operations.list_backups(site, server, tier)
        print_json(catalog) if as_json else _show_catalog(server, tier, catalog)
        return
    answers: dict[str, Any] = {}
    errors: list[DrError] = []
    places = site.servers_on(tier)
    for name, where in places.items():
        try:
            answers[name] = operations.list_backups(site, name, where)
        except DrError as error:
            answers[name] = {"error": error.message}
            errors.append(error)
    if as_json:
        print_json(answers)
    else:
        for name, answer in answers.items():
            if isinstance(answer, Catalog):
                _show_catalog(name, places[name], answer)
            else:
                out.print(f"{name} on {places[name]}: {answer['error']}", soft_wrap=True)
    if errors:
        raise errors[0]


def _show_catalog(server: str, tier: str, catalog: Catalog) -> None:
    if not catalog.backups:
        out.print(f"there is no backup of {server} on {tier}")
    else:
        columns = ["label", "", "finished (UTC)", "stored", "stop LSN", "on top of"]
        states = {backup.label: _state(catalog, backup) for backup in catalog.backups}
        rows = [_row(backup, states[backup.label]) for backup in catalog.backups]
        print_table(f"{server} on {tier}", columns, rows)
        shown = "".join(states.values())
        if legend := [meaning for letter, meaning in _STATES.items() if letter in shown]:
            out.print("; ".join(legend), soft_wrap=True)
    for backup in catalog.backups:
        if backup.kind_reason:
            out.print(f"{backup.label} is full, because {backup.kind_reason}", soft_wrap=True)
    provisional = Counter(backup.provisional for backup in catalog.backups if backup.provisional)
    for reason, count in provisional.items():
        out.print(f"{count} provisional: {reason}", soft_wrap=True)
    for label in catalog.unfinished:
        out.print(f"{label} has no manifest: it is being taken, or is garbage of a crash", soft_wrap=True)
    for problem in catalog.problems:
        out.print(f"problem: {problem}", style="yellow", soft_wrap=True)


_STATES = {"P": "P: proven good", "K": "K: kept by a person", "D": "D: no restore can use it"}


def _state(catalog: Catalog, backup: BackupManifest) -> str:
    """A letter for each thing that is known of a backup."""
    marks = catalog.marks.get(backup.label, Marks())
    said = {"P": marks.proven() is not None, "K": bool(marks.keeps), "D": catalog.trouble(backup) is not None}
    return "".join(letter for letter, holds in said.items() if holds)


def _row(backup: BackupManifest, state: str) -> tuple[Any, ...]:
    # The kind is plain from the chain, and the year from the line's own label.
    parent = backup.parent.rpartition("-")[0][4:] if backup.parent else None
    return backup.label, state, minute(backup.finished_at), size(backup.stored_size), backup.stop_lsn, parent
