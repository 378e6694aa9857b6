"""What can be restored from each tier: recovery windows, and whether they are as promised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from dr_pipelines.checks import CheckResult, not_proven
from dr_pipelines.errors import DrError
from dr_pipelines.postgres import window_checks
from dr_pipelines.postgres.recovery_windows import SystemWindows
from dr_pipelines.postgres.tier_view import TierView, view_tier, windows_of
from dr_pipelines.reports.recoverability import Row, draw
from dr_pipelines.site import Site


@dataclass(frozen=True)
class TierWindows:
    """Of one server on one tier: each system that it ever was, oldest first. `kept` is None where the plan promises no
    window (only single backups are sent there). `error` says why the tier could not be seen, `hint` what to do then."""

    tier: str
    systems: tuple[SystemWindows, ...] = ()
    promised: timedelta | None = None
    kept: CheckResult | None = None
    error: str | None = None
    hint: str | None = None


def recovery_windows(site: Site, server: str) -> list[TierWindows]:
    """All tiers of a server. One that cannot be read does not hide the others."""
    return judged(site, server, view_tiers(site, server))


def recovery_window_is_kept(site: Site, server: str, tier: str = "primary") -> CheckResult:
    """On one tier. Other tiers are looked at too: they know when the server's first backup was."""
    found = next(windows for windows in recovery_windows(site, server) if windows.tier == tier)
    return found.kept or not_proven(window_checks.NAME, f"the plan promises no recovery window on {tier}")


def recoverability_chart(site: Site, found: Mapping[str, Sequence[TierWindows]]) -> bytes:
    """Tiers over time as SVG, of one server or of several."""
    rows = [
        Row(tier.tier if len(found) == 1 else f"{server} {tier.tier}", tier.systems, tier.promised, tier.error)
        for server, tiers in found.items()
        for tier in tiers
    ]
    return draw(f"what can be restored of {' and '.join(found)}", rows, site.clock.now())


def view_tiers(site: Site, server: str) -> dict[str, TierView | DrError]:
    """Each tier as it was read, or why it could not be."""

    def view(tier: str) -> TierView | DrError:
        try:
            return view_tier(site.read_only_repository(server, tier), server)
        except DrError as error:
            return error

    return {tier: view(tier) for tier in site.tiers(server)}


def judged(site: Site, server: str, views: dict[str, TierView | DrError]) -> list[TierWindows]:
    """The windows that the views show, held against the plan."""
    seen = [view for view in views.values() if isinstance(view, TierView)]
    found: list[TierWindows] = []
    for tier, view in views.items():
        promised = promised_window(site, server, tier)
        if isinstance(view, TierView):
            systems = windows_of(view, [other for other in seen if other is not view])
            kept = None if promised is None else _kept(site, view, systems, seen, promised)
            found.append(TierWindows(tier, systems, promised, kept))
        else:
            unseen = not_proven(window_checks.NAME, f"{tier} could not be read: {view.message}")
            found.append(TierWindows(tier, (), promised, None if promised is None else unseen, view.message, view.hint))
    return found


def promised_window(site: Site, server: str, tier: str) -> timedelta | None:
    """How far back any instant can be restored from a tier; None where only single backups are sent."""
    plan = site.plan_of(server)
    sent = plan.replication.of(tier)
    return plan.retention.on(tier).recovery_window if sent is None or sent.send == "everything" else None


def _kept(
    site: Site, view: TierView, systems: Sequence[SystemWindows], seen: Sequence[TierView], promised: timedelta
) -> CheckResult:
    newest = systems[-1] if view.catalog.backups else None
    first = _first_backup(newest.system_id, seen) if newest else None
    return window_checks.recovery_window_is_kept(newest, promised, first_backup_at=first, now=site.clock.now())


def _first_backup(system_id: str, views: Sequence[TierView]) -> datetime | None:
    """Of a system on any tier, expired ones too: before it nothing was ever promised."""
    known = [
        backup
        for view in views
        for backup in (*view.catalog.backups, *(expired.manifest for expired in view.catalog.expired))
    ]
    return min((backup.finished_at for backup in known if backup.system_id == system_id), default=None)
