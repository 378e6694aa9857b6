"""Ways to damage a repository: by accident, by bad disks, and by somebody who writes manifests that seal."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from dr_pipelines.lsn import Lsn, Timeline, WalSegment
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.repository.manifest import BackupManifest, StoredObject, WalRange, encode
from dr_pipelines.repository.repository import Repository
from dr_pipelines.storage.base import Body, read_all
from tests.mutation.objects import Thing, keys_of, path_of, things
from tests.support.lived import Lived

SYSTEM_ID = slice(24, 32)
"""Where the first page of a WAL segment names its system. Source: PostgreSQL, xlog_internal.h, XLogLongPageHeaderData."""


@dataclass(frozen=True)
class Done:
    """What was damaged. `label`: the backup whose restore from this tier alone must show it; None: restores do not
    need it. `ends_early`: what is gone lay at the very end, which nothing on this tier can tell a restore."""

    what: str
    label: str | None
    ends_early: bool = False
    tier: str = "primary"


Damage = Callable[[Lived, random.Random], Done]


def all_damages() -> dict[str, Damage]:
    """By kind, in the order of the table."""
    return {
        **{f"{kind}: {how}": _of_bytes(kind, changes) for kind in _KINDS for how, changes in BYTES.items()},
        "two objects swapped": _swapped,
        "an object of the other backup in its place": _of_the_other_backup,
        **{f"manifest sealed anew: {what}": _resealed(change) for what, change in _FIELDS.items()},
        "pack with a changed byte, sealed anew": _pack_sealed_anew,
        "backup_manifest with a changed byte, sealed anew": _backup_manifest_sealed_anew,
        "plain objects where the plan encrypts": _plain,
        "all packs of a backup removed": _packs_removed,
        "WAL removed in the middle": _wal_removed,
        "WAL removed that a backup needs at its end": _wal_of_the_incremental_removed,
        "all WAL removed": _all_wal_removed,
        "WAL segment under another's name": _wal_renamed,
        "WAL segment of another timeline's name": _wal_of_another_timeline,
        "WAL of another system": _wal_of_another_system,
        "WAL with a changed record, named anew": _wal_record_changed,
        "WAL segment cut, named anew": _wal_cut,
        "older WAL in a segment's place": _wal_of_before,
        "newest WAL segments removed": _newest_wal_removed,
        **{f"replica: {kind}: {how}": _on_replica(_of_bytes(kind, BYTES[how])) for kind in _COPIED for how in BYTES},
        "replica: two objects swapped": _on_replica(_swapped),
        "replica: manifest sealed anew": _on_replica(_resealed(_FIELDS["started a day earlier"])),
        "replica: WAL removed in the middle": _on_replica(_wal_removed),
    }


def put(repository: Repository, key: str, data: bytes) -> None:
    repository.store.put(key, Body.of(data), if_absent=False)


# --- bytes ---


def _flip_bit(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


def _flip_byte(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ rng.randrange(1, 256)]) + data[at + 1 :]


def _zero_block(data: bytes, rng: random.Random) -> bytes:
    """As a disk that lost a sector."""
    at = rng.randrange(len(data))
    end = min(len(data), at + 512)
    lost = bytes(end - at)
    return data[:at] + (lost if data[at:end] != lost else b"\1" * len(lost)) + data[end:]


_Change = Callable[[bytes, random.Random], bytes | None]
BYTES: dict[str, tuple[_Change, ...]] = {
    "a bit, a byte or a sector": (_flip_bit, _flip_byte, _zero_block),
    "cut, longer or empty": (
        lambda data, rng: data[: -rng.randrange(1, min(len(data), 64))],
        lambda data, rng: data[: len(data) // 2],
        lambda data, rng: data + rng.randbytes(rng.randrange(1, 64)),
        lambda data, rng: b"",
    ),
    "removed": (lambda data, rng: None,),
}
_KINDS = ("pack", "backup_manifest", "index", "facts", "break-glass", "manifest", "WAL segment", "wal.json",
          "repository.json")  # fmt: skip


_COPIED = ("pack", "backup_manifest", "manifest", "WAL segment", "facts")


def _on_replica(damage: Damage) -> Damage:
    """The same to the secondary, while the primary is whole."""

    def elsewhere(home: Lived, rng: random.Random) -> Done:
        _exchange(home)
        done = damage(home, rng)
        _exchange(home)
        return replace(done, tier="secondary")

    return elsewhere


def _exchange(home: Lived) -> None:
    primary, aside = home.base / "primary", home.base / "aside"
    primary.rename(aside)
    (home.base / "secondary").rename(primary)
    aside.rename(home.base / "secondary")


def _of_bytes(kind: str, changes: Sequence[_Change]) -> Damage:
    def damage(home: Lived, rng: random.Random) -> Done:
        thing = rng.choice(_inner(home, kind))
        path = path_of(home, thing.key)
        changed = rng.choice(changes)(path.read_bytes(), rng)
        if changed is None:
            path.unlink()
        else:
            path.write_bytes(changed)
        return Done(thing.key, thing.label)

    return damage


def _inner(home: Lived, kind: str) -> list[Thing]:
    """Of WAL only what is not at an end: before the first backup, or the newest, which are kinds of their own."""
    found = keys_of(home, [kind])
    if kind == "WAL segment":
        newest = max(thing.key for thing in found)
        found = [thing for thing in found if thing.label is not None and thing.key != newest]
    return found


def _swapped(home: Lived, rng: random.Random) -> Done:
    found = [thing for thing in things(home) if thing.label is not None]
    one, other = rng.sample(found, 2)
    first, second = (path_of(home, thing.key) for thing in (one, other))
    data = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(data)
    return Done(f"{one.key} and {other.key}", one.label)


def _of_the_other_backup(home: Lived, rng: random.Random) -> Done:
    thing = rng.choice(
        [thing for thing in things(home) if f"/{home.incremental}/" in thing.key and thing.kind != "facts"]
    )
    other = path_of(home, thing.key.replace(home.incremental, home.full))
    path_of(home, thing.key).write_bytes(other.read_bytes())
    return Done(thing.key, thing.label)


# --- manifests that seal ---


def reseal(home: Lived, backup: BackupManifest, **changes: Any) -> None:
    put(home.repository(), backup.layout.manifest, encode(backup.model_copy(update=changes)))


_Fields = Callable[[BackupManifest, random.Random], dict[str, Any]]


def _pack(backup: BackupManifest, **changes: Any) -> dict[str, Any]:
    packs = (backup.archive.packs[0].model_copy(update=changes), *backup.archive.packs[1:])
    return {"archive": backup.archive.model_copy(update={"packs": packs})}


def _archive(backup: BackupManifest, **changes: Any) -> dict[str, Any]:
    return {"archive": backup.archive.model_copy(update=changes)}


def _shifted(backup: BackupManifest, rng: random.Random, sign: int) -> Lsn:
    return backup.stop_lsn + sign * rng.randrange(1, 40) * 8


_FIELDS: dict[str, _Fields] = {
    "size of a pack": lambda backup, rng: _pack(backup, size=backup.archive.packs[0].size + rng.choice((-1, 1))),
    "digest of a pack": lambda backup, rng: _pack(backup, sha256=rng.randbytes(32).hex()),
    "key of a pack": lambda backup, rng: _pack(backup, key=backup.index.key),
    "no packs": lambda backup, rng: _archive(backup, packs=()),
    "an empty archive": lambda backup, rng: _archive(backup, packs=(), size=0),
    "size of the tar": lambda backup, rng: _archive(backup, size=backup.archive.size - 512 * rng.randrange(1, 99)),
    "size of its packs": lambda backup, rng: _archive(backup, pack_size=backup.archive.pack_size // 2),
    "digest of backup_manifest": lambda backup, rng: {
        "backup_manifest": backup.backup_manifest.model_copy(update={"sha256": rng.randbytes(32).hex()})
    },
    "no facts": lambda backup, rng: {"facts": None},
    "no break-glass bundle": lambda backup, rng: {"break_glass": ()},
    "stop LSN earlier": lambda backup, rng: {"stop_lsn": _shifted(backup, rng, -1)},
    "stop LSN later": lambda backup, rng: {"stop_lsn": _shifted(backup, rng, 1)},
    "start LSN later": lambda backup, rng: {"start_lsn": backup.start_lsn + rng.randrange(1, 5) * backup.segment_size},
    "start LSN earlier": lambda backup, rng: {"start_lsn": backup.start_lsn + -2 * backup.segment_size},
    "WAL ranges": lambda backup, rng: {
        "wal_ranges": tuple(
            WalRange(timeline=one.timeline, start=one.start, end=one.end + -rng.randrange(1, 40)) for one in backup.wal_ranges
        )
    },
    "no WAL ranges": lambda backup, rng: {"wal_ranges": ()},
    "timeline": lambda backup, rng: {"timeline": Timeline(2)},
    "system": lambda backup, rng: {"system_id": str(int(backup.system_id) + 1)},
    "segment size": lambda backup, rng: {"segment_size": backup.segment_size * 16},
    "block size": lambda backup, rng: {"block_size": backup.block_size * 2},
    "page checksums": lambda backup, rng: {"data_checksums": not backup.data_checksums},
    "PostgreSQL version": lambda backup, rng: {"postgres_version_num": 17_00_04},
    "kind": lambda backup, rng: {
        "kind": BackupKind.INCREMENTAL if backup.kind is BackupKind.FULL else BackupKind.FULL
    },
    "parent": lambda backup, rng: {"parent": "20200101T000000Z-full" if backup.parent is None else None},
    "server": lambda backup, rng: {"server": "other"},
    "label": lambda backup, rng: {"label": "20200101T000000Z-full"},
    "recipients": lambda backup, rng: {"encoding": backup.encoding.model_copy(update={"recipients": ("age1somebody",)})},
    "finished a day later": lambda backup, rng: {"finished_at": backup.finished_at + timedelta(days=1)},
    "started a day earlier": lambda backup, rng: {"started_at": backup.started_at - timedelta(days=1)},
}  # fmt: skip


def _resealed(change: _Fields) -> Damage:
    def damage(home: Lived, rng: random.Random) -> Done:
        backup = _some_backup(home, rng)
        changes = change(backup, rng)
        reseal(home, backup, **changes)
        return Done(f"{', '.join(changes)} of {backup.label}", backup.label)

    return damage


def _some_backup(home: Lived, rng: random.Random) -> BackupManifest:
    return home.repository().backup("shop", rng.choice((home.full, home.incremental)))


def _put_again(repository: Repository, key: str, data: bytes) -> StoredObject:
    put(repository, key, data)
    return StoredObject(key=key, size=len(data), sha256=Body.of(data).sha256)


def _tar(repository: Repository, backup: BackupManifest) -> bytes:
    """Small backups have one pack."""
    return b"".join(bytes(piece) for piece in repository.open_archive(backup).pieces())


def _pack_sealed_anew(home: Lived, rng: random.Random) -> Done:
    """Only PostgreSQL's own checksums can tell: everything of ours matches."""
    repository, backup = home.repository(), _some_backup(home, rng)
    raw = bytearray(_tar(repository, backup))
    at = _inside_a_file(repository, backup, raw, rng)
    raw[at] ^= rng.randrange(1, 256)
    stored = _put_again(repository, backup.archive.packs[0].key, repository.codec.encode(bytes(raw)))
    reseal(home, backup, **_pack(backup, **stored.model_dump()))
    return Done(f"{stored.key} at {at}", backup.label)


