"""Lists of archives: which archives a snapshot has, in objects that snapshots share. A set of 11,000 packs of which a
snapshot is taken each hour would otherwise have manifests of megabytes, which say nearly the same.

A list is never changed. A snapshot names each list of the one before it of which it needs every archive; what else it
needs it lists anew. They are in clear text, as manifests are: who has no key can copy, scrub and prune.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

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


def read_list(store: ObjectStore, stored: StoredObject, known: dict[FileArchive, FileArchive]) -> ArchiveList:
    """One that is not there, or not as its manifests say, has `trouble`. An archive that is `known`, from another
    list, is in memory once. Raises what else the store raises."""
    try:
        listed = decode_list(fetch_verified(store, stored))
        return ArchiveList(tuple(known.setdefault(archive, archive) for archive in listed), stored)
    except ObjectNotFound:
        return ArchiveList((), stored, f"{stored.key} is not on {store.name}")
    except IntegrityError as error:
        named = error.message if stored.key in error.message else f"{stored.key} on {store.name}: {error.message}"
        return ArchiveList((), stored, named)


def with_archives(store: ObjectStore, manifests: Sequence[SnapshotManifest]) -> list[Snapshot]:
    """In the same order. Each list is read once, however many name it. Raises as `read_list`."""
    distinct = list(dict.fromkeys(stored for one in manifests for stored in one.lists))
    known: dict[FileArchive, FileArchive] = {}
    with ThreadPoolExecutor(_WORKERS, thread_name_prefix="lists") as pool:
        read = dict(zip(distinct, pool.map(lambda stored: read_list(store, stored, known), distinct), strict=True))
    return [with_lists(one, (read[stored] for stored in one.lists)) for one in manifests]


def arranged(
    archives: Iterable[FileArchive], before: Iterable[ArchiveList]
) -> tuple[list[ArchiveList], list[tuple[FileArchive, ...]]]:
    """Which lists of the snapshot before this one names again, and what it lists anew: all `archives` are in one of
    both, once, and nothing else is.

    A list is of at most a sixteenth of all, so that an archive that is not needed any more has that much written again;
    what is left of a long one stays a list by itself, for what is new is soon not needed. The shortest are merged where
    there would be too many."""
    needed = {archive.name: archive for archive in archives}
    longest = max(_FEW, -(-len(needed) // (MOST_LISTS // 2)))
    pieces = [piece for one in before if one.stored is not None and (piece := _Piece.of(one, needed)).archives]
    pieces = [piece for piece in pieces if piece.as_it_was is not None or len(piece.archives) >= longest // 2]
    pieces.sort(key=lambda piece: len(piece.archives))
    loose = needed.keys() - {archive.name for piece in pieces for archive in piece.archives}
    while loose and len(pieces) + -(-len(loose) // longest) > MOST_LISTS:
        loose |= {archive.name for archive in pieces.pop(0).archives}
    names = sorted(loose)
    parts = (names[start : start + longest] for start in range(0, len(names), longest))
    new = [tuple(needed[name] for name in part) for part in parts]
    return (
        [piece.as_it_was for piece in pieces if piece.as_it_was is not None],
        [*(piece.archives for piece in pieces if piece.as_it_was is None), *new],
    )


@dataclass(frozen=True)
class _Piece:
    """What is needed of a list; `as_it_was` when that is all of it."""

    archives: tuple[FileArchive, ...]
    as_it_was: ArchiveList | None

    @classmethod
    def of(cls, one: ArchiveList, needed: Mapping[str, FileArchive]) -> _Piece:
        left = tuple(archive for archive in one.archives if _is_same(needed.get(archive.name), archive))
        return cls(left, one if len(left) == len(one.archives) else None)


def _is_same(one: FileArchive | None, other: FileArchive) -> bool:
    return one is other or one == other
