"""Which rows of a snapshot a person means: paths, with what lies below them, and patterns."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from dr_pipelines.errors import UsageError
from dr_pipelines.files.arrays import array, booleans, text
from dr_pipelines.files.table import DIRECTORY, shown

_WILD = re.compile(rb"[*?\[]")
_TOKEN = re.compile(rb"\*\*/|\*\*|\*|\?|\[!?\]?[^\]/]*\]|.", re.DOTALL)


def selected(rows: pa.Table, wanted: Sequence[str]) -> pa.Table:
    """Rows at and below the paths, with the directories above them; all rows when nothing is wanted. A path that the
    snapshot has is meant as it is written; in others `*` and `?` stand for letters of one part, `[…]` for one of these
    letters, `**` for any number of parts. Raises `UsageError` naming what the snapshot has not."""
    if not wanted:
        return rows
    paths: list[bytes] = rows["path"].to_pylist()
    known = set(paths)
    roots: set[bytes] = set()
    for given in wanted:
        asked = os.fsencode(given).rstrip(b"/").removeprefix(b"./")
        found = _meant(asked, paths, known)
        if not found:
            raise UsageError(
                f"the snapshot has no {shown(asked)}",
                hint="paths are relative to the source; `dr files versions` says which snapshots have a path.",
            )
        roots |= found
    chosen = [_is_below(path, roots) for path in paths]
    above = {folder for path, taken in zip(paths, chosen, strict=True) if taken for folder in folders_above(path)}
    is_above = pc.and_(
        pc.is_in(rows["path"], value_set=array(above, pa.binary())), pc.equal(rows["type"], text(DIRECTORY))
    )
    return rows.filter(pc.or_(booleans(chosen), is_above))


def folders_above(path: bytes) -> list[bytes]:
    """`a/b/c` lies in `a/b` and `a`."""
    found = []
    while slash := path.rfind(b"/") + 1:
        path = path[: slash - 1]
        found.append(path)
    return found


def _meant(asked: bytes, paths: Sequence[bytes], known: set[bytes]) -> set[bytes]:
    if asked in known:
        return {asked}
    if _WILD.search(asked):
        matches = _pattern(asked).fullmatch
        return {path for path in paths if matches(path)}
    below = asked + b"/"  # a bucket has no rows of directories
    return {asked} if any(path.startswith(below) for path in paths) else set()


def _is_below(path: bytes, roots: set[bytes]) -> bool:
    return path in roots or any(folder in roots for folder in folders_above(path))


def _pattern(asked: bytes) -> re.Pattern[bytes]:
    return re.compile(b"".join(_translated(token) for token in _TOKEN.findall(asked)), re.DOTALL)


def _translated(token: bytes) -> bytes:
    known = {b"**/": b"(?:.*/)?", b"**": b".*", b"*": b"[^/]*", b"?": b"[^/]"}
    if token in known:
        return known[token]
    if token.startswith(b"[") and len(token) > 2:
        letters = token[1:-1].replace(b"\\", b"\\\\").replace(b"[", b"\\[")
        negated = letters.startswith(b"!")
        body = letters[1:] if negated else letters
        return b"[" + (b"^/" if negated else b"") + body.replace(b"]", b"\\]").replace(b"^", b"\\^") + b"]"
    return re.escape(token)
