"""Proving that incrementals give what the WAL of their full gives, and putting down what was found."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from dr_pipelines.checks import CheckResult, Verdict, failed, not_proven
from dr_pipelines.errors import BackupNotFound, DrError, UsageError
from dr_pipelines.operations.recovery import located
from dr_pipelines.operations.scratch import scratch_folder
from dr_pipelines.postgres.restore_request import RestoreRequest
from dr_pipelines.progress import Progress
from dr_pipelines.repository import layout
from dr_pipelines.repository.catalog import Catalog, chain_of, known_equivalence
from dr_pipelines.repository.layout import BackupKind, ProofName
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.repository.marks import EQUIVALENCE, Marks, put_proof
from dr_pipelines.repository.repository import Repository
from dr_pipelines.site import Site
from dr_pipelines.storage.base import Body, ObjectStore
from dr_pipelines.validation.equivalence import PROMISE, Equivalence, incrementals_are_equivalent


@dataclass(frozen=True)
class EquivalenceReport:
    """`chain` oldest first, empty where there was nothing to compare; `phases` in seconds. `marked`: incrementals that
    no restore uses any more, on which tiers. `evidence` is where all of it is kept, on the tier that was read (None
    when it could not be put)."""

    run: str
    server: str
    tier: str
    at: datetime
    seconds: float
    check: CheckResult
    chain: tuple[str, ...] = ()
    phases: dict[str, float] | None = None
    marked: dict[str, tuple[str, ...]] | None = None
    evidence: str | None = None


def prove_incrementals(
    site: Site, server: str, progress: Progress, *, tier: str | None = None, label: str | None = None
) -> EquivalenceReport:
    """Restores the newest incremental (or that of a label) and its chain twice, merged and by WAL alone, and compares
    the two page by page. A pass is put down beside the incremental, which is provisional no more; a failure beside all
    of the chain that no earlier pass vouches for, on every tier: no restore uses them, and the next backup is a full.

    What keeps it from being proven is in the check; raises what is transient, `UsageError`, and what the catalog of the
    tier raises.
    """
    began, at = site.clock.monotonic(), site.clock.now()
    run = f"{EQUIVALENCE}-{at:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"
    repositories, notes = site.readable_repositories(server, tier)
    for note in notes:
        progress.note(note)
    where = repositories[0]
    where.check_format()
    catalog = where.catalog(server)
    newest = _which(catalog, server, where.tier, label)

    def report(check: CheckResult, **more: Any) -> EquivalenceReport:
        return EquivalenceReport(run, server, where.tier, at, site.clock.monotonic() - began, check, **more)

    if isinstance(newest, CheckResult):
        return report(newest)
    try:
        seen = _compared(site, server, newest, catalog, repositories, tier, progress)
    except DrError as error:
        if error.transient:
            raise
        said = f"{newest.label} and its full with WAL could not be compared: {error.message}"
        return report(not_proven(PROMISE, said, error=type(error).__name__, hint=error.hint))
    done = report(seen.check, chain=tuple(link.label for link in seen.chain), phases=seen.phases)
    evidence = _keep_evidence(site, done, progress)
    marked = _put_down(site, server, seen, at, run, progress)
    return EquivalenceReport(**{**vars(done), "marked": marked, "evidence": evidence})


def _which(catalog: Catalog, server: str, tier: str, label: str | None) -> BackupManifest | CheckResult:
    """The incremental to look at, or why there is none. Raises `BackupNotFound`, `UsageError`."""
    incrementals = [backup for backup in catalog.backups if backup.kind is BackupKind.INCREMENTAL]
    if label is not None:
        named = next((backup for backup in catalog.backups if backup.label == label), None)
        if named is None:
            raise BackupNotFound(
                f"there is no backup {label} of {server} on {tier}", hint=f"`dr list {server}` shows what there is."
            )
        if named.kind is BackupKind.FULL:
            raise UsageError(f"{label} is a full: there is nothing that its WAL could be compared with")
        return _unusable(catalog, named) or named
    usable = [backup for backup in incrementals if catalog.trouble(backup) is None]
    if usable:
        return usable[-1]
    if incrementals:
        return _unusable(catalog, incrementals[-1]) or incrementals[-1]
    if catalog.backups and catalog.backups[-1].hourly_points_are_wal:
        return not_proven(PROMISE, f"{server} has no incrementals: below PostgreSQL 17 hourly points are WAL")
    return not_proven(PROMISE, f"there is no incremental of {server} on {tier} to compare")


def _unusable(catalog: Catalog, backup: BackupManifest) -> CheckResult | None:
    """What is known already is said again; nothing is restored for it."""
    trouble = catalog.trouble(backup)
    if trouble is None:
        return None
    seen = catalog.marks.get(backup.label, Marks()).equivalence()
    say = failed if seen is not None and seen.verdict == "fail" else not_proven
    return say(
        PROMISE,
        f"{backup.label} {trouble}" if not trouble.startswith(backup.label) else trouble,
        hint=f"a new full ends its chain: `dr backup {backup.server} --full`.",
    )


def _compared(
    site: Site,
    server: str,
    newest: BackupManifest,
    catalog: Catalog,
    repositories: Sequence[Repository],
    tier: str | None,
    progress: Progress,
) -> Equivalence:
    request = located(site, RestoreRequest(server, site.state_dir), tier)
    folder = scratch_folder(site, server, request.os_user)
    return incrementals_are_equivalent(
        replace(request, target_dir=folder / newest.label),
        newest,
        chain_of(newest, catalog.backups),
        repositories,
        clock=site.clock,
        runner=site.runner,
        progress=progress,
    )


# --- what is kept -------------------------------------------------------------------------------------------


def _keep_evidence(site: Site, report: EquivalenceReport, progress: Progress) -> str | None:
    key = layout.evidence(f"{EQUIVALENCE}-{report.server}", report.at, secrets.token_hex(6))
    told = {
        "run": report.run, "server": report.server, "tier": report.tier, "at": report.at.isoformat(),
        "seconds": round(report.seconds, 1), "chain": list(report.chain), "verdict": report.check.verdict.value,
        "summary": report.check.summary, "details": dict(report.check.details),
        "phases": {name: round(seconds, 3) for name, seconds in (report.phases or {}).items()},
    }  # fmt: skip
    try:
        store = site.bare_repository(report.server, report.tier).store
        store.put(key, Body.of(json.dumps(told, indent=1, default=str).encode() + b"\n"))
    except DrError as error:
        progress.note(f"what was compared could not be put on {report.tier}: {error.message}")
        return None
    return key


def _put_down(
    site: Site, server: str, seen: Equivalence, at: datetime, run: str, progress: Progress
) -> dict[str, tuple[str, ...]] | None:
    """A pass on the tier whose bytes were read; a failure wherever the incrementals are."""
    if seen.check.verdict is Verdict.NOT_PROVEN:
        return None
    is_bad = seen.check.verdict is Verdict.FAIL
    there: dict[str, tuple[ObjectStore, Catalog]] = {}
    for tier in site.tiers(server) if is_bad else (seen.tier,):
        with _noting(f"what was found of {seen.chain[-1].label} could not be put on {tier}", progress):
            repository = site.bare_repository(server, tier)
            there[tier] = repository.store, repository.catalog(server)
    known = known_equivalence(catalog for _, catalog in there.values())
    wanted = _suspects(seen.chain, known) if is_bad else (seen.chain[-1],)
    marked: dict[str, tuple[str, ...]] = {}
    for tier, (store, catalog) in there.items():
        held = {backup.label for backup in catalog.backups}
        links = [link for link in wanted if link.label in held]
        with _noting(f"what was found of {seen.chain[-1].label} could not be put on {tier}", progress):
            for link in links:
                put_proof(store, link.layout, EQUIVALENCE, seen.check, at=at, tier=seen.tier, run=run)
            marked[tier] = tuple(link.label for link in links)
    return marked if is_bad else None


@contextmanager
def _noting(what: str, progress: Progress) -> Iterator[None]:
    """One tier's trouble does not keep it from the others."""
    try:
        yield
    except DrError as error:
        progress.note(f"{what}: {error.message}")


def _suspects(chain: Sequence[BackupManifest], known: Mapping[str, ProofName]) -> tuple[BackupManifest, ...]:
    """The incrementals of a chain that no earlier comparison vouches for: which of them is wrong, nobody knows."""
    vouched = [at for at, link in enumerate(chain[:-1]) if link.label in known and known[link.label].verdict == "pass"]
    return tuple(chain[max(vouched, default=0) + 1 :])
