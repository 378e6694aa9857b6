"""What ends a program from outside."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

import pytest

from dr_pipelines.endings import on_ending, raise_when_safe

ENDINGS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in ENDINGS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_closed_terminal_ends_a_program_as_ctrl_c_does() -> None:
    seen: list[int] = []
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    on_ending(lambda number, _frame: seen.append(number))
    for number in ENDINGS:
        signal.raise_signal(number)
    assert seen == list(ENDINGS)


def test_under_nohup_a_closed_terminal_ends_nothing() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    on_ending(lambda number, _frame: pytest.fail(f"{number} was answered"))
    signal.raise_signal(signal.SIGHUP)


class _Stop(BaseException):
    pass


def test_a_lock_is_given_back_wherever_the_signal_comes() -> None:
    """Some of these come right after a condition's lock was taken, before the block that gives it back has begun."""
    condition, held = threading.Condition(threading.Lock()), 0
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGALRM)}
    signal.signal(signal.SIGUSR1, lambda _, frame: raise_when_safe(_Stop(), frame))
    try:
        for _ in range(60):
            sender = threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGUSR1))
            sender.start()
            with contextlib.suppress(_Stop):
                while True:
                    with condition:
                        pass
            sender.join()
            held += not condition.acquire(blocking=False)
            condition.release()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert held == 0
