"""Servers and stores for the tests: real ones, on free loopback ports, gone when the test is."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dr_pipelines.embedded.postgres import EmbeddedPostgres, open_folder
from dr_pipelines.embedded.stores import EmbeddedS3
from dr_pipelines.repository.codec import Codec
from dr_pipelines.repository.encryption import generate_identity
from dr_pipelines.repository.repository import Repository
from dr_pipelines.storage.local import LocalStore

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
def identity() -> tuple[str, str]:
    """An age key of the tests: (identity, recipient)."""
    made = generate_identity()
    return made.reveal(), str(made.recipient)


@pytest.fixture
def codec(identity: tuple[str, str]) -> Codec:
    return Codec(1, (identity[1],), (identity[0],))


@pytest.fixture
def local_repository(tmp_path: Path, codec: Codec) -> Repository:
    repository = Repository(LocalStore(tmp_path / "repository", "primary"), codec, "primary")
    repository.initialise()
    return repository
