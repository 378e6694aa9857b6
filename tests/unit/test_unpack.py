"""Archives that are not what their server sent, or a disk that refuses: a clear error, and nothing stays open."""

from __future__ import annotations

import tarfile
from pathlib import Path

import psutil
import pytest

from dr_pipelines.errors import DrError, IntegrityError, RestoreError
from dr_pipelines.postgres.unpack import BACKUP_LABEL, PG_CONTROL, Link, unpack_chain
from tests.support.archives import SMALL_BLOCK, incremental, link, member, tree

_SOUND = {"base/5/1": b"one" * 1000, "base/5/2": b"", BACKUP_LABEL: b"LABEL: x\n", PG_CONTROL: b"control"}


def _unpack(target: Path, *chain: Link) -> bytes:
    target.mkdir(exist_ok=True)
    return unpack_chain(chain, target, advance=lambda _: None)


def _refused(target: Path, chain: list[Link], error: type[DrError], said: str) -> None:
    """Refused with the words, and no file of the target is open after."""
    with pytest.raises(error, match=said):
        _unpack(target, *chain)
    held = [file.path for file in psutil.Process().open_files()]
    assert [path for path in held if path.startswith(str(target))] == []


def test_a_backup_is_unpacked_without_pg_control(tmp_path: Path) -> None:
    folder = member("pg_notify", kind=tarfile.DIRTYPE)
    assert _unpack(tmp_path / "t", link(_SOUND, members=[folder], pack_size=700)) == b"control"
    files = {path: content for path, content in tree(tmp_path / "t").items() if content is not None}
    assert files == {path: content for path, content in _SOUND.items() if path != PG_CONTROL}
    assert (tmp_path / "t" / "pg_notify").is_dir()
    assert (tmp_path / "t" / "base" / "5" / "1").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", ["../outside", "base/../../outside", "/tmp/outside"])
def test_a_path_that_leads_out_of_the_target_is_refused(name: str, tmp_path: Path) -> None:
    said = "outside of the data directory"
    _refused(tmp_path / "t", [link({name: b"x", PG_CONTROL: b"c"})], IntegrityError, said)
    folder = member(name, kind=tarfile.DIRTYPE)
    _refused(tmp_path / "t", [link({PG_CONTROL: b"c"}, members=[folder])], IntegrityError, said)
    assert not (tmp_path / "outside").exists()


def test_links_are_refused(tmp_path: Path) -> None:
    bad = link(_SOUND, members=[member("base/link", kind=tarfile.SYMTYPE)], told=_SOUND | {"base/link": b""})
    _refused(tmp_path / "t", [bad], IntegrityError, "holds the link base/link")
    bad = link(_SOUND, members=[member("base/link", kind=tarfile.LNKTYPE)])
    _refused(tmp_path / "t", [bad], IntegrityError, "no valid header")
    assert not (tmp_path / "t" / "base" / "link").is_symlink()


def test_members_are_exactly_those_of_the_backup_manifest(tmp_path: Path) -> None:
    more = link(_SOUND | {"base/5/9": b"x"}, told=_SOUND)
    _refused(tmp_path / "t", [more], IntegrityError, "holds the file base/5/9")
    twice = link(_SOUND, members=[member("base/5/1", b"other")])
    _refused(tmp_path / "t", [twice], IntegrityError, "holds the file base/5/1")
    fewer = link(_SOUND, told=_SOUND | {"base/5/9": b"x"})
    _refused(tmp_path / "t", [fewer], IntegrityError, "lacks base/5/9")
    no_control = link({"base/5/1": b"x"})
    _refused(tmp_path / "t", [no_control], IntegrityError, "has no global/pg_control")


@pytest.mark.parametrize("path", list(_SOUND))
def test_contents_are_those_of_the_backup_manifest(path: str, tmp_path: Path) -> None:
    for wrong in (b"y" * len(_SOUND[path]), _SOUND[path] + b"y"):
        if wrong != _SOUND[path]:
            bad = link(_SOUND | {path: wrong}, told=_SOUND, pack_size=700)
            _refused(tmp_path / "t", [bad], IntegrityError, f"{path} in .* is not what its server sent")


def test_what_a_later_backup_no_longer_has_is_not_written(tmp_path: Path) -> None:
    _unpack(tmp_path / "t", link(_SOUND | {"base/5/dropped": b"x"}), link(_SOUND))
    assert not (tmp_path / "t" / "base" / "5" / "dropped").exists()


def test_what_a_later_backup_replaces_is_checked_too(tmp_path: Path) -> None:
    bad = link(_SOUND | {"base/5/1": b"y"}, told=_SOUND)
    _refused(tmp_path / "t", [bad, link(_SOUND)], IntegrityError, "base/5/1 in .* is not what its server sent")


def test_an_error_of_a_writing_thread_is_raised_and_leaves_no_file_open(tmp_path: Path) -> None:
    """Many files are being written when one cannot be: a folder is where a file should be."""
    files = {f"base/5/{number}": b"x" * 5000 for number in range(20)}
    target = tmp_path / "t"
    (target / "base" / "5" / "10").mkdir(parents=True)
    _refused(
        target, [link(files | {PG_CONTROL: b"c"}, pack_size=65536)], RestoreError, r"cannot write below .*base/5/10"
    )


def test_an_archive_that_ends_early_leaves_no_file_open(tmp_path: Path) -> None:
    """Whole files and changed blocks alike."""
    full = {PG_CONTROL: b"c", "base/5/1": bytes(600 * SMALL_BLOCK)}
    _refused(tmp_path / "whole", [link(full, cut=2000)], IntegrityError, "cut short")
    blocks = incremental({number: b"x" * SMALL_BLOCK for number in range(500)}, 600)
    short = link({PG_CONTROL: b"c", "base/5/INCREMENTAL.1": blocks}, cut=2000)
    _refused(tmp_path / "blocks", [link(full), short], IntegrityError, "cut short")


def test_an_incremental_that_is_none_is_refused(tmp_path: Path) -> None:
    full = link({"base/5/1": b"x" * 64, PG_CONTROL: b"c"})
    for content, said in ((b"garbage of any kind", "no valid header"), (incremental({}, 4)[:-1], "cut off")):
        bad = link({"base/5/INCREMENTAL.1": content, PG_CONTROL: b"c"})
        _refused(tmp_path / "t", [full, bad], IntegrityError, said)
