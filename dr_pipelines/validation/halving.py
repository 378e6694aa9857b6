"""Where good turns to bad on a line of points, asked as seldom as possible. Pure."""

from __future__ import annotations

from collections.abc import Callable


def halve(
    good: int,
    bad: int,
    is_good: Callable[[int], bool],
    *,
    near_enough: Callable[[int, int], bool] = lambda good, bad: False,
) -> tuple[int, int]:
    """Of points from `good` to `bad`, two that lie beside each other, or are `near_enough`: the first is good and the
    second is not, by what `is_good` said or by what was given. Asks about each point at most once, at most
    log2(bad - good) rounded up in all. Where good and bad alternate, it is one of several such places."""
    while bad - good > 1 and not near_enough(good, bad):
        middle = (good + bad) // 2
        good, bad = (middle, bad) if is_good(middle) else (good, middle)
    return good, bad
