"""Backups as archives: small ones made up for a test, and real ones decoded with nothing of ours but the packs."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from dr_pipelines.lsn import Lsn, Timeline
from dr_pipelines.postgres import backup_manifest
from dr_pipelines.postgres.backup_manifest import ManifestFile, ServerManifest
from dr_pipelines.postgres.merge import MAGIC
from dr_pipelines.postgres.unpack import Link
from dr_pipelines.repository.archive_reader import ArchiveReader
from dr_pipelines.repository.archive_writer import ArchiveBuffers, ArchiveWriter
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.layout import BackupKind, BackupLayout
from dr_pipelines.repository.manifest import BackupManifest, StoredObject, encode
from dr_pipelines.repository.repository import Repository
from dr_pipelines.storage.base import Body, ObjectStore, read_all
from dr_pipelines.storage.memory import MemoryStore

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SMALL_BLOCK = 16
"""Bytes; the format does not care, and models stay readable."""


def manifest(label: str = "20260102T030405Z-full", **changes: object) -> BackupManifest:
    """A full backup at 0/1000 to 0/2000 on timeline 1, with `changes`. `put_backup` makes it be there."""
    keys = BackupLayout("shop", label)
    fields: dict[str, object] = dict(
        server="shop", label=label, kind=BackupKind.FULL, asked_kind=BackupKind.FULL, started_at=AT, finished_at=AT,
        tool_version="0", taken_on="here", system_id="1", postgres_version="18.7", postgres_version_num=180007,
        segment_size=1 << 20, block_size=SMALL_BLOCK, data_checksums=True, timeline=Timeline(1),
        start_lsn=Lsn(0x1000), stop_lsn=Lsn(0x2000), encoding=Codec(1).encoding,
        archive={"size": 9, "pack_size": 9, "packs": (stored_object(keys.pack(0, ".zst")),)},
        backup_manifest=stored_object(keys.backup_manifest(".zst")), index=stored_object(keys.index(".zst")),
    )  # fmt: skip
    return BackupManifest.model_validate(fields | changes)


def content_of(key: str) -> bytes:
    """What `put_backup` puts there."""
    return f"the content of {key}".encode()


def stored_object(key: str) -> StoredObject:
    data = content_of(key)
    return StoredObject(key=key, size=len(data), sha256=hashlib.sha256(data).hexdigest())


def put_backup(store: ObjectStore, made: BackupManifest) -> BackupManifest:
    """Every object that it names, with a content that shows damage but decodes to nothing, and its manifest."""
    for named in made.objects:
        store.put(named.key, Body.of(content_of(named.key)))
    store.put(made.layout.manifest, Body.of(encode(made)))
    return made


def member(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.mode = kind, len(content), 0o600
    info.linkname = "/etc" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
    return info, content


def link(
    files: Mapping[str, bytes],
    *,
    label: str = "20260102T030405Z-full",
    members: Iterable[tuple[tarfile.TarInfo, bytes]] = (),
    told: Mapping[str, bytes] | None = None,
    pack_size: int = 1024,
    cut: int = 0,
) -> Link:
    """A backup of `files` and `members` in memory. Its backup_manifest tells of `told`, else of `files`; the last
    `cut` bytes of its members are missing."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w", format=tarfile.USTAR_FORMAT) as out:
        for info, content in (*(member(name, content) for name, content in files.items()), *members):
            out.addfile(info, io.BytesIO(content))
        size = out.offset  # without the zeros that tarfile fills up with
    store, codec = MemoryStore(), Codec(1)

    def put(number: int, body: Body) -> StoredObject:
        store.put(f"packs/{number}", body)
        return StoredObject(key=f"packs/{number}", size=body.size, sha256=body.sha256)

    writer = ArchiveWriter(put, codec, ArchiveBuffers(codec, pack_size=pack_size, frame_size=pack_size))
    writer.write(tar.getvalue()[: size - cut])
    archive = writer.close()
    named = {path: _named(path, content) for path, content in (files if told is None else told).items()}
    return Link(
        manifest(label, archive=archive), ArchiveReader(store, archive, codec), ServerManifest(named, (), system_id="1")
    )


