"""Whether the backup that was due is there depends on when backups were taken, not on what was last filled."""

from datetime import UTC, datetime, timedelta
from typing import Any

from dr_pipelines.checks import Verdict
from dr_pipelines.lsn import Lsn, Timeline
from dr_pipelines.repository.due import Window, backup_is_there, exposure, newest_due
from dr_pipelines.repository.layout import BackupKind, label_for
from dr_pipelines.repository.manifest import Archive, BackupManifest, Encoding, StoredObject

DAY, HOUR = timedelta(days=1), timedelta(hours=1)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def backup(taken: str, kind: BackupKind, **more: Any) -> BackupManifest:
    label = label_for(at(taken), kind)
    key = f"servers/shop/backups/{label}/"
    stored = StoredObject(key=f"{key}packs/000000.zst", size=10, sha256="0" * 64)
    fields: dict[str, Any] = {
        "server": "shop",
        "label": label,
        "kind": kind,
        "asked_kind": kind,
        "started_at": at(taken),
        "finished_at": at(taken) + timedelta(minutes=2),
        "tool_version": "0",
        "taken_on": "here",
        "system_id": "7",
        "postgres_version": "18.0",
        "postgres_version_num": 180000,
        "segment_size": 1 << 24,
        "block_size": 8192,
        "data_checksums": True,
        "timeline": Timeline(1),
        "start_lsn": Lsn(1),
        "stop_lsn": Lsn(2),
        "encoding": Encoding(level=1),
        "archive": Archive(size=100, pack_size=100, packs=(stored,)),
        "backup_manifest": stored.model_copy(update={"key": f"{key}backup_manifest.zst"}),
        "index": stored.model_copy(update={"key": f"{key}index.json.zst"}),
    }
    return BackupManifest(**(fields | more))


def test_a_backup_is_due_once_it_had_time_to_be_taken() -> None:
    cron = "0 2 * * *"
    assert newest_due(cron, DAY, Window.DAY, at("2026-11-24T02:30")).key == "2026-11-23"
    assert newest_due(cron, DAY, Window.DAY, at("2026-11-24T03:00")).key == "2026-11-24"
    assert newest_due("0 * * * *", HOUR, Window.HOUR, at("2026-11-24T02:14")).key == "2026-11-24-01:00"
    assert newest_due("0 * * * *", HOUR, Window.HOUR, at("2026-11-24T02:15")).key == "2026-11-24-02:00"


NOW = at("2026-11-24T15:00")


def test_an_old_backup_is_no_substitute_for_todays() -> None:
    due = newest_due("0 2 * * *", DAY, Window.DAY, at("2026-11-24T12:00"))
    old = backup("2026-11-23T02:00", BackupKind.FULL)
    result = backup_is_there([old], BackupKind.FULL, due, now=NOW)
    assert result.verdict is Verdict.FAIL
    assert "2026-11-24" in result.summary
    assert old.label in result.summary
    assert backup_is_there([], BackupKind.FULL, due, now=NOW).verdict is Verdict.FAIL
    assert backup_is_there([old, backup("2026-11-24T11:00", BackupKind.FULL)], BackupKind.FULL, due, now=NOW).passed


def test_an_incremental_does_not_serve_as_a_full_but_a_full_serves_the_hour() -> None:
    day = newest_due("0 2 * * *", DAY, Window.DAY, at("2026-11-24T12:00"))
    hour = newest_due("0 * * * *", HOUR, Window.HOUR, at("2026-11-24T12:30"))
    assert not backup_is_there(
        [backup("2026-11-24T11:00", BackupKind.INCREMENTAL)], BackupKind.FULL, day, now=NOW
    ).passed
    assert backup_is_there([backup("2026-11-24T12:01", BackupKind.FULL)], BackupKind.INCREMENTAL, hour, now=NOW).passed


def test_a_newer_backup_than_the_one_that_was_due_serves() -> None:
    """A repository that begins at 14:02 misses nothing of 13:00."""
    hour = newest_due("0 * * * *", HOUR, Window.HOUR, at("2026-11-24T14:10"))
    assert hour.key == "2026-11-24-13:00"
    result = backup_is_there([backup("2026-11-24T14:02", BackupKind.FULL)], BackupKind.INCREMENTAL, hour, now=NOW)
    assert result.passed
    assert "newer" in result.summary
    assert not backup_is_there(
        [backup("2026-11-24T12:59", BackupKind.FULL)], BackupKind.INCREMENTAL, hour, now=NOW
    ).passed


def test_exposure_reaches_back_to_the_backup_before() -> None:
    first, second = backup("2026-11-24T02:00", BackupKind.FULL), backup("2026-11-24T03:00", BackupKind.INCREMENTAL)
    third = backup("2026-11-24T05:00", BackupKind.INCREMENTAL)
    assert exposure([first], first) is None
    assert exposure([first, second, third], second) == HOUR
    assert exposure([third, first, second], third) == 2 * HOUR


def test_a_backup_of_the_future_serves_for_nothing() -> None:
    """Else one that was taken while a clock was a year ahead would hide for a year that backups have stopped."""
    due = newest_due("0 2 * * *", DAY, Window.DAY, NOW)
    ahead = backup("2027-11-24T02:00", BackupKind.FULL)
    assert backup_is_there([ahead], BackupKind.FULL, due, now=NOW).verdict is Verdict.FAIL
    assert backup_is_there([ahead, backup("2026-11-24T02:00", BackupKind.FULL)], BackupKind.FULL, due, now=NOW).passed
