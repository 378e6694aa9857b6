"""Restores of file sets: what comes back is what was there, nothing else is touched, and what cannot come back is
named."""

from __future__ import annotations

import os
import struct
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dr_pipelines.checks import failed
from dr_pipelines.errors import BackupNotFound, IntegrityError, RestoreError, StoreUnavailable, TargetInUse, UsageError
from dr_pipelines.files.pack_builder import LARGE, PACK_SIZE
from dr_pipelines.files.staging import staging_for
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.encryption import generate_identity
from dr_pipelines.repository.manifest import StoredObject
from dr_pipelines.repository.marks import ANOMALY, VALIDATE, put_damage, put_proof
from dr_pipelines.repository.snapshot_manifest import Snapshot
from tests.support.faulty_store import FaultyStore
from tests.support.file_sets import BEGIN, FileSet, repository, tree
from tests.support.file_tiers import flip


@pytest.fixture
def files(tmp_path: Path) -> FileSet:
    return FileSet(tmp_path / "set")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def filling(size: int, seed: int = 0) -> bytes:
    """The same for the same numbers."""
    piece = bytes(range(256)) * 16
    return b"".join((seed + number).to_bytes(8, "little") + piece for number in range(size // 4000 + 1))[:size]


def nasty(source: Path) -> None:
    """All that a tree may have."""
    root = os.fsencode(source)
    for name in (b"caf\xc3\xa9", b"\xff\xfe", b"new\nline", b" spaces ", b"-rf", b"n" * 255, b"[a]*?", b"..."):
        Path(os.fsdecode(root + b"/" + name)).write_bytes(name)
    for size in (0, 1, 511, 512, 513, LARGE - 1, LARGE, LARGE + 1):
        (source / f"of-{size}").write_bytes(filling(size, size))
    (source / "deep" / "er").mkdir(parents=True)
    (source / "deep" / "empty").mkdir(mode=0o2711)
    (source / "deep" / "er" / "again").write_bytes(filling(513, 513))  # a content that is there twice
    (source / "dangling").symlink_to("nowhere")
    (source / "absolute").symlink_to("/etc/passwd")
    (source / "deep" / "up").symlink_to("../of-1")
    os.link(source / "of-512", source / "deep" / "twin")
    os.link(source / "of-0", source / "deep" / "empty-twin")
    (source / "deep" / "er" / "again").chmod(0o4755)
    os.chown(source / "of-1", 12345, 54321)
    (source / "of-1").chmod(0o600)
    os.utime(source / "of-1", ns=(1, 1_234_567_890_123_456_789))
    os.utime(source / "deep" / "up", ns=(1, 987_654_321), follow_symlinks=False)
    os.utime(source / "deep", ns=(1, 111_222_333_444_555_666))
    (source / "deep").chmod(0o555)


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
def test_a_nasty_tree_comes_back_as_it_was(tmp_path: Path, encrypted: bool) -> None:
    identity = generate_identity()
    codec = Codec(1, [str(identity.recipient)], [identity.reveal()]) if encrypted else Codec(1)
    files = FileSet(tmp_path / "set", [repository(codec=codec)])
    nasty(files.source)
    files.take()
    report = files.restore(tmp_path / "new" / "target")
    assert tree(tmp_path / "new" / "target") == tree(files.source)
    assert not report.failed
    assert report.files == 19
    assert [*(tmp_path / "new").iterdir()] == [tmp_path / "new" / "target"]


NAMES = st.text(alphabet="ab.~é\n ", min_size=1, max_size=4).filter(lambda name: name not in (".", ".."))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.lists(NAMES, min_size=1, max_size=3).map("/".join), st.binary(max_size=600), max_size=8))
def test_whatever_was_taken_is_what_comes_back(
    tmp_path_factory: pytest.TempPathFactory, tree_of: dict[str, bytes]
) -> None:
    files = FileSet(tmp_path_factory.mktemp("any") / "set")
    for name, content in tree_of.items():
        path = files.source / name
        if not path.exists() and not any(parent.is_file() for parent in path.parents):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    files.take()
    files.restore(files.folder / "target")
    assert tree(files.folder / "target") == tree(files.source)


