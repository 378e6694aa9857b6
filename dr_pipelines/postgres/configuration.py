"""A data directory's configuration as its files say, without a server. What does not belong here: what to change."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

_SETTING = re.compile(r"^\s*([A-Za-z_][A-Za-z0-9_.$]*)\s*=?\s*('(?:[^']|'')*'|[^#]*?)\s*(?:#.*)?$")
_DEPTH = 10  # as PostgreSQL's own limit on files that include files


def read(data_dir: Path) -> dict[str, str]:
    """The settings with what the files include; the last line wins. Names in lower case."""
    found: dict[str, str] = {}
    for name in ("postgresql.conf", "postgresql.auto.conf"):
        found |= dict(pair for line in _expanded(data_dir / name) if (pair := setting(line)) is not None)
    return found


def setting(line: str) -> tuple[str, str] | None:
    """A line's name and value; None for a comment."""
    match = _SETTING.match(line)
    return None if match is None else (match[1].lower(), match[2].strip("'").replace("''", "'"))


def written(settings: Mapping[str, str]) -> list[str]:
    """Settings as lines of a file."""
    return [f"{name} = '{value.replace(chr(39), chr(39) * 2)}'" for name, value in settings.items()]


def included(line: str, folder: Path) -> list[Path] | None:
    """The files that a line of a file in `folder` includes, there or not; None for any other line."""
    match setting(line):
        case (("include" | "include_if_exists"), value):
            return [folder / value]
        case ("include_dir", value):
            return sorted((folder / value).glob("[!.]*.conf"))
    return None


def files(path: Path, depth: int = 0) -> Iterator[Path]:
    """The file and what it includes, as far as they are there."""
    if not path.is_file() or depth > _DEPTH:
        return
    yield path
    for line in lines_of(path):
        for inner in included(line, path.parent) or ():
            yield from files(inner, depth + 1)


def lines_of(path: Path) -> list[str]:
    return path.read_text(errors="surrogateescape").splitlines()


def _expanded(path: Path, depth: int = 0) -> Iterator[str]:
    """The lines, with what a line includes in its place."""
    for line in lines_of(path) if path.is_file() and depth <= _DEPTH else ():
        inner = included(line, path.parent)
        if inner is None:
            yield line
        for file in inner or ():
            yield from _expanded(file, depth + 1)
