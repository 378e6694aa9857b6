"""Are a backup's bytes right? Reads the store, never our own records of what we wrote.

A part of a backup can be looked at instead of the whole. Then every object but the packs is read, of the packs those of
the part, and of the files those that begin in it; what was not read is said.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from dr_pipelines.checks import CheckResult, failed, not_proven, passed
from dr_pipelines.errors import DrError, IntegrityError, KeyUnusable, ObjectNotFound
from dr_pipelines.postgres import backup_manifest
from dr_pipelines.postgres.backup_manifest import ServerManifest
from dr_pipelines.postgres.tar_stream import BLOCK, Content, Header, TarWalk
from dr_pipelines.progress import Progress
from dr_pipelines.repository.archive_reader import ArchiveReader
from dr_pipelines.repository.completeness import manifest_is_complete
from dr_pipelines.repository.digests import objects_match_sha256, percent
from dr_pipelines.repository.fetch import fetch_verified
from dr_pipelines.repository.manifest import Archive, BackupManifest, StoredObject
from dr_pipelines.repository.repository import Repository
from dr_pipelines.repository.sampling import WHOLE, Part
from dr_pipelines.wording import are, counted

CONTENTS_MATCH = "contents_match_backup_manifest"


def verify(
    repository: Repository, manifest: BackupManifest, *, progress: Progress, part: Part = WHOLE
) -> list[CheckResult]:
    """All checks of one backup's bytes. What could not be looked at is not proven. Every object is read once: one whose
    contents match was compared with its SHA-256 when it was read for that."""
    contents, read = _look_at_contents(repository, manifest, progress, part)
    return [
        manifest_is_complete(repository.store, manifest),
        objects_match_sha256(repository, manifest, progress, matching=read, part=part),
        contents,
    ]


def contents_match_backup_manifest(
    repository: Repository, manifest: BackupManifest, progress: Progress, part: Part = WHOLE
) -> CheckResult:
    """Files in the archive against PostgreSQL's own checksums, as `pg_verifybackup` does; needs an identity when the
    backup is encrypted."""
    return _look_at_contents(repository, manifest, progress, part)[0]


def _look_at_contents(
    repository: Repository, manifest: BackupManifest, progress: Progress, part: Part
) -> tuple[CheckResult, Sequence[StoredObject]]:
    """With the objects that were read and match, when the contents do."""
    label, nothing = manifest.label, ()
    try:
        stored = fetch_verified(repository.store, manifest.backup_manifest)
        told = backup_manifest.parse(repository.codec.decode(stored))
        stretch = _stretch(repository, manifest, part)
        progress.phase("contents", stretch.size)
        missing, wrong, seen = set(told.files), [], 0
        for path, right in _files(repository, manifest, told, progress, stretch):
            if not right or path not in missing:
                wrong.append(path)
            missing.discard(path)
            seen += 1
    except KeyUnusable as error:
        said = f"the contents cannot be read here: {error.message}"
        return not_proven(CONTENTS_MATCH, said, label=label, hint=error.hint), nothing
    except (IntegrityError, ObjectNotFound) as error:
        return failed(CONTENTS_MATCH, error.message, label=label), nothing
    except DrError as error:
        said = f"the contents could not be read: {error.message}"
        return not_proven(CONTENTS_MATCH, said, label=label, hint=error.hint), nothing
    count = len(told.files)
    details: dict[str, Any] = {"label": label, "files": seen, "of": count, "bytes": stretch.size}
    if wrong or (missing and part.is_whole):
        lost = sorted(missing)[:10] if part.is_whole else []
        summary = f"contents differ in {len(wrong):,} of {counted(seen, 'file')} that were read"
        if part.is_whole:
            gone = f"{len(missing):,} {are(len(missing))} missing"
            summary = f"contents differ in {len(wrong):,} of {counted(count, 'file')}, and {gone}"
        return failed(CONTENTS_MATCH, summary, wrong=sorted(wrong)[:10], missing=lost, **details), nothing
    if not seen:
        return not_proven(CONTENTS_MATCH, "no file was seen", **details), nothing
    read = (*stretch.packs, manifest.backup_manifest)
    if part.is_whole:
        return passed(CONTENTS_MATCH, f"all contents match, of {counted(count, 'file')}", **details), read
    said = f"{seen} of {counted(count, 'file')} read, all match: a sample of {percent(seen, count)}"
    return passed(CONTENTS_MATCH, said, **details), read


@dataclass(frozen=True)
class _Stretch:
    """The archive from the header of a member on, to the end of another, both `begin` and `end` within its `packs`."""

    packs: Sequence[StoredObject]
    begin: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.begin


def _stretch(repository: Repository, manifest: BackupManifest, part: Part) -> _Stretch:
    """Of whole members: those that begin in the part, or the first that begins after it."""
    archive = manifest.archive
    if part.is_whole:
        return _Stretch(archive.packs, 0, archive.size)
    members = _members(repository, manifest)
    begin, end = part.of(archive.size)
    within = [found for found in members if begin <= found[0] < end]
    within = within or [found for found in members if found[0] >= end][:1] or members[-1:]
    if not within:
        raise IntegrityError(f"{manifest.index.key} names no file")
    first, last = within[0][0], within[-1][0] + BLOCK + within[-1][1]
    whole = archive.pack_size
    number = first // whole
    packs = archive.packs[number : (last - 1) // whole + 1]
    return _Stretch(packs, first - number * whole, last - number * whole)


def _members(repository: Repository, manifest: BackupManifest) -> list[tuple[int, int]]:
    """Where the header of each file that is not empty lies in the archive, in order, and its size."""
    told = repository.codec.decode(fetch_verified(repository.store, manifest.index))
    try:
        return sorted((int(offset), int(size)) for _, offset, size in json.loads(told)["members"] if size)
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{manifest.index.key} cannot be read: {error}") from error


def _bytes_of(repository: Repository, archive: Archive, stretch: _Stretch) -> Iterator[memoryview]:
    numbers = [pack.key for pack in archive.packs]
    first = numbers.index(stretch.packs[0].key) if stretch.packs else 0
    size = min(archive.size - first * archive.pack_size, len(stretch.packs) * archive.pack_size)
    part = Archive(size=size, pack_size=archive.pack_size, packs=tuple(stretch.packs))
    at = 0
    for piece in ArchiveReader(repository.store, part, repository.codec).pieces():
        wanted = piece[max(stretch.begin - at, 0) : max(stretch.end - at, 0)]
        at += len(piece)
        if len(wanted):
            yield wanted


def _files(
    repository: Repository, manifest: BackupManifest, told: ServerManifest, progress: Progress, stretch: _Stretch
) -> Iterator[tuple[str, bool]]:
    """Each file or link of the stretch, with whether it is one that the server named, of its size and checksum."""
    walk, checksum = TarWalk(), backup_manifest.new_checksum("NONE")
    for piece in _bytes_of(repository, manifest.archive, stretch):
        for event in walk.feed(piece):
            if isinstance(event, Header):
                member = event.member
                named = told.files.get(member.name)
                checksum = backup_manifest.new_checksum(named.algorithm if named else "NONE")
                ended = member.kind != "directory" and member.size == 0
            elif isinstance(event, Content):
                checksum.update(event.data)
                member = event.member
                ended = event.offset + len(event.data) == member.size
            else:
                continue
            if ended:
                named, seen = told.files.get(member.name), (member.kind, member.size, checksum.hexdigest())
                yield member.name, named is not None and seen == ("file", named.size, named.checksum)
        progress.advance(len(piece))
    if stretch.size == manifest.archive.size:
        walk.finish()
