"""What a tier says of a server's backups, held against expectations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from dr_pipelines.checks import CheckResult, Verdict, failed
from dr_pipelines.errors import DrError
from dr_pipelines.repository.catalog import Catalog
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.repository.validations import put_document
from dr_pipelines.site import Site
from dr_pipelines.storage.base import ObjectStore
from dr_pipelines.validation import catalog_suite as suites
from dr_pipelines.validation.suites import SuiteResult, judged

if TYPE_CHECKING:
    from dr_pipelines.plan.model import BackupSchedulePlan

_TAKEN_TO = "primary"


def judge_catalog(
    site: Site, server: str, tier: str = _TAKEN_TO, kind: BackupKind | None = None
) -> dict[str, CheckResult]:
    """By name: the objects of the newest backup (of a kind, when one is given), the catalog, and whether that backup is
    as large as usual. What was seen is kept as a page of evidence on the tier, of incrementals only when something is
    not as expected. Raises what the store raises."""
    store = site.bare_repository(server, tier).store
    catalog = site.read_only_repository(server, tier).catalog(server)
    taken = [backup for backup in catalog.backups if kind is None or kind in (backup.kind, backup.asked_kind)]
    if not taken and catalog.backups and catalog.backups[-1].hourly_points_are_wal:
        taken = [*catalog.backups]
    if not taken:
        why = f"there is no {f'{kind} ' if kind else ''}backup of {server} on {tier}"
        return {name: failed(name, why) for name in NAMES}
    newest = max(taken, key=lambda backup: backup.started_at)
    runs = _evaluated(
        site, server, catalog, newest, store, site.plan_of(server).schedule if tier == _TAKEN_TO else None
    )
    found = {name: judged(name, [result], backup=newest.label, tier=tier) for name, result in runs.items()}
    always = newest.kind is BackupKind.FULL
    if always or any(result.verdict is not Verdict.PASS for result in found.values()):
        page = _keep(site, server, store, [*runs.values()])
        found = {name: replace(one, details={**one.details, "document": page}) for name, one in found.items()}
    return found


NAMES = (suites.MANIFEST_MEETS_EXPECTATIONS, suites.CATALOG_MEETS_EXPECTATIONS, suites.SIZE_IS_AS_USUAL)


def _evaluated(
    site: Site,
    server: str,
    catalog: Catalog,
    newest: BackupManifest,
    store: ObjectStore,
    schedule: BackupSchedulePlan | None,
) -> Mapping[str, SuiteResult]:
    # Imported here: it takes seconds.
    from dr_pipelines.validation.expectations import run_over_records

    listed = {info.key: info.size for info in store.list(newest.layout.prefix)}
    objects, backups = suites.object_rows(newest, listed), suites.catalog_rows(catalog)
    whole = suites.catalog_suite(
        server, backups, schedule, site.clock.now(), hourly_points_are_wal=newest.hourly_points_are_wal
    )
    usual = suites.usual_before(newest, catalog.backups)
    by_name = (
        run_over_records(suites.object_suite(newest, objects), objects, named_by="key"),
        run_over_records(whole, backups, named_by="label"),
        run_over_records(suites.size_suite(newest, usual), [suites.size_row(newest)], named_by="label"),
    )
    return dict(zip(NAMES, by_name, strict=True))


def _keep(site: Site, server: str, store: ObjectStore, results: Sequence[SuiteResult]) -> str:
    """The key of the page, or why there is none: a store that cannot be written changes no verdict."""
    from dr_pipelines.validation.expectations import data_docs

    try:
        page = data_docs(f"Expectations of the backups of {server}", results)
        return put_document(store, f"expectations-{server}", site.clock.now(), page)
    except DrError as error:
        return f"not kept: {error.message}"
