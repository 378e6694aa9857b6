"""Whether the recovery window that the plan promises is there. What the windows are does not belong here."""

from __future__ import annotations

from datetime import datetime, timedelta

from dr_pipelines.checks import CheckResult, failed, not_proven, passed
from dr_pipelines.postgres.recovery_windows import SystemWindows

NAME = "recovery_window_is_kept"


def recovery_window_is_kept(
    found: SystemWindows | None, promised: timedelta, *, first_backup_at: datetime | None, now: datetime
) -> CheckResult:
    """The newest window reaches back as far as promised, or to the server's first backup, and nothing newer is out of
    reach. `found` is of the newest system; None: the tier holds no backup."""
    if found is None or first_backup_at is None:
        return not_proven(NAME, "there is no backup here yet, so there is no window", promised=str(promised))
    since = max(now - promised, first_backup_at)
    seen = {"promised_seconds": promised.total_seconds(), "needed_since": since.isoformat()}
    if not found.windows:
        why = next((f": {label} {trouble}" for label, trouble in found.unusable.items()), "")
        return failed(NAME, f"no backup here can be restored{why}", **seen)
    newest = found.windows[-1]
    seen |= {
        "from": newest.start_at.isoformat(),
        "to": newest.end_at.isoformat(),
        "from_lsn": str(newest.start),
        "to_lsn": str(newest.end),
        "points": len(newest.points),
    }
    if found.troubles:
        return failed(NAME, found.troubles[0], **seen)
    if found.gaps and found.gaps[-1].end is None:
        return failed(NAME, found.gaps[-1].why, hint="take a full backup now (`dr backup --full`).", **seen)
    if newest.start_at > since:
        why = f": {found.gaps[-1].why}" if found.gaps else ""
        return failed(NAME, f"any instant can be restored only since {newest.start_at:%Y-%m-%d %H:%M} UTC{why}", **seen)
    summary = f"any instant since {newest.start_at:%Y-%m-%d %H:%M} UTC can be restored, up to {newest.end}"
    if newest.assumed or found.notes:
        doubt = found.notes[0] if found.notes else "where a timeline began was concluded without a key"
        return not_proven(NAME, f"{summary}; {doubt}", hint="look where the plan's identity is at hand.", **seen)
    return passed(NAME, summary, **seen)