def _inside_a_file(repository: Repository, backup: BackupManifest, raw: bytes, rng: random.Random) -> int:
    """Headers of the tar have sums of their own, and what fills a member up means nothing."""
    index = json.loads(repository.codec.decode(read_all(repository.store, backup.index.key)))
    members = [(at + 512, size) for _, at, size in index["members"] if size]
    at, size = rng.choice(members)
    return at + rng.randrange(size)


def _backup_manifest_sealed_anew(home: Lived, rng: random.Random) -> Done:
    repository, backup = home.repository(), _some_backup(home, rng)
    raw = bytearray(repository.codec.decode(read_all(repository.store, backup.backup_manifest.key)))
    digits = [at for at, byte in enumerate(raw) if chr(byte) in "0123456789abcdef"]
    at = rng.choice(digits)
    raw[at] = ord("1") if raw[at] != ord("1") else ord("2")
    stored = _put_again(repository, backup.backup_manifest.key, repository.codec.encode(bytes(raw)))
    reseal(home, backup, backup_manifest=stored)
    return Done(f"{stored.key} at {at}", backup.label)


def _plain(home: Lived, rng: random.Random) -> Done:
    """A thief, or a wrong setting, that stores without encrypting."""
    repository, backup = home.repository(), _some_backup(home, rng)
    stored = _put_again(repository, backup.archive.packs[0].key, Codec(1).encode(_tar(repository, backup)))
    reseal(home, backup, **_pack(backup, **stored.model_dump()))
    return Done(stored.key, backup.label)


