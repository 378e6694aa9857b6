"""A proxy before a store's server that stops the world at the nth write, or read: what was asked for before is done,
that one and whatever comes after it is not. So a program is killed at exactly one point of its work, over and over."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from dr_pipelines.clock import SystemClock
from tests.support.azure_wire import Answer, Request, serving

_PATIENCE = 60.0
_READS = ("GET", "HEAD")
_GONE = Answer(503)


class Running(Protocol):
    """A program."""

    def ended(self, within: float) -> bool: ...


class Gate:
    """`writes` and `reads`: what went through since it was opened, as `PUT /bucket/key`. `held`: requests that wait;
    `refused`: how many it refused since it broke, and `held_then` waited when it did."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._changed = threading.Condition()
        self._closes_at: tuple[int | None, int | None] = (None, None)
        self._is_closed = self._is_broken = False
        self._passes = 0
        self._under_way = 0
        self.held = self.held_then = self.refused = 0
        self.writes: list[str] = []
        self.reads: list[str] = []
        self.endpoint = ""

    def opens(self, *, closing_at: int | None = None, at_read: int | None = None) -> None:
        """Until the nth write, or read, from here on, counted from 1. What is held is refused: nobody waits for it any
        more."""
        with self._changed:
            self._closes_at, self._is_closed, self._is_broken = (closing_at, at_read), False, False
            self._passes, self.writes, self.reads = self._passes + 1, [], []
            self._changed.notify_all()

    def breaks(self) -> None:
        """What is held, and whatever comes, is refused: as by a store that is down."""
        with self._changed:
            self.held_then, self._is_broken = self.held_then or self.held, True
            self._changed.notify_all()

    def until_closed(self, process: Running) -> None:
        """Until that is asked for, and all before it is done."""
        while not self._is_quiet(within=0.05):
            assert not process.ended(0), f"it ended before, after {self.writes or self.reads}"

    def let_through(self) -> None:
        """What is held now; what comes next is held."""
        with self._changed:
            self._passes += 1
            self._changed.notify_all()

    def answer(self, asked: Request) -> Answer:
        line = f"{asked.method} {asked.path}"
        with self._changed:
            through, at = [*zip((self.writes, self.reads), self._closes_at, strict=True)][asked.method in _READS]
            self._is_closed |= len(through) + 1 == at
            if self._is_closed and not self._is_let_through():
                self.refused += 1
                return _GONE
            through.append(line)
            self._under_way += 1
        try:
            return self._forward(asked)
        finally:
            with self._changed:
                self._under_way -= 1
                self._changed.notify_all()

    def _is_let_through(self) -> bool:
        now, self.held = self._passes, self.held + 1
        self._changed.notify_all()  # whoever waits until it is closed
        assert self._changed.wait_for(lambda: self._passes > now or self._is_broken, _PATIENCE)
        self.held -= 1
        return self._is_closed and not self._is_broken

    def _is_quiet(self, *, within: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._is_closed and not self._under_way, within)

    def _forward(self, asked: Request) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self._port)
        headers = {name: value for name, value in asked.headers.items() if name not in ("expect", "connection")}
        try:
            connection.request(asked.method, asked.target, asked.body or None, headers)
            answer = connection.getresponse()
            told = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, told, answer.read())
        finally:
            connection.close()


@contextmanager
def gate_before(port: int) -> Iterator[Gate]:
    """In front of the server on this port of this host."""
    gate = Gate(port)
    with serving(gate.answer, SystemClock().now) as gate.endpoint:
        yield gate
        gate.opens()
