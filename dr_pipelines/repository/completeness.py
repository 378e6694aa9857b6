"""Is every object there that a manifest names, with its size, and all that the backup builds on? One listing a backup;
no key and no download needed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from dr_pipelines.checks import CheckResult, failed, passed
from dr_pipelines.errors import BackupNotFound, IntegrityError, RepositoryError
from dr_pipelines.repository.labels import Labelled, list_homes
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.repository.repository import Repository
from dr_pipelines.repository.snapshot_manifest import Snapshot
from dr_pipelines.storage.base import ObjectStore
from dr_pipelines.wording import counted

MANIFEST_IS_COMPLETE = "manifest_is_complete"
CHAIN_IS_COMPLETE = "chain_is_complete"
SNAPSHOT_IS_COMPLETE = "snapshot_is_complete"
_SHOWN = 10


def manifest_is_complete(store: ObjectStore, manifest: Labelled) -> CheckResult:
    """Of a backup or a snapshot of files. Details: `objects` and `stored_bytes` seen, and up to ten keys of `missing`
    and of `wrong_size`."""
    seen = {key: found.size for key, found in list_homes(store, manifest).items()}
    missing = [named.key for named in manifest.objects if named.key not in seen]
    wrong = [named.key for named in manifest.objects if named.key in seen and seen[named.key] != named.size]
    details = {
        "label": manifest.label,
        "objects": len(manifest.objects) - len(missing),
        "stored_bytes": sum(seen.get(named.key, 0) for named in manifest.objects),
        "missing": missing[:_SHOWN],
        "wrong_size": wrong[:_SHOWN],
    }
    if manifest.layout.manifest not in seen:
        return failed(MANIFEST_IS_COMPLETE, f"backup {manifest.label} has no manifest any more", **details)
    if missing or wrong:
        found = f"{len(missing)} of {len(manifest.objects)} objects missing, {len(wrong)} of wrong size"
        return failed(MANIFEST_IS_COMPLETE, f"backup {manifest.label}: {found}", **details)
    return passed(
        MANIFEST_IS_COMPLETE,
        f"backup {manifest.label}: all {len(manifest.objects)} objects are there",
        **details,
    )


def snapshot_is_complete(
    store: ObjectStore, manifest: Snapshot, partial: Literal["fail", "warn"] = "fail"
) -> CheckResult:
    """Of a snapshot: the same, and whether all files of its source could be read; `partial` says whether it fails when
    not. Details: `unreadable`, `files`."""
    found = manifest_is_complete(store, manifest)
    counts = manifest.counts
    details = {**found.details, "unreadable": counts.unreadable, "files": counts.files}
    summary = found.summary.replace(f"backup {manifest.label}", f"snapshot {manifest.label}", 1)
    for one in manifest.unread:
        if found.passed:
            return failed(SNAPSHOT_IS_COMPLETE, f"not all its archives are known: {one.trouble}", **details)
    if found.passed and manifest.partial:
        lacks = f"{counted(counts.unreadable, 'file')} of its source could not be read"
        judge = failed if partial == "fail" else passed
        hint = f"`dr files diff {manifest.file_set} {manifest.label} live` names them; what was read is safe."
        return judge(SNAPSHOT_IS_COMPLETE, f"{summary}, but it is partial: {lacks}", hint=hint, **details)
    return CheckResult(SNAPSHOT_IS_COMPLETE, found.verdict, summary, details)


def chain_is_complete(repository: Repository, manifest: BackupManifest) -> CheckResult:
    """The backup and all that it builds on: each there whole, none marked as damaged, each going on where the one
    before it began. Details: `backups` of the chain, and `objects` seen. Raises what the store raises."""
    label = manifest.label
    hint = (
        f"`dr scrub {repository.tier}` brings back what another tier holds; else `dr backup {manifest.server} --full`."
    )
    try:
        chain = repository.chain(manifest)
    except (BackupNotFound, RepositoryError, IntegrityError) as error:
        return failed(CHAIN_IS_COMPLETE, f"the chain of {label} is broken: {error.message}", label=label, hint=hint)
    details = {"label": label, "chain": [link.label for link in chain], "backups": len(chain)}
    seen = 0
    for link in chain:
        found = manifest_is_complete(repository.store, link)
        if not found.passed:
            return failed(CHAIN_IS_COMPLETE, f"the chain of {label} is broken: {found.summary}", hint=hint, **details)
        if any(repository.store.list(link.layout.damages)):
            summary = f"the chain of {label} is broken: {link.label} is marked as damaged on every tier"
            return failed(CHAIN_IS_COMPLETE, summary, hint=hint, **details)
        seen += len(link.objects)
    if (wrong := _misfit(chain)) is not None:
        return failed(CHAIN_IS_COMPLETE, f"the chain of {label} does not fit together: {wrong}", **details)
    said = f"{label} builds on none, and is there whole"
    if len(chain) > 1:
        said = f"all {len(chain)} backups that {label} is restored from are there whole"
    return passed(CHAIN_IS_COMPLETE, said, objects=seen, **details)


def _misfit(chain: Sequence[BackupManifest]) -> str | None:
    if chain[0].kind is not BackupKind.FULL:
        return f"{chain[0].label} is no full backup"
    for before, link in pairwise(chain):
        if link.system_id != before.system_id:
            return f"{link.label} is of another cluster than {before.label}"
        if link.start_lsn < before.start_lsn:
            return f"{link.label} begins at {link.start_lsn}, before {before.label} does ({before.start_lsn})"
    return None
