"""A backup can only be taken into the partition of now."""

from datetime import UTC, date, datetime, timedelta

import dagster as dg
import pytest

from assets.partitions import GRACE, daily, guard, hourly, partition_of, refusal

DAILY, HOURLY = daily(date(2026, 1, 1)), hourly(date(2026, 1, 1))
NOON = datetime(2026, 11, 24, 12, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("partitions", "key"), [(DAILY, "2026-11-24"), (HOURLY, "2026-11-24-12:00")], ids=["day", "hour"]
)
def test_the_partition_of_now_is_taken(partitions: dg.TimeWindowPartitionsDefinition, key: str) -> None:
    assert partition_of(partitions, NOON) == key
    assert key in partitions.get_partition_keys(current_time=NOON)
    guard(partitions, key, NOON)


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
        guard(partitions, key, NOON)
    assert caught.value.allow_retries is False
    assert partition_of(partitions, NOON) in (caught.value.description or "")


def test_a_window_that_has_just_ended_still_counts() -> None:
    midnight = datetime(2026, 11, 24, tzinfo=UTC)
    assert refusal(DAILY, "2026-11-23", midnight + timedelta(minutes=1)) is None
    assert refusal(DAILY, "2026-11-23", midnight + GRACE - timedelta(seconds=1)) is None
    assert refusal(DAILY, "2026-11-23", midnight + GRACE) is not None
    assert refusal(HOURLY, "2026-11-23-23:00", midnight + timedelta(minutes=1)) is None
