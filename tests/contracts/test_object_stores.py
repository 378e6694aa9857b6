"""Every store against the same tests: in memory, on disk, and over real servers."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType

import pytest

from dr_pipelines.checks import Verdict
from dr_pipelines.embedded.stores import EmbeddedS3
from dr_pipelines.errors import ObjectExists, StoreError, StoreUnavailable
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.repository import Repository
from dr_pipelines.storage.azure import AzureStore
from dr_pipelines.storage.base import Body, ObjectStore, read_all
from dr_pipelines.storage.check import check_store
from dr_pipelines.storage.local import LocalStore
from dr_pipelines.storage.memory import MemoryStore
from dr_pipelines.storage.s3 import Profile, S3Store
from tests.contracts.object_store import ObjectStoreContract
from tests.support.stores import MIB, PART, azurite_container, moto_bucket, rclone_bucket, rclone_client

_PAGE = 3
"""Objects that a listing brings in one answer: small, so that most listings here have many."""


class TestMemoryStore(ObjectStoreContract):
    @pytest.fixture(params=[False, True], ids=["plain", "versioned"])
    def store(self, request: pytest.FixtureRequest) -> ObjectStore:
        return MemoryStore(versioned=request.param)


class TestLocalStore(ObjectStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> ObjectStore:
        return LocalStore(tmp_path / "store")

    def test_file_and_folder_are_on_disk_when_a_put_returns(self, store: ObjectStore) -> None:
        put = ["fsync", "link", "unlink", "fsync"]
        assert _done(lambda: store.put("new/a", Body.of(b"x"))) == ["mkdir", "fsync", *put]
        assert _done(lambda: store.put("new/b", Body.of(b"x"))) == put
        assert _done(lambda: store.delete("new/b")) == ["unlink", "fsync"]

    def test_no_folder_is_left_in_which_nothing_is(self, store: ObjectStore, tmp_path: Path) -> None:
        for key in ("a/b/c/1", "a/b/2", "a/3"):
            store.put(key, Body.of(b"x"))
        for key in ("a/b/c/1", "a/b/2"):
            store.delete(key)
        assert [*(tmp_path / "store/a").rglob("*")] == [tmp_path / "store/a/3"]
        store.delete("a/3")
        assert not (tmp_path / "store/a").exists()

    def test_a_folder_that_goes_is_made_again(self, store: ObjectStore) -> None:
        """Objects come and go in folders that others find empty."""

        def come_and_go(number: int) -> None:
            for _ in range(100):
                store.put(f"a/b/{number}", Body.of(b"x"))
                assert f"a/b/{number}" in {info.key for info in store.list("a/")}
                store.delete(f"a/b/{number}")

        with ThreadPoolExecutor(4) as pool:
            assert [*pool.map(come_and_go, range(4))] == [None] * 4
        assert [*store.list("a")] == []


def _done(work: Callable[[], object]) -> list[str]:
    """The calls that change a directory, or force something to disk, in the order in which they were made."""
    seen: list[str] = []

    def look(_frame: FrameType, event: str, function: object) -> None:
        name = getattr(function, "__name__", "")
        if event == "c_call" and name in ("mkdir", "fsync", "link", "unlink", "replace"):
            seen.append(name)

    sys.setprofile(look)
    try:
        work()
    finally:
        sys.setprofile(None)
    return seen


class TestS3StoreSupabase(ObjectStoreContract):
    @pytest.fixture
    def store(self, shared_s3: EmbeddedS3) -> ObjectStore:
        client, bucket = rclone_bucket(shared_s3)
        return S3Store(client, bucket, profile="supabase", part_size=PART, page_size=_PAGE)


class TestS3StoreGeneric(ObjectStoreContract):
    @pytest.fixture
    def store(self, shared_s3: EmbeddedS3) -> ObjectStore:
        client, bucket = rclone_bucket(shared_s3)
        return S3Store(client, bucket, profile="generic", part_size=PART, page_size=_PAGE)


class TestS3StoreAws(ObjectStoreContract):
    @pytest.fixture
    def store(self, moto_port: int) -> ObjectStore:
        client, bucket = moto_bucket(moto_port)
        return S3Store(client, bucket, profile="aws", part_size=PART, page_size=_PAGE)

    def test_a_lock_is_not_claimed_for_a_bucket_without_one(self, store: ObjectStore) -> None:
        assert not store.capabilities.object_lock
        assert not store.capabilities.versioning


@pytest.mark.parametrize(("profile", "size", "read"), [("generic", MIB, 0), ("supabase", MIB, 1), ("generic", PART, 1)])
def test_what_the_service_s_md5_proves_is_not_read_back(
    shared_s3: EmbeddedS3, caplog: pytest.LogCaptureFixture, profile: Profile, size: int, read: int
) -> None:
    client, bucket = rclone_bucket(shared_s3)
    caplog.set_level(logging.DEBUG, "urllib3.connectionpool")
    S3Store(client, bucket, profile=profile, part_size=PART - 1).put("a", Body.of(bytes(size)))
    assert caplog.text.count(f'"GET /{bucket}/a ') == read


@pytest.mark.parametrize("profile", ["supabase", "generic"])
def test_two_writers_of_one_key_do_not_remove_each_other_s_object(shared_s3: EmbeddedS3, profile: Profile) -> None:
    (client, bucket), other = rclone_bucket(shared_s3), rclone_client(shared_s3)
    theirs = b'{"format": 1, "id": "theirs"}'

    def put_theirs(**_: object) -> None:
        """Before the look at what was put."""
        if other.list_objects_v2(Bucket=bucket, Prefix="repository.json").get("Contents"):
            other.put_object(Bucket=bucket, Key="repository.json", Body=theirs)

    client.meta.events.register("before-call.s3.HeadObject", put_theirs)
    store = S3Store(client, bucket, profile=profile)
    with pytest.raises(ObjectExists, match="another writer"):
        store.put("repository.json", Body.of(b"ours"))
    assert read_all(store, "repository.json") == theirs
    store.delete("repository.json")
    repository = Repository(store, Codec(), "primary")
    repository.initialise()
    assert repository.check_format() == "theirs"


def test_a_service_that_ignores_conditions_is_found_under_the_profile_that_trusts_it(shared_s3: EmbeddedS3) -> None:
    client, bucket = rclone_bucket(shared_s3)
    results = {result.name: result for result in check_store(S3Store(client, bucket, profile="aws", part_size=PART))}
    replaced = results["content_is_not_replaced"]
    assert replaced.verdict is Verdict.FAIL
    assert "profile: generic" in replaced.details["hint"]


class TestAzureStore(ObjectStoreContract):
    @pytest.fixture
    def store(self, azurite_port: int) -> AzureStore:
        self.container = azurite_container(f"http://127.0.0.1:{azurite_port}")
        return AzureStore(self.container, block_size=MIB, page_size=_PAGE)

    def test_a_large_body_is_put_in_blocks(self, store: AzureStore) -> None:
        data = bytes(range(251)) * 10_000
        store.put("blocks", Body.of(data))
        assert len(self.container.get_blob_client("blocks").get_block_list("committed")[0]) == 3
        assert store.put("blocks", Body.of(data)).size == len(data)

    def test_a_lease_is_trouble_that_passes(self, store: AzureStore) -> None:
        store.put("leased", Body.of(b"x"))
        lease = self.container.get_blob_client("leased").acquire_lease(15)
        with pytest.raises(StoreUnavailable):
            store.delete("leased")
        lease.release()
        store.delete("leased")

    def test_an_archived_object_says_what_to_do(self, store: AzureStore) -> None:
        store.put("archived", Body.of(b"x"))
        self.container.get_blob_client("archived").set_standard_blob_tier("Archive")
        with pytest.raises(StoreError, match="archive tier") as caught:
            read_all(store, "archived")
        assert caught.value.hint and not caught.value.transient
