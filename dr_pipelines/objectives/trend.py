"""Whether measurements grow, and how fast: the slope of Theil and Sen, the median of the slopes between all pairs,
which single outliers do not move (Sen 1968, Journal of the American Statistical Association 63), and the test of Mann
and Kendall, which tells growth from noise."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import combinations

DAY = timedelta(days=1)
FEWEST, SHORTEST = 5, 3 * DAY
"""Of less, nothing is said of growth."""
_SURE = 1.645
"""Standard deviations: growth that one series of twenty without any would show is taken for noise."""
_FARTHEST = timedelta(days=3650)


@dataclass(frozen=True)
class Trend:
    """`per_day` is the slope, in the value's unit; 0 where nothing stands out of the noise, or it falls."""

    per_day: float
    count: int
    span: timedelta


def trend_of(points: Sequence[tuple[datetime, float]]) -> Trend | None:
    """None where there are too few of them, or within too short a time."""
    times = [at for at, _ in points]
    if len(points) < FEWEST or max(times) - min(times) < SHORTEST:
        return None
    slopes = [
        (later - earlier) / ((then - at) / DAY)
        for (at, earlier), (then, later) in combinations(sorted(points), 2)
        if then > at
    ]
    slope = statistics.median(slopes)
    return Trend(slope if slope > 0 and _rises(slopes, len(points)) else 0.0, len(points), max(times) - min(times))


def _rises(slopes: Sequence[float], count: int) -> bool:
    score = sum(slope > 0 for slope in slopes) - sum(slope < 0 for slope in slopes)
    return score - 1 > _SURE * math.sqrt(count * (count - 1) * (2 * count + 5) / 18)


def used_up_at(margin: float, per_day: float, now: datetime) -> datetime | None:
    """When growth will have used up a margin; None where it does not within ten years."""
    if per_day <= 0 or margin / per_day > _FARTHEST / DAY:
        return None
    return now + margin / per_day * DAY
