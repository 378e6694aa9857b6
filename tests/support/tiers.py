"""The same small repository on as many tiers as a test wants, to be damaged."""

from __future__ import annotations

from datetime import UTC, datetime

from dr_pipelines.clock import FixedClock
from dr_pipelines.lsn import Lsn, Timeline, WalSegment
from dr_pipelines.repository import layout
from dr_pipelines.repository.break_glass import bundle
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.manifest import BackupManifest, StoredObject, encode
from dr_pipelines.repository.repository import Repository
from dr_pipelines.storage.base import Body, ObjectStore, read_all
from dr_pipelines.storage.memory import MemoryStore
from tests.support.archives import content_of, manifest

SIZE = 1 << 20
SYSTEM = "7000000000000000001"
FIRST, CHILD, SECOND = "20260102T030405Z-full", "20260102T040405Z-incr", "20260103T030405Z-full"
CLOCK = FixedClock(datetime(2026, 1, 4, tzinfo=UTC))


def backup(label: str, segment: int, chain: tuple[BackupManifest, ...] = ()) -> BackupManifest:
    """In one segment, with a break-glass bundle."""
    at, kind = layout.parse_label(label)
    made = manifest(
        label, kind=kind, asked_kind=kind, system_id=SYSTEM, segment_size=SIZE, started_at=at, finished_at=at,
        start_lsn=Lsn(segment * SIZE + 40), stop_lsn=Lsn(segment * SIZE + 400),
        parent=chain[-1].label if chain else None,
    )  # fmt: skip
    files = bundle([*chain, made])
    objects = tuple(
        StoredObject(key=made.layout.break_glass(name), size=len(data), sha256=Body.of(data).sha256)
        for name, data in files.items()
    )
    return made.model_copy(update={"break_glass": objects})


FULL = backup(FIRST, 1)
BACKUPS = (FULL, backup(CHILD, 3, (FULL,)), backup(SECOND, 5))


def put_backup(store: ObjectStore, made: BackupManifest) -> None:
    bare = made.model_copy(update={"break_glass": ()})
    files = {f"/{name}": data for name, data in bundle([*((FULL,) if made.parent else ()), bare]).items()}
    for stored in made.objects:
        name = stored.key[stored.key.rfind("/") :]
        store.put(stored.key, Body.of(files[name] if "break-glass" in stored.key else content_of(stored.key)))
    store.put(made.layout.manifest, Body.of(encode(made)))


def tier(name: str, wal: range = range(1, 8), store: ObjectStore | None = None) -> Repository:
    """Three backups, of which the second builds on the first, and WAL from the first to after the last."""
    repository = Repository(store or MemoryStore(name, CLOCK), Codec(1), name)
    repository.initialise()
    for made in BACKUPS:
        put_backup(repository.store, made)
    put_wal(repository, wal)
    return repository


def put_wal(repository: Repository, numbers: range) -> None:
    archive = repository.wal("shop", SYSTEM)
    for number in numbers:
        archive.put_segment(WalSegment(Timeline(1), number, SIZE), bytes([number]) * SIZE)
    archive.put_history(Timeline(2), b"1\t0/300\tno reason\n")


def wal_key(repository: Repository, number: int) -> str:
    (found,) = repository.store.list(
        layout.WalLayout("shop", SYSTEM).segment_prefix(WalSegment(Timeline(1), number, SIZE))
    )
    return found.key


def flip(repository: Repository, key: str, at: int | None = None) -> None:
    data = bytearray(read_all(repository.store, key))
    data[len(data) // 2 if at is None else at] ^= 1
    repository.store.put(key, Body.of(bytes(data)), if_absent=False)


def content(repository: Repository) -> dict[str, bytes]:
    """What restores depend on: without proofs."""
    listed = [info.key for info in repository.store.list("servers/") if "/proofs/" not in info.key]
    return {key: read_all(repository.store, key) for key in listed}
