"""How the command line speaks: tables and bars on a terminal, plain lines otherwise, one JSON document with --json."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from rich.filesize import decimal

from dr_pipelines.checks import CheckResult, Verdict
from dr_pipelines.cli.voice import err as err
from dr_pipelines.cli.voice import out as out
from dr_pipelines.clock import SystemClock
from dr_pipelines.errors import CheckFailed, DrError, NotProven
from dr_pipelines.lsn import Lsn, Timeline

if TYPE_CHECKING:
    from dr_pipelines.cli.screen import Screen

_clock = SystemClock()
_answered = False


def plain(value: Any) -> Any:
    """Any answer of ours as plain JSON values."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Timeline):
        return value.id
    if isinstance(value, (Lsn, Path)):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if isinstance(value, (set, frozenset)):
        return sorted(plain(inner) for inner in value)
    if isinstance(value, bytes):
        return value.decode(errors="replace")  # of an expired backup's manifest
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    return value


def print_json(value: Any) -> None:
    """The one document on standard output."""
    global _answered
    _answered = True
    sys.stdout.write(json.dumps(plain(value), indent=2) + "\n")


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Narrow: labels and positions must stay whole on 80 columns, so that they can be copied."""
    from rich import box
    from rich.table import Table

    table = Table(
        title=title, title_justify="left", title_style="bold", header_style="bold",
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True,
    )  # fmt: skip
    for column in columns:
        table.add_column(column, no_wrap=True, overflow="fold")
    for row in rows:
        table.add_row(*(str(cell) if cell is not None else "-" for cell in row))
    out.console.print(table)


def print_facts(facts: Mapping[str, Any]) -> None:
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        out.print(f"{name:<{width}}  {value}", soft_wrap=True)


def answer_checks(checks: Sequence[CheckResult], *, as_json: bool) -> None:
    """Print them, and end as the worst says. Raises `CheckFailed` or `NotProven`."""
    print_json(checks) if as_json else print_checks(checks)
    failed = [check for check in checks if check.verdict is Verdict.FAIL]
    unproven = [check for check in checks if check.verdict is Verdict.NOT_PROVEN]
    if failed:
        raise CheckFailed(f"{len(failed)} of {len(checks)} checks failed: {_names(failed)}", hint=_hint(failed))
    if unproven:
        raise NotProven(
            f"{len(unproven)} of {len(checks)} checks could not be made: {_names(unproven)}", hint=_hint(unproven)
        )


def end_as(check: CheckResult) -> None:
    """As the verdict of what is printed already says. Raises `CheckFailed` or `NotProven`."""
    if check.verdict is not Verdict.PASS:
        ending = CheckFailed if check.verdict is Verdict.FAIL else NotProven
        raise ending(check.summary, hint=check.details.get("hint"))


def _names(checks: Sequence[CheckResult]) -> str:
    return ", ".join(check.name for check in checks)


def _hint(checks: Sequence[CheckResult]) -> str | None:
    """What to do about the first of them that says it."""
    return next((str(check.details["hint"]) for check in checks if check.details.get("hint")), None)


def print_checks(checks: Sequence[CheckResult]) -> None:
    """A line for each."""
    for check in checks:
        verdict = ("SKIPPED   ", "dim") if check.skipped else coloured(check.verdict)
        out.print(verdict, f"  {check.name}: {check.summary}", soft_wrap=True)


def coloured(verdict: Verdict) -> tuple[str, str]:
    """The verdict in its column, and the style for it."""
    colours = {Verdict.PASS: "green", Verdict.FAIL: "red", Verdict.NOT_PROVEN: "yellow"}
    return f"{verdict.value.upper():<10}", colours[verdict]


def size(count: int) -> str:
    return decimal(count)


def span(seconds: float) -> str:
    """How long something takes, as exactly as an estimate deserves."""
    if seconds < 600:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 2 * 3600 else f"{seconds / 3600:.1f} h"


def moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def instant(text: str) -> datetime:
    """As a person writes it. Raises `ValueError`."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no instant: write it as 2026-11-23T10:00:00Z") from None


def minute(at: datetime) -> str:
    """For a column whose head says that it is UTC."""
    return f"{at:%Y-%m-%d %H:%M}"


def print_error(error: DrError, *, as_json: bool) -> None:
    if as_json:
        document = {"error": error.message, "hint": error.hint, "exit_code": error.exit_code}
        # One document on standard output: the answer that is there already (failed checks), or the error.
        stream = sys.stderr if _answered else sys.stdout
        stream.write(json.dumps(document) + "\n")
        return
    err.print(("error:", "bold red"), f" {error.message}", soft_wrap=True)
    if error.hint:
        err.print(("hint:", "bold"), f" {error.hint}", soft_wrap=True)


class Bars:
    """Progress on standard error: bars on a terminal, a line for each phase otherwise; `quiet`, nothing but notes. Use
    as a context manager."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._screen: Screen | None = None
        if err.is_terminal and not quiet:
            from dr_pipelines.cli.screen import Screen

            self._screen = Screen(err.console)
        self._lines = self._screen is None and not quiet
        self._phase: str | None = None
        self._done = 0
        self._since = 0.0
        self._told: set[str] = set()

    def __enter__(self) -> Bars:
        if self._screen is not None:
            self._screen.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._end_phase()
        if self._screen is not None:
            self._screen.stop()

    def phase(self, name: str, total_bytes: int | None = None) -> None:
        self._end_phase()
        self._phase, self._done, self._since = name, 0, _clock.monotonic()
        if self._screen is not None:
            self._screen.begin(name, total_bytes)
        elif self._lines:
            err.print(f"{name} …", soft_wrap=True)

    def advance(self, count: int) -> None:
        self._done += count
        if self._screen is not None:
            self._screen.advance(count)

    def note(self, text: str) -> None:
        self._told.add(text)
        err.print(text, soft_wrap=True)

    def is_on_screen(self, text: str) -> bool:
        """Whether whoever reads the answer has seen this note already."""
        return text in self._told and self._screen is not None and out.is_terminal

    def _end_phase(self) -> None:
        if self._screen is not None:
            self._screen.end()
        elif self._phase is not None and self._lines:
            took = _clock.monotonic() - self._since
            err.print(f"{self._phase}: {size(self._done) + ' in ' if self._done else ''}{took:.1f} s", soft_wrap=True)
        self._phase = None
