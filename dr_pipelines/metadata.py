"""What a person sees in Dagster: names of groups, metadata of a backup, answers of checks, errors with their hints.

What does not belong here: deciding anything. It only turns our objects into Dagster's.
"""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

# Dagster has no public name for it.
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData,
)
from rich.filesize import decimal

from dr_pipelines.checks import CheckResult
from dr_pipelines.errors import DrError
from dr_pipelines.plan import Plan
from dr_pipelines.plan.values import format_duration
from dr_pipelines.progress import Progress
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.repository.manifest import BackupManifest

if TYPE_CHECKING:
    # Imported for its name only: the module brings in psycopg, and the code location must load fast.
    from dr_pipelines.postgres.take import SealedWal

DATABASE_BACKUPS = "database_backups"
FULL_BACKUP = "full_backup"
INCREMENTAL_BACKUP = "incremental_backup"
FILE_BACKUPS = "file_backups"
SNAPSHOT = "snapshot"
POLL = "poll"
WAL_ARCHIVE = "wal_archive"
REPLICATION = "replication"
RETENTION = "retention"
RETENTION_PLAN = "retention_plan"
EXPIRY = "expiry"
VALIDATION = "validation"
RECOVERY_WINDOWS = "recovery_windows"
OBJECTIVES = "objectives"
EQUIVALENCE = "incremental_equivalence"
TIER = "primary"
"""Where backups are taken to, and what checks look at."""

HOUR = timedelta(hours=1)
PARTITION = "dagster/partition"
"""The tag of a run's partition."""
UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
]
"""States of runs that will still do something."""

_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")


def asset_key(server: str, thing: str) -> dg.AssetKey:
    return dg.AssetKey([server, thing])


def replica_of(tier: str, thing: str) -> str:
    """`secondary_full_backup`: the last part of a replica's key."""
    return f"{tier}_{thing}"


def validated_of(thing: str) -> str:
    """`validated_full_backup`."""
    return f"validated_{thing}"


def scrub_of(tier: str) -> str:
    return f"{tier}_scrub"


def identifier(server: str) -> str:
    """A server's name where Dagster takes only letters, digits and underscores (jobs, schedules, groups, pools)."""
    return server.replace("-", "_")


def group_of(server: str, group: str) -> str:
    """One for each server: the lineage shows an asset by the last part of its key, and several servers' assets would
    look the same."""
    return f"{identifier(server)}_{group}"


# --- what the plan says -------------------------------------------------------------------------------------


def store_kind(plan: Plan, name: str, tier: str = TIER) -> str:
    """The icon of the store: `s3`, `azure`, or `file` for a directory."""
    asked = plan.file_storage[name] if name in plan.file_storage else plan.databases[name]
    stores = dict(asked.storage.items()) if asked.storage is not None else {}
    kind = plan.storage[stores[tier]].type
    return "file" if kind == "local" else kind


def owners(plan: Plan) -> list[str]:
    """Dagster's owners are addresses: those of the response team that are of e-mail."""
    team = plan.communication.internal.response_team
    return [address for member in team for address in member.reach if _EMAIL.fullmatch(address)]


def fresh_within(interval: timedelta) -> dg.FreshnessPolicy:
    """Of what is made so often: half as long again is late. It sees no partitions, so it goes only where a run that
    fills an old one is refused, or where there are none."""
    return dg.FreshnessPolicy.time_window(fail_window=interval * 1.5)


def promises(plan: Plan, server: str, kind: BackupKind) -> dict[str, Any]:
    """What the plan promises of a server's backups, as an asset's metadata."""
    asked = plan.databases[server]
    schedule = asked.schedule.full if kind is BackupKind.FULL else asked.schedule.incremental
    losses = [data.rpo for data in plan.data_classes.values() if data.server == server]
    times = [system.rto for group in plan.systems.values() for system in group.values() if system.server == server]
    return {
        "schedule": schedule.text if schedule else "none",
        "bucket": asked.storage.primary,
        **({"promised_rpo": format_duration(min(losses))} if losses else {}),
        **({"promised_rto": format_duration(min(times))} if times else {}),
    }


# --- backups ------------------------------------------------------------------------------------------------


def backup_metadata(manifest: BackupManifest | SealedWal, tier: str) -> dict[str, Any]:
    """Sizes in bytes, times in seconds; numbers are plain, so that Dagster plots them; `summary` is for people."""
    if not isinstance(manifest, BackupManifest):
        sealed = {"kind": "sealed range of WAL", "timeline": manifest.timeline.id, "end_lsn": str(manifest.end)}
        return {**sealed, "tier": tier}
    seconds = (manifest.finished_at - manifest.started_at).total_seconds()
    size, stored = manifest.archive.size, manifest.stored_size
    entries: dict[str, Any] = {
        "summary": dg.MetadataValue.md(_backup_summary(manifest, seconds)),
        "label": manifest.label,
        "kind": str(manifest.kind),
        "kind_reason": manifest.kind_reason,
        "parent": manifest.parent,
        "provisional": manifest.provisional,
        "tier": tier,
        "bytes": size,
        "stored_bytes": stored,
        "ratio": round(size / stored, 3) if stored else None,
        "seconds": round(seconds, 3),
        "mb_per_second": round(size / seconds / 1e6, 2) if seconds > 0 else None,
        "start_lsn": str(manifest.start_lsn),
        "stop_lsn": str(manifest.stop_lsn),
        "timeline": manifest.timeline.id,
        "postgres_version": manifest.postgres_version,
        "started_at": dg.MetadataValue.timestamp(manifest.started_at),
        "finished_at": dg.MetadataValue.timestamp(manifest.finished_at),
    }
    return {name: value for name, value in entries.items() if value is not None}


