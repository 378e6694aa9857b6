"""A backup can only be launched for the partition of now."""

from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
from dagster._core.storage.tags import RETRY_NUMBER_TAG

from assets.database_backups import launched_at
from assets.partitions import LONGEST_WAIT, SLACK, daily, guard, hourly, partition_of, refusal

DAILY, HOURLY = daily(date(2026, 1, 1)), hourly(date(2026, 1, 1))
NOON = datetime(2026, 11, 24, 12, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("partitions", "key"), [(DAILY, "2026-11-24"), (HOURLY, "2026-11-24-12:00")], ids=["day", "hour"]
)
def test_the_partition_of_now_is_taken(partitions: dg.TimeWindowPartitionsDefinition, key: str) -> None:
    assert partition_of(partitions, NOON) == key
    assert key in partitions.get_partition_keys(current_time=NOON)
    guard(partitions, key, launched=NOON, now=NOON)


@pytest.mark.parametrize(
    ("partitions", "key", "says"),
    [
        (DAILY, "2026-11-23", "is in the past"),
        (DAILY, "2026-11-25", "has not begun"),
        (HOURLY, "2026-11-24-11:00", "is in the past"),
        (HOURLY, "2026-11-24-13:00", "has not begun"),
        (HOURLY, "2026-11-24-12:30", "has not begun|is in the past"),
        (DAILY, "yesterday", "is not a partition"),
        (DAILY, "", "is not a partition"),
    ],
)
def test_any_other_is_refused_for_good(partitions: dg.TimeWindowPartitionsDefinition, key: str, says: str) -> None:
    with pytest.raises(dg.Failure, match=says) as caught:
        guard(partitions, key, launched=NOON, now=NOON)
    assert caught.value.allow_retries is False
    assert partition_of(partitions, NOON) in (caught.value.description or "")


def test_a_run_that_waited_in_the_queue_is_late_and_no_mistake() -> None:
    """A full of many hours holds the server's pool; the incrementals that were launched meanwhile come after it."""
    launched = NOON - timedelta(hours=5)
    key = partition_of(HOURLY, launched)
    assert refusal(HOURLY, key, launched=launched, now=NOON) is None
    assert "is in the past" in (refusal(HOURLY, key, launched=NOON, now=NOON) or "")
    launched = NOON - LONGEST_WAIT
    key = partition_of(DAILY, launched)
    assert refusal(DAILY, key, launched=launched, now=NOON) is None
    assert refusal(DAILY, key, launched=launched, now=NOON + timedelta(seconds=1)) is not None


def test_a_partition_may_end_while_its_run_is_made() -> None:
    midnight = datetime(2026, 11, 24, tzinfo=UTC)
    for key, partitions in (("2026-11-23", DAILY), ("2026-11-23-23:00", HOURLY)):
        just_after = midnight + SLACK - timedelta(seconds=1)
        assert refusal(partitions, key, launched=just_after, now=just_after) is None
        later = midnight + SLACK
        assert "is in the past" in (refusal(partitions, key, launched=later, now=later) or "")


def test_a_partition_that_has_begun_while_its_run_waited_is_taken() -> None:
    tomorrow = NOON + timedelta(days=1)
    assert "has not begun" in (refusal(DAILY, "2026-11-25", launched=NOON, now=NOON) or "")
    assert refusal(DAILY, "2026-11-25", launched=NOON, now=tomorrow) is None


def test_a_run_that_dagster_made_anew_was_launched_when_the_first_one_was() -> None:
    made = {"first": datetime(2026, 3, 4, 23, 30, tzinfo=UTC), "again": datetime(2026, 3, 5, 0, 12, tzinfo=UTC)}
    records = SimpleNamespace(get_run_record_by_id=lambda run: SimpleNamespace(create_timestamp=made[run]))

    def launched(run_id: str, **more: Any) -> datetime:
        run = dg.DagsterRun(job_name="shop_full_backup", run_id=run_id, **more)
        return launched_at(SimpleNamespace(run=run, instance=records))

    parents = {"root_run_id": "first", "parent_run_id": "first"}
    assert launched("first") == made["first"]
    assert launched("again", **parents, tags={RETRY_NUMBER_TAG: "1"}) == made["first"]
    assert launched("again", **parents) == made["again"]  # by a person, who means now
