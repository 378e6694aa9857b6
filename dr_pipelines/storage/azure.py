"""Azure Blob Storage. The only module that imports the Azure SDK."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from azure.core.exceptions import AzureError, HttpResponseError, IncompleteReadError, ServiceRequestError
from azure.storage.blob import BlobServiceClient, ContainerClient, ContentSettings

from dr_pipelines.errors import (
    AccessDenied,
    IntegrityError,
    ObjectExists,
    ObjectLocked,
    ObjectNotFound,
    StoreError,
    StoreUnavailable,
)
from dr_pipelines.storage.base import Body, Capabilities, ObjectInfo
from dr_pipelines.storage.keys import checked
from dr_pipelines.storage.reader import BodyReader

_PIECE = 4 * 1024 * 1024
_BLOCK = 64 * 1024 * 1024


def make_container_client(
    account_url: str,
    container: str,
    *,
    credential: Any = None,
    api_version: str | None = None,
    block_size: int = _BLOCK,
    connect_timeout: float = 10,
    read_timeout: float = 120,
) -> ContainerClient:
    """`credential` is an account key, a SAS token or one of Azure's credential objects; without it Azure's default
    chain of credentials is used. `block_size` in bytes: what is larger is put in blocks; timeouts in seconds."""
    if credential is None:
        from azure.identity import DefaultAzureCredential  # slow to import, seldom needed

        credential = DefaultAzureCredential()
    versioned: dict[str, Any] = {"api_version": api_version} if api_version else {}
    service = BlobServiceClient(
        account_url,
        credential,
        retry_total=0,
        max_single_put_size=block_size,
        max_block_size=block_size,
        connection_timeout=connect_timeout,
        read_timeout=read_timeout,
        **versioned,
    )
    return service.get_container_client(container)


class AzureStore:
    """One container. A put up to `block_size`, which is the client's, is one request whose MD5 the service checks; a
    larger one is read back."""

    def __init__(self, container: ContainerClient, name: str | None = None, *, block_size: int = _BLOCK) -> None:
        self._block_size = block_size
        self._container = container
        self.name = name or str(container.container_name)

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(conditional_put=True, confirms_digest=True)

    def put(self, key: str, body: Body, *, if_absent: bool = True, retain_until: datetime | None = None) -> ObjectInfo:
        if retain_until is not None:
            raise StoreError(f"{self.name} was not opened for locking objects")
        try:
            with self._told(key):
                self._container.upload_blob(
                    checked(key),
                    BodyReader(body),
                    length=body.size,
                    overwrite=not if_absent,
                    validate_content=True,
                    content_settings=ContentSettings(content_type="application/octet-stream"),
                )
        except ObjectExists:
            if self._digest(key) != body.sha256:
                raise
        if body.size > self._block_size and self._digest(key) != body.sha256:
            self.delete(key)
            raise IntegrityError(f"{self.name} does not hold under {key} what was sent; it was removed")
        return self.stat(key)

    def open(self, key: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        size = self.stat(key).size
        count = size - offset if length is None else min(length, size - offset)
        return self._pieces(checked(key), offset, count)

    def stat(self, key: str) -> ObjectInfo:
        with self._told(key):
            found = self._container.get_blob_client(checked(key)).get_blob_properties()
        return ObjectInfo(key, int(found.size), found.last_modified)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        with self._told(prefix):
            for blob in self._container.list_blobs(name_starts_with=prefix or None):
                yield ObjectInfo(blob.name, int(blob.size), blob.last_modified)

    def delete(self, key: str) -> None:
        try:
            with self._told(key):
                self._container.delete_blob(checked(key))
        except ObjectNotFound:
            return

    def extend_lock(self, key: str, retain_until: datetime) -> None:
        raise StoreError(f"{self.name} was not opened for locking objects")

    def _pieces(self, key: str, offset: int, count: int) -> Iterator[bytes]:
        position, end = offset, offset + count
        with self._told(key):
            while position < end:
                piece = self._container.download_blob(
                    key, offset=position, length=min(_PIECE, end - position)
                ).readall()
                if not piece:
                    raise StoreUnavailable(f"{self.name}: {key} ended after {position} bytes")
                position += len(piece)
                yield piece

    def _digest(self, key: str) -> str:
        digest = hashlib.sha256()
        for piece in self.open(key):
            digest.update(piece)
        return digest.hexdigest()

    @contextmanager
    def _told(self, key: str) -> Iterator[None]:
        try:
            yield
        except HttpResponseError as error:
            raise self._error(error, key) from error
        except (ServiceRequestError, IncompleteReadError, OSError) as error:
            raise StoreUnavailable(f"{self.name} does not answer: {error}", hint="is the account URL right?") from error
        except AzureError as error:
            raise StoreUnavailable(f"{self.name}: {error}") from error

    def _error(self, error: HttpResponseError, key: str) -> StoreError:
        status, told = error.status_code or 0, getattr(error, "error_code", None) or ""
        code = str(getattr(told, "value", told))  # the SDK gives an enum for the codes that it knows
        if code == "ContainerNotFound":
            return StoreError(f"{self.name}: there is no such container", hint="create it, or mend the plan.")
        if code == "BlobArchived":
            return StoreError(f"{self.name}: {key} is in the archive tier", hint="rehydrate it, then try again.")
        if code.startswith("Lease") or code in ("BlobBeingRehydrated", "ContainerBeingDeleted"):
            return StoreUnavailable(f"{self.name}: {key} is held for now: {code}", hint="end the lease, or wait.")
        if "Immutab" in code:
            return ObjectLocked(f"{self.name}: {key} is locked")
        if status == 404:
            return ObjectNotFound(f"{self.name}: there is no {key}")
        if status in (401, 403):
            return AccessDenied(
                f"{self.name}: access to {key} denied", hint="check the keys of this store in the plan."
            )
        if code in ("BlobAlreadyExists", "ConditionNotMet") or status == 412:
            return ObjectExists(f"{self.name}: {key} is there already")
        if status in (408, 429) or status >= 500:
            return StoreUnavailable(f"{self.name}: {key}: {code or status}")
        return StoreError(f"{self.name}: {key}: {code or status}")
