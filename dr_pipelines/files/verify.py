"""Are a snapshot's bytes right? Each content is decoded from its archive and held against the SHA-256 in the table.

A part of a snapshot can be looked at instead of the whole: then whole archives of that part are read. Archives are read
from end to end, a few at once, each a few MiB at a time: memory is bounded whatever their size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from dr_pipelines.checks import CheckResult, failed, not_proven, passed
from dr_pipelines.errors import DrError, IntegrityError, KeyUnusable, ObjectNotFound, ObjectOffline
from dr_pipelines.files.read_table import read_table
from dr_pipelines.files.table import FILE, shown
from dr_pipelines.progress import Progress
from dr_pipelines.repository.archive_reader import ArchiveReader
from dr_pipelines.repository.completeness import snapshot_is_complete
from dr_pipelines.repository.digests import not_read, objects_match_sha256, percent, recall_hint
from dr_pipelines.repository.manifest import StoredObject
from dr_pipelines.repository.repository import Repository
from dr_pipelines.repository.sampling import WHOLE, Part, archives_in
from dr_pipelines.repository.snapshot_manifest import FileArchive, Snapshot
from dr_pipelines.wording import counted

CONTENTS_MATCH = "contents_match"
_ABREAST = 3
_EMPTY = hashlib.sha256(b"").digest()
_SHOWN = 10
Content = tuple[int, int, bytes]
"""Where it lies in its archive's tar (offset, size), and its SHA-256."""


def verify_snapshot(
    repository: Repository,
    manifest: Snapshot,
    *,
    progress: Progress,
    part: Part = WHOLE,
    partial: Literal["fail", "warn"] = "fail",
) -> list[CheckResult]:
    """All checks of one snapshot's bytes. What could not be looked at is not proven. Every object is read once: an
    archive whose contents match was compared with its SHA-256 when it was read for that."""
    contents, read = _look_at_contents(repository, manifest, progress, part)
    return [
        snapshot_is_complete(repository.store, manifest, partial),
        objects_match_sha256(repository, manifest, progress, matching=read, part=part),
        contents,
    ]


def contents_match(repository: Repository, manifest: Snapshot, progress: Progress, part: Part = WHOLE) -> CheckResult:
    """Every file's content against its SHA-256; needs an identity when the snapshot is encrypted. Details: `files`
    whose content was read, `of` all, `contents` (equal ones are stored once) and their `bytes`."""
    return _look_at_contents(repository, manifest, progress, part)[0]


@dataclass
class _Seen:
    """Of one archive: how many contents were read, of how many bytes; offsets of those that are `wrong`; why it could
    not be read to its end (`trouble`: it is not right, `unseen`: nobody knows, `offline`: it must be recalled)."""

    archive: FileArchive
    contents: int = 0
    bytes: int = 0
    wrong: list[int] = field(default_factory=list)
    trouble: str | None = None
    unseen: DrError | None = None
    offline: bool = False

    @property
    def is_read(self) -> bool:
        return self.trouble is None and self.unseen is None and not self.offline


def _look_at_contents(
    repository: Repository, manifest: Snapshot, progress: Progress, part: Part
) -> tuple[CheckResult, Sequence[StoredObject]]:
    """With the objects that were read and match."""
    label = manifest.label
    try:
        table = read_table(repository, manifest)
    except KeyUnusable as error:
        said = f"the contents cannot be read here: {error.message}"
        return not_proven(CONTENTS_MATCH, said, label=label, hint=error.hint), ()
    except (IntegrityError, ObjectNotFound) as error:
        return failed(CONTENTS_MATCH, error.message, label=label), ()
    except DrError as error:
        said = f"the contents could not be read: {error.message}"
        return not_proven(CONTENTS_MATCH, said, label=label, hint=error.hint), ()
    for one in manifest.unread:
        return failed(CONTENTS_MATCH, f"not all its archives are known: {one.trouble}", label=label), ()
    files = table.filter(pc.equal(table["type"], FILE))
    chosen = archives_in(manifest, part)
    progress.phase("contents", sum(archive.size for archive in chosen))
    seen = [*_read_archives(repository, files, chosen, progress)]
    whole = (pack for one in seen if one.is_read for pack in one.archive.packs)
    judged = _judged(manifest, files, seen, part, recall_hint(repository.tier, manifest))
    return judged, (*whole, *manifest.tables)


def _read_archives(
    repository: Repository, files: pa.Table, chosen: Sequence[FileArchive], progress: Progress
) -> Iterator[_Seen]:
    contents = _contents(files)
    with ThreadPoolExecutor(_ABREAST, thread_name_prefix="contents") as pool:
        yield from pool.map(lambda one: _read(repository, one, contents.get(one.name, []), progress), chosen)


def _contents(files: pa.Table) -> dict[str, list[Content]]:
    """By archive, in the order in which they lie there; equal ones once."""
    named = files.filter(pc.is_valid(files["archive"])).select(["archive", "offset", "size", "sha256"])
    rows = named.group_by(["archive", "offset", "size", "sha256"]).aggregate([])
    rows = rows.sort_by([("archive", "ascending"), ("offset", "ascending")])
    found: dict[str, list[Content]] = {}
    columns = (rows[name].to_pylist() for name in ("archive", "offset", "size", "sha256"))
    for archive, *content in zip(*columns, strict=True):
        found.setdefault(archive, []).append((content[0], content[1], content[2]))
    return found