def _packs_removed(home: Lived, rng: random.Random) -> Done:
    backup = _some_backup(home, rng)
    for pack in home.packs(backup.label):
        pack.unlink()
    return Done(backup.label, backup.label)


# --- WAL ---


def _segments(home: Lived) -> list[tuple[WalSegment, str]]:
    """Whole ones, from the full on."""
    backup = home.repository().backup("shop", home.full)
    found = keys_of(home, ["WAL segment"])
    named = [
        (WalSegment.parse(one.key.rpartition("/")[2][:24], backup.segment_size), one.key) for one in found if one.label
    ]
    return sorted(named)


def _wal_removed(home: Lived, rng: random.Random) -> Done:
    _, key = rng.choice(_segments(home)[:-1])
    path_of(home, key).unlink()
    return Done(key, home.full)


def _wal_of_the_incremental_removed(home: Lived, rng: random.Random) -> Done:
    """From the segment in which the newest backup becomes consistent to the end: no hole, and not enough."""
    stop = home.repository().backup("shop", home.incremental).stop_lsn
    gone = [one for one in _wal_and_heads(home) if one[0].end >= stop]
    for _, key in gone:
        path_of(home, key).unlink()
    return Done(f"{len(gone)} objects from {gone[0][1]}", home.incremental)


def _wal_and_heads(home: Lived) -> list[tuple[WalSegment, str]]:
    size = home.repository().backup("shop", home.full).segment_size
    found = keys_of(home, ["WAL segment", "head of a WAL segment"])
    return sorted((WalSegment.parse(one.key.rpartition("/")[2][:24], size), one.key) for one in found)


