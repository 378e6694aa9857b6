"""How long work tells whoever waits for it how far it is. The CLI draws it; Dagster logs it; tests drop it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called from any thread."""

    def phase(self, name: str, total_bytes: int | None = None) -> None:
        """A new phase begins (`fetch`, `replay`); `total_bytes` is None where it cannot be known before."""
        ...

    def advance(self, count: int) -> None:
        """`count` more bytes of the phase are done."""
        ...

    def note(self, text: str) -> None:
        """One line that a person should see."""
        ...


class Silent:
    """Nobody waits."""

    def phase(self, name: str, total_bytes: int | None = None) -> None:
        pass

    def advance(self, count: int) -> None:
        pass

    def note(self, text: str) -> None:
        pass
