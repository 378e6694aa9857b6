"""Trying again what is transient, with backoff and jitter; a cut download goes on where it was cut."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from dr_pipelines.clock import Clock
from dr_pipelines.endings import has_given_up
from dr_pipelines.errors import DrError

T = TypeVar("T")


class Attempts:
    """`longest_wait` between two of them in seconds."""

    def __init__(self, clock: Clock, *, attempts: int = 6, longest_wait: float = 20.0) -> None:
        self._clock, self._attempts, self._longest_wait = clock, attempts, longest_wait

    def __call__(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except DrError as error:
            if not _may_be_tried_again(error):
                raise
            failed: list[DrError] = [error]

        def again() -> T:
            """Tenacity costs a small object a tenth of its time, so it is told of the first attempt when that fails."""
            if failed:
                raise failed.pop()
            return call()

        import tenacity  # seldom needed, and slow to import

        return tenacity.Retrying(
            retry=tenacity.retry_if_exception(_may_be_tried_again),
            stop=tenacity.stop_after_attempt(self._attempts),
            wait=tenacity.wait_random_exponential(multiplier=0.2, max=self._longest_wait),
            sleep=self._sleep,
            reraise=True,
        )(again)

    def resumed(self, first: Iterator[bytes], reopen: Callable[[int], Iterator[bytes]]) -> Iterator[bytes]:
        """A stream to its end. `reopen` gives what comes after that many bytes of it."""
        pieces: Iterator[bytes] | None = first
        seen = 0

        def following() -> bytes | None:
            nonlocal pieces
            if pieces is None:
                pieces = reopen(seen)
            try:
                return next(pieces, None)
            except DrError:
                pieces = None  # a stream that broke has ended: the next attempt opens another
                raise

        while (piece := self(following)) is not None:
            seen += len(piece)
            yield piece

    def _sleep(self, seconds: float) -> None:
        self._clock.wait(seconds)


def _may_be_tried_again(error: BaseException) -> bool:
    """Not by a program that was told to end, which waits for its threads."""
    return isinstance(error, DrError) and error.transient and not has_given_up()
