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
from pathlib import Path

import pytest

from dr_pipelines.clock import SystemClock
from dr_pipelines.errors import AccessDenied, StoreError, StoreUnavailable
from dr_pipelines.storage.azure import AzureStore, make_container_client
from dr_pipelines.storage.base import Body, ObjectStore, read_all
from dr_pipelines.storage.local import LocalStore
from dr_pipelines.storage.s3 import S3Store, make_client
from dr_pipelines.storage.wrappers import Retrying
from tests.support.faulty_server import replying, response, serving

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
        with pytest.raises(StoreUnavailable, match="tier"):
            opened(endpoint).stat("a")
        over.set()


@both
@pytest.mark.parametrize("status", ["500 Oops", "503 SlowDown", "429 Too Many"])
def test_a_busy_store_is_transient(opened: Callable[[str], ObjectStore], status: str) -> None:
    with serving(replying(response(status))) as endpoint, pytest.raises(StoreUnavailable):
        opened(endpoint).stat("a")


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
