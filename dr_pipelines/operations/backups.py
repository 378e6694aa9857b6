"""Taking, listing and verifying backups."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence

from dr_pipelines.checks import CheckResult, Verdict, failed, not_proven, passed
from dr_pipelines.errors import BackupNotFound, DrError, UsageError
from dr_pipelines.postgres.restore_source import no_backup
from dr_pipelines.postgres.source_facts import WantedFacts
from dr_pipelines.postgres.take import SealedWal
from dr_pipelines.postgres.take import take_backup as _take_backup
from dr_pipelines.postgres.verify import CONTENTS_MATCH, verify
from dr_pipelines.postgres.wal_checks import wal_has_no_gap as _wal_has_no_gap
from dr_pipelines.progress import Progress
from dr_pipelines.repository.catalog import Catalog
from dr_pipelines.repository.digests import OBJECTS_MATCH
from dr_pipelines.repository.labels import Labelled
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.repository.marks import put_proof
from dr_pipelines.repository.repository import Repository
from dr_pipelines.repository.sampling import Part, part_of_today
from dr_pipelines.site import Site
from dr_pipelines.storage.check import check_store as _check_store


def check_store(site: Site, tier_or_name: str) -> list[CheckResult]:
    """Try a store of the plan with scratch objects."""
    return _check_store(site.store_of(tier_or_name))


def take_backup(site: Site, server: str, kind: BackupKind, progress: Progress) -> BackupManifest | SealedWal:
    """Take a backup into the primary tier. Raises what `postgres.take.take_backup` raises."""
    repository = site.repository(server, "primary")
    taken = _take_backup(
        site.server(server),
        repository,
        server,
        kind,
        state_dir=site.state_dir,
        clock=site.clock,
        progress=progress,
        facts=_wanted_facts(site, server),
    )
    if isinstance(taken, BackupManifest) and _lacks_wal(repository, taken):
        progress.note(
            f"no WAL of {server} is on {repository.tier} yet: {taken.label} can be restored only with the WAL from "
            f"{taken.start_lsn} on; does `dr wal stream {server}` run?"
        )
    return taken


def _wanted_facts(site: Site, server: str) -> WantedFacts:
    """Summed are the tables that the plan says, or else those that its data classes name."""
    plan = site.plan_of(server).validation
    chosen = plan.checksums if plan.checksums is not None else site.tables_of(server)
    return WantedFacts(plan.count_up_to_rows, chosen)


def _lacks_wal(repository: Repository, backup: BackupManifest) -> bool:
    with contextlib.suppress(DrError):  # the backup is there; a listing that failed says nothing of its WAL
        return repository.wal(backup.server, backup.system_id).is_empty()
    return False


def list_backups(site: Site, server: str, tier: str = "primary") -> Catalog:
    repository = site.read_only_repository(server, tier)
    repository.check_format()
    return repository.catalog(server)


def find_backup(site: Site, label: str, tier: str = "primary", server: str | None = None) -> BackupManifest:
    """A backup by its label, or the `latest`; without a server, of whichever server of the plan has it.

    Raises `BackupNotFound`; `UsageError` when `latest` could be of several servers.
    """
    servers = [server] if server else [name for name in site.plan.databases if tier in site.tiers(name)]
    if label == "latest" and len(servers) > 1:
        raise UsageError(f"the plan has {len(servers)} servers", hint=f"name one of them: {', '.join(servers)}.")
    for name in servers:
        with contextlib.suppress(BackupNotFound):
            return labelled(site.read_only_repository(name, tier), name, label)
    raise BackupNotFound(
        f"no backup {label!r} of {' or '.join(servers) or 'any server'} on {tier}",
        hint=f"`dr list --tier {tier}` shows those that there are.",
    )


def verify_backup(
    site: Site, server: str, label: str, tier: str, progress: Progress, *, sample: int = 100
) -> list[CheckResult]:
    """Read a backup, or `sample` percent of it, and compare it; `label` may be `latest`. What was found is put down
    beside it as a proof, where the store can be written; of a sample, when it is damage. Raises `BackupNotFound`."""
    repository = site.read_only_repository(server, tier)
    backup = labelled(repository, server, label)
    part = part_of_today(sample, backup.label, site.clock.now())
    checks = verify(repository, backup, progress=progress, part=part)
    put_down(site, backup, tier, checks, progress, part, contents=CONTENTS_MATCH)
    return checks


def put_down(
    site: Site,
    backup: Labelled,
    tier: str,
    checks: Sequence[CheckResult],
    progress: Progress,
    part: Part,
    *,
    contents: str,
) -> None:
    """What was found of the bytes of a backup or snapshot, beside it. `contents` is the check that needs a key."""
    proof = _proof_of(checks, contents)
    if proof is not None and (part.is_whole or not proof[1].passed):
        kind, found = proof
        try:
            store = site.bare_repository(backup.owner, tier).store
            put_proof(store, backup.layout, kind, found, at=site.clock.now(), tier=tier, run=here("dr verify"))
        except DrError as error:
            progress.note(f"that {backup.label} was verified could not be put on {tier}: {error.message}")


def _proof_of(checks: Sequence[CheckResult], contents: str) -> tuple[str, CheckResult] | None:
    """Its kind, and what it says. Without a key only the stored bytes are proven, which is `digests`. None when
    something else could not be looked at: that takes back no earlier proof, and is none."""
    wrong = [check for check in checks if check.verdict is Verdict.FAIL]
    if wrong:
        return "verify", failed("backup_is_right", wrong[0].summary, checks=[check.name for check in wrong])
    seen = [check for check in checks if check.passed]
    unseen = {check.name for check in checks if not check.passed}
    if unseen - {contents} or not any(check.name == OBJECTS_MATCH for check in seen):
        return None
    kind = "digests" if unseen else "verify"
    return kind, passed("backup_is_right", seen[-1].summary, checks=[check.name for check in seen])


def here(command: str) -> str:
    """Who looked, where no orchestrator gave it a name."""
    return f"{command} on {socket.gethostname()}"


def wal_has_no_gap(site: Site, server: str, tier: str = "primary") -> CheckResult:
    repository = site.read_only_repository(server, tier)
    try:
        return _wal_has_no_gap(repository, server, repository.backups(server))
    except DrError as error:
        return not_proven("wal_has_no_gap", f"{tier} could not be read: {error.message}")


def labelled(repository: Repository, server: str, label: str) -> BackupManifest:
    """One of a tier; `latest` is its newest. Raises `BackupNotFound`."""
    if label != "latest":
        return repository.backup(server, label)
    backups = repository.backups(server)
    if not backups:
        raise no_backup(server, repository.tier)
    return backups[-1]
