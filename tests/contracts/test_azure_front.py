"""Azure's own behaviour, which Azurite lacks: see `tests/support/azure_front.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from azure.storage.blob import ContainerClient

from dr_pipelines.storage.azure import AzureStore
from dr_pipelines.storage.azure_locks import LockMode
from dr_pipelines.storage.base import ObjectStore
from tests.contracts.object_store import ObjectStoreContract
from tests.contracts.test_object_locks import ObjectLockContract
from tests.support.azure_front import AzureFront, Manners, azure_front
from tests.support.stores import MIB, azurite_container


@dataclass
class Served:
    front: AzureFront
    container: ContainerClient
    store: AzureStore


Serve = Callable[..., Served]


@pytest.fixture
def serve(azurite_port: int) -> Iterator[Serve]:
    """`serve(lock="governance", deletes_hide=True, …)`: a store on a new container behind a front of its own."""
    with ExitStack() as stack:

        def served(lock: LockMode | None = "compliance", **manners: bool) -> Served:
            front = stack.enter_context(azure_front(azurite_port, Manners(**manners)))
            container = azurite_container(front.endpoint)
            return Served(front, container, AzureStore(container, "tier", lock=lock, block_size=MIB, page_size=3))

        yield served


class TestStore(ObjectStoreContract):
    @pytest.fixture
    def store(self, serve: Serve) -> ObjectStore:
        return serve().store


class TestLocks(ObjectLockContract):
    @pytest.fixture
    def store(self, serve: Serve) -> ObjectStore:
        return serve().store
