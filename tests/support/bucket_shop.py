"""The shop whose files are objects of a bucket, and the buckets of real servers that they may lie in."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dr_pipelines.embedded.stores import EmbeddedS3
from dr_pipelines.storage.bucket import Bucket, ObjectHeaders
from tests.support.shop import Shop
from tests.support.stores import AZURITE_KEY, azurite_container, moto_bucket, some_name

HEADERS = ObjectHeaders("text/x-row", "max-age=60", metadata={"who": "ünï"})


@dataclass
class BucketShop(Shop):
    """`store`: the bucket as the plan describes it. Keys are below `store/`, as the shop's files are."""

    store: dict[str, Any] = field(default_factory=dict)

    def plan(self, **changes: Any) -> dict[str, Any]:
        plan = super().plan(**changes)
        plan["storage"]["live"] = self.store
        plan["file_storage"]["docs"]["source"] = {"type": "bucket", "store": "live"}
        return plan

    @property
    def bucket(self) -> Bucket:
        return self.site().bucket("live")

    def add(self, path: str, content: str = "content", *, row: bool = True, file: bool = True) -> None:
        if file:
            self.put(path, content)
        super().add(path, content, row=row, file=False)

    def put(self, path: str, content: str) -> None:
        data = content.encode()
        self.bucket.put(f"store/{path}", [data], HEADERS, size=len(data), if_absent=False)

    def remove(self, *paths: str) -> None:
        bucket = self.bucket
        for path in paths:
            bucket.delete(bucket.stat(f"store/{path}")[0])

    def contents(self) -> dict[str, str]:
        """Of every object below `store/`."""
        bucket = self.bucket
        return {one.key.removeprefix("store/"): b"".join(bucket.read(one)[1]).decode() for one in bucket.list("store/")}


def secret(folder: Path, name: str, value: str) -> str:
    """As a plan refers to it."""
    path = folder / name
    path.write_text(value)
    path.chmod(0o600)
    return f"${{FILE:{path}}}"


def moto_store(folder: Path, port: int, *, endpoint: str = "", versions: bool = False) -> dict[str, Any]:
    """A new bucket of moto, which keeps conditions. `endpoint`: by another way."""
    client, name = moto_bucket(port)
    if versions:
        client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    key = secret(folder, "key", "testtest")
    return {
        "type": "s3", "profile": "aws", "endpoint": endpoint or f"http://127.0.0.1:{port}", "bucket": name,
        "access_key_id": key, "secret_access_key": key,
    }  # fmt: skip


def rclone_store(folder: Path, server: EmbeddedS3) -> dict[str, Any]:
    """A new bucket of a service that takes conditions without a word."""
    name = some_name("bucket")
    server.create_bucket(name)
    access = server.access
    return {
        "type": "s3", "endpoint": access.endpoint, "bucket": name,
        "access_key_id": secret(folder, "id", access.access_key_id),
        "secret_access_key": secret(folder, "key", access.secret_access_key),
    }  # fmt: skip


def azure_store(folder: Path, port: int) -> dict[str, Any]:
    url = f"http://127.0.0.1:{port}"
    return {
        "type": "azure", "account_url": f"{url}/devstoreaccount1", "container": azurite_container(url).container_name,
        "account_key": secret(folder, "key", AZURITE_KEY),
    }  # fmt: skip
