"""Which versions of files belong to an instant of a database. Pure, but for the tables that it asks for.

Rows of an instant point at files as they were then. The snapshot before it lacks what was written after that snapshot;
the next one has it, unless it was overwritten or removed meanwhile. So each row is given the version that it names: by
its digest, ETag or version where it has one, else the newest of its size that was not written after the instant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from dr_pipelines.files.arrays import NO, YES, array, booleans, first_of_each, flat, number, text
from dr_pipelines.files.rows import newest_of_each
from dr_pipelines.files.select import folders_above
from dr_pipelines.files.table import DIRECTORY, FILE, empty, in_order
from dr_pipelines.reconcile import rows as references
from dr_pipelines.repository.snapshot_manifest import Snapshot

LOOKED_IN = 24
"""In so many snapshots a version is looked for, the nearest first."""
_COMPARED = ("type", "error", "size", "sha256", "etag", "version", "mtime_ns", "ctime_ns")
ReadTable = Callable[[Snapshot], pa.Table]
Part = tuple[Snapshot, pa.Table]
"""Rows of a snapshot."""


@dataclass(frozen=True)
class Pairing:
    """`files` are rows of snapshots, all that is to be restored. `before`: the newest snapshot that was whole at the
    instant; what no row names is as it has it. `used`: how many files come from each snapshot, by label. Of rows,
    `proven` have a file of their digest, ETag or version, `likely` one that was not written after the instant,
    `doubtful` one that was, and `missing` (in the columns of `rows.SCHEMA`) none."""

    at: datetime
    files: pa.Table = field(default_factory=empty)
    before: Snapshot | None = None
    snapshots: tuple[Snapshot, ...] = ()
    used: dict[str, int] = field(default_factory=dict)
    rows: int = 0
    proven: int = 0
    likely: int = 0
    doubtful: int = 0
    missing: pa.Table = field(default_factory=references.SCHEMA.empty_table)

    @property
    def seconds(self) -> float | None:
        """How old, at the instant, was what is known of files that no row proves; None when nothing is."""
        return (self.at - self.before.looked_at).total_seconds() if self.before is not None else None


def pair(rows: pa.Table | None, snapshots: Sequence[Snapshot], at: datetime, read: ReadTable) -> Pairing:
    """`rows` as of `at` (None: nothing points at the files), `snapshots` in any order."""
    before = max((one for one in snapshots if one.finished_at <= at), key=_began, default=None)
    if rows is None:
        files = read(before) if before is not None else empty()
        return _paired(at, before, [(before, files)] if before is not None else [])
    choice = choose(rows, snapshots, at, read)
    others = _not_at(read(before), rows) if before is not None else empty()
    parts = [*choice.parts, *([(before, others)] if before is not None else [])]
    made = _paired(at, before, parts)
    return Pairing(
        at, made.files, before, made.snapshots, made.used,
        len(_each_path_once(rows)), choice.proven, choice.likely, choice.doubtful, choice.missing,
    )  # fmt: skip


@dataclass
class Choice:
    """Rows of snapshots that were chosen, by snapshot."""

    parts: list[Part] = field(default_factory=list)
    missing: pa.Table = field(default_factory=references.SCHEMA.empty_table)
    proven: int = 0
    likely: int = 0
    doubtful: int = 0


def choose(
    rows: pa.Table, snapshots: Sequence[Snapshot], at: datetime, read: ReadTable, *, exactly: bool = False
) -> Choice:
    """A version of each path that `rows` name; none of another digest, ETag or size than its row's. `exactly`: only
    those that are proven to be it."""
    made = Choice(missing=_each_path_once(rows))
    looked = [*_nearest(snapshots, at)][:LOOKED_IN]
    for strict in (True,) if exactly else (True, False):
        for one in looked:
            if not len(made.missing):
                return made
            until = None if one.finished_at <= at or not strict else at
            _take(made, one, read(one), until, doubtful=not strict, exactly=exactly)
    return made


def _take(
    made: Choice, one: Snapshot, table: pa.Table, until: datetime | None, *, doubtful: bool, exactly: bool
) -> None:
    asked = made.missing
    named_there = table.filter(pc.is_in(table["path"], value_set=flat(asked["path"])))
    places = pc.index_in(asked["path"], value_set=flat(named_there["path"]))
    found = named_there.select(_COMPARED).take(places)
    usable = pc.and_(pc.fill_null(pc.equal(found["type"], text(FILE)), NO), pc.is_null(found["error"]))
    alike = pc.and_(_agree(asked["size"], found["size"]), _agree(asked["etag"], found["etag"]))
    named = pc.is_valid(asked["sha256"])
    same_write = pc.or_(_equal(asked["etag"], found["etag"]), _equal(asked["version"], found["version"]))
    proof = pc.if_else(named, _equal(asked["sha256"], found["sha256"]), pc.and_(alike, same_write))
    likely = pc.and_(pc.invert(named), pc.and_(alike, _written_by(found, until)))
    fits = pc.and_(usable, proof if exactly else pc.or_(proof, likely))
    count, proven = pc.sum(fits).as_py() or 0, pc.sum(pc.and_(usable, proof)).as_py() or 0
    if count:
        chosen = named_there.take(places.filter(fits))
        made.parts.append((one, pa.concat_tables([chosen, _folders_of(chosen, table)]).combine_chunks()))
        made.proven += proven
        made.likely += 0 if doubtful else count - proven
        made.doubtful += count - proven if doubtful else 0
        made.missing = asked.filter(pc.invert(fits)).combine_chunks()


def _nearest(snapshots: Sequence[Snapshot], at: datetime) -> Iterator[Snapshot]:
    """The first after the instant, the last before it, the second after it, and so on."""
    later = sorted((one for one in snapshots if one.finished_at > at), key=_began, reverse=True)
    earlier = sorted((one for one in snapshots if one.finished_at <= at), key=_began)
    while later or earlier:
        for side in (later, earlier):
            if side:
                yield side.pop()


def _paired(at: datetime, before: Snapshot | None, parts: Sequence[Part]) -> Pairing:
    used: dict[str, int] = {}
    for one, files in parts:
        count = pc.sum(pc.equal(files["type"], text(FILE))).as_py() or 0
        used[one.label] = used.get(one.label, 0) + count
    snapshots = {one.label: one for one, files in parts if len(files)}
    files = in_order(newest_of_each(pa.concat_tables([empty(), *(files for _, files in parts)])))
    return Pairing(at, files, before, (*snapshots.values(),), {label: count for label, count in used.items() if count})


def _folders_of(chosen: pa.Table, table: pa.Table) -> pa.Table:
    """The rows of the directories that they lie in."""
    folders = {folder for path in chosen["path"].to_pylist() for folder in folders_above(path)}
    named = pc.is_in(table["path"], value_set=array(folders, pa.binary()))
    return table.filter(pc.and_(named, pc.equal(table["type"], text(DIRECTORY))))


def _began(one: Snapshot) -> tuple[datetime, str]:
    return one.started_at, one.label


def _not_at(table: pa.Table, rows: pa.Table) -> pa.Table:
    return table.filter(pc.invert(pc.is_in(table["path"], value_set=flat(rows["path"]))))


def _each_path_once(rows: pa.Table) -> pa.Table:
    """Of several rows that point at one file the first that names its digest, or else the first."""
    named = pc.is_valid(flat(rows["sha256"]))
    order = pa.concat_arrays([pc.indices_nonzero(named), pc.indices_nonzero(pc.invert(named))])
    first = first_of_each(rows["path"].take(order))
    return rows.take(order.take(first)).combine_chunks()


def _equal(one: pa.ChunkedArray, other: pa.ChunkedArray) -> pa.Array:
    return pc.fill_null(pc.equal(one, other), NO)


def _agree(one: pa.ChunkedArray, other: pa.ChunkedArray) -> pa.Array:
    """Equal, or one of them is not known."""
    return pc.fill_null(pc.equal(one, other), YES)


def _written_by(files: pa.Table, until: datetime | None) -> pa.Array:
    """Whether the file's times say that; one without any says nothing."""
    if until is None:
        return booleans([True] * len(files))
    latest = pc.max_element_wise(files["mtime_ns"], files["ctime_ns"])
    return pc.fill_null(pc.less_equal(latest, number(int(until.timestamp() * 1e9))), NO)
