"""What a person or a program sees: tables or JSON on stdout, progress and errors on stderr."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pydantic import BaseModel
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TaskID, TextColumn, TransferSpeedColumn
from rich.progress import Progress as Bars
from rich.table import Table

from dr_pipelines.checks import CheckResult, Verdict
from dr_pipelines.errors import CheckFailed, NotProven
from dr_pipelines.progress import Progress


def plain(value: Any) -> Any:
    """Anything of ours as JSON values."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, float)) else str(value)


def say(value: Any) -> None:
    print(value)


def say_json(value: Any) -> None:
    print(json.dumps(plain(value), indent=2))


def say_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A drawn table on a terminal, tab-separated lines otherwise."""
    if not sys.stdout.isatty():
        for row in rows:
            print("\t".join(str(cell) for cell in row))
        return
    table = Table(*columns)
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    Console().print(table)


def say_fields(value: Any) -> None:
    for name, item in plain(value).items():
        print(f"{name}: {json.dumps(item) if isinstance(item, (dict, list)) else item}")


def say_checks(results: Sequence[CheckResult], as_json: bool) -> None:
    """Raises `CheckFailed` or `NotProven` after showing, when not all passed."""
    if as_json:
        say_json(list(results))
    else:
        say_table(("check", "verdict", "summary"), [(found.name, found.verdict, found.summary) for found in results])
    failing = [found.name for found in results if found.verdict is Verdict.FAIL]
    unproven = [found.name for found in results if found.verdict is Verdict.NOT_PROVEN]
    if failing:
        raise CheckFailed(f"failed: {', '.join(failing)}")
    if unproven:
        raise NotProven(f"not proven: {', '.join(unproven)}")


class Lines:
    """Progress as plain lines, one a phase."""

    def phase(self, name: str, total_bytes: int | None = None) -> None:
        print(name if total_bytes is None else f"{name} ({total_bytes} bytes)", file=sys.stderr)

    def advance(self, count: int) -> None:
        pass

    def note(self, text: str) -> None:
        print(text, file=sys.stderr)


class Drawn:
    """Progress as a bar a phase."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._task: TaskID | None = None

    def phase(self, name: str, total_bytes: int | None = None) -> None:
        self._task = self._bars.add_task(name, total=total_bytes)

    def advance(self, count: int) -> None:
        if self._task is not None:
            self._bars.advance(self._task, count)

    def note(self, text: str) -> None:
        self._bars.console.print(text, markup=False)


@contextmanager
def progress() -> Iterator[Progress]:
    """Bars when stderr is a terminal, lines otherwise."""
    if not sys.stderr.isatty():
        yield Lines()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Bars(*columns, console=Console(stderr=True)) as bars:
        yield Drawn(bars)
