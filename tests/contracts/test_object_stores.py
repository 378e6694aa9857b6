"""Every store against the same tests: in memory, on disk, and over real servers."""

from __future__ import annotations

from pathlib import Path

import pytest

from dr_pipelines.embedded.stores import EmbeddedS3
from dr_pipelines.storage.base import Body, ObjectStore, read_all
from dr_pipelines.storage.local import LocalStore
from dr_pipelines.storage.memory import MemoryStore
from dr_pipelines.storage.s3 import S3Store, make_client
from tests.contracts.object_store import ObjectStoreContract

_PART = 5 * 1024 * 1024


class TestMemoryStore(ObjectStoreContract):
    @pytest.fixture
    def store(self) -> ObjectStore:
        return MemoryStore()


class TestLocalStore(ObjectStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> ObjectStore:
        return LocalStore(tmp_path / "store")


class TestS3StoreSupabase(ObjectStoreContract):
    @pytest.fixture
    def store(self, s3_server: EmbeddedS3) -> ObjectStore:
        access = s3_server.access
        client = make_client(
            endpoint=access.endpoint,
            region="us-east-1",
            access_key_id=access.access_key_id,
            secret_access_key=access.secret_access_key,
        )
        return S3Store(client, "bucket", profile="supabase", part_size=_PART)


class TestS3StoreAws(ObjectStoreContract):
    @pytest.fixture
    def store(self, moto_port: int) -> ObjectStore:
        client = make_client(
            endpoint=f"http://127.0.0.1:{moto_port}",
            region="us-east-1",
            access_key_id="test",
            secret_access_key="testtest",
        )
        client.create_bucket(Bucket="bucket")
        return S3Store(client, "bucket", profile="aws", part_size=_PART)

    def test_a_body_of_several_parts(self, store: ObjectStore) -> None:
        data = bytes(range(251)) * (2 * _PART // 251 + 1000)
        store.put("parts", Body.of(data))
        assert read_all(store, "parts") == data
