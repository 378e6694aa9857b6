"""Archives come back as they were written, from bounded memory; nothing of a damaged pack is handed out."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dr_pipelines.errors import DrError, IntegrityError, KeyUnusable, RepositoryError, StoreUnavailable
from dr_pipelines.repository.archive_reader import ArchiveReader
from dr_pipelines.repository.archive_writer import ArchiveBuffers, ArchiveWriter
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.encryption import Buffer, generate_identity
from dr_pipelines.repository.manifest import Archive, StoredObject
from dr_pipelines.storage.base import Body, ObjectStore
from dr_pipelines.storage.memory import MemoryStore
from tests.support.faulty_store import FaultyStore

PACK, FRAME = 64 * 1024, 16 * 1024


def written(store: ObjectStore, codec: Codec, pieces: list[bytes]) -> Archive:
    writer = _writer(store, codec)
    for piece in pieces:
        writer.write(piece)
    return writer.close()


def _writer(store: ObjectStore, codec: Codec) -> ArchiveWriter:
    def put(number: int, body: Body) -> StoredObject:
        store.put(f"{number:06d}", body)
        return StoredObject(key=f"{number:06d}", size=body.size, sha256=body.sha256)

    return ArchiveWriter(put, codec, ArchiveBuffers(codec, pack_size=PACK, frame_size=FRAME))


def _noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def _codecs() -> Iterator[Codec]:
    identity = generate_identity()
    yield Codec(1)
    yield Codec(1, [str(identity.recipient)], [identity.reveal()])


CODECS = list(_codecs())


@pytest.mark.parametrize("codec", CODECS, ids=["plain", "encrypted"])
@settings(deadline=None, max_examples=40)
@example(sizes=[FRAME], workers=1, compressible=True)
@example(sizes=[PACK, FRAME], workers=2, compressible=False)
@given(
    sizes=st.lists(
        st.sampled_from([0, 1, 511, FRAME - 1, FRAME, FRAME + 1, PACK - 1, PACK, PACK + 1, 3 * PACK]), max_size=6
    ),
    workers=st.integers(1, 4),
    compressible=st.booleans(),
)
def test_what_was_written_is_read(codec: Codec, sizes: list[int], workers: int, compressible: bool) -> None:
    pieces = [b"a" * size if compressible else _noise(size) for size in sizes]
    data, store = b"".join(pieces), MemoryStore()
    archive = written(store, codec, pieces)
    assert archive.size == len(data)
    assert [pack.key for pack in archive.packs] == sorted(info.key for info in store.list())
    reader = ArchiveReader(store, archive, codec, workers=workers)
    assert b"".join(bytes(piece) for piece in reader.pieces()) == data


@pytest.mark.parametrize("codec", CODECS, ids=["plain", "encrypted"])
def test_a_damaged_pack_is_named_and_not_handed_out(codec: Codec) -> None:
    store = MemoryStore()
    archive = written(store, codec, [_noise(3 * PACK)])
    for damage in ({"flip_at": 1000}, {"cut_after": 1000}):
        reader = ArchiveReader(FaultyStore(store, **damage), archive, codec)  # type: ignore[arg-type]
        with pytest.raises(DrError):
            list(reader.pieces())
    second = archive.packs[1]
    store.delete(second.key)
    store.put(second.key, Body.of(b"x" * second.size))
    got: list[bytes] = []
    with pytest.raises(IntegrityError, match=second.key):
        for piece in ArchiveReader(store, archive, codec).pieces():
            got.append(bytes(piece))
    assert b"".join(got) == _noise(3 * PACK)[:PACK]
    with pytest.raises(RepositoryError, match="packs"):
        ArchiveReader(store, archive.model_copy(update={"packs": archive.packs[:2]}), codec)


def test_a_slow_reader_is_waited_for_and_one_that_leaves_ends_the_threads() -> None:
    store = MemoryStore()
    archive = written(store, CODECS[1], [_noise(40 * PACK)])
    before, counting = threading.active_count(), FaultyStore(store)
    pieces = ArchiveReader(counting, archive, CODECS[1], workers=2).pieces()
    assert bytes(next(pieces)) == _noise(40 * PACK)[:PACK]
    threading.Event().wait(0.3)  # time enough to read all of it
    assert counting.calls <= 10, "packs are read far ahead of a reader that takes none"  # two workers, four pieces each
    pieces.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_another_key_reads_nothing() -> None:
    store, mine, other = MemoryStore(), generate_identity(), generate_identity()
    archive = written(store, Codec(1, [str(mine.recipient)]), [b"secret" * 1000])
    for identities in ([], [other.reveal()]):
        with pytest.raises(KeyUnusable):
            list(ArchiveReader(store, archive, Codec(1, [], identities)).pieces())


@pytest.mark.parametrize("at", [1, 3])
def test_a_store_that_fails_is_told_to_the_writer(at: int) -> None:
    before = threading.active_count()
    writer = _writer(FaultyStore(MemoryStore(), fail_at=at), CODECS[0])
    with pytest.raises(StoreUnavailable):
        for _ in range(200):
            writer.write(_noise(FRAME))
        writer.close()
    writer.abort()
    assert threading.active_count() == before


def test_an_abandoned_archive_ends_its_threads() -> None:
    before = threading.active_count()
    writer = _writer(MemoryStore(), CODECS[1])
    writer.write(_noise(3 * FRAME))
    writer.abort()
    assert threading.active_count() == before
    with pytest.raises(RepositoryError):
        writer.write(b"more")


def test_a_slow_store_slows_the_writer() -> None:
    """While nothing is put, the writer takes a bounded number of packs and then waits."""
    gate, taken = threading.Event(), 0

    def put(number: int, body: Body) -> StoredObject:
        gate.wait(60)
        return StoredObject(key=str(number), size=body.size, sha256=body.sha256)

    writer = ArchiveWriter(put, CODECS[0], ArchiveBuffers(CODECS[0], pack_size=PACK, frame_size=FRAME))
    waiting = threading.Event()

    def fill() -> None:
        nonlocal taken
        for taken in range(1, 101):  # noqa: B007 - read below
            waiting.clear()
            writer.write(_noise(FRAME))
            waiting.set()

    filler = threading.Thread(target=fill)
    filler.start()
    filler.join(1.0)
    assert taken < 30, "the writer runs ahead of a store that takes nothing"
    gate.set()
    filler.join(60)
    assert writer.close().size == 100 * FRAME


_TAKES_MUCH = r"""
import os, re
from pathlib import Path
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.encryption import generate_identity
from dr_pipelines.repository.manifest import StoredObject
from dr_pipelines.repository.archive_writer import ArchiveWriter

def put(number, body):
    return StoredObject(key=str(number), size=sum(len(piece) for piece in body.chunks), sha256=body.sha256)

identity = generate_identity()
writer = ArchiveWriter(put, Codec(1, [str(identity.recipient)]))
noise = os.urandom(1 << 20)
for number in range(700):
    writer.write(noise)
assert writer.close().size == 700 << 20
# Not getrusage: its maximum outlives exec, so it would be that of the process which ran us.
print(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])
"""


def test_700_mib_that_do_not_compress_take_less_than_400_mb() -> None:
    found = subprocess.run([sys.executable, "-c", _TAKES_MUCH], capture_output=True, text=True, check=True)
    assert int(found.stdout) * 1024 < 400_000_000


def test_buffers_of_any_kind_are_taken() -> None:
    store = MemoryStore()
    pieces: list[Buffer] = [b"one", bytearray(b"two"), memoryview(b"three")]
    writer = _writer(store, CODECS[0])
    for piece in pieces:
        writer.write(piece)
    assert b"".join(ArchiveReader(store, writer.close(), CODECS[0]).pieces()) == b"onetwothree"
