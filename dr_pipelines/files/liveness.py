"""How much of the archives of a snapshot its files still are, and which of them the next one leaves behind. Pure.

What is stored is never changed, so nothing is repacked where it lies: the next snapshot stores the contents that are
left of a mostly dead archive anew, and the archive goes with the last snapshot that names it. So history stays as it
was, locks hold until they end, and the host that takes snapshots needs no key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dr_pipelines.files import tar
from dr_pipelines.files.arrays import flat, to_numpy
from dr_pipelines.files.pack_builder import PACK_SIZE
from dr_pipelines.repository.snapshot_manifest import FileArchive

MOSTLY = 0.5
"""An archive of which less is alive is left behind: what is stored anew is at most as much as what is won."""
CRUMB = PACK_SIZE // 16
MOST_CRUMBS = 64
_LONGEST_TAR = 1 << 46
"""So many archives that are smaller may a snapshot name; more are put together. A set of which a few files change each
hour would come to thousands of them, and each is a request of a restore."""


@dataclass(frozen=True)
class Liveness:
    """Of the archives of one snapshot: `stored_bytes`, and about how many of those are contents that none of its files
    has any more (`dead_bytes`); `left_behind`: archives of which the next snapshot stores anew what it needs."""

    stored_bytes: int
    dead_bytes: int
    left_behind: frozenset[str]


def live_bytes(table: pa.Table) -> dict[str, int]:
    """Of a snapshot's table, by archive: raw bytes of the tar that its files need, with headers and the end."""
    named = table.select(["archive", "offset", "size"]).filter(pc.is_valid(table["archive"]))
    if not len(named):
        return {}
    archives = flat(named["archive"]).dictionary_encode()
    places = to_numpy(archives.indices)
    # Once for each content, however many files have it.
    once = np.unique(places * _LONGEST_TAR + to_numpy(named["offset"]), return_index=True)[1]
    sizes = -(-to_numpy(named["size"])[once] // tar.BLOCK) * tar.BLOCK + tar.BLOCK
    sums = np.bincount(places[once], weights=sizes, minlength=len(archives.dictionary))
    return {name: int(live) + len(tar.END) for name, live in zip(archives.dictionary.to_pylist(), sums, strict=True)}


def mostly_dead(live: Mapping[str, int], archives: Iterable[FileArchive]) -> frozenset[str]:
    """Of these, by the `live_bytes` of the newest snapshot. One of a large file is alive or not named at all."""
    return frozenset(one.name for one in archives if live.get(one.name, 0) < MOSTLY * one.size)


def crumbs(archives: Iterable[FileArchive]) -> frozenset[str]:
    """The small ones, when they are too many."""
    small = frozenset(one.name for one in archives if one.size < CRUMB)
    return small if len(small) > MOST_CRUMBS else frozenset()


def liveness(table: pa.Table, archives: Sequence[FileArchive]) -> Liveness:
    live = live_bytes(table)
    dead = sum(one.stored_size * max(0.0, 1 - live.get(one.name, 0) / max(one.size, 1)) for one in archives)
    stored = sum(one.stored_size for one in archives)
    return Liveness(stored, round(dead), mostly_dead(live, archives) | crumbs(archives))