def incremental(blocks: Mapping[int, bytes], truncation_length: int, block_size: int = SMALL_BLOCK) -> bytes:
    """The content of an `INCREMENTAL.` member, as PostgreSQL's `basebackup_incremental.c` writes it."""
    numbers = sorted(blocks)
    head = struct.pack(f"=III{len(numbers)}I", MAGIC, len(numbers), truncation_length, *numbers)
    if numbers:
        head = head.ljust(-(-len(head) // block_size) * block_size, b"\0")
    return head + b"".join(blocks[number] for number in numbers)


def stored_link(repository: Repository, backup: BackupManifest) -> Link:
    """A backup of a repository, ready to be unpacked."""
    data = repository.codec.decode(read_all(repository.store, backup.backup_manifest.key))
    return Link(backup, repository.open_archive(backup), backup_manifest.parse(data))


def extract(repository: Repository, backup: BackupManifest, folder: Path) -> None:
    """A backup in plain format, as the break-glass guide makes it for PostgreSQL's own programs."""
    folder.mkdir(mode=0o700)
    whole = b"".join(bytes(pack) for pack in repository.open_archive(backup).pieces())
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        tar.extractall(folder)
    told = repository.codec.decode(read_all(repository.store, backup.backup_manifest.key))
    (folder / "backup_manifest").write_bytes(told)


def tree(folder: Path, leave_out: Sequence[str] = ()) -> dict[str, bytes | None]:
    """Every path below `folder` with its content; None for a directory."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        if str(path.relative_to(folder)) not in leave_out
    }


def _named(path: str, content: bytes) -> ManifestFile:
    return ManifestFile(path, len(content), "SHA256", hashlib.sha256(content).hexdigest())


def repack(repository: Repository, backup: BackupManifest, change: Callable[[str, bytes], bytes]) -> BackupManifest:
    """The backup as if its server had sent other members: everything about it is right but what `change` made."""
    whole = b"".join(bytes(pack) for pack in repository.open_archive(backup).pieces())
    tar, told = io.BytesIO(), stored_link(repository, backup).told
    files = dict(told.files)
    with tarfile.open(fileobj=io.BytesIO(whole)) as old, tarfile.open(fileobj=tar, mode="w") as new:
        for info in old.getmembers():
            content = file.read() if (file := old.extractfile(info)) is not None else b""
            changed = change(info.name, content)
            if changed != content:
                info.size, files[info.name] = len(changed), _named(info.name, changed)
            new.addfile(info, io.BytesIO(changed))

    def put(key: str, body: Body) -> StoredObject:
        repository.store.put(key, body, if_absent=False)
        return StoredObject(key=key, size=body.size, sha256=body.sha256)

    writer = ArchiveWriter(
        lambda number, body: put(backup.layout.pack(number, repository.codec.suffix), body), repository.codec
    )
    writer.write(tar.getvalue())
    archive = writer.close()
    described = Body.of(repository.codec.encode(_described(backup, repository, files)))
    made = backup.model_copy(update={"archive": archive, "backup_manifest": put(backup.backup_manifest.key, described)})
    put(backup.layout.manifest, Body.of(encode(made)))
    return made


def _described(backup: BackupManifest, repository: Repository, files: Mapping[str, ManifestFile]) -> bytes:
    """PostgreSQL's manifest, of other files."""
    old = json.loads(repository.codec.decode(read_all(repository.store, backup.backup_manifest.key)))
    del old["Manifest-Checksum"]
    old["Files"] = [
        {"Path": file.path, "Size": file.size, "Checksum-Algorithm": file.algorithm, "Checksum": file.checksum}
        for file in files.values()
    ]
    body = json.dumps(old)[:-1] + ",\n"
    return f'{body}"Manifest-Checksum": "{hashlib.sha256(body.encode()).hexdigest()}"}}\n'.encode()
