"""Samples of a backup say what they saw and come round to all of it; WAL is continuous from one backup on; locks of one
backup."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from dr_pipelines.checks import CheckResult, Verdict
from dr_pipelines.clock import FixedClock
from dr_pipelines.lsn import Lsn, Timeline, WalSegment
from dr_pipelines.operations import check_backup
from dr_pipelines.postgres.verify import verify
from dr_pipelines.postgres.wal_checks import wal_is_continuous
from dr_pipelines.progress import Silent
from dr_pipelines.repository.archive_writer import ArchiveBuffers, ArchiveWriter
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.completeness import chain_is_complete
from dr_pipelines.repository.layout import BackupKind, BackupLayout
from dr_pipelines.repository.manifest import BackupManifest, StoredObject
from dr_pipelines.repository.marks import put_damage
from dr_pipelines.repository.repository import Repository
from dr_pipelines.repository.sampling import Part, part_of_today
from dr_pipelines.storage.base import Body
from dr_pipelines.storage.memory import MemoryStore
from tests.support.archives import AT, manifest, member, put_backup
from tests.support.replicas import NOW, site_of

PASS, FAIL, NOT_PROVEN = Verdict
LABEL = "20260102T030405Z-full"
PACK = 1024
ONE, TWO = Timeline(1), Timeline(2)
SIZE = 1 << 20


# --- samples --------------------------------------------------------------------------------------------------


def stored(files: Mapping[str, bytes], told: Mapping[str, bytes] | None = None) -> tuple[Repository, BackupManifest]:
    """A backup whose archive is cut into small packs."""
    repository = Repository(MemoryStore("memory"), Codec(1), "primary")
    keys, tar, members = BackupLayout("shop", LABEL), io.BytesIO(), []
    with tarfile.open(fileobj=tar, mode="w", format=tarfile.USTAR_FORMAT) as out:
        for name, content in files.items():
            info, data = member(name, content)
            members.append((name, out.offset, len(data)))
            out.addfile(info, io.BytesIO(data))
        size = out.offset

    def put(key: str, data: bytes) -> StoredObject:
        body = Body.of(data)
        repository.store.put(key, body)
        return StoredObject(key=key, size=body.size, sha256=body.sha256)

    def put_pack(number: int, body: Body) -> StoredObject:
        repository.store.put(keys.pack(number, ".zst"), body)
        return StoredObject(key=keys.pack(number, ".zst"), size=body.size, sha256=body.sha256)

    writer = ArchiveWriter(
        put_pack, repository.codec, ArchiveBuffers(repository.codec, pack_size=PACK, frame_size=PACK)
    )
    writer.write(tar.getvalue()[:size])
    encoded = repository.codec.encode
    made = manifest(
        LABEL,
        archive=writer.close(),
        index=put(keys.index(".zst"), encoded(json.dumps({"members": members}).encode())),
        backup_manifest=put(keys.backup_manifest(".zst"), encoded(server_manifest(files if told is None else told))),
    )
    return repository, made


def server_manifest(files: Mapping[str, bytes]) -> bytes:
    entries = [
        {
            "Path": path, "Size": len(data), "Checksum-Algorithm": "SHA256",
            "Checksum": hashlib.sha256(data).hexdigest(),
        }
        for path, data in files.items()
    ]  # fmt: skip
    head = json.dumps({"PostgreSQL-Backup-Manifest-Version": 1, "Files": entries, "WAL-Ranges": []})[:-1] + ",\n"
    return f'{head}"Manifest-Checksum": "{hashlib.sha256(head.encode()).hexdigest()}"}}\n'.encode()


def look(repository: Repository, backup: BackupManifest, part: Part) -> tuple[CheckResult, CheckResult]:
    _, objects, contents = verify(repository, backup, progress=Silent(), part=part)
    return objects, contents


FILES = {f"base/5/{number}": bytes([number % 251]) * (100 + 37 * number) for number in range(1, 60)}


def test_all_parts_together_see_every_byte_and_each_says_how_much_it_saw() -> None:
    repository, backup = stored(FILES)
    seen = 0
    for number in range(10):
        objects, contents = look(repository, backup, Part(number, 10))
        assert (objects.verdict, contents.verdict) == (PASS, PASS), (objects, contents)
        assert 0 < objects.details["objects"] < objects.details["of"]
        assert f"{objects.details['objects']} of {objects.details['of']} objects read" in objects.summary
        assert "a sample of" in contents.summary
        seen += contents.details["files"]
    assert seen == len(FILES)  # each begins in one part


def test_damage_anywhere_is_found_by_the_part_that_holds_it() -> None:
    repository, backup = stored(FILES)
    packs = backup.archive.packs
    spoiled = packs[len(packs) // 2].key
    repository.store.put(spoiled, Body.of(b"x" * packs[len(packs) // 2].size), if_absent=False)
    results = [look(repository, backup, Part(number, 10)) for number in range(10)]
    found = [number for number, (objects, _) in enumerate(results) if objects.verdict is FAIL]
    assert found and len(found) <= 2
    assert all(spoiled in results[number][0].details["bad"][0] for number in found)
    assert any(contents.verdict is FAIL for _, contents in results)


def test_a_file_that_differs_from_what_the_server_told_is_found_by_its_part() -> None:
    repository, backup = stored(FILES, told={**FILES, "base/5/30": b"another"})
    results = [look(repository, backup, Part(number, 10))[1] for number in range(10)]
    assert [check.details["wrong"] for check in results if check.verdict is FAIL] == [["base/5/30"]]


def test_one_file_is_said_as_one() -> None:
    repository, backup = stored({"only": b"x"})
    assert look(repository, backup, Part(0, 1))[1].summary == "all contents match, of 1 file"
    repository, backup = stored({"only": b"x"}, told={"only": b"y"})
    assert look(repository, backup, Part(0, 1))[1].summary == "contents differ in 1 of 1 file, and 0 are missing"


def test_a_part_within_one_large_file_looks_at_the_next_whole_one() -> None:
    repository, backup = stored({"small": b"x", "large": bytes(50 * PACK), "last": b"y" * 10})
    for number in range(10):
        contents = look(repository, backup, Part(number, 10))[1]
        assert contents.verdict is PASS and contents.details["files"] >= 1


def test_the_parts_of_following_days_come_round() -> None:
    days = [part_of_today(10, "label", AT + timedelta(days=day)) for day in range(10)]
    assert sorted(part.number for part in days) == [*range(10)]
    assert part_of_today(60, "label", AT).is_whole and part_of_today(100, "label", AT).is_whole
    assert part_of_today(30, "label", AT).count == 3  # never less than was asked for
    assert Part(9, 10).of(101) == (90, 101)


# --- chains -----------------------------------------------------------------------------------------------------


def chain() -> tuple[Repository, BackupManifest, BackupManifest]:
    store = MemoryStore("memory")
    full = put_backup(store, manifest(LABEL))
    incremental = manifest(
        "20260102T040405Z-incr", kind=BackupKind.INCREMENTAL, parent=LABEL, start_lsn=Lsn(0x3000), stop_lsn=Lsn(0x4000)
    )
    return Repository(store, Codec(1), "primary"), full, put_backup(store, incremental)


def test_a_chain_is_complete_when_every_link_is_there_and_fits() -> None:
    repository, full, incremental = chain()
    assert chain_is_complete(repository, full).passed
    whole = chain_is_complete(repository, incremental)
    assert whole.passed and whole.details["backups"] == 2
    put_damage(repository.store, full.layout, [full.index.key], at=AT, found_by="test")
    assert "marked as damaged" in chain_is_complete(repository, incremental).summary
    repository, full, incremental = chain()
    repository.store.delete(full.archive.packs[0].key)
    assert LABEL in chain_is_complete(repository, incremental).summary
    repository.store.delete(full.layout.manifest)
    assert chain_is_complete(repository, incremental).verdict is FAIL


@pytest.mark.parametrize(
    ("change", "said"),
    [({"system_id": "2"}, "another cluster"), ({"start_lsn": Lsn(1)}, "begins at"), ({"parent": None}, "no full")],
)
def test_links_that_do_not_belong_together_are_told(change: dict[str, Any], said: str) -> None:
    repository, _, incremental = chain()
    fields = {**incremental.model_dump(), **change}
    wrong = chain_is_complete(repository, BackupManifest.model_validate(fields))
    assert wrong.verdict is FAIL and said in wrong.summary


# --- WAL ----------------------------------------------------------------------------------------------------------


def at(segments: float) -> Lsn:
    return Lsn(int(segments * SIZE))


def backup_at(begin: float, end: float, label: str = LABEL, **more: Any) -> BackupManifest:
    return manifest(label, start_lsn=at(begin), stop_lsn=at(end), segment_size=SIZE, **more)


def with_wal(*numbers: int, line: Timeline = ONE, repository: Repository | None = None) -> Repository:
    repository = repository or Repository(MemoryStore("memory"), Codec(1), "primary")
    for number in numbers:
        repository.wal("shop", "1").put_segment(WalSegment(line, number, SIZE), bytes(SIZE))
    return repository


def test_wal_is_continuous_from_the_backup_to_now() -> None:
    backup = backup_at(2.2, 3.5)
    whole = wal_is_continuous(with_wal(2, 3, 4, 5), backup)
    assert whole.passed and whole.details["to_lsn"] == str(at(6))
    assert wal_is_continuous(with_wal(), backup).verdict is NOT_PROVEN
    early = wal_is_continuous(with_wal(2), backup)
    assert early.verdict is FAIL and early.details["waits_for"] == str(backup.stop_lsn)
    never = wal_is_continuous(with_wal(2, 4), backup)
    assert never.verdict is FAIL and "can never become consistent" in never.summary
    later = wal_is_continuous(with_wal(2, 3, 5), backup)
    assert later.verdict is FAIL and f"reaches no further than {at(4)}" in later.summary
    assert wal_is_continuous(with_wal(2, 3, 5), backup, to_now=False).passed
    assert wal_is_continuous(with_wal(2, 5), backup, to_now=False).verdict is FAIL


def test_wal_goes_on_along_the_timelines() -> None:
    repository = with_wal(2, 3, repository=None)
    repository.wal("shop", "1").put_history(TWO, f"1\t{at(3.7)}\tno recovery target specified\n".encode())
    with_wal(3, 4, line=TWO, repository=repository)
    through = wal_is_continuous(repository, backup_at(2.2, 2.5))
    assert through.passed and (through.details["timeline"], through.details["to_lsn"]) == (2, str(at(5)))
    left = wal_is_continuous(with_wal(4, repository=repository), backup_at(3.8, 4.2))
    assert left.passed and "which the server has left" in left.summary
    for info in [*repository.store.list()]:
        if "history" in info.key:
            repository.store.delete(info.key)
    lost = wal_is_continuous(repository, backup_at(2.2, 2.5))
    assert lost.verdict is FAIL and "history file of timeline 2" in lost.summary


def test_what_is_older_than_the_window_needs_the_wal_that_makes_it_consistent_only() -> None:
    def taken(days_ago: int, begin: float, end: float, label: str) -> BackupManifest:
        when = NOW - timedelta(days=days_ago)
        return backup_at(begin, end, label, started_at=when, finished_at=when)

    repository = with_wal(2, 3, 9)
    old = put_backup(repository.store, taken(90, 2.2, 3.5, "20251004T120000Z-full"))
    site = site_of({"primary": repository.store}, clock=FixedClock(NOW))
    only = {"wal_is_continuous"}
    [alone] = check_backup(site, "shop", old.label, "primary", Silent(), only=only)
    assert alone.verdict is FAIL  # the window begins with it
    put_backup(repository.store, taken(60, 9.1, 9.5, "20251103T120000Z-full"))
    [older] = check_backup(site, "shop", old.label, "primary", Silent(), only=only)
    assert older.passed and "was let go" in older.summary
