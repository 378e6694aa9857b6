"""Lists of archives: which archives a snapshot has, in objects that snapshots share. A set of 11,000 packs of which a
snapshot is taken each hour would otherwise have manifests of megabytes, which say nearly the same.

A list is never changed. A snapshot names each list of the one before it of which it needs every archive; what else it
needs it lists anew. They are in clear text, as manifests are: who has no key can copy, scrub and prune.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from pydantic import TypeAdapter, ValidationError

from dr_pipelines.errors import IntegrityError, ObjectNotFound
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.fetch import fetch_verified
from dr_pipelines.repository.manifest import Record, StoredObject
from dr_pipelines.repository.snapshot_manifest import (
    ArchiveList,
    FileArchive,
    Snapshot,
    SnapshotManifest,
    with_lists,
)
from dr_pipelines.storage.base import ObjectStore

MOST_LISTS = 32
"""Of one snapshot."""
_FEW = 256
"""Lists of fewer archives are not made where there are more to list."""
_WORKERS = 8
_CODEC = Codec(level=3)


class _Written(Record):
    archives: tuple[FileArchive, ...]


_Form = TypeAdapter(_Written)


def encode_list(archives: Sequence[FileArchive]) -> bytes:
    """As it is stored."""
    return _CODEC.encode(_Form.dump_json(_Written(archives=tuple(archives))))


def decode_list(data: bytes) -> tuple[FileArchive, ...]:
    """Raises `IntegrityError`."""
    try:
        return _Form.validate_json(_CODEC.decode(data)).archives
    except ValidationError as error:
        raise IntegrityError("no list of archives") from error


def read_list(store: ObjectStore, stored: StoredObject) -> ArchiveList:
    """One that is not there, or not as its manifests say, has `trouble`. Raises what else the store raises."""
    try:
        return ArchiveList(decode_list(fetch_verified(store, stored)), stored)
    except ObjectNotFound:
        return ArchiveList((), stored, f"{stored.key} is not on {store.name}")
    except IntegrityError as error:
        named = error.message if stored.key in error.message else f"{stored.key} on {store.name}: {error.message}"
        return ArchiveList((), stored, named)


def with_archives(store: ObjectStore, manifests: Sequence[SnapshotManifest]) -> list[Snapshot]:
    """In the same order. Each list is read once, however many name it. Raises as `read_list`."""
    distinct = list(dict.fromkeys(stored for one in manifests for stored in one.lists))
    with ThreadPoolExecutor(_WORKERS, thread_name_prefix="lists") as pool:
        read = dict(zip(distinct, pool.map(lambda stored: read_list(store, stored), distinct), strict=True))
    return [with_lists(one, (read[stored] for stored in one.lists)) for one in manifests]


def arranged(
    archives: Iterable[FileArchive], before: Iterable[ArchiveList]
) -> tuple[list[ArchiveList], list[tuple[FileArchive, ...]]]:
    """Which lists of the snapshot before this one names again, and what it lists anew: all `archives` are in one of
    both, and nothing else is. New lists are of at most a sixteenth of all, so that an archive that is not needed any
    more has one of them written again and not all; where there would be too many lists, the shortest are merged."""
    needed = {archive.name: archive for archive in archives}
    kept = [one for one in before if one.stored is not None and _is_needed(one, needed)]
    kept.sort(key=lambda one: len(one.archives))
    rest = needed.keys() - {archive.name for one in kept for archive in one.archives}
    longest = max(_FEW, -(-len(needed) // (MOST_LISTS // 2)))
    while rest and len(kept) + -(-len(rest) // longest) > MOST_LISTS:
        rest |= {archive.name for archive in kept.pop(0).archives}
    new = [needed[name] for name in sorted(rest)]
    return kept, [tuple(new[start : start + longest]) for start in range(0, len(new), longest)]


def _is_needed(one: ArchiveList, needed: dict[str, FileArchive]) -> bool:
    return bool(one.archives) and all(
        (found := needed.get(archive.name)) is archive or found == archive for archive in one.archives
    )
