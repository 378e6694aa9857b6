"""The snapshots of a file set on a tier, for `dr files list`, `dr list` and `dr status`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dr_pipelines import operations
from dr_pipelines.cli.output import minute, out, print_table, size, span
from dr_pipelines.repository.snapshot_manifest import Snapshot
from dr_pipelines.repository.snapshots import SnapshotCatalog
from dr_pipelines.site import Site

if TYPE_CHECKING:
    # For its name only: a snapshot needs nothing of servers.
    from dr_pipelines.objectives.exposure import Exposure

_COLUMNS = ("snapshot", "taken", "files", "size", "new", "changed", "removed", "added", "state")


def show_snapshots(site: Site, file_set: str, tier: str, catalog: SnapshotCatalog) -> None:
    if not catalog.snapshots:
        out.print(f"there is no snapshot of {file_set} on {tier}")
    else:
        print_table(f"{file_set} on {tier}", _COLUMNS, [_row(catalog, one) for one in catalog.snapshots])
    for label in catalog.unfinished:
        out.print(f"{label} has no manifest: it is being taken, or is garbage of a crash", soft_wrap=True)
    for problem in catalog.problems:
        out.print(f"problem: {problem}", style="yellow", soft_wrap=True)
    exposed = operations.file_exposure(site, file_set, tier, catalog)
    if exposed.seconds is not None:
        out.print(f"file RPO: {span(exposed.seconds)} would be lost ({exposed.how})", soft_wrap=True)


def lost(exposure: Exposure) -> str:
    """The file RPO, in a table."""
    if exposure.seconds is not None:
        return span(exposure.seconds)
    return "everything" if exposure.seen else "not seen"


def _row(catalog: SnapshotCatalog, one: Snapshot) -> tuple[str, ...]:
    counts = one.counts
    numbers = (f"{count:,}" for count in (counts.new, counts.changed, counts.removed))
    return (
        one.label, minute(one.started_at), f"{counts.files:,}", size(counts.bytes), *numbers,
        size(counts.stored_bytes), _state(catalog, one),
    )  # fmt: skip


def _state(catalog: SnapshotCatalog, one: Snapshot) -> str:
    if (trouble := catalog.trouble(one)) is not None:
        return trouble
    told = ["polled"] if one.is_poll else []
    told += ["unusual"] if catalog.is_unusual(one.label) else []
    told += [f"partial: {one.counts.unreadable:,} unreadable"] if one.partial else []
    proof = catalog.marks[one.label].proven()
    return ", ".join([*told, f"proven {minute(proof.at)}" if proof else "not proven"])
