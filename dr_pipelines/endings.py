"""What ends a program from outside: Ctrl-C, a service manager, a terminal that is closed."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType

Handler = Callable[[int, FrameType | None], object]


def on_ending(act: Handler | signal.Handlers) -> None:
    """Let `act` answer each of them. `nohup` keeps its word: a hang-up that is ignored stays so."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, act)