MODES = (0o644, 0o600, 0o666, 0o777, 0o400, 0o4755, 0o2755, 0o6711, 0o000)


@pytest.mark.parametrize("masked", [0o022, 0o077, 0o000])
@pytest.mark.parametrize("told", ["nothing", "a group", "rights"])
def test_modes_and_owners_are_those_of_the_snapshot_whatever_a_new_file_has(
    files: FileSet, tmp_path: Path, masked: int, told: str
) -> None:
    """The target may hand down a group or rights of its own to what is made in it."""
    files.write({f"{mode:o}": b"x" for mode in MODES})
    for mode in MODES:
        (files.source / f"{mode:o}").chmod(mode)
    if os.geteuid() == 0:
        files.write({"another's": b"y"})
        os.chown(files.source / "another's", 12, 34)
        (files.source / "another's").chmod(0o4755)
    files.take()
    place = tmp_path / "place"
    place.mkdir()
    if told == "a group" and os.geteuid() == 0:
        os.chown(place, 0, 34)
        place.chmod(0o2755)
    if told == "rights":
        try:
            os.setxattr(place, "system.posix_acl_default", _default_acl(owner=6, group=4, other=0))
        except OSError as error:
            pytest.skip(f"no access control lists here: {error.strerror}")
    usual = os.umask(masked)
    try:
        files.restore(place / "target")
    finally:
        os.umask(usual)
    assert tree(place / "target") == tree(files.source)


def _default_acl(*, owner: int, group: int, other: int) -> bytes:
    """Source: Linux, include/uapi/linux/posix_acl_xattr.h."""
    entries = ((0x01, owner), (0x04, group), (0x20, other))
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", tag, rights, 0xFFFFFFFF) for tag, rights in entries)


def test_a_file_over_several_packs_comes_back_whole(files: FileSet, tmp_path: Path) -> None:
    content = os.urandom(4096) * ((2 * PACK_SIZE) // 4096) + b"end"
    files.write({"big": content, "small": b"1"})
    os.link(files.source / "big", files.source / "same")
    files.take()
    report = files.restore(tmp_path / "target")
    assert tree(tmp_path / "target") == tree(files.source)
    assert report.packs == 4


# --- which ---


def test_paths_and_patterns_choose(files: FileSet, tmp_path: Path) -> None:
    files.write({name: name.encode() for name in ("a/x.txt", "a/b/y.txt", "a/b/z.jpg", "c/y.txt", "y.txt", "[y].txt")})
    files.take()
    for number, (wanted, found) in enumerate(
        {
            "a": ["a/b/y.txt", "a/b/z.jpg", "a/x.txt"],
            "a/b/": ["a/b/y.txt", "a/b/z.jpg"],
            "*.txt": ["[y].txt", "y.txt"],
            "**/y.txt": ["a/b/y.txt", "c/y.txt", "y.txt"],
            "a/**": ["a/b/y.txt", "a/b/z.jpg", "a/x.txt"],
            "?/[!x]*": ["a/b/y.txt", "a/b/z.jpg", "c/y.txt"],
            "[y].txt": ["[y].txt"],
        }.items()
    ):
        target = tmp_path / str(number)
        files.restore(target, paths=[wanted])
        assert sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()) == found, wanted
    with pytest.raises(UsageError, match="has no x/y"):
        files.restore(tmp_path / "none", paths=["a", "x/y"])
    assert not (tmp_path / "none").exists()


def test_only_the_packs_that_are_needed_are_read(files: FileSet, tmp_path: Path) -> None:
    files.write({"one": b"1" * 1000})
    files.take()
    files.write({"two": b"2" * 1000, "large": filling(LARGE)})
    files.take()
    assert files.restore(tmp_path / "a", paths=["one"]).packs == 1
    assert files.restore(tmp_path / "b").packs == 3


