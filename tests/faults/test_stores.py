"""Stores in trouble, over real sockets and real disks: each trouble is told clearly, and none passes for data."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest

from dr_pipelines.clock import FixedClock, SystemClock
from dr_pipelines.embedded.stores import EmbeddedS3
from dr_pipelines.errors import AccessDenied, IntegrityError, StoreError, StoreUnavailable
from dr_pipelines.repository.fetch import fetch_verified
from dr_pipelines.repository.manifest import StoredObject
from dr_pipelines.storage.azure import AzureStore
from dr_pipelines.storage.azure_container import make_container_client
from dr_pipelines.storage.base import Body, ObjectStore, read_all
from dr_pipelines.storage.local import LocalStore
from dr_pipelines.storage.memory import MemoryStore
from dr_pipelines.storage.s3 import S3Store, make_client
from dr_pipelines.storage.wrappers import Retrying
from tests.support.faulty_server import cutting_once, replying, response, serving
from tests.support.faulty_store import FaultyStore
from tests.support.stores import azurite_container, moto_bucket, moto_client, rclone_bucket, rclone_client

_DATA = bytes(range(250)) * 40


def _s3(endpoint: str) -> ObjectStore:
    client = make_client(
        endpoint=endpoint, region="r", access_key_id="a", secret_access_key="b", connect_timeout=1, read_timeout=0.3
    )
    return S3Store(client, "bucket", "tier")


def _azure(endpoint: str) -> ObjectStore:
    return AzureStore(
        make_container_client(
            f"{endpoint}/devstoreaccount1", "box", credential="a2V5", connect_timeout=1, read_timeout=0.3
        ),
        "tier",
    )


both = pytest.mark.parametrize("opened", [_s3, _azure])


@both
def test_a_store_that_is_down_is_unavailable(opened: Callable[[str], ObjectStore]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(StoreUnavailable, match="tier") as caught:
        opened(f"http://127.0.0.1:{port}").stat("a")
    assert str(port) in caught.value.message
    assert caught.value.hint


@both
def test_a_store_that_hangs_is_given_up(opened: Callable[[str], ObjectStore]) -> None:
    over = threading.Event()
    with serving(lambda _: (over.wait(30), None)[1]) as endpoint:
        with pytest.raises(StoreUnavailable) as caught:
            opened(endpoint).stat("a")
        over.set()
    _assert_names(caught.value, endpoint)


@both
@pytest.mark.parametrize("status", ["500 Oops", "503 SlowDown", "429 Too Many"])
def test_a_busy_store_is_transient(opened: Callable[[str], ObjectStore], status: str) -> None:
    with serving(replying(response(status))) as endpoint, pytest.raises(StoreUnavailable) as caught:
        opened(endpoint).stat("a")
    _assert_names(caught.value, endpoint)


_VERBS: list[Callable[[ObjectStore], object]] = [
    lambda store: store.stat("a"),
    lambda store: read_all(store, "a"),
    lambda store: [*store.list("a")],
    lambda store: store.put("a", Body.of(b"x")),
    lambda store: store.delete("a"),
]
_PAGE = b"<html><body>It works!</body></html>"


@both
@pytest.mark.parametrize("verb", [_VERBS[0], _VERBS[2], _VERBS[3]], ids=["stat", "list", "put"])
def test_a_web_page_is_neither_an_object_nor_an_empty_listing(
    opened: Callable[[str], ObjectStore], verb: Callable[[ObjectStore], object]
) -> None:
    with serving(replying(response("200 OK", _PAGE))) as endpoint, pytest.raises(StoreError) as caught:
        verb(opened(endpoint))
    assert not caught.value.transient
    _assert_names(caught.value, endpoint)


@both
@pytest.mark.parametrize("verb", _VERBS, ids=["stat", "open", "list", "put", "delete"])
def test_a_page_that_is_not_found_is_no_absent_object(
    opened: Callable[[str], ObjectStore], verb: Callable[[ObjectStore], object]
) -> None:
    with serving(replying(response("404 Not Found", _PAGE))) as endpoint, pytest.raises(StoreError) as caught:
        verb(opened(endpoint))
    assert type(caught.value) is StoreError
    assert "mend its name in the plan" in (caught.value.hint or "")


@pytest.mark.parametrize("verb", _VERBS, ids=["stat", "open", "list", "put", "delete"])
def test_a_redirect_of_s3_says_to_mend_the_address(verb: Callable[[ObjectStore], object]) -> None:
    elsewhere = response("301 Moved Permanently", Location="https://elsewhere.invalid/")
    with serving(replying(elsewhere)) as endpoint, pytest.raises(StoreError, match="elsewhere") as caught:
        verb(_s3(endpoint))
    assert "https for http" in (caught.value.hint or "")


@both
def test_a_store_that_takes_no_whole_pack_says_which_limit_to_raise(opened: Callable[[str], ObjectStore]) -> None:
    with serving(replying(response("413 Too Large"))) as endpoint, pytest.raises(StoreError) as caught:
        opened(endpoint).put("a", Body.of(b"x"), if_absent=False)
    assert "72 MiB" in (caught.value.hint or "")


def test_a_range_that_is_not_the_one_asked_for_is_no_data() -> None:
    whole = response("200 OK", _DATA)
    with serving(replying(whole)) as endpoint, pytest.raises(StoreError, match="does not answer as S3"):
        [*_s3(endpoint).open("a", offset=100)]


def test_a_put_that_azure_does_not_confirm_is_read_back() -> None:
    held = {"Last_Modified": "Wed, 25 Nov 2026 10:00:00 GMT", "ETag": '"1"', "x_ms_blob_type": "BlockBlob"}
    taken, head = response("201 Created", **held), response("200 OK", size=5, **held)
    other = response("206 Partial Content", b"other", Content_Range="bytes 0-4/5", **held)
    answers = replying(taken, head, other, head, response("202 Accepted"))  # looked at again: is it locked?
    with serving(answers) as endpoint, pytest.raises(IntegrityError, match="removed"):
        _azure(endpoint).put("a", Body.of(b"right"))


def test_a_stream_that_is_cut_again_and_again_is_given_up_after_growing_waits() -> None:
    inner, clock = MemoryStore(), FixedClock(datetime(2026, 1, 1, tzinfo=UTC))
    inner.put("a", Body.of(_DATA))
    cut = FaultyStore(inner, cut_after=0)
    with pytest.raises(StoreUnavailable):
        read_all(Retrying(cut, clock, attempts=5), "a")
    assert cut.calls == 5
    assert clock.monotonic() > 0


@both
def test_an_unknown_host_is_unavailable(opened: Callable[[str], ObjectStore]) -> None:
    with pytest.raises(StoreUnavailable) as caught:
        opened("http://account.blob.core.nothing.invalid").stat("a")
    _assert_names(caught.value, "http://account.blob.core.nothing.invalid")


@both
@pytest.mark.parametrize("endpoint", ["nothing", "http://", "http://[", "https://a b"])
def test_an_endpoint_that_is_none_is_told(opened: Callable[[str], ObjectStore], endpoint: str) -> None:
    with pytest.raises(StoreError) as caught:
        opened(endpoint).stat("a")
    assert caught.value.hint


def test_a_key_of_azure_that_is_none_is_told() -> None:
    container = make_container_client("http://127.0.0.1:1/account", "box", credential="no-key!")
    with pytest.raises(AccessDenied, match="tier") as caught:
        AzureStore(container, "tier").stat("a")
    assert caught.value.hint and "no-key!" not in str(caught.value)


def test_no_message_of_azure_shows_the_token() -> None:
    token = "sv=2024-01-01&sig=c2VjcmV0"
    container = make_container_client("http://nothing.invalid/account", "box", credential=token, connect_timeout=1)
    with pytest.raises(StoreUnavailable) as caught:
        AzureStore(container, "tier").stat("a")
    assert "c2VjcmV0" not in str(caught.value)
    _assert_names(caught.value, "http://nothing.invalid")


def _assert_names(error: StoreError, endpoint: str) -> None:
    assert error.message.startswith("tier: ")
    assert endpoint in error.message
    assert "dr store check tier" in (error.hint or "")


@both
def test_a_refusal_is_not_tried_again(opened: Callable[[str], ObjectStore]) -> None:
    asked: list[bool] = []

    def refuse(connection: socket.socket) -> None:
        asked.append(True)
        connection.sendall(response("403 Forbidden"))

    with serving(refuse) as endpoint, pytest.raises(AccessDenied) as caught:
        Retrying(opened(endpoint), SystemClock(), attempts=3, longest_wait=0.01).stat("a")
    assert asked == [True]
    assert caught.value.hint


def test_a_busy_s3_is_tried_again_until_it_answers() -> None:
    with serving(replying(response("503 SlowDown"), response("200 OK", _DATA))) as endpoint:
        assert read_all(Retrying(_s3(endpoint), SystemClock(), longest_wait=0.01), "a") == _DATA


def test_a_cut_stream_of_s3_is_never_taken_for_whole() -> None:
    cut = response("200 OK", _DATA[:4000], size=len(_DATA))
    with serving(replying(cut)) as endpoint, pytest.raises(StoreUnavailable):
        read_all(_s3(endpoint), "a")


class _Served(NamedTuple):
    """A real server, and what opens a store at an endpoint that leads to it."""

    port: int
    opened: Callable[[str], ObjectStore]

    @property
    def store(self) -> ObjectStore:
        return self.opened(f"http://127.0.0.1:{self.port}")


@pytest.fixture(params=["rclone", "moto", "azurite"])
def served(request: pytest.FixtureRequest) -> _Served:
    """Each with a bucket or container of its own."""
    if request.param == "azurite":
        port = request.getfixturevalue("azurite_port")
        name = azurite_container(f"http://127.0.0.1:{port}").container_name
        return _Served(port, lambda endpoint: AzureStore(azurite_container(endpoint, name=name), "tier"))
    if request.param == "moto":
        port = request.getfixturevalue("moto_port")
        bucket = moto_bucket(port)[1]
        return _Served(port, lambda endpoint: S3Store(moto_client(endpoint), bucket, "tier", profile="aws"))
    server: EmbeddedS3 = request.getfixturevalue("shared_s3")
    bucket = rclone_bucket(server)[1]
    return _Served(server.port, lambda endpoint: S3Store(rclone_client(server, endpoint=endpoint), bucket, "tier"))


def test_a_cut_stream_is_resumed(served: _Served) -> None:
    data = os.urandom(9_000_000)
    served.store.put("a", Body.of(data))
    with cutting_once(served.port, after=6_000_000, answers=True) as endpoint:
        assert read_all(Retrying(served.opened(endpoint), SystemClock(), longest_wait=0.01), "a") == data


def test_a_cut_stream_is_never_taken_for_whole(served: _Served) -> None:
    data = os.urandom(9_000_000)
    served.store.put("a", Body.of(data))
    with cutting_once(served.port, after=6_000_000, answers=True) as endpoint:
        try:
            assert read_all(served.opened(endpoint), "a") == data  # Azure's SDK goes on by itself
        except StoreUnavailable as error:
            assert error.hint


def _missing(request: pytest.FixtureRequest, kind: str) -> ObjectStore:
    if kind == "azurite":
        port = request.getfixturevalue("azurite_port")
        return AzureStore(azurite_container(f"http://127.0.0.1:{port}", name="no-such-box"), "tier")
    if kind == "moto":
        client = moto_client(f"http://127.0.0.1:{request.getfixturevalue('moto_port')}")
        return S3Store(client, "no-such-bucket", "tier", profile="aws")
    return S3Store(rclone_client(request.getfixturevalue("shared_s3")), "no-such-bucket", "tier")


@pytest.mark.parametrize("kind", ["rclone", "moto", "azurite"])
@pytest.mark.parametrize("verb", _VERBS, ids=["stat", "open", "list", "put", "delete"])
def test_a_missing_bucket_is_no_absent_object(
    request: pytest.FixtureRequest, kind: str, verb: Callable[[ObjectStore], object]
) -> None:
    with pytest.raises(StoreError, match=r"tier: there is no such bucket at http://.*/no-such-b") as caught:
        verb(_missing(request, kind))
    assert type(caught.value) is StoreError
    assert "mend its name in the plan" in (caught.value.hint or "")


def test_a_wrong_secret_is_denied_and_not_shown(shared_s3: EmbeddedS3) -> None:
    store = S3Store(rclone_client(shared_s3, secret="not-the-secret"), rclone_bucket(shared_s3)[1], "tier")
    for verb in _VERBS:
        with pytest.raises(AccessDenied, match="tier") as caught:
            verb(store)
        assert "keys" in (caught.value.hint or "")
        assert "not-the-secret" not in str(caught.value)


def test_wrong_bytes_are_refused_by_the_reader(served: _Served) -> None:
    data = os.urandom(100_000)
    served.store.put("a", Body.of(data))
    stored = StoredObject(key="a", size=len(data), sha256=Body.of(data).sha256)
    assert fetch_verified(served.store, stored) == data
    with pytest.raises(IntegrityError, match="a on tier"):
        fetch_verified(FaultyStore(served.store, flip_at=50_000), stored)


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    store.put("mark", Body.of(b"{}"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(StoreError, match="full") as caught:
            store.put("big", Body.of(_DATA))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert caught.value.hint and not caught.value.transient
    assert [path.name for path in store.root.iterdir()] == ["mark"]


_KILLED = """
import os, signal, sys
from pathlib import Path
from dr_pipelines.storage.base import Body
from dr_pipelines.storage.local import LocalStore

class Chunks(list):
    def __iter__(self):
        yield b"half"
        os.kill(os.getpid(), signal.SIGKILL)

LocalStore(Path(sys.argv[1])).put("killed", Body(Chunks(), sha256="", size=8))
"""


def test_what_a_killed_put_left_is_removed_when_it_is_old(tmp_path: Path) -> None:
    died = subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path)], check=False)
    assert died.returncode == -signal.SIGKILL
    (left,) = tmp_path.glob(".unfinished-*")
    LocalStore(tmp_path).put("a", Body.of(b"x"))
    assert left.exists()  # it may be another's put that goes on
    os.utime(left, (0, 0))
    LocalStore(tmp_path).put("b", Body.of(b"x"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
