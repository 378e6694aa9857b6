"""One mistake in a plan: where it is, what was found there, what would be right."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

_PART = re.compile(r"\[(\d+)\]|([^.\[\]]+)")


@dataclass(frozen=True)
class Mistake:
    """`path` as in `databases.shop.wal.tiers[0]`; `found` and `expected` are phrases; `line` counts from 1."""

    path: str
    found: str
    expected: str
    line: int | None = None

    def __str__(self) -> str:
        line = f" (line {self.line})" if self.line is not None else ""
        return f"{self.path}{line}: {self.found}; {self.expected}"

    def within(self, document: Any) -> Mistake:
        """With its line in the YAML document that `ruamel.yaml` read."""
        parts = [int(index) if index else key for index, key in _PART.findall(self.path)]
        return replace(self, line=line_of(document, tuple(parts)))


def dotted(path: tuple[Any, ...]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".") or "(top level)"


def line_of(document: Any, path: tuple[Any, ...]) -> int | None:
    """The line of the deepest part of `path` that is in the document, from 1."""
    node: Any = document
    line: int | None = None
    for part in path:
        try:
            where: Any = node.lc
            place = where.key(part) if isinstance(node, dict) else where.item(part)
            line, node = place[0] + 1, node[part]
        except (KeyError, IndexError, TypeError, AttributeError):
            break
    return line


def unknown(path: str, found: str, section: str, known: object) -> Mistake:
    names = ", ".join(known) if isinstance(known, dict) and known else "nothing yet"
    return Mistake(path, f"{found!r} is not under {section}", f"there is: {names}")
