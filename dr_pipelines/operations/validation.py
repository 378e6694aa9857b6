"""A backup proven by a restore: from one tier alone, to a scratch server, through every check; and the proof of it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from dr_pipelines.checks import CheckResult, Verdict, failed, not_proven, passed
from dr_pipelines.errors import (
    DrError,
    HostTooSmall,
    IntegrityError,
    ObjectNotFound,
    RepositoryError,
    RestoreError,
    ServerError,
    StoreError,
    TargetInUse,
)
from dr_pipelines.operations.backups import here, labelled
from dr_pipelines.operations.recovery import located
from dr_pipelines.operations.scratch import scratch_folder
from dr_pipelines.postgres.restore_request import RestoreRequest
from dr_pipelines.postgres.scratch import scratch
from dr_pipelines.progress import Progress
from dr_pipelines.repository.catalog import read_proofs
from dr_pipelines.repository.manifest import BackupManifest
from dr_pipelines.repository.marks import VALIDATE, Marks, put_proof
from dr_pipelines.repository.repository import Repository
from dr_pipelines.repository.source_facts import SourceFacts
from dr_pipelines.repository.validations import SeenCheck, Validation, put_document, put_validation
from dr_pipelines.site import Site
from dr_pipelines.validation.due import RESTORES_AND_VALIDATES
from dr_pipelines.validation.suite import Suite, whole
from dr_pipelines.validation.validate import Validating, read_facts

_OF_THE_BACKUP = (IntegrityError, ObjectNotFound, RepositoryError, RestoreError, ServerError)
"""Errors that a backup is to blame for, and not whoever looks at it; but for those of the next two."""
_OF_THE_HOST = (HostTooSmall, TargetInUse)
_OF_THE_WAY = (StoreError.exit_code, 13, 31)
"""Exit codes of what stands between us and the bytes: a store, a key, cold storage."""


@dataclass(frozen=True)
class ValidationReport:
    """What was seen and measured. `checks` are the whole results; `evidence` is its key on the tier, None when it could
    not be put there."""

    validation: Validation
    checks: tuple[CheckResult, ...]
    check: CheckResult
    evidence: str | None

    @property
    def speeds(self) -> Mapping[str, float]:
        """Bytes a second of the phases that move some."""
        seen = self.validation
        moved = {"fetch": seen.bytes, "replay": seen.wal_bytes}
        return {
            name: size / seconds for name, size in moved.items() if (seconds := seen.phases.get(name, 0.0)) and size
        }


def validate_backup(
    site: Site,
    server: str,
    label: str,
    tier: str,
    progress: Progress,
    *,
    run: str | None = None,
    suite: Suite | None = None,
) -> ValidationReport:
    """Restore a backup (`latest`: the newest) from one tier alone and judge it. Nothing of it stays but evidence and a
    proof on that tier. Without a `suite` it goes through all checks that there are.

    A restore that fails is a failed validation; what kept us from looking is none, and not proven. Raises what shows
    before there is anything to judge: `BackupNotFound`, `UsageError`, `RestoreError` for a folder that cannot be used,
    what the tier's store raises.
    """
    repository = site.read_only_repository(server, tier)
    repository.check_format()
    backup = labelled(repository, server, label)
    return _Validation(site, repository, backup, progress, run or here("dr validate")).report(suite)


@dataclass(frozen=True)
class RestoreProof:
    """The newest restore of a backup from a tier that proved something; else the newest that could not."""

    label: str
    tier: str
    at: datetime
    verdict: Verdict


def restore_proofs(site: Site, server: str) -> tuple[list[RestoreProof], list[str]]:
    """Of every tier that can be listed, by label; and which could not. Needs no key."""

    def of_tier(tier: str) -> list[RestoreProof] | str:
        try:
            listed = read_proofs(site.read_only_repository(server, tier).store, server)
        except DrError as error:
            return f"what was restored from {tier} cannot be seen: {error.message}"
        found = {label: Marks(proofs=proofs).newest_validation() for label, proofs in listed.items()}
        return [
            RestoreProof(label, tier, proof.at, Verdict(proof.verdict.replace("-", " ")))
            for label, proof in found.items()
            if proof is not None
        ]

    tiers = site.tiers(server)
    with ThreadPoolExecutor(len(tiers), thread_name_prefix="proofs") as pool:
        answers = [*pool.map(of_tier, tiers)]
    proofs = [proof for answer in answers if not isinstance(answer, str) for proof in answer]
    return sorted(proofs, key=lambda proof: (proof.label, proof.at)), [one for one in answers if isinstance(one, str)]


class _Validation:
    """One of them."""

    def __init__(
        self, site: Site, repository: Repository, backup: BackupManifest, progress: Progress, run: str
    ) -> None:
        self._site, self._repository, self._backup = site, repository, backup
        self._progress, self._run = progress, run
        self._plan = site.plan_of(backup.server).validation
        self._phases: dict[str, float] = {}
        self._chain: tuple[BackupManifest, ...] = (backup,)
        with contextlib.suppress(DrError):  # the restore meets the same, and says so
            self._chain = tuple(repository.chain(backup))
        self._wal_bytes = 0

    def report(self, suite: Suite | None) -> ValidationReport:
        request = self._request()
        facts, why = self._facts()
        judged = Validating(
            facts,
            self._plan,
            clock=self._site.clock,
            progress=self._progress,
            **({} if why is None else {"why": why}),
            suite=suite or whole(self._plan, self._backup.server, self._site.plan.databases),
            promises=self._promises(),
            keep_page=self._keep_page,
        )
        failure: DrError | None = None
        try:
            self._restore(request, judged)
        except DrError as error:
            failure = error
        checks = judged.results(None if failure is None else "the backup could not be restored to its end")
        check = self._verdict(checks, failure)
        seen = Validation(
            server=self._backup.server,
            label=self._backup.label,
            chain=tuple(backup.label for backup in self._chain),
            tier=self._repository.tier,
            at=self._site.clock.now(),
            run=self._run,
            verdict=check.verdict,
            summary=check.summary,
            phases={**self._phases, "validate": judged.seconds},
            bytes=sum(backup.archive.size for backup in self._chain),
            wal_bytes=self._wal_bytes,
            reached=judged.reached,
            checks=tuple(SeenCheck.of(result) for result in checks),
        )
        return ValidationReport(seen, checks, check, self._keep(seen, check))

    def _promises(self) -> Mapping[str, timedelta]:
        """How much of each table may be lost; of one that several data classes name, the least."""
        found: dict[str, timedelta] = {}
        for data in self._site.plan.data_classes.values():
            if data.server == self._backup.server:
                found |= {table: min(data.rpo, found.get(table, data.rpo)) for table in data.tables}
        return found

    def _keep_page(self, what: str, page: bytes) -> str:
        store = self._site.bare_repository(self._backup.server, self._repository.tier).store
        return put_document(store, f"{what}-{self._backup.server}", self._site.clock.now(), page)

    def _request(self) -> RestoreRequest:
        server, label = self._backup.server, self._backup.label
        asked = RestoreRequest(server, self._site.state_dir, label=label)
        request = located(self._site, asked, self._repository.tier)
        return replace(request, target_dir=scratch_folder(self._site, server, request.os_user) / label)

    def _facts(self) -> tuple[SourceFacts | None, str | None]:
        """And why there are none. Facts that cannot be read say nothing of whether the backup restores."""
        try:
            return read_facts(self._repository, self._backup), None
        except DrError as error:
            return None, f"what the source told cannot be read: {error.message}"

    def _restore(self, request: RestoreRequest, judged: Validating) -> None:
        site = self._site
        with scratch(
            request, [self._repository], clock=site.clock, runner=site.runner, progress=self._progress,
            phases=self._phases,
        ) as copy:  # fmt: skip
            try:
                judged.run(copy)
            finally:
                self._wal_bytes = copy.wal_bytes

    def _verdict(self, checks: tuple[CheckResult, ...], failure: DrError | None) -> CheckResult:
        label, tier = self._backup.label, self._repository.tier
        broken = [check for check in checks if check.verdict is Verdict.FAIL]
        unseen = [check for check in checks if check.verdict is Verdict.NOT_PROVEN]
        seconds = sum(took for phase, took in self._phases.items() if phase != "recall")
        details: dict[str, Any] = {
            "label": label,
            "tier": tier,
            "checks": len(checks),
            "failed": [f"{check.name}: {check.summary}" for check in broken],
            "not_proven": [f"{check.name}: {check.summary}" for check in unseen],
            "recovery_seconds": round(seconds, 3),
        }
        hint = next((check.details["hint"] for check in (*broken, *unseen) if check.details.get("hint")), None)
        if failure is not None:
            verdict = failed if _is_of_the_backup(failure) else not_proven
            what = "does not restore" if verdict is failed else "could not be restored"
            said = f"{label} {what} from {tier}: {failure.message}"
            return verdict(RESTORES_AND_VALIDATES, said, **details, error=type(failure).__name__, hint=failure.hint)
        restored = f"{label} was restored from {tier} in {seconds:.1f} s"
        if broken:
            said = f"{restored}, and {len(broken)} of {len(checks)} checks failed: {_names(broken)}"
            return failed(RESTORES_AND_VALIDATES, said, **details, hint=hint)
        if unseen:
            said = f"{restored}, and {len(unseen)} of {len(checks)} checks could not be made: {_names(unseen)}"
            return not_proven(RESTORES_AND_VALIDATES, said, **details, hint=hint)
        skipped = [check for check in checks if check.skipped]
        left_out = f"; skipped: {_names(skipped)}" if skipped else ""
        said = f"{restored}, and passes every check ({len(checks) - len(skipped)}){left_out}"
        return passed(RESTORES_AND_VALIDATES, said, **details, skipped=[check.name for check in skipped])

    def _keep(self, seen: Validation, check: CheckResult) -> str | None:
        """Evidence first: a proof names it."""
        server, tier = self._backup.server, self._repository.tier
        key: str | None = None
        try:
            store = self._site.bare_repository(server, tier).store
            key = put_validation(store, seen)
            store.stat(self._backup.layout.manifest)  # a proof of what was expired meanwhile would be garbage
            kept = CheckResult(check.name, check.verdict, check.summary, {**check.details, "evidence": key})
            put_proof(store, self._backup.layout, VALIDATE, kept, at=seen.at, tier=tier, run=self._run)
        except DrError as error:
            self._progress.note(f"that {seen.label} was validated could not be put on {tier}: {error.message}")
        return key


def _is_of_the_backup(error: DrError) -> bool:
    if isinstance(error, ObjectNotFound | IntegrityError):
        return True
    way = error.transient or error.exit_code in _OF_THE_WAY or isinstance(error, _OF_THE_HOST)
    return isinstance(error, _OF_THE_BACKUP) and not way


def _names(checks: list[CheckResult]) -> str:
    return ", ".join(check.name for check in checks)
