"""Is every object there that a manifest names, with its size? One listing; no key and no download needed."""

from __future__ import annotations

from dr_pipelines.checks import CheckResult, failed, passed
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.storage.base import ObjectStore

MANIFEST_IS_COMPLETE = "manifest_is_complete"
_SHOWN = 10


def manifest_is_complete(store: ObjectStore, manifest: BackupManifest) -> CheckResult:
    """Details: `objects` and `stored_bytes` seen, and up to ten keys of `missing` and of `wrong_size`."""
    seen = {found.key: found.size for found in store.list(manifest.layout.prefix)}
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
