"""What ends a program from outside: Ctrl-C, a service manager, a terminal that is closed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType

Handler = Callable[[int, FrameType | None], object]
_TICK = 0.01  # seconds
_TAKE_LOCKS = ("threading", "concurrent.futures", "queue")
_WAIT = ("wait", "_wait_for_tstate_lock", "join")
"""Functions of theirs that block and may be left where they do."""

_given_up = threading.Event()


def give_up() -> None:
    """The program ends: what fails from now on, in whichever thread, is not tried again."""
    _given_up.set()


def has_given_up() -> bool:
    return _given_up.is_set()


def on_ending(act: Handler | signal.Handlers) -> None:
    """Let `act` answer each of them. `nohup` keeps its word: a hang-up that is ignored stays so."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, act)


def raise_when_safe(
    error: BaseException, frame: FrameType | None, *, before: Callable[[], object] = lambda: None
) -> None:
    """For a handler: raise `error` in the main thread, now or a few ticks later, and call `before` right before that.
    Not where Python's own threading may just have taken a lock: it would never give it back, and whoever wants it would
    wait for ever."""
    places: list[tuple[int, int]] = []

    def attempt(_number: int, at: FrameType | None) -> None:
        if at is None or not _may_hold_a_lock(at) or stands_still(at):
            before()
            raise error
        signal.setitimer(signal.ITIMER_REAL, _TICK)

    def stands_still(at: FrameType) -> bool:
        """It waits there, and holds nothing."""
        places.append((id(at), at.f_lasti))
        return at.f_code.co_name in _WAIT and len(places) >= 3 and len(set(places[-3:])) == 1

    signal.signal(signal.SIGALRM, attempt)
    attempt(signal.SIGALRM, frame)


def _may_hold_a_lock(frame: FrameType | None) -> bool:
    while frame is not None:
        if str(frame.f_globals.get("__name__", "")).startswith(_TAKE_LOCKS):
            return True
        frame = frame.f_back
    return False
