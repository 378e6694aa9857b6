"""Objects that are sent on while they arrive: whatever happens on either side, what is not what its manifest says never
becomes an object."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dr_pipelines.clock import SystemClock
from dr_pipelines.embedded.stores import EmbeddedS3
from dr_pipelines.errors import IntegrityError, StoreUnavailable
from dr_pipelines.progress import Silent
from dr_pipelines.replication.copy import Copier
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.fetch import SourceFailed, streamed_body
from dr_pipelines.repository.manifest import StoredObject
from dr_pipelines.repository.repository import Repository
from dr_pipelines.storage.base import Body, ObjectInfo, ObjectStore, Pieces, read_all
from dr_pipelines.storage.local import LocalStore
from dr_pipelines.storage.memory import MemoryStore
from dr_pipelines.storage.s3 import S3Store
from dr_pipelines.storage.wrappers import Forwarding, Retrying
from tests.support.faulty_store import FaultyStore
from tests.support.stores import rclone_bucket

CLOCK = SystemClock()
SIZE = 5 * 1024 * 1024 + 17
DATA = os.urandom(SIZE)
OBJECT = StoredObject(key="a", size=SIZE, sha256=hashlib.sha256(DATA).hexdigest())


def _holding(data: bytes) -> ObjectStore:
    store = MemoryStore("source")
    store.put("a", Body.of(data))
    return store


def _flipped(at: int) -> bytes:
    data = bytearray(DATA)
    data[at] ^= 1
    return bytes(data)


WRONG = {
    "first byte": _flipped(0),
    "last byte": _flipped(SIZE - 1),
    "too short": DATA[:-1],
    "too long": DATA + b"x",
    "empty": b"",
}


def copy(source: ObjectStore, target: ObjectStore) -> list[str]:
    """The keys that were damaged."""
    with Copier(Repository(source, Codec(), "primary"), Repository(target, Codec(), "secondary"), Silent()) as copier:
        return [damage.stored.key for damage in copier.copy([OBJECT], {}).damaged]


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
def test_the_end_of_what_is_wrong_is_withheld(wrong: bytes) -> None:
    body, given = streamed_body(_holding(wrong), OBJECT), 0
    with pytest.raises(SourceFailed) as caught:
        for chunk in body.chunks:
            given += len(chunk)
    assert isinstance(caught.value.cause, IntegrityError)
    assert given < SIZE


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_never_becomes_an_object_over_http(shared_s3: EmbeddedS3, wrong: bytes) -> None:
    client, bucket = rclone_bucket(shared_s3)
    target = S3Store(client, bucket)
    assert copy(_holding(wrong), target) == ["a"]
    while [*target.list()]:  # until the server has seen that the connection is gone
        CLOCK.wait(0.01)
    assert copy(_holding(DATA), target) == []
    assert read_all(target, "a") == DATA


def test_what_is_wrong_never_becomes_a_file(tmp_path: Path) -> None:
    target = LocalStore(tmp_path, "target")
    assert copy(_holding(_flipped(SIZE - 1)), target) == ["a"]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


class BreaksOnce(Forwarding):
    """Takes a piece of the first body that it is given, and is gone."""

    broken = False

    def put(self, key: str, body: Body, **asked: Any) -> ObjectInfo:
        if not self.broken:
            self.broken = True
            next(iter(body.chunks))
            raise StoreUnavailable("the target broke off")
        return super().put(key, body, **asked)


def test_a_target_that_broke_off_is_given_all_of_it_anew() -> None:
    target = BreaksOnce(MemoryStore("target"))
    assert copy(_holding(DATA), Retrying(target, CLOCK, longest_wait=0)) == []
    assert target.broken
    assert read_all(target, "a") == DATA


def test_a_source_that_is_cut_is_asked_once_and_told_as_it_is() -> None:
    source = FaultyStore(_holding(DATA), cut_after=SIZE - 1)
    target = Retrying(MemoryStore("target"), CLOCK, longest_wait=0)
    with pytest.raises(StoreUnavailable, match="source cut the stream"):
        copy(source, target)
    assert source.calls == 1  # the target does not try again what its source has tried
    assert [*target.list()] == []


class Says(Forwarding):
    """Of every object an MD5 that it does not have."""

    def open(self, key: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        return Pieces(super().open(key, offset=offset, length=length), "0" * 32)


def test_a_source_that_is_wrong_about_its_md5_is_found_out_and_not_believed_again(
    shared_s3: EmbeddedS3, caplog: pytest.LogCaptureFixture
) -> None:
    client, bucket = rclone_bucket(shared_s3)
    target = S3Store(client, bucket)
    caplog.set_level(logging.DEBUG, "urllib3.connectionpool")
    for _ in range(3):
        assert copy(Says(_holding(DATA)), target) == []
        target.delete("a")
    assert caplog.text.count(f'"GET /{bucket}/a ') == 1


def test_two_services_that_agree_on_an_md5_prove_a_copy(
    shared_s3: EmbeddedS3, caplog: pytest.LogCaptureFixture
) -> None:
    (client, here), (other, there) = rclone_bucket(shared_s3), rclone_bucket(shared_s3)
    source, target = S3Store(client, here), S3Store(other, there)
    source.put("a", Body.of(DATA))
    caplog.set_level(logging.DEBUG, "urllib3.connectionpool")
    assert copy(Retrying(source, CLOCK), Retrying(target, CLOCK)) == []
    assert caplog.text.count(f"/{there}/a ") == 1  # the put alone
    assert read_all(target, "a") == DATA
