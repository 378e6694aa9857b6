"""Snapshots beside the one before: what is unusual is put down under their label, and a person may accept it."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from dr_pipelines.checks import CheckResult, failed, not_proven, passed
from dr_pipelines.errors import BackupNotFound, DrError, UsageError
from dr_pipelines.repository.file_layout import SnapshotLayout
from dr_pipelines.repository.marks import ANOMALY, put_proof, read_proof
from dr_pipelines.repository.snapshots import SnapshotCatalog, read_snapshots
from dr_pipelines.site import Site
from dr_pipelines.storage.base import ObjectStore
from dr_pipelines.validation import file_anomalies
from dr_pipelines.validation.file_anomalies import CHANGES_ARE_USUAL

if TYPE_CHECKING:
    from dr_pipelines.files.beside import Differences

_TAKEN_TO = "primary"


def judge_changes(site: Site, file_set: str, layout: SnapshotLayout, found: Differences | None) -> CheckResult:
    """Of a snapshot in the making: what is put down is there before the snapshot is. Raises what the store raises."""
    result = file_anomalies.changes_are_usual(layout.label, found, site.file_set(file_set).anomalies)
    if not result.skipped:
        _put(site, site.bare_repository(file_set, _TAKEN_TO).store, layout, result)
    return result


def changes_seen(site: Site, file_set: str, label: str) -> CheckResult | None:
    """What was put down of one snapshot; None where there was none to compare it with. Raises what the store raises."""
    return read_proof(site.read_only_repository(file_set, _TAKEN_TO).store, SnapshotLayout(file_set, label), ANOMALY)


def changes_are_usual(site: Site, file_set: str, label: str | None = None) -> CheckResult:
    """Whether a snapshot (the newest, when none is named) differs from the one before as is usual, and every one that
    does not has been accepted."""
    try:
        store = site.read_only_repository(file_set, _TAKEN_TO).store
        catalog = read_snapshots(store, file_set)
        return _of_catalog(store, file_set, catalog, label)
    except DrError as error:
        return not_proven(CHANGES_ARE_USUAL, f"{_TAKEN_TO} cannot be asked: {error.message}", hint=error.hint)


def _of_catalog(store: ObjectStore, file_set: str, catalog: SnapshotCatalog, label: str | None) -> CheckResult:
    if not catalog.snapshots:
        return failed(CHANGES_ARE_USUAL, f"there is no snapshot of {file_set} on {_TAKEN_TO}")
    asked = label or catalog.snapshots[-1].label
    unusual = [one.label for one in catalog.snapshots if catalog.is_unusual(one.label)]
    found = read_proof(store, SnapshotLayout(file_set, unusual[-1] if unusual else asked), ANOMALY)
    if unusual and found is not None:
        hint = f"look at it: `dr files diff {file_set}`; when it is well, `dr files accept {file_set} {unusual[-1]}`."
        more = f" (and {len(unusual) - 1} more)" if len(unusual) > 1 else ""
        details = {**found.details, "unusual": unusual, "hint": hint}
        return failed(CHANGES_ARE_USUAL, f"{found.summary}{more}; it holds all that is older", **details)
    if found is None:
        said = f"{asked} was not compared with one before: it is the first, or the host that took it forgot that one"
        return passed(CHANGES_ARE_USUAL, said, label=asked, applies=False)
    return found


def accept_snapshot(site: Site, file_set: str, label: str, *, reason: str, by: str) -> None:
    """A person says that a snapshot which is unusual is well: it holds nothing older any more. Raises `BackupNotFound`,
    `UsageError` when it is not unusual, and what the store raises."""
    store = site.bare_repository(file_set, _TAKEN_TO).store
    catalog = read_snapshots(store, file_set)
    if label not in {one.label for one in catalog.snapshots}:
        raise BackupNotFound(
            f"there is no snapshot {label} of {file_set} on {_TAKEN_TO}",
            hint=f"`dr files list {file_set}` shows what there is.",
        )
    if not catalog.is_unusual(label):
        raise UsageError(f"{label} is not unusual", hint=f"`dr files list {file_set}` shows which are.")
    found = read_proof(store, SnapshotLayout(file_set, label), ANOMALY)
    seen = found.details if found else {}
    said = f"{label} was accepted by {by}: {reason}"
    _put(site, store, SnapshotLayout(file_set, label), passed(CHANGES_ARE_USUAL, said, **seen, reason=reason, by=by))


def _put(site: Site, store: ObjectStore, layout: SnapshotLayout, result: CheckResult) -> None:
    run = f"anomaly-{secrets.token_hex(4)}"
    put_proof(store, layout, ANOMALY, result, at=site.clock.now(), tier=_TAKEN_TO, run=run)
