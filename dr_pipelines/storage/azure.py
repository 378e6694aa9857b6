"""Azure Blob Storage. The only module that imports the Azure SDK."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError
from azure.storage.blob import BlobServiceClient, ContainerClient, ContentSettings

from dr_pipelines.errors import (
    AccessDenied,
    DrError,
    IntegrityError,
    ObjectExists,
    ObjectNotFound,
    StoreError,
    StoreUnavailable,
)
from dr_pipelines.storage.base import Body, Capabilities, ObjectInfo, Plain, sha256_of
from dr_pipelines.storage.keys import checked
from dr_pipelines.storage.reader import BodyReader
from dr_pipelines.storage.refusals import no_such_service, refusal, unreachable

_PIECE = 4 * 1024 * 1024
_BLOCK = 72 * 1024 * 1024
"""A whole pack is one put: encryption can make it a little larger than 64 MiB."""
_MEND = "mend this store's account URL or credential in the plan."


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
    chain of credentials is used. `block_size` in bytes: what is larger is put in blocks; timeouts in seconds. The SDK
    copies what it sends in one piece: a put holds its body twice, or one block of at most 4 MiB more. Raises
    `StoreError` for an account URL that is none."""
    if credential is None:
        from azure.identity import DefaultAzureCredential  # slow to import, seldom needed

        credential = DefaultAzureCredential()
    versioned: dict[str, Any] = {"api_version": api_version} if api_version else {}
    try:
        service = BlobServiceClient(
            account_url,
            credential,
            retry_total=0,
            max_single_put_size=block_size,
            max_block_size=min(block_size, _PIECE),
            connection_timeout=connect_timeout,
            read_timeout=read_timeout,
            **versioned,
        )
        return service.get_container_client(container)
    except ValueError as error:
        raise StoreError(f"{_plain(error)}: {account_url.partition('?')[0]}", hint=_MEND) from error


class AzureStore(Plain):
    """One container. A put up to `block_size`, which is the client's, is one request whose MD5 the service confirms;
    a larger one is read back, and so is one without that confirmation. The blocks of an upload that fails are no
    object: no listing shows them, and the service drops them after a week."""

    def __init__(
        self, container: ContainerClient, name: str | None = None, *, block_size: int = _BLOCK, page_size: int = 5000
    ) -> None:
        self._block_size, self._page_size = block_size, page_size
        self._container = container
        self.name = name or str(container.container_name)

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(conditional_put=True, confirms_digest=True, largest_put=self._block_size)

    def put(
        self,
        key: str,
        body: Body,
        *,
        if_absent: bool = True,
        retain_until: datetime | None = None,
        storage_class: str | None = None,
    ) -> ObjectInfo:
        self.refuse(retain_until, storage_class)
        checked(key)
        if not body.matches():  # the service checks MD5, which the SDK takes from the bytes it sends
            raise IntegrityError(f"{self.name}: the bytes for {key} do not match their SHA-256")
        confirmed = False
        try:
            with self._told(key):
                confirmed = self._send(key, body, if_absent=if_absent)
        except ObjectExists:
            if sha256_of(self.open(key)) != body.sha256:
                raise
            confirmed = True
        if not confirmed and sha256_of(self.open(key)) != body.sha256:
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
        if found.last_modified is None:
            raise self._no_azure()
        return ObjectInfo(key, int(found.size), found.last_modified)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        with self._told(prefix):
            blobs = self._container.list_blobs(name_starts_with=prefix or None, results_per_page=self._page_size)
            for blob in blobs:
                yield ObjectInfo(blob.name, int(blob.size), blob.last_modified)

    def delete(self, key: str) -> None:
        try:
            with self._told(key):
                self._container.delete_blob(checked(key))
        except ObjectNotFound:
            return

    def _send(self, key: str, body: Body, *, if_absent: bool) -> bool:
        """True when the service says the MD5 of what it stored, which the SDK compares with that of what it sent."""
        blob = self._container.get_blob_client(key)
        told: dict[str, Any] = blob.upload_blob(
            BodyReader(body),
            length=body.size,
            overwrite=not if_absent,
            validate_content=True,
            content_settings=ContentSettings(content_type="application/octet-stream"),
        )
        return body.size <= self._block_size and bool(told.get("content_md5"))

    def _pieces(self, key: str, offset: int, count: int) -> Iterator[bytes]:
        position, end = offset, offset + count
        with self._told(key):
            while position < end:
                piece = self._container.download_blob(
                    key, offset=position, length=min(_PIECE, end - position)
                ).readall()
                if not piece:
                    raise StoreUnavailable(
                        f"{self.name}: {key} ended after {position} bytes", hint="run the command again."
                    )
                position += len(piece)
                yield piece

    @contextmanager
    def _told(self, key: str) -> Iterator[None]:
        try:
            yield
        except ClientAuthenticationError as error:
            raise AccessDenied(f"{self.name}: {_plain(error)}", hint=_MEND) from error
        except HttpResponseError as error:
            raise self._refusal(error, key) from error
        except ValueError as error:  # of the SDK, when headers are missing that Azure always sends
            raise self._no_azure() from error
        except (AzureError, OSError) as error:
            raise unreachable(self.name, self._endpoint, _plain(error)) from error

    def _no_azure(self) -> StoreError:
        return no_such_service(self.name, self._endpoint, "Azure Blob Storage")

    @property
    def _endpoint(self) -> str:
        return f"{self._container.scheme}://{self._container.primary_hostname}"

    def _refusal(self, error: HttpResponseError, key: str) -> DrError:
        told = getattr(error, "error_code", None) or ""
        code = str(getattr(told, "value", told))  # the SDK gives an enum for the codes that it knows
        if error.status_code == 404 and not code:  # Azure always gives one: not its word, so no proof of absence
            code = "ContainerNotFound"
        where = f"{self._endpoint}/{self._container.container_name}"
        return refusal(self.name, where, key, status=error.status_code or 0, code=code)


def _plain(error: BaseException) -> str:
    """The error's words without the queries of URLs: one may hold a SAS token."""
    return re.sub(r"\?\S*", "", str(error))