def _read(repository: Repository, archive: FileArchive, contents: Sequence[Content], progress: Progress) -> _Seen:
    seen = _Seen(archive)
    try:
        reader = ArchiveReader(repository.store, archive, repository.codec, workers=1)
        for offset, size, right in _digested(_told(reader.pieces(), progress), contents):
            seen.contents, seen.bytes = seen.contents + 1, seen.bytes + size
            if not right:
                seen.wrong.append(offset)
    except (IntegrityError, ObjectNotFound) as error:
        seen.trouble = error.message
    except ObjectOffline:
        seen.offline = True
    except DrError as error:
        seen.unseen = error
    return seen


def _told(pieces: Iterator[memoryview], progress: Progress) -> Iterator[memoryview]:
    for piece in pieces:
        yield piece
        progress.advance(len(piece))


def _digested(pieces: Iterable[memoryview], contents: Sequence[Content]) -> Iterator[tuple[int, int, bool]]:
    """Each content with its offset and size, and whether what lies there has its SHA-256. `contents` in order; one that
    begins before another ends, or ends behind the archive, is wrong."""
    waiting = iter(contents)
    now, digest, at = next(waiting, None), hashlib.sha256(), 0
    for piece in pieces:
        end = at + len(piece)
        while now is not None and now[0] < end:
            offset, size, wanted = now
            digest.update(piece[max(offset - at, 0) : min(offset + size, end) - at])
            if offset + size > end:
                break
            yield offset, size, digest.digest() == wanted
            now, digest = next(waiting, None), hashlib.sha256()
        at = end
    while now is not None:
        yield now[0], 0, False
        now = next(waiting, None)


def _judged(manifest: Snapshot, files: pa.Table, seen: Sequence[_Seen], part: Part, recall: str) -> CheckResult:
    read = [one for one in seen if one.is_read]
    offline = [pack for one in seen if one.offline for pack in one.archive.packs]
    wrong = [*_wrong_rows(manifest, files), *(path for one in read for path in _paths(files, one, one.wrong))]
    lost = [path for one in seen if one.trouble is not None for path in _paths(files, one)]
    empty = pc.sum(pc.and_(pc.equal(files["size"], 0), pc.is_null(files["error"]))).as_py() or 0
    names = pa.array([one.archive.name for one in read], pa.string())
    count = (pc.sum(pc.is_in(files["archive"], value_set=names)).as_py() or 0) + empty
    readable = files["error"].null_count
    details: dict[str, Any] = {
        "label": manifest.label, "files": count, "of": readable,
        "contents": sum(one.contents for one in read), "bytes": sum(one.bytes for one in read), "offline": len(offline),
        "wrong": [shown(path) for path in wrong[:_SHOWN]], "lost": [shown(path) for path in lost[:_SHOWN]],
    }  # fmt: skip
    if wrong or lost:
        trouble = next((f"; {one.trouble}" for one in seen if one.trouble is not None), "")
        first = shown((wrong or lost)[0])
        summary = (
            f"{counted(len(wrong), 'file')} of {readable:,} {'is' if len(wrong) == 1 else 'are'} not what the table "
            f"says, {len(lost):,} lie in archives that are not whole: {first}{trouble}"
        )
        return failed(CONTENTS_MATCH, summary, **details)
    for one in seen:
        if one.trouble is not None:
            return failed(CONTENTS_MATCH, one.trouble, **details)
        if one.unseen is not None:
            said = f"not all contents could be read: {one.unseen.message}"
            return not_proven(CONTENTS_MATCH, said, hint=one.unseen.hint, **details)
    if offline:
        said = f"{not_read(offline)}; {counted(count, 'file')} of {readable:,} were read, and match"
        return not_proven(CONTENTS_MATCH, said, hint=recall, **details)
    if not count:
        what = "it holds no file" if not len(files) else "no file was seen"
        return not_proven(CONTENTS_MATCH, f"{manifest.label}: {what}", **details)
    if part.is_whole:
        return passed(CONTENTS_MATCH, f"all {counted(count, 'file')} match", **details)
    said = f"{count:,} of {counted(readable, 'file')} read, all match: a sample of {percent(count, readable)}"
    return passed(CONTENTS_MATCH, said, **details)


def _wrong_rows(manifest: Snapshot, files: pa.Table) -> list[bytes]:
    """Files that no archive can give, though the table does not say why, and an empty one that is said to have some
    content."""
    names = pa.array([archive.name for archive in manifest.archives], pa.string())
    readable = pc.is_null(files["error"])
    nowhere = pc.and_(pc.greater(files["size"], 0), pc.invert(pc.is_in(files["archive"], value_set=names)))
    empty = pc.equal(files["size"], 0)
    other = pc.and_(empty, pc.fill_null(pc.not_equal(files["sha256"], pa.scalar(_EMPTY, pa.binary(32))), True))
    found: list[bytes] = files.filter(pc.and_(readable, pc.or_(nowhere, other)))["path"].to_pylist()
    return found


def _paths(files: pa.Table, seen: _Seen, offsets: Sequence[int] | None = None) -> list[bytes]:
    """Of the files whose content lies in an archive, at these offsets of it."""
    if offsets is not None and not offsets:
        return []
    there = files.filter(pc.fill_null(pc.equal(files["archive"], seen.archive.name), False))
    if offsets is not None:
        there = there.filter(pc.is_in(there["offset"], value_set=pa.array(offsets, pa.int64())))
    found: list[bytes] = there["path"].to_pylist()
    return found