def test_a_snapshot_is_found_by_label_time_and_as_the_latest(files: FileSet, tmp_path: Path) -> None:
    for number in range(3):
        files.write({"a": str(number).encode()})
        os.utime(files.source / "a", ns=(number, number))
        label = files.take().label
    for wanted, content in {
        "latest": b"2", label: b"2", BEGIN + timedelta(hours=2.5): b"1", BEGIN + timedelta(hours=1): b"0"
    }.items():  # fmt: skip
        files.restore(tmp_path / content.decode(), wanted, overwrite=True)
        assert (tmp_path / content.decode() / "a").read_bytes() == content
    with pytest.raises(BackupNotFound):
        files.restore(tmp_path / "none", BEGIN)
    with pytest.raises(BackupNotFound):
        files.restore(tmp_path / "none", "20200101T000000Z-snapshot")


def test_the_latest_is_none_that_is_damaged_or_failed_and_an_unusual_one_is_told(
    files: FileSet, tmp_path: Path
) -> None:
    taken = []
    for number in range(4):
        files.write({"a": str(number).encode()})
        taken.append(files.take())
    store = files.tiers[0].store
    put_damage(store, taken[3].layout, [taken[3].table.key], at=BEGIN, found_by="test")
    for manifest, kind in ((taken[2], VALIDATE), (taken[1], ANOMALY)):
        put_proof(store, manifest.layout, kind, failed("some_check", "no"), at=BEGIN, tier="primary", run="test")
    report = files.restore(tmp_path / "target")
    assert report.snapshot == taken[1].label
    assert len([note for note in files.notes if "left out" in note or "is unusual" in note]) == 2


# --- never over what is there ---


def test_what_is_there_stays_unless_it_may_be_replaced(files: FileSet, tmp_path: Path) -> None:
    files.write({"same": b"s", "changed": b"new", "d/absent": b"a", "d/link-there": b"l", "folder-there": b"f"})
    files.take()
    target, outside = tmp_path / "target", tmp_path / "outside"
    files.restore(target, paths=["same"])
    outside.write_bytes(b"not ours")
    (target / "changed").write_bytes(b"mine")
    (target / "other").write_bytes(b"other")
    (target / "d").mkdir(mode=0o700)
    (target / "d" / "link-there").symlink_to(outside)
    (target / "folder-there").mkdir()
    report = files.restore(target)
    assert report.kept == ("changed", "d/link-there")
    assert (report.same, report.files) == (1, 1)
    assert [*report.failed] == ["folder-there"]
    assert (target / "changed").read_bytes() == b"mine"
    assert (target / "d" / "absent").read_bytes() == b"a"
    assert (target / "d").stat().st_mode & 0o777 == 0o700
    report = files.restore(target, overwrite=True)
    assert (report.kept, report.same, report.files) == ((), 2, 2)
    assert (target / "changed").read_bytes() == b"new"
    assert (target / "d" / "link-there").read_bytes() == b"l"
    assert (target / "folder-there").is_dir()
    assert outside.read_bytes() == b"not ours"
    assert (target / "other").read_bytes() == b"other"
    with pytest.raises(RestoreError, match="folder-there: the target has a directory"):
        report.require_whole()


def test_an_empty_directory_is_filled_and_a_file_is_no_target(files: FileSet, tmp_path: Path) -> None:
    files.write({"a": b"a"})
    files.take()
    (tmp_path / "empty").mkdir(mode=0o750)
    files.restore(tmp_path / "empty")
    assert (tmp_path / "empty").stat().st_mode & 0o777 == 0o750
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    for used in ("file", "link"):
        with pytest.raises(TargetInUse):
            files.restore(tmp_path / used)


def test_a_link_of_the_target_is_not_followed(files: FileSet, tmp_path: Path) -> None:
    files.write({"d/e/a": b"a", "d/b": b"b", "ok": b"ok"})
    files.take()
    target, outside = tmp_path / "target", tmp_path / "outside"
    outside.mkdir()
    target.mkdir()
    (target / "d").symlink_to(outside)
    for overwrite in (False, True):
        report = files.restore(target, overwrite=overwrite)
        assert set(report.failed) == {"d", "d/e", "d/e/a", "d/b"}
        assert not [*outside.iterdir()]
        assert (target / "ok").read_bytes() == b"ok"


# --- tables that lie ---


