"""What ends a program from outside."""

import signal
from collections.abc import Iterator

import pytest

from dr_pipelines.endings import on_ending

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
