"""Lines on a stream: in colours and folded on a terminal, as they are otherwise. Rich is loaded where it is needed."""

from __future__ import annotations

import sys
from functools import cached_property
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console

# What moves a terminal's cursor, as rich leaves it out too: a name of a file must not write over what is said of it.
_MOVES = dict.fromkeys(map(ord, "\a\b\v\f\r"))
_PIPE_WIDTH = 10_000
"""A pipe has none: nothing is cut or folded there."""


class Voice:
    """Standard output or standard error, as it is at the time."""

    def __init__(self, *, errors: bool = False) -> None:
        self._errors = errors

    @property
    def is_terminal(self) -> bool:
        return self._stream.isatty()

    @cached_property
    def console(self) -> Console:
        """For what is more than a line."""
        from rich.console import Console

        width = None if self.is_terminal else _PIPE_WIDTH
        return Console(stderr=self._errors, highlight=False, markup=False, emoji=False, width=width)

    def print(
        self, *pieces: str | tuple[str, str], style: str | None = None, soft_wrap: bool = False, end: str = "\n"
    ) -> None:
        """Pieces of one line, each a text or a text and its style."""
        if self.is_terminal:
            from rich.text import Text

            self.console.print(Text.assemble(*pieces), style=style, soft_wrap=soft_wrap, end=end)
        else:
            said = "".join(piece if isinstance(piece, str) else piece[0] for piece in pieces)
            print(said.translate(_MOVES), end=end, file=self._stream, flush=True)

    @property
    def _stream(self) -> TextIO:
        return sys.stderr if self._errors else sys.stdout


out, err = Voice(), Voice(errors=True)