@pytest.mark.parametrize(
    "path", [b"../out", b"/out", b"a/../../out", b"..", b".", b"a//b", b"a/./b", b"", b"a\0b", b"x/", b"n" * 300]
)
def test_a_path_that_is_none_is_refused_by_name(files: FileSet, tmp_path: Path, path: bytes) -> None:
    files.write({"1": b"1", "2": b"2", "3": b"3"})
    files.take()
    files.forge({"path": [b"good", path, b"z-good"]})
    before = {*tmp_path.iterdir()}
    report = files.restore(tmp_path / "target")
    assert {*tmp_path.iterdir()} == {*before, tmp_path / "target"}
    assert names(tmp_path / "target") == ["good", "z-good"]
    assert len(report.failed) == 1
    with pytest.raises(RestoreError, match="1 of the wanted paths"):
        report.require_whole()


def test_nothing_goes_through_a_link_of_the_snapshot(files: FileSet, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    files.write({"1": b"1", "2": b"2", "3": b"3"})
    (files.source / "l").symlink_to(outside)
    files.take()
    files.forge({"path": [b"l/a", b"l/b/c", b"ok", b"l"]})
    report = files.restore(tmp_path / "target")
    assert set(report.failed) == {"l/a", "l/b/c"}
    assert not [*outside.iterdir()]
    assert (tmp_path / "target" / "l").readlink() == outside
    files.forge({"path": [b"f", b"f/x", b"l", b"l"]})  # a path twice, and one below a file
    report = files.restore(tmp_path / "again")
    assert set(report.failed) == {"f/x", "l"}


@pytest.mark.parametrize(
    "columns",
    [
        {"offset": [512, 1 << 40, 512]},
        {"offset": [512, -512, 512]},
        {"offset": [512, 513, 512]},
        {"archive": [None, "elsewhere", None]},
        {"sha256": [None, bytes(32), None]},
        {"size": [1, -1, 1]},
    ],
)
def test_a_row_that_lies_of_its_content_is_named_and_nothing_stays_of_it(
    files: FileSet, tmp_path: Path, columns: dict[str, list[object]]
) -> None:
    files.write({"1": b"1", "2": b"2", "3": b"3"})
    manifest = files.take()
    table = files.read().table(manifest)
    forged = {
        name: [values[1] if row == 1 else old for row, old in enumerate(table[name].to_pylist())]
        for name, values in columns.items()
    }
    files.forge(forged)
    report = files.restore(tmp_path / "target")
    assert [*report.failed] == ["2"]
    assert names(tmp_path / "target") == ["1", "3"]


def test_what_the_snapshot_could_not_read_is_named(files: FileSet, tmp_path: Path) -> None:
    files.write({"1": b"1", "2": b"2"})
    files.take()
    files.forge({"error": [None, "permission denied"], "sha256": [bytes(32), None]})
    report = files.restore(tmp_path / "target")
    assert report.failed["2"] == "the snapshot has not got it: permission denied"


@pytest.mark.skipif(os.geteuid() != 0, reason="root is needed to become somebody who may read less")
def test_a_directory_that_cannot_be_listed_makes_a_snapshot_partial_and_is_named(folder: Path, tmp_path: Path) -> None:
    files = FileSet(folder / "set")
    files.write({"closed/a": b"a", "b": b"b"})
    (files.source / "closed").chmod(0)
    os.chown(files.folder, 65534, -1)
    os.seteuid(65534)
    try:
        manifest = files.take()
    finally:
        os.seteuid(0)
    assert (manifest.partial, manifest.counts.unreadable, manifest.counts.directories) == (True, 1, 1)
    report = files.restore(tmp_path / "target")
    assert report.failed == {"closed": "the snapshot has not got it: permission denied"}
    assert names(tmp_path / "target") == ["b", "closed"]


# --- damage ---


def archive_of(manifest: Snapshot, path: str, files: FileSet) -> tuple[tuple[StoredObject, ...], set[str]]:
    """The packs that a file lies in, and all files of these."""
    rows = files.read().table(manifest).select(["path", "archive"]).to_pylist()
    name = next(row["archive"] for row in rows if row["path"] == path.encode())
    packs = next(one.packs for one in manifest.archives if one.name == name)
    return packs, {row["path"].decode() for row in rows if row["archive"] == name}


@pytest.mark.parametrize("damaged", ["small", "large"])
def test_a_damaged_pack_costs_its_files_and_they_come_from_another_tier(
    files: FileSet, tmp_path: Path, damaged: str
) -> None:
    files.write({"large": os.urandom(64) * (PACK_SIZE // 64 + 1), "small": b"s", "b": b"b" * 100})
    manifest = files.take()
    copy = files.copy_to("secondary")
    packs, lost = archive_of(manifest, damaged, files)
    flip(files.tiers[0].store, packs[-1].key)
    assert not files.restore(tmp_path / "from-both").failed
    assert any("cannot be read from primary" in note for note in files.notes)
    assert tree(tmp_path / "from-both") == tree(files.source)
    copy.store.delete(packs[-1].key)
    report = files.restore(tmp_path / "target", manifest.label)
    assert set(report.failed) == lost
    assert packs[-1].key in next(iter(report.failed.values()))
    assert {*names(tmp_path / "target")} == {"large", "small", "b"} - lost


def test_a_table_comes_from_another_tier_or_nothing_is_restored(files: FileSet, tmp_path: Path) -> None:
    files.write({"a": b"a"})
    manifest = files.take()
    copy = files.copy_to("secondary")
    flip(files.tiers[0].store, manifest.table.key)
    files.restore(tmp_path / "whole")
    flip(copy.store, manifest.table.key)
    with pytest.raises(IntegrityError, match="whole on none of primary, secondary"):
        files.restore(tmp_path / "target")
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("wanted", ["latest", "by label"])
@pytest.mark.parametrize("bad", ["gone", "damaged"])
def test_a_list_of_archives_comes_from_another_tier(files: FileSet, tmp_path: Path, bad: str, wanted: str) -> None:
    files.write({"a": b"a", "empty": b""})
    manifest = files.take()
    copy, key = files.copy_to("secondary"), manifest.lists[0].key
    for store in (files.tiers[0].store, copy.store):
        flip(store, key) if bad == "damaged" else store.delete(key)
        report = files.restore(tmp_path / store.name, "latest" if wanted == "latest" else manifest.label)
        assert any(key in note for note in files.notes) or store is not copy.store
        if store is not copy.store:
            assert tree(tmp_path / store.name) == tree(files.source)
    assert [*report.failed] == ["a"]
    assert names(tmp_path / "secondary") == ["empty"]


def test_a_tier_that_is_down_is_stood_in_for_or_the_restore_ends(files: FileSet, tmp_path: Path) -> None:
    files.write({"a": b"a", "big": filling(LARGE)})
    manifest = files.take()
    copy, first = files.copy_to("secondary"), files.tiers[0]
    for call in range(1, 9):
        files.tiers[0] = repository(store=FaultyStore(first.store))
        files.tiers[0].store.fail_at, files.tiers[0].store.stays_down = call + 2, True  # type: ignore[attr-defined]
        files.restore(tmp_path / str(call))
        assert tree(tmp_path / str(call)) == tree(files.source)
    files.tiers = [repository("secondary", FaultyStore(copy.store))]
    files.tiers[0].store.fail_at = 2 + 4  # type: ignore[attr-defined]  after the manifest and its list
    with pytest.raises(StoreUnavailable):
        files.restore(tmp_path / "target", manifest.label)
    assert not (tmp_path / "target").exists()
    assert not [*tmp_path.glob("target*")]


def test_what_a_killed_restore_left_goes_and_what_runs_stays(files: FileSet, tmp_path: Path) -> None:
    files.write({"a": b"a"})
    files.take()
    dead, other = tmp_path / "target.partial-00000000", tmp_path / "target.partial-mine"
    for left in (dead, other):
        left.mkdir()
        (left / "x").write_bytes(b"x")
    with staging_for(tmp_path / "target", 0) as running:
        files.restore(tmp_path / "target")
        assert running.exists()
    assert sorted(path.name for path in tmp_path.glob("target*")) == ["target", "target.partial-mine"]
