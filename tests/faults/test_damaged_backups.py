"""Damage of every kind to stored backups: verify names it, a restore goes another way and says so or refuses, and
nothing that does not match its SHA-256 is ever in a target."""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import pytest

from dr_pipelines.checks import CheckResult, Verdict
from dr_pipelines.clock import SystemClock
from dr_pipelines.commands import Runner
from dr_pipelines.embedded.postgres import EmbeddedPostgres, open_folder
from dr_pipelines.errors import IntegrityError, KeyUnusable, ObjectNotFound, RepositoryError
from dr_pipelines.postgres.restore import RestoreReport, restore
from dr_pipelines.postgres.tar_stream import END
from dr_pipelines.postgres.verify import CONTENTS_MATCH, verify
from dr_pipelines.progress import Silent
from dr_pipelines.repository.archive_writer import PACK_SIZE
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.encryption import encrypt, generate_identity
from dr_pipelines.repository.layout import BackupKind
from dr_pipelines.repository.manifest import Archive, BackupManifest, encode
from dr_pipelines.repository.repository import Repository
from dr_pipelines.storage.local import LocalStore
from tests.support.live import Live, running


@dataclass(frozen=True)
class Stored:
    """A full `first`, an incremental on it, a full `second` and the WAL of all, in the folder `root` of a store. Row n
    of `orders` was committed before the nth backup, row 4 after all."""

    live: Live
    root: Path
    codec: Codec
    first: BackupManifest
    incremental: BackupManifest
    second: BackupManifest

    @property
    def repository(self) -> Repository:
        return self.read_with(self.codec)

    def read_with(self, codec: Codec) -> Repository:
        return Repository(LocalStore(self.root, "primary"), codec, "primary")

    def copy(self, root: Path) -> Stored:
        shutil.copytree(self.root, root)
        return replace(self, root=root)

    def path(self, key: str) -> Path:
        return self.root / key

    def rewrite(self, manifest: BackupManifest) -> None:
        """Our manifest says something else, and says it well."""
        self.path(manifest.layout.manifest).write_bytes(encode(manifest))

    def restore(self, target: Path, *more: Repository, label: str | None = None) -> RestoreReport:
        request = replace(self.live.request(target), label=label)
        repositories = [self.repository, *more]
        return restore(request, repositories, clock=SystemClock(), runner=Runner(), progress=Silent())

    def verify(self, label: str) -> list[CheckResult]:
        return verify(self.repository, self.repository.backup("shop", label), progress=Silent())


@pytest.fixture(scope="module")
def whole(identity: tuple[str, str]) -> Iterator[Stored]:
    base = open_folder("dr-test-damage-")
    server = EmbeddedPostgres(
        base / "data", settings={"summarize_wal": "on", "fsync": "off"}, initdb=("--wal-segsize=1",)
    )
    codec = Codec(1, (identity[1],), (identity[0],))
    repository = Repository(LocalStore(base / "store", "primary"), codec, "primary")
    repository.initialise()
    live = Live(server, repository, base / "state")
    try:
        server.start()
        server.psql("CREATE TABLE orders (id int PRIMARY KEY)")
        taken = []
        with live.streaming():
            for number, kind in enumerate((BackupKind.FULL, BackupKind.INCREMENTAL, BackupKind.FULL), 1):
                server.psql(f"INSERT INTO orders VALUES ({number})")
                taken.append(live.take(kind))
            server.psql("INSERT INTO orders VALUES (4)")
            server.kill()
        yield Stored(live, base / "store", codec, *taken)
    finally:
        server.kill()
        shutil.rmtree(base, ignore_errors=True)


@pytest.fixture
def stored(whole: Stored, tmp_path: Path) -> Stored:
    """A copy to be damaged."""
    return whole.copy(tmp_path / "store")


# --- the damage: each spoils `second` and returns what must be named ---


def _flip(path: Path, at: float = 0.5) -> None:
    data = bytearray(path.read_bytes())
    data[int(len(data) * at)] ^= 1
    path.write_bytes(data)


def truncated_pack(stored: Stored) -> str:
    key = stored.second.archive.packs[0].key
    stored.path(key).write_bytes(stored.path(key).read_bytes()[:-100])
    return key


