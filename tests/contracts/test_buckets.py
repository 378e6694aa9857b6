"""Buckets of other people's objects, over real servers, against the same tests; and what is of one service."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob import ContainerSasPermissions, generate_container_sas

from dr_pipelines.clock import SystemClock
from dr_pipelines.embedded.stores import EmbeddedS3
from dr_pipelines.errors import (
    AccessDenied,
    IntegrityError,
    ObjectChanged,
    ObjectNotFound,
    ObjectOffline,
    PlanError,
    StoreError,
    StoreUnavailable,
)
from dr_pipelines.plan.stores import AzureStorePlan, LocalStorePlan, S3StorePlan
from dr_pipelines.storage.attempts import Attempts
from dr_pipelines.storage.azure_container import make_container_client
from dr_pipelines.storage.azure_objects import AzureObjects
from dr_pipelines.storage.bucket import Bucket, BucketObject, ObjectHeaders
from dr_pipelines.storage.bucket_service import BucketService
from dr_pipelines.storage.open_bucket import open_bucket
from dr_pipelines.storage.retrying_bucket import RetryingBucket
from dr_pipelines.storage.s3 import Profile
from dr_pipelines.storage.s3_objects import S3Objects
from tests.contracts.bucket import BucketContract, content, put
from tests.support.azure_wire import Answer, Request
from tests.support.azure_wire import serving as answering
from tests.support.faulty_server import cutting_once, replying, response, serving
from tests.support.stores import (
    AZURITE_KEY,
    MIB,
    PART,
    azurite_container,
    moto_bucket,
    moto_client,
    rclone_bucket,
    rclone_client,
)

_PAGE = 3
NOW = datetime(2026, 11, 1, tzinfo=UTC)


def opened(service: BucketService, *, prefix: str = "", part_size: int = PART) -> RetryingBucket:
    return RetryingBucket(service, Attempts(SystemClock(), longest_wait=0.01), prefix=prefix, part_size=part_size)


class TestS3BucketAws(BucketContract):
    more_keys = ("../up", "a\\b", "a/../b", "a/./b", "a//b", "/lead", "folder/", "tab\tx", "bell\x07", "x" * 1000)
    """No newline: moto has no address for it."""

    @pytest.fixture
    def bucket(self, moto_port: int) -> Bucket:
        return opened(S3Objects(*moto_bucket(moto_port), profile="aws", page_size=_PAGE))


class TestS3BucketElsewhere(BucketContract):
    """Of a service that ignores conditions."""

    more_keys = ("a\\b",)
    no_keys = ("../up", "a//b")
    keeps_headers = False

    @pytest.fixture
    def bucket(self, shared_s3: EmbeddedS3) -> Bucket:
        return opened(S3Objects(*rclone_bucket(shared_s3), profile="supabase", page_size=_PAGE))


class TestAzureBucket(BucketContract):
    more_keys = ("line\nfeed", "a//b", "/lead", "folder/", "x" * 1000)
    no_keys = ("../up", "a/../b", "a/./b", ".", "a\\b")

    @pytest.fixture
    def bucket(self, azurite_port: int) -> Bucket:
        container = azurite_container(f"http://127.0.0.1:{azurite_port}", block_size=PART)
        return opened(AzureObjects(container, page_size=_PAGE))

    def test_names_that_are_no_identifiers_are_refused(self, bucket: Bucket) -> None:
        assert bucket.cannot_hold(ObjectHeaders(metadata={"foo-bar": "", "Foo_1": ""})) == ("metadata.foo-bar",)

    def test_what_is_in_the_archive_is_said_to_be(self, azurite_port: int) -> None:
        container = azurite_container(f"http://127.0.0.1:{azurite_port}")
        bucket = opened(AzureObjects(container), part_size=MIB)
        found = put(bucket, "cold", b"x")
        container.get_blob_client("cold").set_standard_blob_tier("Archive")
        with pytest.raises(ObjectOffline) as caught:
            bucket.read(found)
        assert "online" in (caught.value.hint or "")


@pytest.mark.parametrize("kind", ["aws", "azure"])
@pytest.mark.parametrize("size", [3, PART + 3])
def test_a_service_that_keeps_conditions_is_asked_to(request: pytest.FixtureRequest, kind: str, size: int) -> None:
    """Who writes between a look and a put is not replaced: no look before would show it."""
    service: BucketService
    if kind == "aws":
        service = S3Objects(*moto_bucket(request.getfixturevalue("moto_port")), profile="aws")
    else:
        endpoint = f"http://127.0.0.1:{request.getfixturevalue('azurite_port')}"
        service = AzureObjects(azurite_container(endpoint, block_size=PART))
    bucket = opened(service)
    found = put(bucket, "a", b"first")

    def meanwhile() -> Iterator[bytes]:
        put(bucket, "a", b"theirs", if_absent=False)
        yield bytes(size)

    with pytest.raises(ObjectChanged):
        bucket.put("a", meanwhile(), ObjectHeaders(), size=size, replacing=found)
    assert content(bucket, bucket.stat("a")[0]) == b"theirs"


def test_supabase_is_asked_for_the_object_not_for_its_row() -> None:
    """It answers HEAD from the row, also when the object is lost."""

    def answer(asked: Request) -> Answer:
        if asked.method == "HEAD":
            return Answer(
                200, {"etag": '"e"', "content-length": "3", "last-modified": format_datetime(NOW, usegmt=True)}
            )
        return Answer(404)

    with answering(answer, lambda: NOW) as endpoint:
        bucket = opened(S3Objects(moto_client(endpoint), "box", profile="supabase"))
        with pytest.raises(ObjectNotFound):
            bucket.stat("a")
        assert opened(S3Objects(moto_client(endpoint), "box")).stat("a")[0].size == 3


def test_a_prefix_is_all_that_is_seen(moto_port: int) -> None:
    client, name = moto_bucket(moto_port)
    whole = opened(S3Objects(client, name))
    for key in ("in/side/", "in/side/a", "in/side//a", "in/side/../a", "in/sideways", "in/out", "a"):
        put(whole, key, b"x")
    bucket = opened(S3Objects(client, name), prefix="/in/side")
    assert {found.key for found in bucket.list()} == {"a", "/a", "../a"}
    assert [found.key for found in bucket.list("..")] == ["../a"]
    put(bucket, "new", b"y")
    bucket.delete(bucket.stat("a")[0])
    assert {found.key for found in whole.list("in/side")} == {
        "in/side/", "in/side//a", "in/side/../a", "in/side/new", "in/sideways",
    }  # fmt: skip
    assert whole.stat("a")[0].size == 1


def test_an_old_version_that_was_looked_at_is_read(moto_port: int) -> None:
    client, name = moto_bucket(moto_port)
    client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    bucket = opened(S3Objects(client, name, profile="aws"))
    first = put(bucket, "a", b"first")
    second = put(bucket, "a", b"second", if_absent=False)
    assert first.version and content(bucket, first) == b"first"
    bucket.delete(second)
    assert content(bucket, bucket.stat("a")[0]) == b"first"


def test_more_keys_than_a_page_holds(s3_server: EmbeddedS3, tmp_path: Path) -> None:
    names = {f"{number:04}" for number in range(1100)}
    for name in names:
        (tmp_path / "s3" / "bucket" / name).write_bytes(b"x")
    bucket = opened(S3Objects(rclone_client(s3_server), "bucket"))
    listed = [found.key for found in bucket.list()]
    assert len(listed) == len(names)
    assert {*listed} == names


def test_a_newline_in_a_listing_of_s3() -> None:
    entry = "<Key>line%0Afeed+%2B%25</Key><Size>1</Size><LastModified>2026-11-01T10:00:00.123Z</LastModified>"
    with serving(replying(_listing(f"<Contents>{entry}<ETag>&quot;e&quot;</ETag></Contents>"))) as endpoint:
        (found,) = opened(S3Objects(moto_client(endpoint), "bucket")).list()
    assert (found.key, found.etag, found.modified) == ("line\nfeed +%", "e", datetime(2026, 11, 1, 10, tzinfo=UTC))


def test_a_listing_that_says_that_there_is_more_but_not_where_is_none() -> None:
    with serving(replying(_listing("", truncated="true"))) as endpoint, pytest.raises(StoreError, match="as S3 does"):
        [*opened(S3Objects(moto_client(endpoint), "bucket")).list()]


def _listing(entries: str, truncated: str = "false") -> bytes:
    head = f"<IsTruncated>{truncated}</IsTruncated><EncodingType>url</EncodingType>"
    body = f"<ListBucketResult>{head}{entries}</ListBucketResult>"
    return response("200 OK", body.encode(), Content_Type="application/xml")


def test_metadata_that_came_as_raw_bytes_is_unicode() -> None:
    etag = '"0cc175b9c0f1b6a831c399e269772661"'
    who = "Zoë".encode().decode("latin-1")
    headers = {"ETag": etag, "Last_Modified": "Sun, 01 Nov 2026 10:00:00 GMT", "X_Amz_Meta_Who": who}
    answer = response("200 OK", b"a", **headers).decode().encode("latin-1")
    with serving(replying(answer)) as endpoint:
        bucket = opened(S3Objects(moto_client(endpoint), "bucket"))
        found, looked = bucket.stat("a")
        assert looked.metadata == bucket.read(found)[0].metadata == {"who": "Zoë"}


def test_a_web_page_is_no_object() -> None:
    with serving(replying(response("200 OK", b"<html></html>", Content_Type="text/html"))) as endpoint:
        bucket = opened(S3Objects(moto_client(endpoint), "bucket"))
        for look in (lambda: [*bucket.list()], lambda: bucket.stat("a")):
            with pytest.raises(StoreError, match="as S3 does"):
                look()


class _Ignorant:
    """A service that looks at no condition, and tells of the object what it is told to tell."""

    def __init__(self, body: bytes, etag: str, *, etag_later: str = "") -> None:
        self._body, self._etag, self._later = body, etag, etag_later or etag
        self.requests: list[Request] = []

    def __call__(self, request: Request) -> Answer:
        self.requests.append(request)
        etag = self._etag if request.method == "GET" else self._later
        headers = {"etag": f'"{etag}"', "last-modified": "Sun, 01 Nov 2026 10:00:00 GMT"}
        return Answer(200, {**headers, "content-length": str(len(self._body))}, self._body)


_MODIFIED = datetime(2026, 11, 1, 10, tzinfo=UTC)
_MD5, _OTHER = (hashlib.md5(text, usedforsecurity=False).hexdigest() for text in (b"content", b"other"))


@pytest.mark.parametrize("etag", [_MD5, ""])
def test_what_comes_is_compared_where_conditions_are_ignored(etag: str) -> None:
    service = _Ignorant(b"content", _OTHER if etag else "")
    with answering(service, SystemClock().now) as endpoint:
        bucket = opened(S3Objects(moto_client(endpoint), "bucket"))
        with pytest.raises(ObjectChanged):
            content(bucket, BucketObject("a", 7 if etag else 8, _MODIFIED, etag))
    assert service.requests[0].headers.get("if-match") == (f'"{etag}"' if etag else None)


@pytest.mark.parametrize(
    ("etag", "later", "torn", "looks"),
    [(_MD5, _MD5, False, 0), (_OTHER, _MD5, True, 1), (_OTHER, _OTHER, False, 1), ("parts-2", "else", True, 1)],
    ids=["as its MD5", "replaced meanwhile", "encrypted: no MD5", "in parts"],
)
def test_bytes_of_two_versions_are_not_taken_for_one(etag: str, later: str, torn: bool, looks: int) -> None:
    service = _Ignorant(b"content", etag, etag_later=later)
    with answering(service, SystemClock().now) as endpoint:
        bucket = opened(S3Objects(moto_client(endpoint), "bucket"))
        with pytest.raises(ObjectChanged) if torn else nullcontext():
            assert content(bucket, BucketObject("a", 7, _MODIFIED, etag)) == b"content"
    assert [request.method for request in service.requests] == ["GET"] + ["HEAD"] * looks


def test_a_body_that_ends_early_is_no_object() -> None:
    short = response("200 OK", b"cont", size=7, ETag=_MD5, Last_Modified="Sun, 01 Nov 2026 10:00:00 GMT")
    with serving(replying(short)) as endpoint:
        service = S3Objects(moto_client(endpoint), "bucket")
        bucket = RetryingBucket(service, Attempts(SystemClock(), attempts=1))
        with pytest.raises(StoreUnavailable):
            content(bucket, BucketObject("a", 7, _MODIFIED, _MD5))


def test_a_bucket_of_s3_that_denies_its_listing(shared_s3: EmbeddedS3) -> None:
    _, name = rclone_bucket(shared_s3)
    bucket = opened(S3Objects(rclone_client(shared_s3, secret="wrong"), name, "media"))
    with pytest.raises(AccessDenied, match="media: access to the listing denied") as caught:
        [*bucket.list()]
    assert "s3:ListBucket" in (caught.value.hint or "")


def test_a_container_that_denies_its_listing(azurite_port: int) -> None:
    endpoint = f"http://127.0.0.1:{azurite_port}"
    box = azurite_container(endpoint)
    found = put(opened(AzureObjects(box)), "a", b"x")
    token = generate_container_sas(
        "devstoreaccount1",
        box.container_name,
        account_key=AZURITE_KEY,
        permission=ContainerSasPermissions(read=True),
        expiry=datetime.now(UTC) + timedelta(hours=1),
    )
    reader = make_container_client(f"{endpoint}/devstoreaccount1", box.container_name, credential=token)
    bucket = opened(AzureObjects(reader))
    assert content(bucket, found) == b"x"
    with pytest.raises(AccessDenied) as caught:
        [*bucket.list()]
    assert "list" in (caught.value.hint or "")
    assert token not in str(caught.value)


def test_a_bucket_that_is_not_there_is_no_empty_one(moto_port: int) -> None:
    bucket = opened(S3Objects(moto_client(f"http://127.0.0.1:{moto_port}"), "nowhere"))
    with pytest.raises(StoreError, match="no such bucket") as caught:
        [*bucket.list()]
    assert not isinstance(caught.value, ObjectNotFound)


@pytest.mark.parametrize("profile", ["aws", "generic"])
def test_a_cut_download_goes_on_where_it_was_cut(moto_port: int, profile: Profile) -> None:
    client, name = moto_bucket(moto_port)
    data = bytes(range(256)) * (3 * MIB // 256)
    found = put(opened(S3Objects(client, name)), "a", data)
    with cutting_once(moto_port, after=2 * MIB, answers=True) as endpoint:
        assert content(opened(S3Objects(moto_client(endpoint), name, profile=profile)), found) == data


@pytest.mark.parametrize("size", [3, PART + 3])
def test_an_answer_that_was_lost_is_no_other_object(moto_port: int, size: int) -> None:
    """The service has made the object, and refuses to make it again."""
    client, name = moto_bucket(moto_port)
    bucket, data = S3Objects(client, name, profile="aws"), b"x" * size
    seen: list[str] = []

    def lose(http_response: Any, **_: object) -> None:
        seen.append("lost")
        if len(seen) == 1:
            raise ConnectionError("the answer was lost")

    event = "CompleteMultipartUpload" if size > PART else "PutObject"
    client.meta.events.register(f"before-parse.s3.{event}", lambda response_dict, **more: lose(response_dict))
    assert content(opened(bucket), put(opened(bucket), "a", data)) == data
    assert len(seen) == 2


@pytest.mark.parametrize(("profile", "size", "read"), [("generic", 3, 0), ("supabase", 3, 3), ("aws", PART + 1, 0)])
def test_what_an_etag_proves_is_not_read_back(
    moto_port: int, caplog: pytest.LogCaptureFixture, profile: Profile, size: int, read: int
) -> None:
    """Supabase is asked by GET what is there, before and after, and then for the content."""
    client, name = moto_bucket(moto_port)
    caplog.set_level(logging.DEBUG, "urllib3.connectionpool")
    put(opened(S3Objects(client, name, profile=profile)), "a", bytes(size))
    assert caplog.text.count(f'"GET /{name}/a ') == read


def test_what_is_damaged_on_its_way_is_removed(moto_port: int) -> None:
    client, name = moto_bucket(moto_port)

    def damage(params: Any, **_: object) -> None:
        params["body"] = b"y"
        del params["headers"]["Content-MD5"]

    client.meta.events.register("before-call.s3.PutObject", damage)
    bucket = opened(S3Objects(client, name, profile="supabase"))
    with pytest.raises(IntegrityError, match="removed"):
        put(bucket, "a", b"x")
    assert [*bucket.list()] == []


def test_unfinished_uploads_are_aborted(moto_port: int) -> None:
    client, name = moto_bucket(moto_port)
    bucket = opened(S3Objects(client, name))
    with pytest.raises(IntegrityError, match="bytes came"):
        bucket.put("a", [bytes(PART + 1)], ObjectHeaders(), size=PART + 2)
    assert "Uploads" not in client.list_multipart_uploads(Bucket=name)


def test_the_plan_s_stores_are_opened(moto_port: int, azurite_port: int, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("DR_TEST_KEY", "testtest")
    monkeypatch.setenv("DR_TEST_AZURE", AZURITE_KEY)
    _, name = moto_bucket(moto_port)
    box = azurite_container(f"http://127.0.0.1:{azurite_port}")
    secret = "${ENV:DR_TEST_KEY}"
    s3 = S3StorePlan.model_validate(
        {"type": "s3", "endpoint": f"http://127.0.0.1:{moto_port}", "bucket": name, "prefix": "up/loads",
         "access_key_id": secret, "secret_access_key": secret}
    )  # fmt: skip
    azure = AzureStorePlan.model_validate(
        {"type": "azure", "account_url": f"http://127.0.0.1:{azurite_port}/devstoreaccount1", "prefix": "up",
         "container": box.container_name, "account_key": "${ENV:DR_TEST_AZURE}"}
    )  # fmt: skip
    for plan in (s3, azure):
        bucket = open_bucket(plan, "media", clock=SystemClock())
        assert content(bucket, put(bucket, "ü", b"x")) == b"x"
        assert [found.key for found in bucket.list()] == ["ü"]
    assert [blob.name for blob in box.list_blobs()] == ["up/ü"]
    with pytest.raises(PlanError, match="media is a directory"):
        open_bucket(LocalStorePlan(type="local", path=tmp_path), "media", clock=SystemClock())
