"""What the host that takes snapshots remembers of them, because it cannot read what it encrypted: the rows of the last
one, which contents lie where, and what a snapshot that did not end has stored. All of it only spares work: without it
every file is read again, and stored again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
from pydantic import TypeAdapter, ValidationError

from dr_pipelines.errors import DrError, IntegrityError
from dr_pipelines.files import contents
from dr_pipelines.files.arrays import no_rows
from dr_pipelines.files.beside import Baseline
from dr_pipelines.files.table import SCHEMA, empty, with_all_columns
from dr_pipelines.repository.snapshot_manifest import (
    ArchiveList,
    FileArchive,
    Snapshot,
    decode_snapshot,
    encode_snapshot,
    with_lists,
)

_MANIFEST, _ARCHIVES, _LISTS, _DIGESTS = "manifest.json", "archives.json", "lists.json", "digests.json"
_BASE, _CHANGES, _CONTENTS, _BASELINE = "base.arrow", "changes.arrow", "contents.arrow", "baseline.arrow"
_Archives = TypeAdapter(tuple[FileArchive, ...])
_Names = TypeAdapter(tuple[tuple[str, ...], ...])
_Digests = TypeAdapter(dict[str, str])
_ARCHIVE = b"archive"
_NEW = ".new-"


@dataclass(frozen=True)
class Past:
    """What is known of a file set before a snapshot. `base` and `changes` are the tables as they are stored;
    `contents` of all archives that are known, `archives` those, by name. `baseline`: after a poll, what
    the next is held against besides it."""

    manifest: Snapshot | None = None
    base: pa.Table = field(default_factory=empty)
    changes: pa.Table = field(default_factory=empty)
    contents: pa.Table = field(default_factory=lambda: no_rows(contents.SCHEMA))
    archives: Mapping[str, FileArchive] = field(default_factory=dict)
    baseline: Baseline | None = None


class SnapshotMemory:
    """Of one file set, below the state directory."""

    def __init__(self, folder: Path) -> None:
        self._last, self._unfinished = folder / "last", folder / "unfinished"
        self._recalled: Past | None = None
        self._digests: dict[str, str] = {}

    def recall(self) -> Past | None:
        """None when there is nothing, or it is no longer whole."""
        try:
            self._digests = _Digests.validate_json((self._last / _DIGESTS).read_bytes())
            archives = archives_by_name(_Archives.validate_json((self._last / _ARCHIVES).read_bytes()))
            self._recalled = Past(
                manifest=self._manifest(archives),
                base=self._read(_BASE, SCHEMA),
                changes=self._read(_CHANGES, SCHEMA),
                contents=self._read(_CONTENTS, contents.SCHEMA),
                archives=archives,
                baseline=self._baseline(),
            )
        except (OSError, ValueError, DrError, pa.ArrowException, KeyError):
            self._recalled = None
        return self._recalled

    def _manifest(self, archives: Mapping[str, FileArchive]) -> Snapshot:
        """Of the last snapshot. What each of its lists says is remembered by the names."""
        manifest = decode_snapshot((self._last / _MANIFEST).read_bytes())
        listed = _Names.validate_json((self._last / _LISTS).read_bytes()) if manifest.lists else ()
        named = zip(manifest.lists, listed, strict=True)
        return with_lists(manifest, [ArchiveList(tuple(archives[name] for name in names), one) for one, names in named])

    def _read(self, name: str, schema: pa.Schema) -> pa.Table:
        return with_all_columns(_read(self._last / name, self._digests[name]), schema).combine_chunks()

    def _baseline(self) -> Baseline | None:
        if _BASELINE not in self._digests:
            return None
        return Baseline(_read(self._last / _BASELINE, self._digests[_BASELINE]))

    def keep(self, past: Past) -> None:
        """In place of what was known; what was unfinished is finished. Raises `OSError`."""
        assert past.manifest is not None
        self._last.parent.mkdir(parents=True, exist_ok=True)
        for left in self._last.parent.glob(f"{_NEW}*"):  # by one that was killed
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=self._last.parent, prefix=_NEW) as new:
            folder = Path(new)
            (folder / _MANIFEST).write_bytes(encode_snapshot(past.manifest))
            (folder / _ARCHIVES).write_bytes(_Archives.dump_json((*past.archives.values(),)))
            listed = [tuple(archive.name for archive in one.archives) for one in past.manifest.listed]
            (folder / _LISTS).write_bytes(_Names.dump_json(tuple(listed)))
            old, digests = self._recalled, {}
            for name, table, before in (
                (_BASE, past.base, old and old.base),
                (_CHANGES, past.changes, old and old.changes),
                (_CONTENTS, past.contents, old and old.contents),
                (_BASELINE, past.baseline and past.baseline.rows, old and old.baseline and old.baseline.rows),
            ):
                if table is None:
                    continue
                if table is before:  # the same object: the file says it already
                    (folder / name).hardlink_to(self._last / name)
                    digests[name] = self._digests[name]
                else:
                    digests[name] = _write(table, folder / name)
            (folder / _DIGESTS).write_bytes(_Digests.dump_json(digests))
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
        path = self._unfinished / f".{archive.name}.arrow"
        digest = _write(told, path)
        path.rename(self._unfinished / f"{archive.name}.{digest}.arrow")

    def unfinished(self) -> Iterator[tuple[FileArchive, pa.Table]]:
        """What a snapshot that did not end had stored."""
        for path in sorted(self._unfinished.glob("[!.]*.arrow")):
            with contextlib.suppress(OSError, pa.ArrowException, ValidationError, IntegrityError, KeyError):
                rows = _read(path, path.stem.rpartition(".")[2])
                archive = FileArchive.model_validate(json.loads((rows.schema.metadata or {})[_ARCHIVE]))
                yield archive, rows.replace_schema_metadata(None)


def _write(table: pa.Table, path: Path) -> str:
    """As Arrow has it in memory, so that reading it takes no work. Gives its SHA-256 in hex."""
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as written:
        written.write_table(table.combine_chunks())
    return _sha256(path)


def _read(path: Path, sha256: str) -> pa.Table:
    """Raises `IntegrityError`: rows that a crash of this host mixed up would pass for files that are as they were."""
    if _sha256(path) != sha256:
        raise IntegrityError(f"{path} is not what was written there")
    with pa.memory_map(str(path)) as file:  # what nobody looks at takes no memory
        return pa.ipc.open_file(file.read_buffer()).read_all()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def archives_by_name(archives: Sequence[FileArchive]) -> dict[str, FileArchive]:
    return {archive.name: archive for archive in archives}
