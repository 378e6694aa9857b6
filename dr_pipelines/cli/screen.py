"""Bars on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column
from rich.text import Text


class _Amount(ProgressColumn):
    """`75 MB of 327 MB, 45 MB/s`; nothing for a phase that counts no bytes."""

    def render(self, task: Task) -> Text:
        if not task.completed:
            return Text("")
        of = f" of {decimal(int(task.total))}" if task.total is not None and not task.finished else ""
        speed = f", {decimal(int(task.finished_speed or task.speed or 0))}/s"
        return Text(f"{decimal(int(task.completed))}{of}{speed}")


class Screen:
    """A bar for each phase, the newest of which moves."""

    def __init__(self, console: Console) -> None:
        self._bars = Progress(
            # On a narrow terminal it is the bar that becomes short.
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=4, max_width=40)),
            _Amount(table_column=Column(no_wrap=True)),
            TimeElapsedColumn(),
            console=console,
        )
        self._task: TaskID | None = None

    def start(self) -> None:
        self._bars.start()

    def stop(self) -> None:
        self._bars.stop()

    def begin(self, phase: str, total_bytes: int | None) -> None:
        self._task = self._bars.add_task(phase, total=total_bytes)

    def advance(self, count: int) -> None:
        if self._task is not None:
            self._bars.advance(self._task, count)

    def end(self) -> None:
        """Its clock must not run on."""
        if self._task is not None:
            self._bars.stop_task(self._task)
        self._task = None
