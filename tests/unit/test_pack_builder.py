"""Packs of small files, made in this process and in one of their own: what is in them is what was read."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import zstandard

from dr_pipelines.errors import UsageError
from dr_pipelines.files.pack_builder import (
    CHANGED,
    LARGE,
    LARGER,
    PACK_SIZE,
    READ,
    UNREADABLE,
    VANISHED,
    Builder,
    Outcome,
    PackBuilder,
    Sealed,
    encoded_size,
)
from dr_pipelines.files.pack_process import PackProcess
from dr_pipelines.files.source import OpenFile, Seen, Wanted
from dr_pipelines.files.tree import Tree
from dr_pipelines.repository.buffers import large_buffer
from dr_pipelines.repository.codec import Codec
from tests.support.watched_sources import write

MIB = 1 << 20


@dataclass
class Making:
    """Packs of the files below a directory."""

    root: Path
    builder: Builder
    codec: Codec
    wanted: dict[bytes, Wanted] = field(default_factory=dict)

    def want(self, names: Sequence[str | bytes]) -> list[Wanted]:
        """As a scan has them now."""
        paths = [os.fsencode(name) for name in names]
        found = [(row, path, (self.root / os.fsdecode(path)).stat()) for row, path in enumerate(paths)]
        return [Wanted(row, path, seen.st_size, seen.st_mtime_ns) for row, path, seen in found]

    def write(self, files: dict[str, bytes]) -> list[Wanted]:
        write(self.root, files)
        return self.want([*files])

    def read(self, wanted: Sequence[Wanted]) -> list[Outcome]:
        return self.builder.read(wanted, 1)

    def content(self, sealed: Sealed) -> dict[bytes, bytes]:
        """Of a pack, as `tar` reads it."""
        stored = bytes(self.builder.buffers[sealed.buffer][: sealed.stored])
        assert hashlib.sha256(stored).hexdigest() == sealed.sha256
        raw = zstandard.ZstdDecompressor().stream_reader(stored, read_across_frames=True).read()
        assert len(raw) == sealed.size <= PACK_SIZE
        with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
            for one in tar:
                assert not any(raw[one.offset_data + one.size : one.offset_data + padded(one.size)])
            members = {os.fsencode(one.name): tar.extractfile(one) for one in tar}
            return {path: file.read() for path, file in members.items() if file is not None}


def padded(size: int) -> int:
    return -(-size // 512) * 512


@pytest.fixture(params=["thread", "process"])
def making(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Making]:
    root, codec = tmp_path / "root", Codec(1)
    root.mkdir()
    tree = Tree(root)
    tree.begin()
    if request.param == "thread":
        yield Making(root, PackBuilder(tree, codec, [large_buffer(encoded_size(codec)) for _ in range(2)]), codec)
        return
    with closing(PackProcess(tree, codec)) as process:
        assert process.ready()
        yield Making(root, process, codec)


def test_only_what_is_kept_is_in_a_pack(making: Making) -> None:
    long = "/".join(["n" * 240] * 14)
    files = {
        "dropped first": os.urandom(3000), "kept": b"k" * 512, "empty": b"", long: b"long", "a": b"a" * 511,
        "dropped": os.urandom(5 * MIB), "later": os.urandom(6 * MIB + 1), "dropped last": b"x", "ünï\nx": b"\0" * 513,
    }  # fmt: skip
    making.read(making.write({"all of it dropped": b"d" * 12 * MIB}))
    making.builder.keep([])
    outcomes = making.read(making.write(files))
    assert [one.what for one in outcomes] == [READ] * len(files)
    for content, outcome in zip(files.values(), outcomes, strict=True):
        assert (outcome.size, outcome.digest) == (len(content), hashlib.sha256(content).digest())
    kept = [number for number, name in enumerate(files) if not name.startswith("dropped")]
    making.builder.keep(kept)
    assert making.builder.end == sum(outcomes[number].taken for number in kept)
    wanted = {os.fsencode(name): content for name, content in files.items() if not name.startswith("dropped")}
    assert making.content(making.builder.seal()) == wanted


def test_a_name_that_is_no_text_is_as_it_was(making: Making) -> None:
    (making.root / os.fsdecode(b"raw\xff")).write_bytes(b"raw")
    making.read(making.want([b"raw\xff"]))
    making.builder.keep([0])
    assert making.content(making.builder.seal()) == {b"raw\xff": b"raw"}


def test_what_has_no_room_at_the_end_of_a_pack_is_in_the_next(making: Making) -> None:
    """And what is stored of one stays while the next is filled."""
    files = {f"{number}": os.urandom(1000) + bytes([number]) * (LARGE - 1001) for number in range(3)}
    files |= {"last": b"last"}
    wanted, packs, contents = making.write(files), [], {}
    while wanted:
        found = making.read(wanted)
        assert all(one.what == READ for one in found)
        making.builder.keep(range(len(found)))
        if not found:
            packs.append(making.builder.seal())
            before = bytes(making.builder.buffers[packs[-1].buffer][: packs[-1].stored])
            assert making.builder.end == 0
        wanted = wanted[len(found) :]
    assert bytes(making.builder.buffers[packs[-1].buffer][: packs[-1].stored]) == before
    contents = making.content(packs[-1])
    assert len(contents) == 1  # two of 16 MiB and their headers are more than 32 MiB
    packs.append(making.builder.seal())
    assert packs[-2].buffer != packs[-1].buffer
    assert [*making.content(packs[-1])] == [b"2", b"last"]
    assert making.content(packs[-1])[b"2"] == files["2"]


def test_files_that_grew_since_they_were_listed_do_not_run_over(making: Making) -> None:
    wanted = making.write({f"{number}": b"" for number in range(40)})
    grown = {f"{number}": bytes([number + 1]) * MIB for number in range(40)}
    write(making.root, {**grown, "0": b"l" * LARGE})
    found, packs = [], []
    while wanted:
        outcomes = making.read(wanted)
        making.builder.keep([number for number, one in enumerate(outcomes) if one.what == READ])
        found += outcomes
        wanted = wanted[len(outcomes) :]
        if not outcomes or not wanted:
            packs.append(making.content(making.builder.seal()))
    assert [one.what for one in found] == [LARGER] + [READ] * 39
    assert {**packs[0], **packs[1]} == {name.encode(): data for name, data in grown.items() if name != "0"}


def test_what_cannot_be_read_is_told_in_its_place(making: Making) -> None:
    wanted = making.write({"first": b"first", "gone": b"gone", "other": b"other", "last": b"last"})
    (making.root / "gone").unlink()
    (making.root / "other").unlink()
    (making.root / "other").symlink_to("first")
    outcomes = making.read(wanted)
    assert [one.what for one in outcomes] == [READ, VANISHED, UNREADABLE, READ]
    assert outcomes[2].why == "too many levels of symbolic links"
    making.builder.keep([0, 3])
    assert making.content(making.builder.seal()) == {b"first": b"first", b"last": b"last"}


def _moved(root: Path) -> None:
    root.rename(root.with_name("elsewhere"))


def _replaced(root: Path) -> None:
    _moved(root)
    root.mkdir()


@pytest.mark.parametrize("how", [_moved, _replaced, shutil.rmtree])
def test_a_source_that_went_away_is_not_taken_for_one_in_which_all_was_removed(
    making: Making, how: Callable[[Path], None]
) -> None:
    wanted = making.write({"file": b"file"})
    how(making.root)
    with pytest.raises(UsageError, match="went away"):
        making.read(wanted)


class _Written:
    """Files of which the next is written to while it is read, once."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self.at: Callable[[], object] | None = None
        self.opened: list[bytes] = []

    def open(self, wanted: Wanted) -> OpenFile:
        self.opened.append(wanted.path)
        file = self._tree.open(wanted)
        if self.at is not None:
            self.at()
            self.at = None
        return file


