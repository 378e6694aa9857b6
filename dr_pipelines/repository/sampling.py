"""A part of what is stored, another one every day, so that so many days read all of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime

from dr_pipelines.repository.manifest import BackupManifest, StoredObject


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


def objects_in(manifest: BackupManifest, part: Part) -> list[StoredObject]:
    """All of a backup but the packs, for these are small and nothing goes without them, and the packs of the part."""
    archive = manifest.archive
    begin, end = part.of(archive.size)
    last = max(end - 1, begin) // archive.pack_size
    left_out = {pack.key for pack in (*archive.packs[: begin // archive.pack_size], *archive.packs[last + 1 :])}
    return [stored for stored in manifest.objects if stored.key not in left_out]
