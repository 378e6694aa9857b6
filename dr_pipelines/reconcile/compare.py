"""Rows against files: what has no partner, and what is another than its row says."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

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
        ("found_size", pa.int64()),
        ("found_sha256", pa.binary(32)),
        ("found_etag", pa.string()),
    ]
)
"""`reference`, `size`, `sha256` and `etag` are the row's, the others the file's."""
FILES = ("path", "type", "size", "sha256", "etag", "error")
"""What is looked at of a table of files."""


@dataclass(frozen=True)
class Comparison:
    """`findings` in the columns of `FINDINGS`. `rows` and `files` that were compared; `digests` of them by content.
    `unseen`: rows whose file could not be looked at; `undigested`: rows whose digest could not be compared, because
    nobody knows the file's; `unusable`: rows in whose column of digests no SHA-256 stands."""

    findings: pa.Table = field(default_factory=FINDINGS.empty_table)
    rows: int = 0
    files: int = 0
    digests: int = 0
    unseen: int = 0
    undigested: int = 0
    unusable: int = 0

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
    files = files.select(FILES).combine_chunks()
    rows = rows.combine_chunks()
    places = pc.index_in(rows["path"], value_set=files["path"].combine_chunks())
    there = pc.is_valid(places)
    rows_there, their_files = rows.filter(there), files.take(places.drop_null())
    failed = pc.is_valid(their_files["error"])
    rows_there, their_files = rows_there.filter(pc.invert(failed)), their_files.filter(pc.invert(failed))
    absent = rows.filter(pc.invert(there))
    hidden = _below(absent, {*unreadable, *files["path"].filter(pc.is_valid(files["error"])).to_pylist()})
    missing = _findings(MISSING, absent.filter(pc.invert(hidden)))
    others = younger["path"].chunks if younger is not None else []
    named = pa.chunked_array([*rows["path"].chunks, *others], pa.binary())
    extra = _extra(files, named, folders)
    wrong, digests, undigested = _different(rows_there, their_files)
    return Comparison(
        pa.concat_tables([missing, extra, *wrong]).combine_chunks(),
        rows=len(rows),
        files=pc.sum(pc.equal(files["type"], FILE)).as_py() or 0,
        digests=digests,
        unseen=(pc.sum(failed).as_py() or 0) + (pc.sum(hidden).as_py() or 0),
        undigested=undigested,
        unusable=pc.sum(rows["unusable"]).as_py() or 0,
    )


def lasting(first: pa.Table, second: pa.Table) -> pa.Table:
    """The findings of a second look that were the same in the first."""
    filled = [_without_nulls(one) for one in (first, second)]
    keys = filled[0].group_by(FINDINGS.names).aggregate([])  # each once
    marked = keys.append_column("lasts", pa.array([True] * len(keys), pa.bool_()))
    numbered = filled[1].append_column("row", pa.array(range(len(second)), pa.int64()))
    found = numbered.join(marked, keys=FINDINGS.names, join_type="inner")["row"].combine_chunks()
    return second.take(found.take(pc.array_sort_indices(found)))


def _below(rows: pa.Table, places: AbstractSet[bytes]) -> pa.Array:
    """For each row whether its path, or a folder that it is in, is one of these."""
    if not places:
        return pa.array([False] * len(rows), pa.bool_())
    return pa.array([not places.isdisjoint(_and_above(path)) for path in rows["path"].to_pylist()], pa.bool_())


def _and_above(path: bytes) -> Iterator[bytes]:
    yield b""
    yield path
    while b"/" in path:
        path = path.rpartition(b"/")[0]
        yield path


def _extra(files: pa.Table, named: pa.ChunkedArray, folders: Collection[bytes]) -> pa.Table:
    found = files.filter(pc.and_(pc.equal(files["type"], FILE), pc.is_null(files["error"])))
    inside = pa.array([False] * len(found), pa.bool_())
    for folder in folders:
        inside = pc.or_(inside, pc.starts_with(found["path"], pattern=folder))
    found = found.filter(inside)
    found = found.filter(pc.invert(pc.match_substring_regex(found["path"], REPLACED)))
    return _findings(EXTRA, None, found.filter(pc.invert(pc.is_in(found["path"], value_set=named.combine_chunks()))))


def _different(rows: pa.Table, files: pa.Table) -> tuple[list[pa.Table], int, int]:
    """The findings, how many contents were compared, and how many should have been."""
    is_file = pc.equal(files["type"], FILE)
    size = pc.and_(is_file, _differ(rows["size"], files["size"]))
    digest = pc.and_(is_file, pc.or_(_differ(rows["sha256"], files["sha256"]), _differ(rows["etag"], files["etag"])))
    digest = pc.and_(digest, pc.invert(size))
    asked = pc.is_valid(rows["sha256"])
    known = pc.and_(asked, pc.is_valid(files["sha256"]))
    unknown = pc.and_(pc.and_(asked, pc.invert(known)), pc.invert(size))
    wrong = [
        _findings(kind, rows.filter(chosen), files.filter(chosen)) for kind, chosen in ((SIZE, size), (DIGEST, digest))
    ]
    return wrong, pc.sum(known).as_py() or 0, pc.sum(unknown).as_py() or 0


def _differ(one: pa.ChunkedArray, other: pa.ChunkedArray) -> Any:
    """Where both are known."""
    return pc.fill_null(pc.not_equal(one, other), False)


def _findings(kind: str, rows: pa.Table | None, files: pa.Table | None = None) -> pa.Table:
    """Of rows, of files, or of both, row by row."""
    named: pa.Table = rows if rows is not None else files
    count = len(named)
    columns: Mapping[str, Any] = {
        "kind": pa.array([kind] * count, pa.string()),
        "path": named["path"],
        **({name: rows[name] for name in ("reference", "size", "sha256", "etag")} if rows is not None else {}),
        **({f"found_{name}": files[name] for name in ("size", "sha256", "etag")} if files is not None else {}),
    }
    arrays = [columns[one.name] if one.name in columns else pa.nulls(count, one.type) for one in FINDINGS]
    return pa.table(arrays, schema=FINDINGS)


def _without_nulls(table: pa.Table) -> pa.Table:
    """For a join, in which null is equal to nothing."""
    columns = {}
    for one in FINDINGS:
        binary = pa.types.is_binary(one.type) or pa.types.is_fixed_size_binary(one.type)
        nothing = pa.scalar("", pa.binary() if binary else pa.string())
        columns[one.name] = pc.fill_null(table[one.name].cast(nothing.type), nothing)
    return pa.table(columns)


def worth_reading(files: pa.Table, rows: pa.Table, *, everything: bool, present: Collection[str] = ()) -> pa.Array:
    """For each of `files` whether it must be read to be compared: its row names a digest, or is of a reference in
    `present`, whose listing does not prove that a file is there; and its digest is not known (`everything`: even then).
    """
    doubted = pc.is_in(rows["reference"], value_set=pa.array([*present], pa.string()))
    asked = pc.or_(pc.is_valid(rows["sha256"]), doubted)
    named = pc.is_in(files["path"], value_set=rows["path"].filter(asked).combine_chunks())
    return named if everything else pc.and_(named, pc.is_null(files["sha256"]))


def changed_paths(rows: pa.Table, files: pa.Table, written: pa.Table) -> list[bytes]:
    """Of rows whose file is not in the table as they say, and of those that were `written` lately."""
    found = compare(rows, files, ()).findings["path"]
    paths = pa.chunked_array([*found.chunks, *written["path"].chunks], pa.binary())
    changed: list[bytes] = pc.unique(paths).to_pylist()
    return changed
