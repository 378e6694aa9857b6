"""What of the findings a version in the repository can repair. Pure, but for the tables that it asks for."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from dr_pipelines.files.arrays import array, booleans, flat, strings, text
from dr_pipelines.files.repair import Found, Repair
from dr_pipelines.files.rows import newest_of_each
from dr_pipelines.files.table import FILE, empty
from dr_pipelines.reconcile import rows as references
from dr_pipelines.reconcile.compare import DIGEST, MISSING, SIZE, Comparison
from dr_pipelines.reconcile.pairing import Part, ReadTable, choose
from dr_pipelines.repository.snapshot_manifest import Snapshot

_NAMED = ("size", "sha256", "etag", "version")
"""By which a row names a version."""


def plan_repair(found: Comparison, snapshots: Sequence[Snapshot], now: datetime, read: ReadTable) -> Repair:
    """A missing file comes back as the version that its row names, or where that names none as the newest of its size;
    another one is replaced only by exactly the version that its row names: by SHA-256, ETag or version."""
    findings, hopeless = found.findings, dict.fromkeys(found.contested, "another row that points at it finds it right")
    for path in _torn(findings):
        hopeless.setdefault(path, "the rows that point at it name different versions")
    findings = findings.filter(pc.invert(pc.is_in(findings["path"], value_set=array([*hopeless], pa.binary()))))
    missing = findings.filter(pc.equal(findings["kind"], text(MISSING)))
    different = findings.filter(pc.is_in(findings["kind"], value_set=strings([SIZE, DIGEST])))
    is_named = pc.or_(pc.is_valid(different["sha256"]), pc.or_(_told(different, "etag"), _told(different, "version")))
    exact = different.filter(is_named)
    bare = different.filter(pc.invert(is_named))
    hopeless |= dict.fromkeys(bare["path"].to_pylist(), "its row names no SHA-256, so nothing proves another version")
    absent = choose(_rows(missing), snapshots, now, read)
    wrong = choose(_rows(exact), snapshots, now, read, exactly=True)
    for choice in (absent, wrong):
        hopeless |= dict.fromkeys(choice.missing["path"].to_pylist(), "no snapshot has the version that its row names")
    columns = (exact[f"found_{name}"].to_pylist() for name in Found._fields)
    parts = [*absent.parts, *wrong.parts]
    return Repair(
        _together(absent.parts),
        _together(wrong.parts),
        {path: Found(*values) for path, *values in zip(exact["path"].to_pylist(), *columns, strict=True)},
        (*{one.label: one for one, _ in parts}.values(),),
        {path: one.label for one, files in parts for path in _files(files)},
        hopeless,
    )


def _torn(findings: pa.Table) -> set[bytes]:
    """Paths of which several rows say something, and not the same."""
    paths = flat(findings["path"])
    counts = pc.value_counts(paths)
    often = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    if not len(often):
        return set()
    some = findings.filter(pc.is_in(paths, value_set=often))
    told: dict[bytes, set[tuple[object, ...]]] = {}
    for path, *names in zip(some["path"].to_pylist(), *(some[name].to_pylist() for name in _NAMED), strict=True):
        told.setdefault(path, set()).add(tuple(names))
    return {path for path, versions in told.items() if _differ(versions)}


def _differ(versions: set[tuple[object, ...]]) -> bool:
    """What one of them does not say is as the others say it."""
    return any(len({one for one in values if one is not None}) > 1 for values in zip(*versions, strict=True))


def _told(rows: pa.Table, name: str) -> pa.Array:
    return pc.is_valid(rows[name])


def _rows(findings: pa.Table) -> pa.Table:
    told = findings.append_column("unusable", booleans([False] * len(findings)))
    return told.select(references.SCHEMA.names).cast(references.SCHEMA)


def _files(rows: pa.Table) -> list[bytes]:
    paths: list[bytes] = rows["path"].filter(pc.equal(rows["type"], text(FILE))).to_pylist()
    return paths


def _together(parts: Sequence[Part]) -> pa.Table:
    return newest_of_each(pa.concat_tables([empty(), *(files for _, files in parts)]))
