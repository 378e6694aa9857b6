"""What every bucket must do: a base class of tests; a subclass gives the fixture `bucket`, with parts of `PART`."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from typing import ClassVar

import pytest

from dr_pipelines.errors import (
    IntegrityError,
    ObjectChanged,
    ObjectExists,
    ObjectNotFound,
    StoreError,
    UsageError,
)
from dr_pipelines.storage.bucket import Bucket, BucketObject, ObjectHeaders
from tests.support.stores import MIB, PART

NONE = ObjectHeaders()
KEYS = ("plain", "with space", "emoji-😀/ü", "per%2Fcent", "a+b", "q?x=1&y#z", "\"'<>&", "nfd-e\u0301", "dot.", "~")
"""Of every service that tests have."""


def put(bucket: Bucket, key: str, data: bytes, headers: ObjectHeaders = NONE, **how: bool) -> BucketObject:
    return bucket.put(key, [data], headers, size=len(data), **how)[0]


def content(bucket: Bucket, found: BucketObject) -> bytes:
    return b"".join(bucket.read(found)[1])


class BucketContract:
    more_keys: ClassVar[tuple[str, ...]] = ()
    no_keys: ClassVar[tuple[str, ...]] = ()
    keeps_headers = True
    """Those of objects that are put in parts too."""

    def test_any_key_comes_back(self, bucket: Bucket) -> None:
        keys = {*KEYS, *self.more_keys}
        for key in keys:
            assert put(bucket, key, key.encode()).key == key
        listed = {found.key: found for found in bucket.list()}
        assert listed.keys() == keys
        for key, found in listed.items():
            assert content(bucket, found) == key.encode()
            assert bucket.stat(key)[0].is_still(found)
        assert [found.key for found in bucket.list("emoji-😀")] == ["emoji-😀/ü"]

    def test_a_key_that_the_service_cannot_hold_is_refused(self, bucket: Bucket) -> None:
        for key in self.no_keys:
            with pytest.raises(StoreError):
                put(bucket, key, b"x")
        with pytest.raises(UsageError):
            put(bucket, "", b"x")
        assert [*bucket.list()] == []

    def test_an_empty_object(self, bucket: Bucket) -> None:
        found = put(bucket, "empty", b"")
        assert (found.size, content(bucket, found)) == (0, b"")
        assert [(found.key, found.size) for found in bucket.list()] == [("empty", 0)]

    def test_headers_and_metadata_come_back(self, bucket: Bucket) -> None:
        metadata = {"plain": "x y", "unicode": "grüße 😀", "lines": "a\r\nb", "word": "=?UTF-8?Q?caf=C3=A9?="}
        headers = ObjectHeaders(
            "text/html; charset=utf-8", "max-age=60", 'inline; filename="a b"', None, "de", metadata
        )
        for key, size in (("small", 3), ("large", PART + 1)):
            found, kept = bucket.put(key, [bytes(size)], headers, size=size)
            assert bucket.read(found)[0] == bucket.stat(key)[1] == kept
            if self.keeps_headers:
                assert kept == headers

    def test_what_is_stored_compressed_comes_as_it_is_stored(self, bucket: Bucket) -> None:
        data = gzip.compress(b"x" * 1000)
        found = put(bucket, "a.gz", data, ObjectHeaders(content_encoding="gzip", content_type="text/plain"))
        assert content(bucket, found) == data

    def test_headers_that_cannot_be_sent_are_refused(self, bucket: Bucket) -> None:
        headers = ObjectHeaders(content_disposition="inline; filename=ü", metadata={"a b": "", "fine": "ü"})
        assert bucket.cannot_hold(headers) == ("content_disposition", "metadata.a b")
        with pytest.raises(StoreError, match=r"metadata\.a b"):
            put(bucket, "a", b"x", headers)

    def test_what_was_replaced_since_it_was_listed_is_not_read(self, bucket: Bucket) -> None:
        put(bucket, "a", b"first")
        (found,) = bucket.list()
        put(bucket, "a", b"other", if_absent=False)
        with pytest.raises(ObjectChanged):
            content(bucket, found)
        assert content(bucket, bucket.stat("a")[0]) == b"other"

    def test_what_is_replaced_while_it_is_read_is_not_torn(self, bucket: Bucket) -> None:
        before, after = b"a" * 6 * MIB, b"b" * 6 * MIB
        pieces = bucket.read(put(bucket, "a", before))[1]
        first = next(pieces)
        put(bucket, "a", after, if_absent=False)
        try:
            assert first + b"".join(pieces) == before
        except ObjectChanged:
            assert content(bucket, bucket.stat("a")[0]) == after

    def test_what_was_removed_is_not_found(self, bucket: Bucket) -> None:
        found = put(bucket, "a", b"x")
        bucket.delete(found)
        bucket.delete(found)
        with pytest.raises(ObjectNotFound):
            content(bucket, found)
        with pytest.raises(ObjectNotFound):
            bucket.stat("a")
        assert [*bucket.list()] == []

    def test_only_what_was_put_is_deleted(self, bucket: Bucket) -> None:
        found = put(bucket, "a", b"ours")
        put(bucket, "a", b"theirs", if_absent=False)
        with pytest.raises(ObjectChanged):
            bucket.delete(found)
        assert content(bucket, bucket.stat("a")[0]) == b"theirs"

    @pytest.mark.parametrize("size", [5, PART + 5])
    def test_what_is_there_is_not_replaced_unless_told(self, bucket: Bucket, size: int) -> None:
        put(bucket, "a", b"first")
        with pytest.raises(ObjectExists):
            put(bucket, "a", bytes(size))
        assert content(bucket, bucket.stat("a")[0]) == b"first"
        assert content(bucket, put(bucket, "a", bytes(size), if_absent=False)) == bytes(size)

    @pytest.mark.parametrize("size", [5, PART + 5])
    def test_only_what_was_found_is_replaced(self, bucket: Bucket, size: int) -> None:
        found = put(bucket, "a", b"first")
        second = bucket.put("a", [bytes(size)], NONE, size=size, replacing=found)[0]
        assert content(bucket, second) == bytes(size)
        with pytest.raises(ObjectChanged):
            bucket.put("a", [b"x" * size], NONE, size=size, replacing=found)
        assert content(bucket, bucket.stat("a")[0]) == bytes(size)
        bucket.delete(second)
        with pytest.raises(ObjectChanged):
            bucket.put("a", [b"x" * size], NONE, size=size, replacing=found)
        with pytest.raises(ObjectNotFound):
            bucket.stat("a")

    def test_a_large_object_is_put_in_parts(self, bucket: Bucket) -> None:
        pieces = [bytes([number]) * MIB for number in range(2 * PART // MIB + 2)]
        found, _ = bucket.put("large", iter(pieces), NONE, size=len(pieces) * MIB)
        assert found.size == len(pieces) * MIB
        assert content(bucket, found) == b"".join(pieces)
        (listed,) = bucket.list()
        assert listed.is_still(found)

    @pytest.mark.parametrize("size", [10, 2 * PART])
    @pytest.mark.parametrize("more", [-1, 1])
    def test_a_body_of_another_size_is_not_stored(self, bucket: Bucket, size: int, more: int) -> None:
        with pytest.raises(IntegrityError):
            bucket.put("a", [bytes(size + more)], NONE, size=size)
        assert [*bucket.list()] == []

    def test_a_body_that_fails_is_not_stored(self, bucket: Bucket) -> None:
        def failing() -> Iterator[bytes]:
            yield bytes(PART)
            raise IntegrityError("not what its digest says")

        with pytest.raises(IntegrityError, match="digest"):
            bucket.put("a", failing(), NONE, size=2 * PART)
        assert [*bucket.list()] == []
