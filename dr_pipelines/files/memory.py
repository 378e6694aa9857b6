"""What the host that takes snapshots remembers of them, because it cannot read what it encrypted: the rows of the last
one, which contents lie where, and what a snapshot that did not end has stored. All of it only spares work: without it
every file is read again, and stored again."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter, ValidationError

from dr_pipelines.errors import DrError, IntegrityError
from dr_pipelines.files import contents
from dr_pipelines.files.arrays import no_rows, read_parquet
from dr_pipelines.files.table import decode_table, empty
from dr_pipelines.repository.snapshot_manifest import FileArchive, SnapshotManifest, decode_snapshot, encode_snapshot

_MANIFEST, _BASE, _CHANGES, _CONTENTS, _ARCHIVES = (
    "manifest.json", "base.parquet", "changes.parquet", "contents.parquet", "archives.json",
)  # fmt: skip
_Archives = TypeAdapter(tuple[FileArchive, ...])
_ARCHIVE = b"archive"


@dataclass(frozen=True)
class Past:
    """What is known of a file set before a snapshot. `base` and `changes` are the tables as they are stored;
    `contents` of all archives that are known, `archives` those, by name."""

    manifest: SnapshotManifest | None = None
    base: pa.Table = field(default_factory=empty)
    changes: pa.Table = field(default_factory=empty)
    contents: pa.Table = field(default_factory=lambda: no_rows(contents.SCHEMA))
    archives: Mapping[str, FileArchive] = field(default_factory=dict)


class SnapshotMemory:
    """Of one file set, below the state directory."""

    def __init__(self, folder: Path) -> None:
        self._last, self._unfinished = folder / "last", folder / "unfinished"
        self._recalled: Past | None = None

    def recall(self) -> Past | None:
        """None when there is nothing, or it is no longer whole."""
        try:
            self._recalled = Past(
                manifest=decode_snapshot((self._last / _MANIFEST).read_bytes()),
                base=decode_table((self._last / _BASE).read_bytes()),
                changes=decode_table((self._last / _CHANGES).read_bytes()),
                contents=read_parquet(self._last / _CONTENTS).cast(contents.SCHEMA),
                archives={one.name: one for one in _Archives.validate_json((self._last / _ARCHIVES).read_bytes())},
            )
        except (OSError, ValidationError, DrError, pa.ArrowException):
            self._recalled = None
        return self._recalled

    def keep(self, past: Past) -> None:
        """In place of what was known; what was unfinished is finished. Raises `OSError`."""
        assert past.manifest is not None
        self._last.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._last.parent, prefix=".new-") as new:
            folder = Path(new)
            (folder / _MANIFEST).write_bytes(encode_snapshot(past.manifest))
            (folder / _ARCHIVES).write_bytes(_Archives.dump_json((*past.archives.values(),)))
            old = self._recalled
            for name, table, before in (
                (_BASE, past.base, old and old.base),
                (_CHANGES, past.changes, old and old.changes),
                (_CONTENTS, past.contents, old and old.contents),
            ):
                if table is before:  # the same object: the file says it already
                    (folder / name).hardlink_to(self._last / name)
                else:
                    pq.write_table(table, folder / name, compression="zstd")
            self.forget()
            folder.rename(self._last)
            folder.mkdir()  # what the context removes
        shutil.rmtree(self._unfinished, ignore_errors=True)

    def forget(self) -> None:
        shutil.rmtree(self._last, ignore_errors=True)

    def note(self, archive: FileArchive, rows: pa.Table) -> None:
        """An archive is durable, and holds the contents of these rows. Raises `OSError`."""
        self._unfinished.mkdir(parents=True, exist_ok=True)
        told = rows.replace_schema_metadata({_ARCHIVE: archive.model_dump_json().encode()})
        path = self._unfinished / f".{archive.name}.parquet"
        pq.write_table(told, path, compression="zstd")
        path.rename(self._unfinished / f"{archive.name}.parquet")

    def unfinished(self) -> Iterator[tuple[FileArchive, pa.Table]]:
        """What a snapshot that did not end had stored."""
        for path in sorted(self._unfinished.glob("*.parquet")):
            with contextlib.suppress(OSError, pa.ArrowException, ValidationError, IntegrityError, KeyError):
                rows = read_parquet(path)
                archive = FileArchive.model_validate(json.loads((rows.schema.metadata or {})[_ARCHIVE]))
                yield archive, rows.replace_schema_metadata(None)


def archives_by_name(archives: Sequence[FileArchive]) -> dict[str, FileArchive]:
    return {archive.name: archive for archive in archives}
