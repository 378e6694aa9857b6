"""The only place that knows what time it is. Everything else is handed a `Clock`."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

CLOCK_DRIFT = timedelta(minutes=15)
"""Clocks that differ by more are wrong; S3 refuses a host whose clock does."""


class Clock(Protocol):
    """Wall time (aware, UTC), a monotonic counter in seconds, and waiting that can be interrupted."""

    def now(self) -> datetime: ...

    def monotonic(self) -> float: ...

    def wait(self, seconds: float, stop: threading.Event | None = None) -> bool:
        """Wait; returns True at once when `stop` is set."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    def wait(self, seconds: float, stop: threading.Event | None = None) -> bool:
        if stop is not None:
            return stop.wait(seconds)
        time.sleep(seconds)
        return False


class FixedClock:
    """A clock that a test moves by hand; `wait` moves it and returns at once."""

    def __init__(self, at: datetime) -> None:
        if at.tzinfo is None:
            raise ValueError("a clock needs an aware datetime")
        self._at = at.astimezone(UTC)
        self._ticks = 0.0

    def now(self) -> datetime:
        return self._at

    def monotonic(self) -> float:
        return self._ticks

    def advance(self, by: timedelta) -> None:
        self._at += by
        self._ticks += by.total_seconds()

    def wait(self, seconds: float, stop: threading.Event | None = None) -> bool:
        if stop is not None and stop.is_set():
            return True
        self.advance(timedelta(seconds=seconds))
        return False
