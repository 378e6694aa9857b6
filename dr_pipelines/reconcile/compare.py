"""Rows against files: what has no partner, and what is another than its row says."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dr_pipelines.files.arrays import NO, array, booleans, flat, no_rows, strings, text, to_numpy
from dr_pipelines.files.aside import REPLACED
from dr_pipelines.files.table import FILE

MISSING, EXTRA, SIZE, DIGEST = "missing", "extra", "size", "digest"
"""Kinds of findings: a row without its file, a file without a row, a file of another size, of another content."""
KINDS = (MISSING, EXTRA, SIZE, DIGEST)
FINDINGS = pa.schema(
    [
        ("kind", pa.string()),
        ("path", pa.binary()),
        ("reference", pa.string()),
        ("size", pa.int64()),
        ("sha256", pa.binary(32)),
        ("etag", pa.string()),
        ("version", pa.string()),
        ("found_size", pa.int64()),
        ("found_sha256", pa.binary(32)),
        ("found_etag", pa.string()),
    ]
)
"""`reference`, `size`, `sha256`, `etag` and `version` are the row's, the others the file's."""
FILES = ("path", "type", "size", "sha256", "etag", "error")
"""What is looked at of a table of files."""
_ROWS = ("size", "sha256", "etag", "version")


@dataclass(frozen=True)
class Comparison:
    """`findings` in the columns of `FINDINGS`. `rows` and `files` that were compared; `digests` of them by content.
    `unseen`: rows whose file could not be looked at; `undigested`: rows whose digest could not be compared, because
    nobody knows the file's; `unusable`: rows in whose column of digests no SHA-256 stands. `contested`: paths of files
    of another size or content than one row says, and of that which another row says."""

    findings: pa.Table = field(default_factory=lambda: no_rows(FINDINGS))
    rows: int = 0
    files: int = 0
    digests: int = 0
    unseen: int = 0
    undigested: int = 0
    unusable: int = 0
    contested: tuple[bytes, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """By kind of finding."""
        found = {one["values"]: one["counts"] for one in pc.value_counts(self.findings["kind"]).to_pylist()}
        return {kind: found.get(kind, 0) for kind in KINDS}


def compare(
    rows: pa.Table,
    files: pa.Table,
    folders: Collection[bytes],
    unreadable: Collection[bytes] = (),
    younger: pa.Table | None = None,
) -> Comparison:
    """`rows` in the columns of `rows.SCHEMA`, of all references together; `files` in those of `FILES`. Files without a
    row are looked for below `folders` only. What lies below `unreadable` is neither there nor missing. `younger` rows
    were written after the files were seen: all that they say is that their paths have a row."""
    files = files.select(FILES)
    paths = flat(files["path"])
    places = flat(pc.index_in(rows["path"], value_set=paths))
    there = pc.is_valid(places)
    absent = rows.filter(pc.invert(there))
    hidden = _below(absent, {*unreadable, *files["path"].filter(pc.is_valid(files["error"])).to_pylist()})
    missing = _findings(MISSING, absent.filter(pc.invert(hidden)))
    others = younger["path"].chunks if younger is not None else []
    extra = _extra(files, places, pa.chunked_array(others, pa.binary()), folders)
    told = _Told(rows, files, pc.indices_nonzero(there), places.drop_null())
    return Comparison(
        pa.concat_tables([missing, extra, *(told.findings(kind) for kind in (SIZE, DIGEST))]).combine_chunks(),
        rows=len(rows),
        files=_count(pc.equal(files["type"], text(FILE))),
        digests=_count(told.known),
        unseen=_count(told.failed) + _count(hidden),
        undigested=_count(told.unknown),
        unusable=_count(rows["unusable"]),
        contested=told.contested,
    )


class _Told:
    """What rows say of files beside what these are; `row` and `file` are the places of both, side by side. Columns are
    taken one at a time: of a million files all of them would be half a gigabyte."""

    def __init__(self, rows: pa.Table, files: pa.Table, row: pa.Array, file: pa.Array) -> None:
        self._rows, self._files, self._row, self._file = rows, files, row, file
        self.failed = pc.is_valid(self._theirs("error"))
        compared = pc.and_(pc.equal(self._theirs("type"), text(FILE)), pc.invert(self.failed))
        size = pc.and_(compared, self._differs("size"))
        other = pc.or_(self._differs("sha256"), self._differs("etag"))
        digest = pc.and_(pc.and_(compared, other), pc.invert(size))
        self._wrong = {SIZE: size, DIGEST: digest}
        asked, has = pc.is_valid(self._ours("sha256")), pc.is_valid(self._theirs("sha256"))
        asked = pc.and_(asked, pc.invert(self.failed))
        self.known = pc.and_(asked, has)
        self.unknown = pc.and_(pc.and_(asked, pc.invert(has)), pc.invert(size))

    def findings(self, kind: str) -> pa.Table:
        chosen = self._wrong[kind]
        return _findings(kind, self._rows.take(self._row.filter(chosen)), self._files.take(self._file.filter(chosen)))

    @property
    def contested(self) -> tuple[bytes, ...]:
        wrong = pc.or_(*self._wrong.values())
        twice = pc.is_in(self._file, value_set=self._file.filter(wrong))
        right = pc.and_(twice, pc.invert(wrong))
        paths: list[bytes] = self._files["path"].take(self._file.filter(right)).to_pylist()
        return (*dict.fromkeys(paths),)

    def _ours(self, name: str) -> pa.Array:
        return flat(self._rows[name].take(self._row))

    def _theirs(self, name: str) -> pa.Array:
        return flat(self._files[name].take(self._file))

    def _differs(self, name: str) -> pa.Array:
        """Where both are known."""
        return pc.fill_null(pc.not_equal(self._ours(name), self._theirs(name)), NO)


def _count(these: pa.Array | pa.ChunkedArray) -> int:
    return pc.sum(these).as_py() or 0


def lasting(first: pa.Table, second: pa.Table) -> pa.Table:
    """The findings of a second look that were the same in the first."""
    seen, keys = _whole(first), _whole(second)
    return second.filter(pc.is_in(keys, value_set=seen))


def _whole(findings: pa.Table) -> pa.Array:
    """Each row as one value: the lengths of its columns, then what they hold."""
    columns = [_bytes(findings[name]) for name in FINDINGS.names]
    lengths = [_bytes(pc.binary_length(one)) for one in columns]
    space = array([b" "], pa.binary())[0].cast(pa.large_binary())
    return pc.binary_join_element_wise(*lengths, *columns, space, null_handling="replace", null_replacement="-")


def _bytes(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    written = column.cast(pa.string()) if pa.types.is_integer(column.type) else column
    return flat(written).cast(pa.large_binary())


def _below(rows: pa.Table, places: AbstractSet[bytes]) -> pa.Array:
    """For each row whether its path, or a folder that it is in, is one of these."""
    if not places:
        return booleans([False] * len(rows))
    return booleans([not places.isdisjoint(_and_above(path)) for path in rows["path"].to_pylist()])


def _and_above(path: bytes) -> Iterator[bytes]:
    yield b""
    yield path
    while b"/" in path:
        path = path.rpartition(b"/")[0]
        yield path


def _extra(files: pa.Table, places: pa.Array, others: pa.ChunkedArray, folders: Collection[bytes]) -> pa.Table:
    """Without those at `places`, and those of `others`."""
    unnamed = np.ones(len(files), dtype=np.bool_)
    unnamed[to_numpy(places.drop_null())] = False
    found = files.filter(booleans(unnamed))
    found = found.filter(pc.and_(pc.equal(found["type"], text(FILE)), pc.is_null(found["error"])))
    inside = booleans([False] * len(found))
    for folder in folders:
        inside = pc.or_(inside, pc.starts_with(found["path"], pattern=folder))
    found = found.filter(inside)
    found = found.filter(pc.invert(pc.match_substring_regex(found["path"], REPLACED)))
    return _findings(EXTRA, None, found.filter(pc.invert(pc.is_in(found["path"], value_set=flat(others)))))


def _findings(kind: str, rows: pa.Table | None, files: pa.Table | None = None) -> pa.Table:
    """Of rows, of files, or of both, row by row."""
    named: pa.Table = rows if rows is not None else files
    count = len(named)
    columns: Mapping[str, Any] = {
        "kind": strings([kind] * count),
        "path": named["path"],
        **({name: rows[name] for name in ("reference", *_ROWS)} if rows is not None else {}),
        **({f"found_{name}": files[name] for name in ("size", "sha256", "etag")} if files is not None else {}),
    }
    arrays = [columns[one.name] if one.name in columns else pa.nulls(count, one.type) for one in FINDINGS]
    return pa.table(arrays, schema=FINDINGS)


def worth_reading(files: pa.Table, rows: pa.Table, *, everything: bool, present: Collection[str] = ()) -> pa.Array:
    """For each of `files` whether it must be read to be compared: its row names a digest, or is of a reference in
    `present`, whose listing does not prove that a file is there; and its digest is not known (`everything`: even then).
    """
    unknown = pc.is_null(files["sha256"])
    if not everything and not pc.any(unknown).as_py():
        return booleans([False] * len(files))
    doubted = pc.is_in(rows["reference"], value_set=strings(present))
    asked = pc.or_(pc.is_valid(rows["sha256"]), doubted)
    named = pc.is_in(files["path"], value_set=flat(rows["path"].filter(asked)))
    return named if everything else pc.and_(named, unknown)


def changed_paths(rows: pa.Table, files: pa.Table, written: pa.Table) -> list[bytes]:
    """Of rows whose file is not in the table as they say, and of those that were `written` lately."""
    found = compare(rows, files, ()).findings["path"]
    paths = pa.chunked_array([*found.chunks, *written["path"].chunks], pa.binary())
    changed: list[bytes] = pc.unique(paths).to_pylist()
    return changed
