"""File sets on tiers of a test's own: small snapshots that share archives, each a real tar in packs."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from dr_pipelines.clock import Clock, FixedClock
from dr_pipelines.plan import Plan
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.file_layout import snapshot_label
from dr_pipelines.repository.repository import Repository
from dr_pipelines.repository.snapshot_manifest import Counts, FileArchive, Snapshot, SnapshotManifest
from dr_pipelines.repository.snapshots import begin_snapshot, read_snapshots
from dr_pipelines.site import Site
from dr_pipelines.storage.base import Body, ObjectStore, read_all
from dr_pipelines.storage.memory import MemoryStore

DOCS = "docs"
BEGIN = datetime(2026, 3, 1, 8, tzinfo=UTC)
NOW = BEGIN + timedelta(hours=12)
_OWN = ("/proofs/", "/claims/", "/damage/")
"""What a tier says of itself."""


def file_site(
    stores: Mapping[str, ObjectStore],
    *,
    clock: Clock | None = None,
    identity: str | None = None,
    encryption: Any = "none",
    more_stores: Mapping[str, Any] | None = None,
    state_dir: str = "/nowhere/state",
    **changes: Any,
) -> Site:
    """The file set `docs` on `stores` by tier; `more_stores` and `changes` of the set as the plan writes them."""
    plan = {
        "version": 1, "name": "test", "encryption": encryption, "state_dir": state_dir,
        "storage": {tier: {"type": "local", "path": f"/nowhere/{tier}"} for tier in stores} | {**(more_stores or {})},
        "file_storage": {DOCS: {
            "schedule": "hourly", "retention": "30 days", "source": {"type": "directory", "path": "/nowhere/docs"},
            "storage": {tier: tier for tier in stores}, **changes,
        }},
    }  # fmt: skip
    return Site(Plan.model_validate(plan), clock=clock or FixedClock(NOW), stores=stores, identity=identity)


def empty(name: str = "primary", store: ObjectStore | None = None, codec: Codec | None = None) -> Repository:
    repository = Repository(store or MemoryStore(name, FixedClock(NOW)), codec or Codec(1), name)
    repository.initialise()
    return repository


def put_archive(writer: Any, files: Mapping[str, bytes]) -> FileArchive:
    """A tar of the contents, in one pack."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w", format=tarfile.PAX_FORMAT) as out:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            out.addfile(info, io.BytesIO(content))
    data, name = tar.getvalue(), writer.new_archive()
    pack = writer.put_pack(name, 0, Body.of(writer.repository.codec.encode(data)))
    return FileArchive(name=name, size=len(data), pack_size=1 << 22, packs=(pack,))


def take(
    repository: Repository,
    at: datetime,
    files: Mapping[str, bytes],
    base: Snapshot | None = None,
    *,
    keeps_table: bool = True,
    unreadable: int = 0,
) -> Snapshot:
    """A snapshot with an archive of its own for `files`, beside those of `base`; on its table too, unless not
    `keeps_table`."""
    writer = begin_snapshot(repository, DOCS, clock=FixedClock(at))
    archives = (*(base.archives if base else ()), *([put_archive(writer, files)] if files else []))
    rows = repr(sorted(files)).encode()
    over = base is not None and keeps_table
    stored = writer.put_table(rows, changes=over)
    return writer.commit(
        SnapshotManifest(
            file_set=DOCS, label=writer.label, parent=base.label if base else None, started_at=at,
            finished_at=at + timedelta(minutes=1), tool_version="0", taken_on="here", source="/nowhere/docs",
            encoding=repository.codec.encoding, counts=Counts(files=len(files), unreadable=unreadable),
            table=base.table if base and over else stored, changes=stored if over else None,
        ),
        archives,
        base.listed if base else (),
    )  # fmt: skip


def label_at(hours: int) -> str:
    return snapshot_label(BEGIN + timedelta(hours=hours))


FIRST, SECOND, THIRD = (label_at(hours) for hours in range(3))


def filled(name: str = "primary", store: ObjectStore | None = None) -> Repository:
    """Three snapshots: the second stands on the table and archives of the first, the third on archives of both, with a
    table of its own."""
    repository = empty(name, store)
    first = take(repository, BEGIN, {"a": b"a" * 3000, "b": b"b" * 2000})
    second = take(repository, BEGIN + timedelta(hours=1), {"c": b"c" * 5000}, first)
    take(repository, BEGIN + timedelta(hours=2), {"d": b"d" * 100}, second, keeps_table=False)
    return repository


def labels(store: ObjectStore) -> list[str]:
    return [one.label for one in read_snapshots(store, DOCS).snapshots]


def contents(store: ObjectStore) -> dict[str, bytes]:
    """All that a copy has too."""
    listed = [info.key for info in store.list("files/") if not any(own in info.key for own in _OWN)]
    return {key: read_all(store, key) for key in listed}


def snapshot(store: ObjectStore, label: str) -> Snapshot:
    [found] = [one for one in read_snapshots(store, DOCS).snapshots if one.label == label]
    return found


def flip(store: ObjectStore, key: str) -> None:
    """One bit of it."""
    data = bytearray(read_all(store, key))
    data[len(data) // 2] ^= 1
    store.put(key, Body.of(bytes(data)), if_absent=False)


def assert_whole_or_invisible(store: ObjectStore) -> None:
    catalog = read_snapshots(store, DOCS)
    assert catalog.usable == catalog.snapshots
    assert not catalog.problems
    for one in catalog.snapshots:
        for stored in one.objects:
            assert hashlib.sha256(read_all(store, stored.key)).hexdigest() == stored.sha256
