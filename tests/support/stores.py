"""Clients of the tests' own servers, and buckets that no other test has."""

from __future__ import annotations

import secrets
from typing import Any

from azure.storage.blob import ContainerClient

from dr_pipelines.embedded.stores import EmbeddedS3
from dr_pipelines.storage.azure_container import make_container_client
from dr_pipelines.storage.s3 import make_client

MIB = 1024 * 1024
PART = 5 * MIB
"""The smallest part that S3 takes."""

AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The well-known key of the emulator, the same everywhere."""


def some_name(what: str) -> str:
    return f"{what}-{secrets.token_hex(6)}"


def rclone_client(server: EmbeddedS3, *, endpoint: str | None = None, secret: str | None = None) -> Any:
    return make_client(
        endpoint=endpoint or server.access.endpoint,
        region="us-east-1",
        access_key_id=server.access.access_key_id,
        secret_access_key=secret or server.access.secret_access_key,
    )


def rclone_bucket(server: EmbeddedS3) -> tuple[Any, str]:
    """A client and the name of a new bucket."""
    client, bucket = rclone_client(server), some_name("bucket")
    client.create_bucket(Bucket=bucket)
    return client, bucket


def moto_client(endpoint: str, key: str = "test") -> Any:
    return make_client(endpoint=endpoint, region="us-east-1", access_key_id=key, secret_access_key="testtest")


def moto_bucket(server: int | str, **settings: Any) -> tuple[Any, str]:
    """A client and the name of a new bucket; the server by its endpoint, or its port on this host."""
    endpoint = server if isinstance(server, str) else f"http://127.0.0.1:{server}"
    client, bucket = moto_client(endpoint), some_name("bucket")
    client.create_bucket(Bucket=bucket, **settings)
    return client, bucket


def azurite_container(endpoint: str, *, name: str | None = None, block_size: int = MIB) -> ContainerClient:
    """A client of a new container, or of the one with this name."""
    url = f"{endpoint}/devstoreaccount1"
    container = make_container_client(url, name or some_name("box"), credential=AZURITE_KEY, block_size=block_size)
    if name is None:
        container.create_container()
    return container