def longer_pack(stored: Stored) -> str:
    key = stored.second.archive.packs[0].key
    stored.path(key).write_bytes(stored.path(key).read_bytes() + b"more")
    return key


def flipped_pack(stored: Stored) -> str:
    key = stored.second.archive.packs[0].key
    _flip(stored.path(key))
    return key


def missing_pack(stored: Stored) -> str:
    key = stored.second.archive.packs[0].key
    stored.path(key).unlink()
    return key


def flipped_backup_manifest(stored: Stored) -> str:
    key = stored.second.backup_manifest.key
    _flip(stored.path(key))
    return key


def missing_backup_manifest(stored: Stored) -> str:
    key = stored.second.backup_manifest.key
    stored.path(key).unlink()
    return key


def pack_of_another_backup(stored: Stored) -> str:
    """Two packs swapped, as by a careless copy."""
    ours, other = (stored.path(backup.archive.packs[0].key) for backup in (stored.second, stored.incremental))
    data = ours.read_bytes()
    ours.write_bytes(other.read_bytes())
    other.write_bytes(data)
    return stored.second.archive.packs[0].key


def _replaced(stored: Stored, data: bytes, size: int | None = None) -> str:
    """Other bytes in the pack's place, which our manifest calls right."""
    pack = stored.second.archive.packs[0]
    stored.path(pack.key).write_bytes(data)
    named = pack.model_copy(update={"size": len(data), "sha256": sha256(data).hexdigest()})
    archive = Archive(size=size or stored.second.archive.size, pack_size=PACK_SIZE, packs=(named,))
    stored.rewrite(stored.second.model_copy(update={"archive": archive}))
    return pack.key


def no_zstd(stored: Stored) -> str:
    return _replaced(stored, encrypt(b"encrypted, and no zstd", stored.codec.recipients))


def zstd_of_another_size(stored: Stored) -> str:
    return _replaced(stored, stored.codec.encode(b"x" * 1000))


def no_tar(stored: Stored) -> str:
    _replaced(stored, stored.codec.encode(b"x" * stored.second.archive.size))
    return "no valid header"


def a_file_that_the_server_did_not_send(stored: Stored) -> str:
    whole = b"".join(bytes(pack) for pack in stored.repository.open_archive(stored.second).pieces())
    more = io.BytesIO()
    with tarfile.open(fileobj=more, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo("pg_hba.conf.d"))
    data = whole.removesuffix(END) + more.getvalue()
    _replaced(stored, stored.codec.encode(data), size=len(data))
    return "pg_hba.conf.d"


def contents_of_another_backup(stored: Stored) -> str:
    """Every SHA-256 of ours is right; only PostgreSQL's own checksums tell."""
    data = stored.path(stored.first.archive.packs[0].key).read_bytes()
    stored.path(stored.second.archive.packs[0].key).write_bytes(data)
    pack = stored.first.archive.packs[0].model_copy(update={"key": stored.second.archive.packs[0].key})
    archive = Archive(size=stored.first.archive.size, pack_size=PACK_SIZE, packs=(pack,))
    stored.rewrite(stored.second.model_copy(update={"archive": archive}))
    return "backup_label"  # every backup's own


def a_wrong_digit_in_our_manifest(stored: Stored) -> str:
    """Written so, not damaged later."""
    pack, *others = stored.second.archive.packs
    wrong = pack.model_copy(update={"sha256": ("1" if pack.sha256[0] == "0" else "0") + pack.sha256[1:]})
    archive = stored.second.archive.model_copy(update={"packs": (wrong, *others)})
    stored.rewrite(stored.second.model_copy(update={"archive": archive}))
    return pack.key


DAMAGES = [
    truncated_pack, longer_pack, flipped_pack, missing_pack, flipped_backup_manifest, missing_backup_manifest,
    pack_of_another_backup, no_zstd, zstd_of_another_size, no_tar, contents_of_another_backup,
    a_file_that_the_server_did_not_send, a_wrong_digit_in_our_manifest,
]  # fmt: skip


