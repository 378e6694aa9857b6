"""Snapshots of buckets over real servers: S3-compatible endpoints and Azure containers."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob import ContainerSasPermissions, generate_container_sas

from dr_pipelines import operations
from dr_pipelines.clock import FixedClock, SystemClock
from dr_pipelines.embedded.stores import EmbeddedS3
from dr_pipelines.errors import AccessDenied, StoreUnavailable
from dr_pipelines.files.bucket import BucketSource
from dr_pipelines.progress import Silent
from dr_pipelines.repository.snapshots import read_snapshots
from dr_pipelines.storage.attempts import Attempts
from dr_pipelines.storage.azure_container import make_container_client
from dr_pipelines.storage.azure_objects import AzureObjects
from dr_pipelines.storage.bucket import Bucket, BucketObject, ObjectHeaders
from dr_pipelines.storage.memory import MemoryStore
from dr_pipelines.storage.retrying_bucket import RetryingBucket
from dr_pipelines.storage.s3_objects import S3Objects
from tests.contracts.bucket import KEYS, put
from tests.support.file_tiers import DOCS, empty, file_site
from tests.support.replicas import Counting
from tests.support.stores import AZURITE_KEY, MIB, azurite_container, moto_bucket, rclone_bucket, rclone_client
from tests.support.watched_sources import FileSet, data_puts, later


def opened(service: Any) -> RetryingBucket:
    return RetryingBucket(service, Attempts(SystemClock(), attempts=2, longest_wait=0.01))


class Asked:
    """A bucket, and what was asked of it. `at[what, key]`, called once, happens before."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket, self.name = bucket, bucket.name
        self.requests: list[tuple[str, str]] = []
        self.at: dict[tuple[str, str], Callable[[], object]] = {}

    def list(self, prefix: str = "") -> Iterator[BucketObject]:
        self._note("list", prefix)
        return self._bucket.list(prefix)

    def read(self, found: BucketObject) -> tuple[ObjectHeaders, Iterator[bytes]]:
        self._note("read", found.key)
        headers, pieces = self._bucket.read(found)
        return headers, self._watched(found.key, pieces)

    def stat(self, key: str) -> tuple[BucketObject, ObjectHeaders]:
        self._note("stat", key)
        return self._bucket.stat(key)

    def put(
        self, key: str, pieces: Iterable[bytes], headers: ObjectHeaders, *, size: int, **only: Any
    ) -> tuple[BucketObject, ObjectHeaders]:
        return self._bucket.put(key, pieces, headers, size=size, **only)

    def delete(self, found: BucketObject) -> None:
        self._bucket.delete(found)

    def cannot_hold(self, headers: ObjectHeaders) -> tuple[str, ...]:
        return self._bucket.cannot_hold(headers)

    def asked(self) -> list[tuple[str, str]]:
        """Since it was asked last, but for listings."""
        seen = sorted(one for one in self.requests if one[0] != "list")
        self.requests.clear()
        return seen

    def _note(self, what: str, key: str) -> None:
        self.requests.append((what, key))
        self.at.pop((what, key), lambda: None)()

    def _watched(self, key: str, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            yield piece
            self.at.pop(("piece", key), lambda: None)()


class Taken(FileSet):
    def __init__(self, bucket: Bucket, state: Path) -> None:
        self.bucket = Asked(bucket)
        self.store = Counting(MemoryStore())
        super().__init__(BucketSource(self.bucket), empty(store=self.store), state)
        self.put: dict[bytes, bytes] = {}

    def fill(self, files: dict[str, bytes], headers: ObjectHeaders | None = None) -> None:
        for key, content in files.items():
            put(self.bucket, key, content, headers or ObjectHeaders(), if_absent=False)
            self.put[key.encode()] = content

    def remove(self, key: str) -> None:
        self.bucket.delete(self.bucket.stat(key)[0])
        del self.put[key.encode()]


class BucketSourceContract:
    odd_keys: tuple[str, ...] = ()
    keeps_headers = True

    def test_keys_contents_headers_and_metadata_come_back(self, files: Taken) -> None:
        keys = (*KEYS, *self.odd_keys)
        files.fill({key: key.encode() * 1000 for key in keys})
        headers = ObjectHeaders("text/html", "max-age=60", metadata={"who": "Zoë", "a": "1"})
        files.fill({"page": b"<p>", "nothing": b"", "large": os.urandom(16 * MIB)}, headers)
        taken = files.snapshot()
        assert files.restored(taken) == files.put
        rows = files.rows(taken)
        assert taken.counts.files == len(rows) == len(files.put)
        for key in ("page", "nothing", "large"):
            row, now = rows[key.encode()], files.bucket.stat(key)
            assert row["etag"] == now[0].etag
            assert row["mtime_ns"] == int(now[0].modified.timestamp()) * 10**9
            assert (row["type"], row["mode"]) == ("file", None)
            assert dict(row["metadata"]) == now[1].metadata
            assert dict(row["headers"])["content_type"] == now[1].content_type
            if self.keeps_headers:
                assert dict(row["headers"]) == {"content_type": "text/html", "cache_control": "max-age=60"}
                assert row["metadata"] == [("a", "1"), ("who", "Zoë")]

    def test_what_is_as_it_was_is_not_read(self, files: Taken) -> None:
        files.fill({"a": b"a", "b": b"b", "c": b"c", "empty": b"", "gone": b"gone"}, ObjectHeaders("text/plain"))
        first = files.snapshot()
        assert files.bucket.asked() == [("read", key) for key in ("a", "b", "c", "empty", "gone")]
        files.store.puts.clear()
        again = files.snapshot()
        assert (files.bucket.asked(), data_puts(files.store.puts)) == ([], [])
        assert files.rows(again) == files.rows(first)
        files.fill({"b": b"other", "new": b"c"})
        files.remove("gone")
        files.bucket.asked()
        changed = files.snapshot()
        assert files.bucket.asked() == [("read", "b"), ("read", "new")]
        counts = changed.counts
        assert (counts.new, counts.changed, counts.removed, counts.new_bytes) == (1, 1, 1, len(b"other"))
        assert files.restored(changed) == files.put
        assert files.rows(changed)[b"a"] == files.rows(first)[b"a"]
        assert files.snapshot(read_all=True).counts.read_bytes == len(b"a" + b"other" + b"c" + b"c")
        assert len(files.bucket.asked()) == 5

    def test_a_key_that_changes_after_it_was_listed(self, files: Taken) -> None:
        files.fill({"a": b"before", "b": b"b"})
        files.bucket.at["read", "a"] = lambda: files.fill({"a": b"after, and longer"}, ObjectHeaders("text/css"))
        taken = files.snapshot()
        assert files.restored(taken) == files.put
        row = files.rows(taken)[b"a"]
        assert (row["size"], row["etag"]) == (17, files.bucket.stat("a")[0].etag)
        assert dict(row["headers"])["content_type"] == files.bucket.stat("a")[1].content_type
        files.bucket.asked()
        assert files.snapshot().counts.changed == 0
        assert files.bucket.asked() == []

    def test_what_is_replaced_while_it_is_read_is_read_again(self, files: Taken) -> None:
        before, after = bytes(20 * MIB), b"x" * 20 * MIB
        files.fill({"large": before})
        files.bucket.at["piece", "large"] = lambda: files.fill({"large": after})
        taken = files.snapshot()
        assert files.restored(taken) in ({b"large": before}, {b"large": after})  # whole, and one of them
        assert not taken.partial

    def test_what_was_removed_meanwhile_is_no_trouble(self, files: Taken) -> None:
        files.fill({"gone": b"gone", "stays": b"stays"})
        files.bucket.at["read", "gone"] = lambda: files.remove("gone")
        taken = files.snapshot()
        assert files.restored(taken) == files.put
        assert (len(files.rows(taken)), taken.partial) == (1, False)


class TestS3Source(BucketSourceContract):
    odd_keys = ("../up", "a//b", "/lead", "folder/", "tab\tx", "x" * 1000)

    @pytest.fixture
    def files(self, moto_port: int, tmp_path: Path) -> Taken:
        return Taken(opened(S3Objects(*moto_bucket(moto_port), profile="aws", page_size=5)), tmp_path)

    def test_in_a_bucket_with_versions_nothing_is_read_twice(self, moto_port: int, tmp_path: Path) -> None:
        client, name = moto_bucket(moto_port)
        client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        files = Taken(opened(S3Objects(client, name, profile="aws")), tmp_path)
        files.fill({"a": b"a", "b": b"b"})
        files.bucket.at["read", "b"] = lambda: files.fill({"b": b"b2"})
        files.snapshot()
        files.bucket.asked()
        assert files.restored(files.snapshot()) == files.put
        assert files.bucket.asked() == []

    def test_new_headers_of_the_same_bytes_are_taken(self, moto_port: int, tmp_path: Path) -> None:
        """Even within the second in which the snapshot before was taken: the ETag and the time are the same."""
        files = Taken(opened(S3Objects(*moto_bucket(moto_port), profile="aws")), tmp_path)
        files.clock = FixedClock(SystemClock().now() - timedelta(minutes=61))
        files.fill({"a": b"a", "b": b"b"}, ObjectHeaders("text/plain"))
        first = files.snapshot()
        files.fill({"a": b"a"}, ObjectHeaders("text/css"))
        taken = files.snapshot()
        assert dict(files.rows(taken)[b"a"]["headers"]) == {"content_type": "text/css"}
        assert dict(files.rows(taken)[b"b"]["headers"]) == {"content_type": "text/plain"}
        assert dict(files.rows(first)[b"a"]["headers"]) == {"content_type": "text/plain"}


class TestS3SourceElsewhere(BucketSourceContract):
    """Of a service that ignores conditions."""

    keeps_headers = False

    @pytest.fixture
    def files(self, shared_s3: EmbeddedS3, tmp_path: Path) -> Taken:
        return Taken(opened(S3Objects(*rclone_bucket(shared_s3), profile="supabase", page_size=5)), tmp_path)


class TestAzureSource(BucketSourceContract):
    odd_keys = ("line\nfeed", "a//b", "/lead", "folder/")

    @pytest.fixture
    def files(self, azurite_port: int, tmp_path: Path) -> Taken:
        container = azurite_container(f"http://127.0.0.1:{azurite_port}", block_size=32 * MIB)
        return Taken(opened(AzureObjects(container, page_size=5)), tmp_path)

    def test_what_is_in_the_archive_is_named_and_the_rest_is_read(self, azurite_port: int, tmp_path: Path) -> None:
        container = azurite_container(f"http://127.0.0.1:{azurite_port}")
        files = Taken(opened(AzureObjects(container)), tmp_path)
        files.fill({"cold": b"cold", "warm": b"warm"})
        container.get_blob_client("cold").set_standard_blob_tier("Archive")
        taken = files.snapshot()
        assert files.restored(taken) == {b"warm": b"warm"}
        assert (taken.counts.unreadable, taken.partial) == (1, True)
        assert "must be recalled first" in files.rows(taken)[b"cold"]["error"]

    def test_a_container_that_denies_its_listing(self, azurite_port: int, tmp_path: Path) -> None:
        endpoint = f"http://127.0.0.1:{azurite_port}"
        box = azurite_container(endpoint)
        token = generate_container_sas(
            "devstoreaccount1", box.container_name, account_key=AZURITE_KEY,
            permission=ContainerSasPermissions(read=True), expiry=datetime.now(UTC) + timedelta(hours=1),
        )  # fmt: skip
        reader = make_container_client(f"{endpoint}/devstoreaccount1", box.container_name, credential=token)
        assert_refused_whole(Taken(opened(AzureObjects(reader)), tmp_path), "right to list the container")


def assert_refused_whole(files: Taken, hint: str) -> None:
    with pytest.raises(AccessDenied) as caught:
        files.snapshot()
    assert hint in (caught.value.hint or "")
    assert [info.key for info in files.store.list("files/")] == []


def test_a_bucket_of_s3_that_denies_its_listing(shared_s3: EmbeddedS3, tmp_path: Path) -> None:
    _, name = rclone_bucket(shared_s3)
    denied = opened(S3Objects(rclone_client(shared_s3, secret="wrong"), name, "media"))
    assert_refused_whole(Taken(denied, tmp_path), "s3:ListBucket")


def _raising(error: Exception) -> Callable[[], None]:
    def happens() -> None:
        raise error

    return happens


def test_one_object_that_is_denied_does_not_stop_the_others(moto_port: int, tmp_path: Path) -> None:
    files = Taken(opened(S3Objects(*moto_bucket(moto_port), profile="aws")), tmp_path)
    files.fill({"a": b"a", "secret": b"s", "z": b"z"})
    files.bucket.at["read", "secret"] = _raising(AccessDenied("media: access to secret denied: kms:Decrypt"))
    taken = files.snapshot()
    assert files.restored(taken) == {b"a": b"a", b"z": b"z"}
    assert files.rows(taken)[b"secret"]["error"] == "media: access to secret denied: kms:Decrypt"
    assert taken.partial
    whole = files.snapshot()
    assert (whole.partial, files.restored(whole)) == (False, files.put)


def test_a_bucket_that_does_not_answer_ends_it(moto_port: int, tmp_path: Path) -> None:
    files = Taken(opened(S3Objects(*moto_bucket(moto_port), profile="aws")), tmp_path)
    files.fill({f"{number}": b"x%d" % number for number in range(40)})
    files.bucket.at["read", "20"] = _raising(StoreUnavailable("media does not answer"))
    with pytest.raises(StoreUnavailable):
        files.snapshot()
    assert read_snapshots(files.store, DOCS).snapshots == ()
    assert files.restored(files.snapshot()) == files.put


def test_many_small_objects_are_read_side_by_side(s3_server: EmbeddedS3, tmp_path: Path) -> None:
    contents = {b"%04d" % number: os.urandom(2000) for number in range(2000)}
    for key, content in contents.items():
        (tmp_path / "s3" / "bucket" / key.decode()).write_bytes(content)
    files = Taken(opened(S3Objects(rclone_client(s3_server), "bucket", profile="supabase")), tmp_path)
    together = threading.Barrier(16)
    files.bucket.at = {("read", f"{number:04}"): lambda: together.wait(20) for number in range(16)}
    taken = files.snapshot()
    assert files.restored(taken) == contents
    assert len(files.bucket.requests) == 1 + len(contents)
    assert len(data_puts(files.store.puts)) <= 3


def test_the_plan_s_bucket_is_taken(moto_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DR_TEST_KEY", "testtest")
    client, name = moto_bucket(moto_port)
    put(opened(S3Objects(client, name, profile="aws")), "up/a", b"a")
    secret = "${ENV:DR_TEST_KEY}"
    media = {"type": "s3", "endpoint": f"http://127.0.0.1:{moto_port}", "bucket": name, "prefix": "up",
             "access_key_id": secret, "secret_access_key": secret}  # fmt: skip
    store = empty().store
    site = file_site(
        {"primary": store}, clock=later(), source={"type": "bucket", "store": "media"}, more_stores={"media": media},
        state_dir=str(tmp_path),
    )  # fmt: skip
    taken = operations.take_snapshot(site, DOCS, Silent())
    assert (taken.source, taken.counts.files, taken.counts.new_bytes) == ("bucket media", 1, 1)
