"""The chart of what can be restored: tiers over time, as SVG.

Bars are recovery windows, ticks are backups, hatched is what cannot be restored, with the reason as its title. It needs
no colour. What the windows are does not belong here.
"""

from __future__ import annotations

import io
import math
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from dr_pipelines.postgres.recovery_windows import RestorePoint, SystemWindows
from dr_pipelines.repository.layout import BackupKind

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SVG = "http://www.w3.org/2000/svg"
_MOST_TICKS = 250  # more of them are one black bar, and a large file


@dataclass(frozen=True)
class Row:
    """One line of the chart. `promised`: how far back any instant can be restored by the plan; `missing`: why nothing
    of it could be seen."""

    name: str
    systems: Sequence[SystemWindows]
    promised: timedelta | None = None
    missing: str | None = None


def draw(title: str, rows: Sequence[Row], now: datetime) -> bytes:
    """The whole SVG file. Where the past is much longer than the promised window, that has a panel of its own."""
    # Here, because it takes longer to load than all the rest, and few commands draw.
    import matplotlib as mpl
    from matplotlib.figure import Figure

    spans = _panels(rows, now)
    figure = Figure(figsize=(9, 1.1 + 0.5 * len(rows)), layout="constrained")
    titles: dict[str, str] = {}
    for number, (axes, since) in enumerate(zip(figure.subplots(1, len(spans), squeeze=False)[0], spans, strict=True)):
        _frame(axes, [row.name if number == 0 else "" for row in rows], since, now)
        for height, row in enumerate(reversed(rows)):
            titles |= _draw_row(axes, f"{number}-{height}", height, row, since, now)
    figure.suptitle(title, fontsize=10)
    figure.supxlabel(
        "bar: any instant · tall tick: full · short: incremental · hatched: cannot be restored · bracket: promised · "
        "dashed: now (UTC)", fontsize=7,
    )  # fmt: skip
    out = io.BytesIO()
    # Text stays text: smaller, and it can be searched. The same windows give the same file.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "dr"}):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return _titled(out.getvalue(), titles)


def _panels(rows: Sequence[Row], now: datetime) -> list[datetime]:
    """From when on each panel shows time."""
    promised = [now - row.promised for row in rows if row.promised is not None]
    starts = [window.start_at for row in rows for system in row.systems for window in system.windows]
    first = min([*starts, *promised, now - timedelta(hours=1)])
    recent = now - 1.3 * (now - min(promised)) if promised else first
    return [first, recent] if now - first > 4 * (now - recent) else [min(first, recent)]


def _frame(axes: Axes, names: Sequence[str], since: datetime, now: datetime) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    margin = (now - since) * 0.02
    axes.set_xlim(_number(since - margin), _number(now + margin))
    axes.set_ylim(-0.5, len(names) - 0.4)
    axes.set_yticks(range(len(names)), list(reversed(names)))
    locator = AutoDateLocator(maxticks=6)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axes.tick_params(labelsize=8)
    axes.xaxis.get_offset_text().set_fontsize(8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.axvline(_number(now), color="black", linewidth=1, linestyle="--")


def _draw_row(
    axes: Axes, place: str, height: int, row: Row, since: datetime, now: datetime
) -> Iterator[tuple[str, str]]:
    """Yields what the parts that need words are called, with their words."""
    if row.missing is not None:
        axes.text(_number(since), height, f"not seen: {row.missing}", va="center", fontsize=8, clip_on=True)
    for number, system in enumerate(row.systems):
        for gap in system.gaps:
            if (end := gap.end_at or now) > since:
                shown = (max(gap.start_at, since), end)
                yield _bar(axes, f"gap-{place}-{number}-{gap.start}", height, shown, hatched=True), gap.why
        for window in (*system.windows, *system.branches):
            if window.end_at >= since and not window.is_point:
                shown = (max(window.start_at, since), window.end_at)
                name = f"window-{place}-{number}-{window.timeline}-{window.start}"
                words = f"{window.start} to {window.end} on timeline {window.timeline.id}"
                yield _bar(axes, name, height, shown, thin=window in system.branches), words
        _draw_points(axes, height, [point for point in system.points if point.at >= since])
    if row.promised is not None:
        left, top = _number(now - row.promised), height + 0.38
        axes.plot([left, left, _number(now)], [height + 0.28, top, top], "k-", linewidth=1)


def _bar(
    axes: Axes, name: str, height: int, shown: tuple[datetime, datetime], *, hatched: bool = False, thin: bool = False
) -> str:
    """What another timeline left behind is a thin line below the bars."""
    left, right = map(_number, shown)
    face, edge, hatch = ("white", "0.5", "/////") if hatched else ("0.75", "black", None)
    axes.barh(
        height - (0.26 if thin else 0), right - left, left=left, height=0.06 if thin else 0.3,
        facecolor=face, edgecolor=edge, hatch=hatch, linewidth=0.6, gid=name,
    )  # fmt: skip
    return name


def _draw_points(axes: Axes, height: int, points: Sequence[RestorePoint]) -> None:
    """Incrementals only where they can be told apart."""
    fulls = [_number(point.at) for point in points if point.kind is BackupKind.FULL]
    others = [_number(point.at) for point in points if point.kind is not BackupKind.FULL]
    _ticks(axes, fulls, height - 0.22, height + 0.22, 0.9)
    if len(others) <= _MOST_TICKS:
        _ticks(axes, others, height - 0.22, height - 0.15, 0.5)


def _ticks(axes: Axes, places: Sequence[float], bottom: float, top: float, width: float) -> None:
    """As one broken line: a path for each would make the file large."""
    across = [value for place in places for value in (place, place, math.nan)]
    axes.plot(across, [bottom, top, math.nan] * len(places), "k-", linewidth=width)


def _number(at: datetime) -> float:
    from matplotlib.dates import date2num

    return float(date2num(at))


def _titled(svg: bytes, titles: dict[str, str]) -> bytes:
    """With a `<title>` in each group that has one: what a browser shows under the pointer."""
    ET.register_namespace("", _SVG)
    ET.register_namespace("xlink", "http://www.w3.org/1999/xlink")
    root = ET.fromstring(svg)
    for group in root.iter(f"{{{_SVG}}}g"):
        if (words := titles.get(group.get("id", ""))) is not None:
            title = ET.Element(f"{{{_SVG}}}title")
            title.text = words
            group.insert(0, title)
    return bytes(ET.tostring(root, xml_declaration=True, encoding="utf-8"))
