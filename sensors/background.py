"""Looks that may outlast a tick: each in a thread of the code location's process, until a tick finds it ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from threading import Thread
from typing import Generic, TypeVar

T = TypeVar("T")
PATIENCE_SECONDS = 40.0
"""A tick waits so long, of all its looks together: Dagster gives it 60 seconds, and drops what comes later."""


@dataclass(frozen=True)
class Begun(Generic[T]):
    """A look that was begun `of` something, as the event that was the newest then."""

    of: int
    promised: Future[T]


class Background(Generic[T]):
    """What is being looked at in this process, by name. What one tick cannot wait for, a later one takes."""

    def __init__(self) -> None:
        self._running: dict[str, Begun[T]] = {}

    def begin(self, name: str, of: int, look: Callable[[], T]) -> None:
        """Unless one is under way: what hangs gets no second thread."""
        if name not in self._running:
            promised: Future[T] = Future()
            self._running[name] = Begun(of, promised)
            # A daemon: the code location must be able to end while a store hangs.
            Thread(target=_fulfil, args=(promised, look), name=f"look at {name}", daemon=True).start()

    def ended(self, names: Sequence[str], seconds: float) -> dict[str, Begun[T]]:
        """Those that end within so many seconds."""
        done = wait([self._running[name].promised for name in names], seconds).done
        return {name: self._running.pop(name) for name in names if self._running[name].promised in done}


def _fulfil(promised: Future[T], look: Callable[[], T]) -> None:
    try:
        promised.set_result(look())
    except BaseException as error:  # noqa: BLE001  it belongs to whoever waits
        promised.set_exception(error)
