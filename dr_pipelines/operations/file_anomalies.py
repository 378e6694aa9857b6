"""Snapshots beside those before: what is unusual is put down under their label, and a person may accept it."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dr_pipelines.checks import CheckResult, failed, not_proven, passed
from dr_pipelines.errors import BackupNotFound, DrError, UsageError
from dr_pipelines.repository.file_layout import SnapshotLayout
from dr_pipelines.repository.layout import ProofName
from dr_pipelines.repository.marks import ANOMALY, list_proofs, newest_of, put_proof, read_proof
from dr_pipelines.repository.repository import Repository
from dr_pipelines.repository.snapshots import SnapshotCatalog, read_snapshot, read_snapshots
from dr_pipelines.site import Site
from dr_pipelines.validation import file_anomalies
from dr_pipelines.validation.file_anomalies import CHANGES_ARE_USUAL

if TYPE_CHECKING:
    from dr_pipelines.files.beside import Differences

_TAKEN_TO = "primary"


def judge_changes(site: Site, file_set: str, layout: SnapshotLayout, found: Sequence[Differences]) -> CheckResult:
    """Of a snapshot in the making: what is put down is there before the snapshot is. Raises what the store raises."""
    result = file_anomalies.changes_are_usual(layout.label, found, site.file_set(file_set).anomalies)
    if not result.skipped:
        _put(site, site.bare_repository(file_set, _TAKEN_TO), layout, result)
    return result


def changes_seen(site: Site, file_set: str, label: str) -> CheckResult | None:
    """What was put down of one snapshot; None where there was none to compare it with. Raises what the store raises."""
    return read_proof(site.read_only_repository(file_set, _TAKEN_TO).store, SnapshotLayout(file_set, label), ANOMALY)


def changes_are_usual(site: Site, file_set: str, label: str | None = None) -> CheckResult:
    """Whether a snapshot (the newest, when none is named) differs from those before as is usual, and every one that
    does not has been accepted. Without the primary, which has the newest, others can only say that one does not."""
    trouble: DrError | None = None
    for tier in site.tiers(file_set):
        try:
            repository = site.read_only_repository(file_set, tier)
            repository.check_format()
            seen = _of_catalog(site, repository, read_snapshots(repository.store, file_set), file_set, label)
        except DrError as error:
            trouble = trouble or error
            continue
        if trouble is None or "unusual" in seen.details:
            return seen
    assert trouble is not None
    return not_proven(CHANGES_ARE_USUAL, f"{_TAKEN_TO} cannot be asked: {trouble.message}", hint=trouble.hint)


def _of_catalog(
    site: Site, repository: Repository, catalog: SnapshotCatalog, file_set: str, label: str | None
) -> CheckResult:
    if not catalog.snapshots:
        return failed(CHANGES_ARE_USUAL, f"there is no snapshot of {file_set} on {repository.tier}")
    asked = label or catalog.snapshots[-1].label
    flagged = [one.layout for one in catalog.snapshots if catalog.is_unusual(one.label)]
    said = [(about.label, found) for about in flagged if (found := _newest_word(site, repository, about)) is not None]
    unusual = [(label, found) for label, found in said if not found.passed]
    if unusual:
        newest, found = unusual[-1]
        hint = f"look at it: `dr files diff {file_set}`; when it is well, `dr files accept {file_set} {newest}`."
        more = f" (and {len(unusual) - 1} more)" if len(unusual) > 1 else ""
        details = {**found.details, "unusual": [label for label, _ in unusual], "hint": hint}
        return failed(CHANGES_ARE_USUAL, f"{found.summary}{more}; it holds all that is older", **details)
    word = _newest_word(site, repository, SnapshotLayout(file_set, asked))
    if word is None:
        never = f"{asked} was not compared with one before: it is the first, or the host that took it forgot that one"
        return passed(CHANGES_ARE_USUAL, never, label=asked, applies=False)
    return word


def _newest_word(site: Site, repository: Repository, about: SnapshotLayout) -> CheckResult | None:
    """That of this tier, unless it is against the snapshot and another has heard since that it is accepted."""
    here = read_proof(repository.store, about, ANOMALY)
    if here is None or here.passed:
        return here
    for tier in site.tiers(about.file_set):
        with suppress(DrError):
            other = read_proof(site.read_only_repository(about.file_set, tier).store, about, ANOMALY)
            if other is not None and other.passed and other.details["seen_at"] > here.details["seen_at"]:
                return other
    return here


@dataclass(frozen=True)
class Accepted:
    """`on`: the tiers that have it in writing; `missed`: those that could not be reached or written to, and why."""

    on: tuple[str, ...]
    missed: Mapping[str, DrError]


def accept_snapshot(site: Site, file_set: str, label: str, *, reason: str, by: str) -> Accepted:
    """A person says that a snapshot which is unusual is well: it holds nothing older any more. Put on every tier that
    has the snapshot and can be reached: one of them alone decides by it later. Raises `BackupNotFound`, `UsageError`
    when it is not unusual, and what a store raises where no tier could be told."""
    about = SnapshotLayout(file_set, label)
    there, missed = _with_snapshot(site, about)
    words = {tier: [*list_proofs(repository.store, about)] for tier, repository in there.items()}
    is_unusual = _is_against(proof for proofs in words.values() for proof in proofs)
    deaf = [tier for tier, proofs in words.items() if is_unusual or _is_against(proofs)]
    if not deaf:
        raise UsageError(f"{label} is not unusual", hint=f"`dr files list {file_set}` shows which are.")
    found = read_proof(there[next(tier for tier in deaf if _is_against(words[tier]))].store, about, ANOMALY)
    seen = found.details if found else {}
    said = passed(CHANGES_ARE_USUAL, f"{label} was accepted by {by}: {reason}", **seen, reason=reason, by=by)
    told = []
    for tier in deaf:
        try:
            _put(site, there[tier], about, said)
            told.append(tier)
        except DrError as error:
            missed[tier] = error
    if not told:
        raise missed[deaf[0]]
    return Accepted(tuple(told), missed)


def _with_snapshot(site: Site, about: SnapshotLayout) -> tuple[dict[str, Repository], dict[str, DrError]]:
    """The tiers that have it; why others cannot say."""
    there: dict[str, Repository] = {}
    missed: dict[str, DrError] = {}
    for tier in site.tiers(about.file_set):
        try:
            repository = site.bare_repository(about.file_set, tier)
            repository.check_format()
            read_snapshot(repository.store, about.file_set, about.label)
            there[tier] = repository
        except BackupNotFound:
            continue
        except DrError as error:
            missed[tier] = error
    if not there and missed:
        raise next(iter(missed.values()))
    if not there:
        raise BackupNotFound(
            f"no tier has a snapshot {about.label} of {about.file_set}",
            hint=f"`dr files list {about.file_set}` shows what there is.",
        )
    return there, missed


def _is_against(proofs: Iterable[ProofName]) -> bool:
    newest = newest_of(ANOMALY, proofs)
    return newest is not None and newest.verdict == "fail"


def _put(site: Site, repository: Repository, layout: SnapshotLayout, result: CheckResult) -> None:
    run = f"anomaly-{secrets.token_hex(4)}"
    put_proof(repository.store, layout, ANOMALY, result, at=site.clock.now(), tier=repository.tier, run=run)