def _named_by(checks: Sequence[CheckResult]) -> str:
    return " ".join(f"{check.summary} {dict(check.details)}" for check in checks if check.verdict is Verdict.FAIL)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_verify_names_it_and_no_restore_takes_it(damage: Callable[[Stored], str], stored: Stored, folder: Path) -> None:
    named = damage(stored)
    assert named in _named_by(stored.verify(stored.second.label))
    with pytest.raises((IntegrityError, ObjectNotFound)) as caught:
        stored.restore(folder / "target", label=stored.second.label)
    assert named in caught.value.message or "is not what its server sent" in caught.value.message
    assert not list(folder.iterdir())
    assert all(check.passed for check in stored.verify(stored.first.label))


def test_a_damaged_index_is_found_although_no_restore_needs_it(stored: Stored) -> None:
    _flip(stored.path(stored.second.index.key))
    assert stored.second.index.key in _named_by(stored.verify(stored.second.label))


@pytest.mark.parametrize("damage", [flipped_pack, pack_of_another_backup, contents_of_another_backup])
def test_the_other_backup_gives_the_newest_commit(
    damage: Callable[[Stored], str], stored: Stored, folder: Path
) -> None:
    damage(stored)
    report = stored.restore(folder / "target")
    assert report.chain == (stored.first.label,)
    assert any(f"{stored.second.label} on primary cannot be used" in note for note in report.notes)
    with running(report.data_dir) as server:
        assert server.psql("SELECT count(*) FROM orders") == "4"


@pytest.mark.parametrize("damage", ["cut", "flipped", "of another", "newer"])
def test_a_manifest_of_ours_that_cannot_be_read_is_said(damage: str, stored: Stored, folder: Path) -> None:
    key = stored.second.layout.manifest
    other = {
        "cut": stored.path(key).read_text()[:-10],
        "flipped": stored.path(key).read_text().replace(stored.second.system_id, f"1{stored.second.system_id[1:]}"),
        "of another": encode(stored.first).decode(),
        "newer": encode(stored.second.model_copy(update={"format": 99})).decode(),
    }
    stored.path(key).write_text(other[damage])
    with pytest.raises((RepositoryError, IntegrityError), match=key):
        stored.verify(stored.second.label)
    with pytest.raises((RepositoryError, IntegrityError), match=key):
        stored.restore(folder / "target", label=stored.second.label)
    assert not list(folder.iterdir())
    if damage in ("cut", "flipped"):
        report = stored.restore(folder / "target")
        assert report.chain == (stored.first.label,)
        assert any(key in note for note in report.notes)


def test_another_tier_gives_the_same_backup(stored: Stored, whole: Stored, folder: Path) -> None:
    flipped_pack(stored)
    secondary = Repository(LocalStore(whole.root, "secondary"), whole.codec, "secondary")
    report = stored.restore(folder / "target", secondary, label=stored.second.label)
    assert (report.tier, report.chain) == ("secondary", (stored.second.label,))
    assert any("on primary cannot be used" in note and "SHA-256" in note for note in report.notes)


def test_when_all_is_damaged_nothing_is_restored(stored: Stored, folder: Path) -> None:
    for backup in (stored.first, stored.second):
        _flip(stored.path(backup.archive.packs[0].key), 0.9)
    with pytest.raises(IntegrityError, match="SHA-256") as caught:
        stored.restore(folder / "target")
    assert "dr verify" in (caught.value.hint or "")
    assert not list(folder.iterdir())


@pytest.mark.parametrize("who", ["somebody else", "nobody"])
def test_the_wrong_key_opens_nothing(who: str, whole: Stored, folder: Path) -> None:
    identities = (generate_identity().reveal(),) if who == "somebody else" else ()
    repository = whole.read_with(Codec(1, (), identities))
    request = whole.live.request(folder / "target")
    with pytest.raises(KeyUnusable) as caught:
        restore(request, [repository], clock=SystemClock(), runner=Runner(), progress=Silent())
    assert caught.value.hint
    assert not list(folder.iterdir())
    checks = {check.name: check for check in verify(repository, whole.second, progress=Silent())}
    assert checks.pop(CONTENTS_MATCH).verdict is Verdict.NOT_PROVEN
    assert all(check.passed for check in checks.values())
