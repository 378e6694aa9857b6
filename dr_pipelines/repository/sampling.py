"""A part of what is stored, another one every day, so that so many days read all of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime

from dr_pipelines.repository.manifest import BackupManifest, StoredObject
from dr_pipelines.repository.snapshot_manifest import FileArchive, Snapshot

Manifest = BackupManifest | Snapshot


@dataclass(frozen=True)
class Part:
    """One of `count` equal parts, in bytes."""

    number: int = 0
    count: int = 1

    @property
    def is_whole(self) -> bool:
        return self.count == 1

    def of(self, size: int) -> tuple[int, int]:
        """Where it begins and ends in `size` bytes."""
        return size * self.number // self.count, size * (self.number + 1) // self.count


WHOLE = Part()


def part_of_today(share: int, name: str, now: datetime) -> Part:
    """At least `share` percent of what is called `name`; not the same part of everything on one day."""
    count = max(1, 100 // share)
    begin = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16)
    return Part((begin + now.toordinal()) % count, count)


def objects_in(manifest: Manifest, part: Part) -> list[StoredObject]:
    """All but the packs, for these are small and nothing goes without them, and the packs of the part."""
    if isinstance(manifest, Snapshot):
        packs = (pack for archive in archives_in(manifest, part) for pack in archive.packs)
        return [*packs, *manifest.besides]
    archive = manifest.archive
    begin, end = part.of(archive.size)
    last = max(end - 1, begin) // archive.pack_size
    left_out = {pack.key for pack in (*archive.packs[: begin // archive.pack_size], *archive.packs[last + 1 :])}
    return [stored for stored in manifest.objects if stored.key not in left_out]


def archives_in(manifest: Snapshot, part: Part) -> list[FileArchive]:
    """Whole archives: of all of a snapshot's, one behind the other, those that begin in the part, or the first that
    begins after it. So every one of them has its day, and one that is larger than a part is read in one go."""
    if part.is_whole:
        return [*manifest.archives]
    begin, end = part.of(sum(archive.size for archive in manifest.archives))
    found, at = list[FileArchive](), 0
    for archive in manifest.archives:
        if begin <= at < end or (at >= end and not found):
            found.append(archive)
        at += archive.size
    return found or [*manifest.archives[-1:]]
