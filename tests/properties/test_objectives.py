"""Trends and margins, whatever was measured."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from dr_pipelines.checks import Verdict
from dr_pipelines.objectives.exposure import Exposure
from dr_pipelines.objectives.trend import trend_of, used_up_at

NOW = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
SECONDS = st.floats(0, 1e6)
ORDER = [Verdict.FAIL, Verdict.NOT_PROVEN, Verdict.PASS]


@given(SECONDS, SECONDS, SECONDS, SECONDS)
def test_a_wider_promise_is_never_kept_worse_nor_a_greater_loss_better(
    one: float, other: float, promised: float, more: float
) -> None:
    at_least, seconds = sorted((one, other))
    exposure = Exposure("primary", seconds, at_least, "")

    def verdict(found: Exposure, allowed: float) -> int:
        return ORDER.index(found.within(timedelta(seconds=allowed)))

    assert verdict(exposure, promised) <= verdict(exposure, promised + more)
    greater = Exposure("primary", seconds + more, at_least + more, "")
    assert verdict(greater, promised) <= verdict(exposure, promised)


@given(st.integers(6, 20), st.floats(0.5, 100), st.integers(0, 5), SECONDS)
def test_a_line_is_found_whatever_one_outlier_says(count: int, per_day: float, spoilt: int, outlier: float) -> None:
    points = [(NOW + index * DAY, 1000 + index * per_day) for index in range(count)]
    trend = trend_of(points)
    assert trend is not None and abs(trend.per_day - per_day) < 1e-6
    moved = [(at, value + 77) for at, value in points]
    assert abs((trend_of(moved) or trend).per_day - per_day) < 1e-6
    if count >= 10:
        points[spoilt] = (points[spoilt][0], outlier)
        robust = trend_of(points)
        assert robust is not None and abs(robust.per_day - per_day) < 1e-6


@given(st.lists(st.tuples(st.integers(0, 60), SECONDS), max_size=12))
def test_of_little_nothing_is_said_and_growth_is_never_below_none(points: list[tuple[int, float]]) -> None:
    found = trend_of([(NOW + day * DAY, value) for day, value in points])
    days = [day for day, _ in points]
    if found is None:
        assert len(points) < 5 or max(days) - min(days) < 3
    else:
        assert found.per_day >= 0


@given(st.floats(0, 1e5), st.floats(0.01, 1e4), st.floats(0, 1e4))
def test_faster_growth_breaks_a_promise_no_later(margin: float, per_day: float, more: float) -> None:
    soon, later = used_up_at(margin, per_day + more, NOW), used_up_at(margin, per_day, NOW)
    assert later is None or (soon is not None and NOW <= soon <= later)
    assert used_up_at(margin, 0, NOW) is None
