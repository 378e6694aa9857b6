"""Reports the WAL archive: how far it reaches, and whether it has gaps. Runless events, only when there is news."""
# No `from __future__ import annotations` here: Dagster reads the types of decorated functions.

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets.checks import WAL_HAS_NO_GAP, look_for_wal_gap, looked
from dr_pipelines.errors import DrError
from dr_pipelines.lsn import Lsn
from dr_pipelines.metadata import TIER, WAL_ARCHIVE, asset_key, check_evaluation, identifier
from dr_pipelines.plan import Plan
from dr_pipelines.resources import SiteResource

if TYPE_CHECKING:
    from dr_pipelines.site import Site

INTERVAL_SECONDS = 30


@dataclass(frozen=True)
class Reach:
    """The newest WAL of a server's archive: `end` is the first byte that it does not hold."""

    system_id: str
    timeline: int
    start: Lsn
    end: Lsn

    @property
    def key(self) -> str:
        return f"{self.system_id}/{self.timeline}/{self.end}"

    @property
    def metadata(self) -> dict[str, Any]:
        return {
            "newest_lsn": str(self.end),
            "continuous_from": str(self.start),
            "continuous_bytes": self.end - self.start,
            "timeline": self.timeline,
            "system_id": self.system_id,
            "tier": TIER,
        }


def reach(site: "Site", server: str) -> Reach | None:
    """Of the newest timeline. None when there is no WAL at all."""
    repository = site.read_only_repository(server, TIER)
    backups = repository.backups(server)
    known = [backups[-1].system_id] if backups else list(repository.wal_system_ids(server))[-1:]
    found = [
        Reach(system_id, covered.timeline.id, covered.start, covered.end)
        for system_id in known
        for covered in repository.wal(server, system_id).ranges()
    ]
    return max(found, key=lambda one: (one.timeline, one.end), default=None)


def wal_sensor(server: str) -> dg.SensorDefinition:
    key = asset_key(server, WAL_ARCHIVE)
    look = look_for_wal_gap(server)

    @dg.sensor(
        name=f"{identifier(server)}_wal_archive",
        description=f"Reports how far the WAL archive of {server} reaches, and whether it has gaps.",
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def _sensor(context: dg.SensorEvaluationContext, site: SiteResource) -> dg.SensorResult:
        told = json.loads(context.cursor or "{}")
        events: list[Any] = []
        newest = told.get("newest")
        try:
            reached = reach(site.site(), server)
        except DrError:
            reached = None  # the check below meets the same error, and says so
        if reached is not None and reached.key != newest:
            events.append(dg.AssetMaterialization(asset_key=key, metadata=reached.metadata))
            newest = reached.key
        checked = looked(WAL_HAS_NO_GAP, look, site)
        verdict = str(checked.verdict)
        if events or verdict != told.get("verdict"):
            events.append(check_evaluation(key, checked))
        return dg.SensorResult(
            asset_events=events,
            cursor=json.dumps({"newest": newest, "verdict": verdict}),
            skip_reason=f"{newest or 'no WAL'}; {checked.summary}" if events else "nothing new",
        )

    return _sensor


def wal_sensors(plan: Plan) -> Iterator[dg.SensorDefinition]:
    for server in plan.databases:
        yield wal_sensor(server)
