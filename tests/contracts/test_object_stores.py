"""Every store against the same tests: in memory, on disk, and over real servers."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from dr_pipelines.embedded.stores import EmbeddedS3
from dr_pipelines.errors import StoreError, StoreUnavailable
from dr_pipelines.storage.azure import AzureStore, make_container_client
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

    def test_a_lock_is_not_claimed_for_a_bucket_without_one(self, store: ObjectStore) -> None:
        assert not store.capabilities.object_lock
        assert not store.capabilities.versioning


_AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The well-known key of the emulator, the same everywhere."""


class TestAzureStore(ObjectStoreContract):
    @pytest.fixture
    def store(self, azurite_port: int) -> AzureStore:
        url = f"http://127.0.0.1:{azurite_port}/devstoreaccount1"
        name = f"box-{secrets.token_hex(6)}"
        self.container = make_container_client(url, name, credential=_AZURITE_KEY, block_size=1024 * 1024)
        self.container.create_container()
        return AzureStore(self.container, block_size=1024 * 1024)

    def test_a_body_of_several_blocks(self, store: AzureStore) -> None:
        data = bytes(range(251)) * 10_000
        store.put("blocks", Body.of(data))
        assert read_all(store, "blocks") == data
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