def test_of_what_was_written_to_meanwhile_nothing_is_left(tmp_path: Path) -> None:
    codec, tree = Codec(1), _Written(Tree(tmp_path))
    making = Making(tmp_path, PackBuilder(tree, codec, [large_buffer(encoded_size(codec)) for _ in range(2)]), codec)
    wanted = making.write({"torn": b"old" * MIB, "whole": b"whole"})
    tree.at = lambda: os.truncate(tmp_path / "torn", MIB)
    assert [one.what for one in making.read(wanted)] == [CHANGED, READ]
    making.builder.keep([1])
    tree.at = lambda: (tmp_path / "torn").write_bytes(b"new" * MIB)
    assert [one.what for one in making.read(wanted[:1])] == [CHANGED]
    making.builder.keep([])
    assert making.content(making.builder.seal()) == {b"whole": b"whole"}


def test_what_has_no_room_is_not_opened(tmp_path: Path) -> None:
    """What is fetched ahead from far away would be fetched twice."""
    codec, tree = Codec(1), _Written(Tree(tmp_path))
    making = Making(tmp_path, PackBuilder(tree, codec, [large_buffer(encoded_size(codec)) for _ in range(2)]), codec)
    wanted = making.write({f"{number}": bytes([number]) * 7 * MIB for number in range(9)})
    left = wanted
    while left:
        found = making.read(left)
        making.builder.keep(range(len(found)))
        left = left[len(found) :]
        if not found:
            making.builder.seal()
    assert tree.opened == [one.path for one in wanted]


class _Cut:
    """A file of which a source from far away has sent less than it said."""

    def __init__(self, content: bytes, size: int) -> None:
        self.size = size
        self._left = io.BytesIO(content)

    def open(self, wanted: Wanted) -> OpenFile:
        return self

    def read_into(self, target: memoryview) -> int:
        return self._left.readinto(target)

    def finish(self) -> Seen:
        return Seen()

    def close(self) -> None:
        pass


def test_what_is_shorter_than_it_said_is_not_taken() -> None:
    codec = Codec(1)
    builder = PackBuilder(_Cut(b"begin", 9), codec, [large_buffer(encoded_size(codec)) for _ in range(2)])
    assert [one.what for one in builder.read([Wanted(0, b"file", 9)], 1)] == [CHANGED]
