"""What a restore of files would do, without doing it: what it reads, what of that is offline, what that takes and
costs. Asks for nothing."""

from __future__ import annotations

from dataclasses import dataclass

from dr_pipelines.files.restore_plan import Restoring
from dr_pipelines.files.restore_recall import Recall, Recalling
from dr_pipelines.files.table import shown
from dr_pipelines.files.tiers import Tiers
from dr_pipelines.repository.recall import tiers_of

_NAMED = 300
"""So many paths of offline files are named; all are counted."""


@dataclass(frozen=True)
class FilesPreview:
    """`bytes` are written, `stored_bytes` read, in `packs`. Of these `offline_objects` must be recalled, on
    `offline_tiers`; `arriving_objects` of them were asked for before. `recall_seconds`: the longest that they may take;
    `cost` of reading all, in the currency of the plan's prices, or by rough list prices in US dollars."""

    file_set: str
    snapshot: str
    target: str
    files: int
    bytes: int
    packs: int
    stored_bytes: int
    offline_objects: int
    offline_bytes: int
    offline_tiers: tuple[str, ...]
    offline_files: int
    offline_named: tuple[str, ...]
    arriving_objects: int
    recall_seconds: float
    cost: float
    notes: tuple[str, ...] = ()


def preview(tiers: Tiers, plan: Restoring, recalling: Recalling, *, snapshot: str, target: str) -> FilesPreview:
    """Raises what the stores raise."""
    recall = Recall(tiers, plan, recalling)
    offline = recall.find()
    away = recall.files_in(offline.objects)
    return FilesPreview(
        tiers.file_set,
        snapshot,
        target,
        files=len(plan.contents) + len(plan.empty_files) + len(plan.twins),
        bytes=plan.bytes,
        packs=len(recall.packs),
        stored_bytes=sum(stored.size for stored in recall.packs),
        offline_objects=len(offline.objects),
        offline_bytes=offline.bytes,
        offline_tiers=tiers_of(offline),
        offline_files=len(away),
        offline_named=tuple(shown(path) for path in away[:_NAMED]),
        arriving_objects=len(offline.arriving),
        recall_seconds=offline.seconds,
        cost=offline.cost,
    )