def _all_wal_removed(home: Lived, rng: random.Random) -> Done:
    for path in home.wal():
        if path.name != "wal.json":
            path.unlink()
    return Done("all of it", home.full)


def _newest_wal_removed(home: Lived, rng: random.Random) -> Done:
    """Behind what any backup needs: the newest transactions, of which only the other tier tells."""
    stop = home.repository().backup("shop", home.incremental).stop_lsn
    behind = [one for one in _wal_and_heads(home) if one[0].start >= stop]
    whole = sum(".partial." not in key for _, key in behind)
    gone = behind[-(rng.randrange(whole) + 1 + len(behind) - whole) :]
    for _, key in gone:
        path_of(home, key).unlink()
    return Done(f"{len(gone)} objects from {gone[0][1]}", home.full, ends_early=True)


def _wal_renamed(home: Lived, rng: random.Random) -> Done:
    found = _segments(home)
    (one, key), (other, _) = rng.sample(found, 2)
    path = path_of(home, key)
    for there in path.parent.glob(f"{other.name}.*"):
        there.unlink()
    path.rename(path.with_name(path.name.replace(one.name, other.name)))
    return Done(f"{one.name} as {other.name}", home.full)


def _wal_of_another_timeline(home: Lived, rng: random.Random) -> Done:
    segment, key = rng.choice(_segments(home)[:-1])
    path = path_of(home, key)
    path.rename(path.with_name(path.name.replace(segment.name, f"00000002{segment.name[8:]}")))
    return Done(segment.name, home.full)


def _replaced(home: Lived, rng: random.Random, change: Callable[[bytearray, WalSegment], bytes]) -> Done:
    """Another content under a name that is right for it: nothing but replaying it can tell."""
    repository = home.repository()
    segment, key = rng.choice(_used(home))
    data = change(bytearray(repository.codec.decode(read_all(repository.store, key))), segment)
    stored = repository.codec.encode(data)
    path_of(home, key).unlink()
    name = key.rpartition("/")[2]
    put(repository, key.replace(name.split(".")[1], Body.of(stored).sha256), stored)
    return Done(key, home.full)


def _used(home: Lived) -> list[tuple[WalSegment, str]]:
    """Segments full of records: those after a switch are nearly empty."""
    return [one for one in _segments(home) if path_of(home, one[1]).stat().st_size > 8192]


def _wal_of_another_system(home: Lived, rng: random.Random) -> Done:
    def change(data: bytearray, segment: WalSegment) -> bytes:
        data[SYSTEM_ID] = rng.randbytes(8)
        return bytes(data)

    return _replaced(home, rng, change)


def _wal_record_changed(home: Lived, rng: random.Random) -> Done:
    start = home.repository().backup("shop", home.full).start_lsn

    def change(data: bytearray, segment: WalSegment) -> bytes:
        first = max(64, start - segment.start if start > segment.start else 0)
        at = rng.choice([at for at in range(first, len(data)) if data[at] and at % 8192 >= 64])
        data[at] ^= rng.randrange(1, 256)
        return bytes(data)

    return _replaced(home, rng, change)


def _wal_cut(home: Lived, rng: random.Random) -> Done:
    return _replaced(home, rng, lambda data, segment: bytes(data[: rng.randrange(8192, len(data) // 2)]))


def _wal_of_before(home: Lived, rng: random.Random) -> Done:
    """As a recycled file that was never written."""
    found = dict(_used(home))

    def change(data: bytearray, segment: WalSegment) -> bytes:
        other = next(key for one, key in found.items() if one != segment)
        repository = home.repository()
        return repository.codec.decode(read_all(repository.store, other))

    return _replaced(home, rng, change)


def each(rng: random.Random, count: int) -> Iterator[tuple[str, Damage]]:
    """`count` of them, every kind as often as any other, in an order of its own."""
    damages = [*all_damages().items()]
    while count > 0:
        turn = rng.sample(damages, min(count, len(damages)))
        yield from turn
        count -= len(turn)
