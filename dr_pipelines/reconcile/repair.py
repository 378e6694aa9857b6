"""What of the findings a version in the repository can repair. Pure, but for the tables that it asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from dr_pipelines.files.rows import newest_of_each
from dr_pipelines.files.table import empty
from dr_pipelines.reconcile import rows as references
from dr_pipelines.reconcile.compare import DIGEST, MISSING, SIZE
from dr_pipelines.reconcile.pairing import ReadTable, choose
from dr_pipelines.repository.snapshot_manifest import Snapshot


class Content(NamedTuple):
    """Of a file as it was found: bytes, and SHA-256 where that is known."""

    size: int
    sha256: bytes | None


@dataclass(frozen=True)
class Repair:
    """`absent` and `wrong` are rows of snapshots: files that are not there, and those that are there with another
    content than their row's digest says; `found` has what these are now. `hopeless`: why others stay, by path."""

    absent: pa.Table
    wrong: pa.Table
    found: Mapping[bytes, Content]
    snapshots: tuple[Snapshot, ...]
    hopeless: Mapping[bytes, str]


def plan_repair(findings: pa.Table, snapshots: Sequence[Snapshot], now: datetime, read: ReadTable) -> Repair:
    """A missing file comes back with its row's digest, or where that names none as the newest of its size; another one
    is replaced only by a version of exactly its row's digest."""
    missing = findings.filter(pc.equal(findings["kind"], MISSING))
    different = findings.filter(pc.is_in(findings["kind"], value_set=pa.array([SIZE, DIGEST])))
    exact = different.filter(pc.is_valid(different["sha256"]))
    bare = different.filter(pc.is_null(different["sha256"]))
    hopeless = dict.fromkeys(bare["path"].to_pylist(), "its row names no SHA-256, so nothing proves another version")
    absent, wrong = (choose(_rows(some), snapshots, now, read) for some in (missing, exact))
    for choice in (absent, wrong):
        hopeless |= dict.fromkeys(choice.missing["path"].to_pylist(), "no snapshot has the version that its row names")
    found = {
        path: Content(size, digest)
        for path, size, digest in zip(
            *(exact[name].to_pylist() for name in ("path", "found_size", "found_sha256")), strict=True
        )
    }
    parts = [*absent.parts, *wrong.parts]
    return Repair(
        _together(absent.parts),
        _together(wrong.parts),
        found,
        (*{one.label: one for one, _ in parts}.values(),),
        hopeless,
    )


def _rows(findings: pa.Table) -> pa.Table:
    told = findings.append_column("unusable", pa.array([False] * len(findings), pa.bool_()))
    return told.select(references.SCHEMA.names).cast(references.SCHEMA)


def _together(parts: Sequence[tuple[Snapshot, pa.Table]]) -> pa.Table:
    return newest_of_each(pa.concat_tables([empty(), *(files for _, files in parts)]))
