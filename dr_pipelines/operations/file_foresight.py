"""The packs of files that are offline are asked for before the database of the same instant is restored: both arrive
in the same hours.

Which versions the rows name is known only when the database stands at its target. What the snapshots just before and
after the instant hold is foreseen; what is needed beyond that is asked for then.
"""

from __future__ import annotations

from datetime import datetime

from dr_pipelines.errors import DrError
from dr_pipelines.files.restore_plan import plan_restore
from dr_pipelines.files.restore_recall import Recall, Recalling, may_be_offline, reading
from dr_pipelines.files.tiers import Tiers
from dr_pipelines.progress import Progress
from dr_pipelines.repository.manifest import StoredObject
from dr_pipelines.repository.recall import Offline, ask, find_offline, told
from dr_pipelines.site import Site


def ask_for_files(
    site: Site, file_set: str, at: datetime, recalling: Recalling, progress: Progress, *, by_rows: bool
) -> Offline | None:
    """What was asked for and is not there yet; None when all is at hand, or that cannot be seen: the database is not
    lost to its files. `by_rows`: the files are chosen by rows, and so may come from the snapshot after."""
    try:
        repositories, _ = site.readable_repositories(file_set)
        tiers = Tiers(repositories, file_set, progress)
        if not may_be_offline(tiers):
            return None
        packs = _packs(tiers, at, recalling, by_rows)
        offline = find_offline(reading(tiers, packs, recalling.terms), urgent=recalling.urgent)
        if not offline.objects or not ask(offline, urgent=recalling.urgent):
            return None
    except DrError as error:
        progress.note(f"what is offline of {file_set} cannot be seen: {error.message}")
        return None
    progress.note(f"{file_set}: {told(offline)}")
    return offline


def _packs(tiers: Tiers, at: datetime, recalling: Recalling, by_rows: bool) -> list[StoredObject]:
    snapshots = [one.manifest for one in tiers.known() if one.trouble is None]
    near = [one for one in snapshots if one.finished_at <= at][-1:]
    if by_rows:
        near += [one for one in snapshots if one.finished_at > at][:1]
    found: dict[str, StoredObject] = {}
    for one in near:
        plan = plan_restore(tiers.table(one), one.archives)
        found |= {stored.key: stored for stored in Recall(tiers, plan, recalling).packs}
    return [*found.values()]
