"""Live files brought back to what their rows say: what is to be done, and what became of it. How it is done where files
lie in a directory or in a bucket is in `repair_directory.py` and `repair_bucket.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import pyarrow as pa

from dr_pipelines.files.restore import without
from dr_pipelines.files.table import shown
from dr_pipelines.repository.snapshot_manifest import FileArchive, Snapshot


class Found(NamedTuple):
    """A file as it was found: bytes, and SHA-256 and ETag where they are known."""

    size: int
    sha256: bytes | None
    etag: str | None = None


@dataclass(frozen=True)
class Repair:
    """`absent` and `wrong` are rows of snapshots: files that are not there, and those that are there with another
    content than their row names; `found` has what these are now. `sources`: the snapshot of each, by path.
    `hopeless`: why others stay, by path."""

    absent: pa.Table
    wrong: pa.Table
    found: Mapping[bytes, Found]
    snapshots: tuple[Snapshot, ...]
    sources: Mapping[bytes, str]
    hopeless: Mapping[bytes, str]

    @property
    def archives(self) -> tuple[FileArchive, ...]:
        """In which the contents lie."""
        return (*{archive.name: archive for one in self.snapshots for archive in one.archives}.values(),)

    @property
    def rows(self) -> pa.Table:
        """All that is read of snapshots."""
        return pa.concat_tables([self.absent, self.wrong])

    @property
    def labels(self) -> str:
        return ", ".join(one.label for one in self.snapshots)

    def files(self, rows: pa.Table) -> tuple[bytes, ...]:
        """Those of `absent` or `wrong` that are files; the others are directories above them."""
        return tuple(path for path in rows["path"].to_pylist() if path in self.sources)

    def without(self, paths: Mapping[bytes, str]) -> Repair:
        """What is wrong there stays, for these reasons."""
        return Repair(
            self.absent, without(self.wrong, paths), self.found, self.snapshots, self.sources,
            {**self.hopeless, **paths},
        )  # fmt: skip


@dataclass(frozen=True)
class Planned:
    """What a repair would do: files that come back, and those that are replaced, each with the snapshot that it comes
    from; `not_repaired` says why. `unknown`: why nothing of that can be told."""

    restored: Mapping[str, str] = field(default_factory=dict)
    replaced: Mapping[str, str] = field(default_factory=dict)
    not_repaired: Mapping[str, str] = field(default_factory=dict)
    unknown: str | None = None


@dataclass(frozen=True)
class Repaired:
    """What a repair did. `replaced`: where what was there before is kept, by path; `not_repaired` says why."""

    restored: tuple[str, ...] = ()
    replaced: Mapping[str, str] = field(default_factory=dict)
    not_repaired: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def planned(repair: Repair) -> Planned:
    restored, replaced = (
        {shown(path): repair.sources[path] for path in repair.files(rows)} for rows in (repair.absent, repair.wrong)
    )
    return Planned(restored, replaced, {shown(path): why for path, why in repair.hopeless.items()})


def repaired(
    repair: Repair, kept: Mapping[bytes, str], failed: Mapping[str, str], notes: tuple[str, ...] = ()
) -> Repaired:
    """`kept`: where each that was to be replaced is now; `failed`: what was not done, by shown path."""
    reasons = {shown(path): why for path, why in repair.hopeless.items()} | dict(failed)
    return Repaired(
        tuple(name for path in repair.files(repair.absent) if (name := shown(path)) not in reasons),
        {name: kept[path] for path in repair.files(repair.wrong) if (name := shown(path)) not in reasons},
        reasons,
        notes,
    )
