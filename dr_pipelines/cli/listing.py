"""What a tier holds, for `dr list` and `dr repository list`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dr_pipelines import operations
from dr_pipelines.checks import Verdict
from dr_pipelines.cli.context import settings
from dr_pipelines.cli.file_listing import show_snapshots
from dr_pipelines.cli.output import minute, out, plain, print_json, print_table, size
from dr_pipelines.errors import DrError
from dr_pipelines.operations import RestoreProof
from dr_pipelines.repository.catalog import Catalog, unequal, vouched_for
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.repository.marks import VALIDATE, Marks
from dr_pipelines.repository.snapshots import SnapshotCatalog
from dr_pipelines.site import Site


def show_held(name: str | None, tier: str, *, as_json: bool) -> None:
    """The catalog of one server or file set, or of every one. One that cannot be read does not hide the others."""
    site = settings.site()
    if name is not None:
        tier = site.tier_of(name, tier)
        listed = _read(site, name, tier)
        print_json(_told(listed)) if as_json else _show(site, name, tier, listed)
        return
    answers: dict[str, _Listed | SnapshotCatalog | DrError] = {}
    places = site.users_on(tier)
    for each, where in places.items():
        try:
            answers[each] = _read(site, each, where)
        except DrError as error:
            answers[each] = error
    if as_json:
        print_json({each: _told(answer) for each, answer in answers.items()})
    else:
        for each, answer in answers.items():
            _show(site, each, places[each], answer)
    for answer in answers.values():
        if isinstance(answer, DrError):
            raise answer


def _read(site: Site, name: str, tier: str) -> _Listed | SnapshotCatalog:
    if name in site.plan.file_storage:
        return operations.list_snapshots(site, name, tier)
    return _Listed(operations.list_backups(site, name, tier), *operations.restore_proofs(site, name))


def _told(answer: _Listed | SnapshotCatalog | DrError) -> dict[str, Any]:
    if isinstance(answer, DrError):
        return {"error": answer.message}
    told: dict[str, Any] = answer.told() if isinstance(answer, _Listed) else plain(answer)
    return told


def _show(site: Site, name: str, tier: str, answer: _Listed | SnapshotCatalog | DrError) -> None:
    if isinstance(answer, DrError):
        out.print(f"{name} on {tier}: {answer.message}", soft_wrap=True)
    elif isinstance(answer, SnapshotCatalog):
        show_snapshots(site, name, tier, answer)
    else:
        _show_catalog(name, tier, answer)


@dataclass(frozen=True)
class _Listed:
    """A tier's backups; which backups were restored to prove them, from whichever tier; what could not be seen."""

    catalog: Catalog
    proofs: Sequence[RestoreProof]
    notes: Sequence[str]

    def told(self) -> dict[str, Any]:
        return {**plain(self.catalog), "restored": plain(self.proofs)}


def _show_catalog(server: str, tier: str, listed: _Listed) -> None:
    catalog = listed.catalog
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
    _show_proofs(listed)
    for backup in catalog.backups:
        if backup.kind_reason:
            out.print(f"{backup.label} is full, because {backup.kind_reason}", soft_wrap=True)
        seen = catalog.marks.get(backup.label, Marks()).equivalence()
        if seen is not None and seen.verdict == "fail":
            out.print(f"{backup.label} {unequal(seen)}", style="red", soft_wrap=True)
    vouched = vouched_for(catalog)
    doubtful = [backup for backup in catalog.backups if backup.label not in vouched]
    provisional = Counter(backup.provisional for backup in doubtful if backup.provisional)
    for reason, count in provisional.items():
        out.print(f"{count} provisional: {reason}", soft_wrap=True)
    for label in catalog.unfinished:
        out.print(f"{label} has no manifest: it is being taken, or is garbage of a crash", soft_wrap=True)
    for problem in catalog.problems:
        out.print(f"problem: {problem}", style="yellow", soft_wrap=True)


def _show_proofs(listed: _Listed) -> None:
    """Of the backups that are shown: the newest restore from each tier."""
    shown = {backup.label for backup in listed.catalog.backups}
    rows = [
        (proof.label, _SAID[proof.verdict], minute(proof.at), proof.tier)
        for proof in listed.proofs
        if proof.label in shown
    ]
    if rows:
        print_table("restored to prove them", ["label", "", "at (UTC)", "from"], rows)
    for note in listed.notes:
        out.print(note, soft_wrap=True)


_SAID = {Verdict.PASS: "proven", Verdict.FAIL: "FAILED", Verdict.NOT_PROVEN: "not proven"}
_STATES = {
    "V": "V: restored and validated",
    "P": "P: every byte was read and is right",
    "F": "F: a validation failed, no restore picks it by itself",
    "K": "K: kept by a person",
    "D": "D: no restore can use it",
}


def _state(catalog: Catalog, backup: BackupManifest) -> str:
    """A letter for each thing that is known of a backup."""
    marks = catalog.marks.get(backup.label, Marks())
    unusable, proof = catalog.trouble(backup) is not None, marks.proven()
    by_restore = proof is not None and proof.kind == VALIDATE
    failed = not unusable and catalog.failed_validation(backup) is not None
    said = {
        "V": by_restore and not failed,
        "P": proof is not None and not by_restore and not failed,
        "F": failed,
        "K": bool(marks.keeps),
        "D": unusable,
    }
    return "".join(letter for letter, holds in said.items() if holds)


def _row(backup: BackupManifest, state: str) -> tuple[Any, ...]:
    # The kind is plain from the chain, and the year from the line's own label.
    parent = backup.parent.rpartition("-")[0][4:] if backup.parent else None
    return backup.label, state, minute(backup.finished_at), size(backup.stored_size), backup.stop_lsn, parent