def exposure_metadata(exposed: timedelta | None) -> dict[str, Any]:
    """`rpo_exposure_seconds`: what a loss right before this backup would have cost, were there no WAL stream."""
    return {} if exposed is None else {"rpo_exposure_seconds": round(exposed.total_seconds(), 3)}


def _backup_summary(manifest: BackupManifest, seconds: float) -> str:
    size, stored = manifest.archive.size, manifest.stored_size
    rows = {
        "backup": f"`{manifest.label}`",
        "builds on": f"`{manifest.parent}`" if manifest.parent else "nothing: it is a full one",
        "size": f"{decimal(size)}, stored as {decimal(stored)} in {len(manifest.objects)} objects",
        "time": f"{seconds:.1f} s",
        "WAL": f"`{manifest.start_lsn}` to `{manifest.stop_lsn}`, timeline {manifest.timeline.id}",
        "why full": manifest.kind_reason,
        "not to be trusted yet": manifest.provisional,
        "restore it": f"`dr restore {manifest.server} --to DIRECTORY --label {manifest.label}`",
    }
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {text} |" for name, text in rows.items() if text)])


# --- checks -------------------------------------------------------------------------------------------------


def check_result(result: CheckResult) -> dg.AssetCheckResult:
    """What is not proven has not passed: it alarms like a failure, and says that it is another thing."""
    return dg.AssetCheckResult(
        check_name=result.name,
        passed=result.passed,
        severity=dg.AssetCheckSeverity.ERROR,
        description=result.summary,
        metadata=_check_metadata(result),
    )


def check_evaluation(
    key: dg.AssetKey, result: CheckResult, of: dg.EventLogRecord | None = None
) -> dg.AssetCheckEvaluation:
    """The same answer as an event without a run, for sensors. `of`: the materialization that was looked at."""
    return dg.AssetCheckEvaluation(
        asset_key=key,
        check_name=result.name,
        passed=result.passed,
        severity=dg.AssetCheckSeverity.ERROR,
        description=result.summary,
        metadata=_check_metadata(result),
        target_materialization_data=_target(of) if of else None,
    )


def _target(of: dg.EventLogRecord) -> AssetCheckEvaluationTargetMaterializationData:
    return AssetCheckEvaluationTargetMaterializationData(
        storage_id=of.storage_id, run_id=of.run_id, timestamp=of.timestamp
    )


def _check_metadata(result: CheckResult) -> dict[str, Any]:
    said = "skipped" if result.skipped else None if result.passed else str(result.verdict)
    verdict = {"verdict": said} if said else {}
    return verdict | {name: _value(value) for name, value in result.details.items() if value not in (None, [], ())}


def _value(value: Any) -> Any:
    """Dagster takes plain JSON values; others are shown as they print."""
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, datetime):
        return dg.MetadataValue.timestamp(value)
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return "\n".join(value)  # JSON and Markdown would be hidden behind a click
    if isinstance(value, list | tuple) and value and all(isinstance(item, Mapping) for item in value):
        return dg.MetadataValue.md(table([*value[0]], [[*item.values()] for item in value]))
    return dg.MetadataValue.json(_plain(value))


def table(columns: list[str], rows: list[list[Any]]) -> str:
    """As Markdown."""

    def line(cells: list[Any]) -> str:
        return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    return "\n".join([line(columns), line(["---"] * len(columns)), *(line(row) for row in rows)])


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


# --- errors and progress ------------------------------------------------------------------------------------


@contextmanager
def failures(context: dg.AssetExecutionContext, retries: dg.RetryPolicy) -> Iterator[None]:
    """What is transient asks for another try; anything else fails the run at once, with its hint.

    The policy is followed here and not given to Dagster, which would also try again what a person terminated, and head
    the page of a last failed try with "Exceeded max_retries" in place of what happened. Where an error of ours was
    raised helps nobody who must act, so its stack trace goes to the log's debug level.
    """
    try:
        yield
    except DrError as error:
        context.log.debug(traceback.format_exc())
        told = failure(error)
        if error.transient and context.retry_number < retries.max_retries:
            delay = retries.calculate_delay(context.retry_number + 1)
            raise dg.RetryRequested(retries.max_retries, delay) from told
        raise told from None
    except dg.Failure:
        raise
    except Exception as error:
        raise dg.Failure(f"unexpected {type(error).__name__}: {error}", allow_retries=False) from error


def failure(error: DrError) -> dg.Failure:
    metadata: dict[str, Any] = {"error": type(error).__name__, "exit_code": error.exit_code}
    if error.hint is not None:
        metadata["hint"] = error.hint
    return dg.Failure(description=str(error), metadata=metadata, allow_retries=False)


class LoggedProgress(Progress):
    """Phases and notes as lines of the run's log. Bytes are not logged: the log would be nothing else."""

    def __init__(self, log: logging.Logger | dg.DagsterLogManager) -> None:
        self._log = log

    def phase(self, name: str, total_bytes: int | None = None) -> None:
        self._log.info(name if total_bytes is None else f"{name} ({total_bytes / 1e6:,.1f} MB)")

    def advance(self, count: int) -> None:
        pass

    def note(self, text: str) -> None:
        self._log.info(text)
