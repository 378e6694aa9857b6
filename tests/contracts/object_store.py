"""What every store must do: a base class of tests; a subclass gives the fixture `store`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from dr_pipelines.errors import IntegrityError, ObjectExists, ObjectNotFound, UsageError
from dr_pipelines.storage.base import Body, ObjectStore, read_all
from dr_pipelines.storage.check import check_store
from tests.support.stores import MIB


class ObjectStoreContract:
    @pytest.fixture(autouse=True)
    def _marked(self, store: ObjectStore) -> None:
        store.put("dr-repository.json", Body.of(b"{}"))  # a repository's first object makes a local folder

    def test_what_was_put_is_read(self, store: ObjectStore) -> None:
        info = store.put("a/b", Body.of(b"content"))
        assert (info.key, info.size) == ("a/b", 7)
        assert read_all(store, "a/b") == b"content"

    def test_a_range_is_read(self, store: ObjectStore) -> None:
        store.put("a", Body.of(b"0123456789"))
        assert b"".join(store.open("a", offset=3, length=4)) == b"3456"
        assert b"".join(store.open("a", offset=7)) == b"789"
        assert b"".join(store.open("a", offset=7, length=100)) == b"789"
        assert b"".join(store.open("a", length=0)) == b""

    def test_nothing_is_read_from_the_end_and_beyond(self, store: ObjectStore) -> None:
        store.put("a", Body.of(b"0123456789"))
        assert [*store.open("a", offset=10)] == []
        assert [*store.open("a", offset=10, length=5)] == []
        assert [*store.open("a", offset=11)] == []

    def test_stat_tells_size_and_an_aware_time(self, store: ObjectStore) -> None:
        store.put("a", Body.of(b"123"))
        info = store.stat("a")
        assert info.size == 3
        assert info.modified.tzinfo is not None

    def test_a_listing_is_in_key_order(self, store: ObjectStore) -> None:
        keys = ["l/b", "l/a/c", "l/a.b", "l/a-b", "l/B", "l/a0"]
        for key in keys:
            store.put(key, Body.of(key.encode()))
        assert [(info.key, info.size) for info in store.list("l/")] == [(key, len(key)) for key in sorted(keys)]

    def test_a_prefix_may_end_within_a_name(self, store: ObjectStore) -> None:
        for key in ("p/ab1", "p/ab2", "p/ac", "pa"):
            store.put(key, Body.of(b"x"))
        assert [info.key for info in store.list("p/ab")] == ["p/ab1", "p/ab2"]
        assert [*store.list("p/none")] == []

    def test_delete_is_idempotent(self, store: ObjectStore) -> None:
        store.put("d/a", Body.of(b"x"))
        store.delete("d/a")
        store.delete("d/a")
        assert [*store.list("d/")] == []

    def test_the_same_content_again_is_success(self, store: ObjectStore) -> None:
        store.put("a", Body.of(b"same"))
        assert store.put("a", Body.of(b"same")).size == 4

    def test_other_content_is_refused(self, store: ObjectStore) -> None:
        store.put("a", Body.of(b"first"))
        with pytest.raises(ObjectExists):
            store.put("a", Body.of(b"other"))
        assert read_all(store, "a") == b"first"

    def test_other_content_replaces_when_asked(self, store: ObjectStore) -> None:
        store.put("a", Body.of(b"first"))
        store.put("a", Body.of(b"second"), if_absent=False)
        assert read_all(store, "a") == b"second"

    def test_what_is_missing_is_not_found(self, store: ObjectStore) -> None:
        with pytest.raises(ObjectNotFound):
            store.stat("missing")
        with pytest.raises(ObjectNotFound):
            read_all(store, "missing")

    def test_neither_a_folder_of_keys_nor_what_is_below_a_key_is_an_object(self, store: ObjectStore) -> None:
        store.put("folder/a", Body.of(b"x"))
        for key in ("folder", "folder/a/b"):
            with pytest.raises(ObjectNotFound):
                store.stat(key)
            with pytest.raises(ObjectNotFound):
                read_all(store, key)
        assert [info.key for info in store.list("folder")] == ["folder/a"]

    def test_an_empty_body(self, store: ObjectStore) -> None:
        store.put("empty", Body.of(b""))
        assert store.stat("empty").size == 0
        assert read_all(store, "empty") == b""

    @pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "../a", "a/../b", "./a", "a b", "a\\b", "a\n", "ü"])
    def test_a_bad_key_is_refused(self, store: ObjectStore, key: str) -> None:
        with pytest.raises(UsageError):
            store.put(key, Body.of(b"x"))

    def test_a_body_of_many_chunks(self, store: ObjectStore) -> None:
        data = bytes(range(256)) * 4096 * 5
        chunks = [memoryview(data)[n : n + 70_001] for n in range(0, len(data), 70_001)]
        store.put("chunks", Body(chunks, sha256=Body.of(data).sha256, size=len(data)))
        assert read_all(store, "chunks") == data

    def test_bytes_that_do_not_match_their_digest_are_refused(self, store: ObjectStore) -> None:
        with pytest.raises(IntegrityError):
            store.put("wrong", Body([b"damaged"], sha256=Body.of(b"right").sha256, size=7))
        assert [*store.list("wrong")] == []
        store.put("wrong", Body.of(b"right"))

    def test_a_body_of_several_parts(self, store: ObjectStore) -> None:
        size = 2 * (store.capabilities.largest_put or MIB) + 1000
        data = (bytes(range(251)) * (size // 251 + 1))[:size]
        chunks = [memoryview(data)[n : n + 700_001] for n in range(0, size, 700_001)]
        wrong, right = (Body(chunks, sha256=Body.of(told).sha256, size=size) for told in (b"other", data))
        with pytest.raises(IntegrityError):
            store.put("parts", wrong)
        assert [*store.list("parts")] == []
        assert store.put("parts", right).size == size
        assert read_all(store, "parts") == data

    def test_the_check_for_operators_passes_and_cleans_up(self, store: ObjectStore) -> None:
        assert [result for result in check_store(store) if not result.passed] == []
        assert [info.key for info in store.list()] == ["dr-repository.json"]

    def test_eight_threads(self, store: ObjectStore) -> None:
        def both(number: int) -> bool:
            store.put(f"t/{number:02}", Body.of(b"%d" % number))
            return read_all(store, f"t/{number:02}") == b"%d" % number

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(both, range(32)))
        assert len([*store.list("t/")]) == 32
