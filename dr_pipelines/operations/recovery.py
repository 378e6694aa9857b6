"""Restoring a server, or saying what that would do."""

from __future__ import annotations

import functools
from dataclasses import replace

from dr_pipelines.commands import account_exists, runs_as_root
from dr_pipelines.errors import UsageError
from dr_pipelines.postgres.restore import RestoreReport
from dr_pipelines.postgres.restore import restore as _restore
from dr_pipelines.postgres.restore_preview import RestorePreview
from dr_pipelines.postgres.restore_preview import preview as _preview
from dr_pipelines.postgres.restore_request import RestoreRequest
from dr_pipelines.progress import Progress
from dr_pipelines.site import Site


def restore(site: Site, request: RestoreRequest, progress: Progress, *, tier: str | None = None) -> RestoreReport:
    """Restore and recover from one tier alone, or from the first that can with the WAL of all and of this host's
    spool."""
    repositories, notes = site.readable_repositories(request.server, tier)
    for note in notes:
        progress.note(note)
    report = _restore(
        located(site, request, tier), repositories, clock=site.clock, runner=site.runner, progress=progress
    )
    return replace(report, notes=(*notes, *report.notes))


def preview_restore(
    site: Site, request: RestoreRequest, progress: Progress, *, tier: str | None = None
) -> RestorePreview:
    repositories, notes = site.readable_repositories(request.server, tier)
    seen = _preview(located(site, request, tier), repositories, runner=site.runner, progress=progress)
    return replace(seen, notes=(*notes, *seen.notes))


def located(site: Site, request: RestoreRequest, tier: str | None) -> RestoreRequest:
    """With all that the plan and this machine say: programs, accounts, storage classes; of one tier alone, no spool.
    Raises `UsageError`."""
    plan = site.plan_of(request.server)
    user = request.os_user or plan.os_user or "postgres"
    if runs_as_root() and not account_exists(user):
        raise UsageError(
            f"there is no account {user!r} on this machine, and PostgreSQL does not run as root",
            hint=f"name one with databases.{request.server}.os_user in the plan, or run dr as an ordinary user.",
        )
    return replace(
        request,
        find_bin_dir=functools.partial(site.bin_dir, request.server),
        os_user=user if runs_as_root() else None,
        superuser=plan.connection.user,
        spool=None if tier else site.spool(request.server),
        terms={name: site.terms(request.server, name) for name in site.tiers(request.server)},
    )
