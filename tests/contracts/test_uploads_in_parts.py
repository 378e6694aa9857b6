"""An upload in parts that fails midway leaves nothing, and none holds a part in memory."""

from __future__ import annotations

import hashlib
import os
import tracemalloc
from collections.abc import Iterator

import pytest

from dr_pipelines.clock import SystemClock
from dr_pipelines.embedded.stores import EmbeddedS3
from dr_pipelines.errors import ObjectNotFound, StoreUnavailable
from dr_pipelines.storage.azure import AzureStore
from dr_pipelines.storage.base import Body, read_all, sha256_of
from dr_pipelines.storage.s3 import S3Store
from dr_pipelines.storage.wrappers import Retrying
from tests.support.faulty_server import cutting_once
from tests.support.stores import (
    MIB,
    PART,
    azurite_container,
    moto_bucket,
    moto_client,
    rclone_bucket,
    rclone_client,
)

_MIDWAY = PART + MIB


def _body(size: int) -> Body:
    chunks = [os.urandom(MIB)] * (size // MIB)
    return Body(chunks, sha256=sha256_of(chunks), size=size)


@pytest.mark.parametrize("server", ["rclone", "moto"])
def test_a_cut_upload_leaves_no_orphan(server: str, request: pytest.FixtureRequest) -> None:
    if server == "moto":
        port = request.getfixturevalue("moto_port")
        (admin, bucket), profile = moto_bucket(port), "aws"
    else:
        rclone: EmbeddedS3 = request.getfixturevalue("shared_s3")
        port, (admin, bucket), profile = rclone.port, rclone_bucket(rclone), "generic"
    body = _body(3 * PART)

    def through(endpoint: str) -> S3Store:
        client = moto_client(endpoint) if server == "moto" else rclone_client(rclone, endpoint=endpoint)
        return S3Store(client, bucket, profile=profile, part_size=PART)  # type: ignore[arg-type]

    with cutting_once(port, after=_MIDWAY) as endpoint, pytest.raises(StoreUnavailable):
        through(endpoint).put("parts", body)
    assert "Uploads" not in admin.list_multipart_uploads(Bucket=bucket)
    assert "Contents" not in admin.list_objects_v2(Bucket=bucket)
    with cutting_once(port, after=_MIDWAY) as endpoint:
        Retrying(through(endpoint), SystemClock(), longest_wait=0.01).put("parts", body)
    assert "Uploads" not in admin.list_multipart_uploads(Bucket=bucket)
    assert hashlib.sha256(admin.get_object(Bucket=bucket, Key="parts")["Body"].read()).hexdigest() == body.sha256


class _Interrupted(list[bytes]):
    """A body's chunks that are interrupted when the second part is taken from them."""

    taken = 0

    def __iter__(self) -> Iterator[bytes]:
        self.taken += 1
        if self.taken == 2:
            raise KeyboardInterrupt
        return super().__iter__()


def test_an_interrupted_upload_leaves_no_orphan(shared_s3: EmbeddedS3) -> None:
    (client, bucket), whole = rclone_bucket(shared_s3), _body(3 * PART)
    chunks = _Interrupted(bytes(chunk) for chunk in whole.chunks)
    with pytest.raises(KeyboardInterrupt):
        S3Store(client, bucket, part_size=PART).put("parts", Body(chunks, sha256=whole.sha256, size=whole.size))
    assert chunks.taken == 2, "nothing was interrupted: the test tries nothing"
    assert "Uploads" not in client.list_multipart_uploads(Bucket=bucket)
    assert "Contents" not in client.list_objects_v2(Bucket=bucket)


def test_the_blocks_of_a_cut_upload_are_no_object(azurite_port: int) -> None:
    admin = azurite_container(f"http://127.0.0.1:{azurite_port}")
    with cutting_once(azurite_port, after=3 * MIB) as endpoint:
        cut = AzureStore(azurite_container(endpoint, name=admin.container_name), block_size=MIB)
        with pytest.raises(StoreUnavailable):
            cut.put("blocks", _body(5 * MIB))
    store = AzureStore(admin, block_size=MIB)
    assert [*store.list()] == []
    with pytest.raises(ObjectNotFound):
        read_all(store, "blocks")
    body = _body(2 * MIB)
    store.put("blocks", body)
    assert sha256_of(store.open("blocks")) == body.sha256


def test_no_part_is_held_in_memory(shared_s3: EmbeddedS3) -> None:
    client, bucket = rclone_bucket(shared_s3)
    store, body = S3Store(client, bucket, part_size=24 * MIB), _body(60 * MIB)
    tracemalloc.start()
    try:
        store.put("large", body)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 16 * MIB
