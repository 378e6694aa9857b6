"""Servers and stores for the tests: real ones, on free loopback ports, gone when the test is."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dr_pipelines.commands import Command, Runner
from dr_pipelines.embedded.postgres import EmbeddedPostgres, open_folder
from dr_pipelines.embedded.stores import EmbeddedS3
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.encryption import generate_identity
from dr_pipelines.repository.repository import Repository
from dr_pipelines.storage.local import LocalStore
from tests.support.lived import Lived
from tests.support.lived import lived as live_once
from tests.support.shop import Shop

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in what a shell runs in the background
    # Dagster gives SIGTERM what SIGINT has, and every program that is started inherits what is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)

MakePostgres = Callable[..., EmbeddedPostgres]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the servers' account can enter: pytest's own lie behind one that it cannot."""
    path = open_folder("dr-test-")
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def make_postgres() -> Iterator[MakePostgres]:
    """Starts servers: `make_postgres(version=18, summarize_wal="on", …)`; 1 MiB segments unless told otherwise."""
    with contextlib.ExitStack() as stack:

        def make(
            version: int = 18, *, initdb: tuple[str, ...] = ("--wal-segsize=1",), **settings: str
        ) -> EmbeddedPostgres:
            base = open_folder("dr-test-pg-")
            stack.callback(shutil.rmtree, base, ignore_errors=True)
            server = EmbeddedPostgres(base / "data", version, settings=settings, initdb=initdb)
            stack.callback(server.kill)
            server.start()
            return server

        yield make


@pytest.fixture(scope="session")
def rows_server() -> Iterator[EmbeddedPostgres]:
    """A server for tables of rows that point at files. Make yours anew."""
    base = open_folder("dr-test-rows-")
    server = EmbeddedPostgres(base / "data", initdb=("--wal-segsize=1",))
    server.start()
    yield server
    server.kill()
    shutil.rmtree(base, ignore_errors=True)


@pytest.fixture
def shop(rows_server: EmbeddedPostgres, tmp_path: Path) -> Shop:
    """Files of a directory, and a row of each."""
    made = Shop(rows_server, tmp_path)
    made.make_table()
    for name in ("a", "b/c", "naïve ☃"):
        made.add(name, name)
    return made


@pytest.fixture
def postgres18(make_postgres: MakePostgres) -> EmbeddedPostgres:
    return make_postgres(18, summarize_wal="on")


@pytest.fixture
def s3_server(tmp_path: Path) -> Iterator[EmbeddedS3]:
    """`rclone serve s3`, with a bucket named `bucket`."""
    server = EmbeddedS3(tmp_path / "s3")
    server.create_bucket("bucket")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def shared_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedS3]:
    """`rclone serve s3` for tests that make buckets of their own and leave the server alone."""
    server = EmbeddedS3(tmp_path_factory.mktemp("rclone") / "s3")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def moto_port() -> Iterator[int]:
    """moto's S3 server: versioning, object lock and conditional writes, any credentials. Make a bucket of your own."""
    program = str(Path(sys.executable).with_name("moto_server"))
    port = _free_port()
    with _serving(Command([program, "-H", "127.0.0.1", "-p", str(port)]), port):
        yield port


@pytest.fixture(scope="session")
def strict_s3() -> Iterator[str]:
    """The endpoint of an S3 server that keeps S3's own rules of object lock. Make a bucket of your own."""
    port, root = _free_port(), Path(__file__).parent.parent
    with _serving(Command([sys.executable, "-m", "tests.support.strict_s3", str(port)], cwd=root), port):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="session")
def azurite_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Azurite's Blob service: account `devstoreaccount1`. Skipped where it is not installed."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    program = os.environ.get("DR_AZURITE") or str(
        cache / "dr-pipelines" / "azurite" / "node_modules" / ".bin" / "azurite-blob"
    )
    if not Path(program).exists():
        pytest.skip("Azurite is not installed: `npm install azurite` and point DR_AZURITE at its azurite-blob")
    port, where = _free_port(), str(tmp_path_factory.mktemp("azurite"))
    arguments = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", where]
    arguments += ["--silent", "--disableTelemetry", "--skipApiVersionCheck"]
    with _serving(Command([program, *arguments]), port):
        yield port


@pytest.fixture(scope="session")
def identity() -> tuple[str, str]:
    """An age key of the tests: (identity, recipient)."""
    made = generate_identity()
    return made.reveal(), str(made.recipient)


@pytest.fixture
def codec(identity: tuple[str, str]) -> Codec:
    return Codec(1, (identity[1],), (identity[0],))


@pytest.fixture(scope="session")
def life(identity: tuple[str, str]) -> Iterator[Lived]:
    """Not to be written to: `lived` is a copy."""
    with live_once(identity) as made:
        yield made


@pytest.fixture
def lived(life: Lived, folder: Path) -> Lived:
    """What the tiers hold of a server that is gone, to be restored and damaged."""
    return life.copy(folder)


@pytest.fixture
def local_repository(tmp_path: Path, codec: Codec) -> Repository:
    repository = Repository(LocalStore(tmp_path / "repository", "primary"), codec, "primary")
    repository.initialise()
    return repository


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def _serving(command: Command, port: int) -> Iterator[None]:
    """The program while the block runs, once its port answers."""
    process = Runner().start(command)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if process.returncode is not None or time.monotonic() > deadline:
                    raise
                process.wait(0.05)
        yield
    finally:
        process.stop()
