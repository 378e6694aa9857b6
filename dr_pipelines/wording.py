"""Numbers in sentences."""

from __future__ import annotations


def counted(number: int, thing: str, things: str | None = None) -> str:
    """`1 table`, `1,310,000 rows`; `things` where the plural is not with an s."""
    return f"{number:,} {thing if number == 1 else things or f'{thing}s'}"


def are(number: int) -> str:
    return "is" if number == 1 else "are"
