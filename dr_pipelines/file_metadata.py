"""What a person sees in Dagster of snapshots of files. Like `metadata`, it decides nothing."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import dagster as dg
from rich.filesize import decimal

from dr_pipelines.metadata import exposure_metadata, table
from dr_pipelines.plan import Plan
from dr_pipelines.plan.values import format_duration
from dr_pipelines.repository.snapshot_manifest import Snapshot
from dr_pipelines.wording import counted


def file_promises(plan: Plan, name: str) -> dict[str, Any]:
    """What the plan promises of a file set's snapshots, as an asset's metadata."""
    asked = plan.file_storage[name]
    return {
        "schedule": asked.schedule.text,
        "kept_for": format_duration(asked.retention) if asked.versioning else "until there is a newer one",
        "bucket": asked.storage.primary if asked.storage is not None else "none",
        **_promised_rpo(plan, name),
    }


def poll_promises(plan: Plan, name: str) -> dict[str, Any]:
    """The same of its polls."""
    asked = plan.file_storage[name]
    assert asked.poll is not None
    rows = ", ".join(
        f"{one.table or f'storage.objects of {one.supabase}'} on {one.server}" for one in asked.references.values()
    )
    return {"every": format_duration(asked.poll), "rows": rows, **_promised_rpo(plan, name)}


def _promised_rpo(plan: Plan, name: str) -> dict[str, Any]:
    """The strictest of the data that is in its files."""
    losses = [data.rpo for data in plan.data_classes.values() if name in data.file_sets]
    return {"promised_rpo": format_duration(min(losses))} if losses else {}


def poll_metadata(at: datetime, changed: int, exposed: timedelta | None) -> dict[str, Any]:
    """`rpo_exposure_seconds`: how long ago every committed row had its file in the newest snapshot, just before."""
    return {
        "changed_paths": changed,
        "polled_until": dg.MetadataValue.timestamp(at),
        **exposure_metadata(exposed),
    }


def snapshot_metadata(taken: Snapshot, tier: str) -> dict[str, Any]:
    """Sizes in bytes, times in seconds; numbers are plain, so that Dagster plots them; `summary` is for people.
    `dedup_ratio`: bytes of all files for each byte of a content that all archives of the snapshot hold once;
    `mb_per_second`: bytes that were read, over the whole time."""
    counts, seconds = taken.counts, (taken.finished_at - taken.started_at).total_seconds()
    held = sum(archive.size for archive in taken.archives)
    entries: dict[str, Any] = {
        "summary": dg.MetadataValue.md(_summary(taken, seconds)),
        "label": taken.label,
        "tier": tier,
        "parent": taken.parent,
        "partial": taken.partial,
        "files": counts.files,
        "directories": counts.directories,
        "links": counts.links,
        "bytes": counts.bytes,
        "new_files": counts.new,
        "changed_files": counts.changed,
        "removed_files": counts.removed,
        "unreadable_files": counts.unreadable,
        "read_bytes": counts.read_bytes,
        "new_bytes": counts.new_bytes,
        "stored_bytes": counts.stored_bytes,
        "dedup_ratio": round(counts.bytes / held, 3) if held else None,
        "seconds": round(seconds, 3),
        "mb_per_second": round(counts.read_bytes / seconds / 1e6, 2) if counts.read_bytes and seconds > 0 else None,
        "started_at": dg.MetadataValue.timestamp(taken.started_at),
        "finished_at": dg.MetadataValue.timestamp(taken.finished_at),
    }
    return {name: value for name, value in entries.items() if value is not None}


def _summary(taken: Snapshot, seconds: float) -> str:
    counts, name, label = taken.counts, taken.file_set, taken.label
    rows = [
        ["snapshot", f"`{label}`"],
        ["source", taken.source],
        ["files", f"{counts.files:,}, {decimal(counts.bytes)}"],
        ["since the last", f"{counts.new:,} new, {counts.changed:,} changed, {counts.removed:,} removed"],
        ["read", f"{decimal(counts.read_bytes)}, {decimal(counts.new_bytes)} of it not known yet"],
        ["stored", f"{decimal(counts.stored_bytes)}; it needs {decimal(taken.stored_size)} in all"],
        *([["could not be read", counted(counts.unreadable, "file")]] if taken.partial else []),
        ["time", f"{seconds:.1f} s"],
        *([["what changed", f"`dr files diff {name} {taken.parent} {label}`"]] if taken.parent else []),
        ["bring it back", f"`dr files restore {name} {label} DIRECTORY`"],
    ]
    return table(["", ""], rows)
