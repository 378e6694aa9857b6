"""A container of Azure Blob Storage through the SDK, and what its refusals mean. Nothing here knows of the verbs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any
from urllib.parse import quote

from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError
from azure.storage.blob import (
    BlobClient,
    BlobProperties,
    BlobServiceClient,
    ContainerClient,
    ContainerProperties,
    StandardBlobTier,
)

from dr_pipelines.errors import AccessDenied, DrError, ObjectOffline, StoreError, StoreUnavailable
from dr_pipelines.storage.base import sha256_of
from dr_pipelines.storage.refusals import no_such_service, refusal, unreachable

BLOCK = 72 * 1024 * 1024
"""A whole pack is one put: encryption can make it a little larger than 64 MiB."""
DIGEST = "sha256"
"""The metadata in which a put notes the SHA-256: of an archived blob there is nothing else to see."""
_PIECE = 4 * 1024 * 1024
_MEND = "mend this store's account URL or credential in the plan."


def make_container_client(
    account_url: str,
    container: str,
    *,
    credential: Any = None,
    api_version: str | None = None,
    block_size: int = BLOCK,
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
        raise StoreError(f"{plain(error)}: {account_url.partition('?')[0]}", hint=_MEND) from error


@dataclass(frozen=True)
class Head:
    """What the service says of a blob, and what time it was there, where it says so."""

    properties: BlobProperties
    now: datetime | None

    @property
    def is_archived(self) -> bool:
        return bool(self.properties.blob_tier == StandardBlobTier.ARCHIVE.value)

    def is_before(self, until: datetime | None) -> bool:
        """By the clock of the service, which is the one that counts."""
        return until is not None and (self.now is None or until > self.now)

    @property
    def digest(self) -> str | None:
        return (self.properties.metadata or {}).get(DIGEST)


class AzureContainer:
    """One container under the name of its store. Raises errors of `dr_pipelines.errors` only."""

    def __init__(self, client: ContainerClient, name: str) -> None:
        self.client, self.name = client, name

    def blob(self, key: str, version: str | None = None) -> BlobClient:
        return self.client.get_blob_client(key, version_id=version)

    def source(self, key: str, version: str | None = None) -> str:
        """What a copy is made from: it may hold a SAS token. The SDK leaves the version out."""
        url = str(self.blob(key).url)
        if version is None:
            return url
        return f"{url}{'&' if '?' in url else '?'}versionid={quote(version, safe='')}"

    def head(self, key: str, version: str | None = None, **condition: Any) -> Head:
        """Raises `ObjectNotFound`, and `ObjectExists` where `condition` (as the SDK writes it) is not met."""
        dates: list[str | None] = []
        with self.told(key):
            found = self.blob(key, version).get_blob_properties(
                raw_response_hook=lambda answer: dates.append(answer.http_response.headers.get("Date")), **condition
            )
        if found.last_modified is None:
            raise self.no_azure()
        return Head(found, parsedate_to_datetime(dates[-1]) if dates and dates[-1] else None)

    @cached_property
    def properties(self) -> ContainerProperties:
        """Not asked again: what a container can do does not change while we run. Raises `AccessDenied`."""
        with self.told(""):
            return self.client.get_container_properties()

    def pieces(
        self, key: str, offset: int, count: int, *, version: str | None = None, **condition: Any
    ) -> Iterator[bytes]:
        """`condition` as the SDK writes it; raises `ObjectExists` where it is not met."""
        position, end = offset, offset + count
        while position < end:
            data, _ = self.piece(key, position, end - position, version=version, **condition)
            position += len(data)
            yield data

    def piece(
        self, key: str, offset: int, count: int, *, version: str | None = None, **condition: Any
    ) -> tuple[bytes, BlobProperties]:
        """Up to `count` bytes, as they are stored, and what the service says of the blob."""
        with self.told(key):
            answer = self.blob(key, version).download_blob(
                offset=offset, length=min(_PIECE, count), version_id=version, decompress=False, **condition
            )
            data = answer.readall()
        if not data:
            raise StoreUnavailable(f"{self.name}: {key} ended after {offset} bytes", hint="run the command again.")
        return data, answer.properties

    def holds(self, key: str, head: Head, sha256: str) -> bool:
        """Has this blob, or version of one, the content? Of one in the archive only the note of its digest is seen;
        raises `ObjectOffline` where it has none."""
        if not head.is_archived:
            version = head.properties.version_id
            return sha256_of(self.pieces(key, 0, int(head.properties.size), version=version)) == sha256
        if head.digest is None:
            raise ObjectOffline(
                f"{self.name}: {key} is in the archive tier and has no note of its digest",
                hint="recall it before it is put again.",
            )
        return head.digest == sha256

    @contextmanager
    def told(self, key: str) -> Iterator[None]:
        try:
            yield
        except ClientAuthenticationError as error:
            raise AccessDenied(f"{self.name}: {plain(error)}", hint=_MEND) from error
        except HttpResponseError as error:
            raise self._refusal(error, key) from error
        except ValueError as error:  # of the SDK, when headers are missing that Azure always sends
            raise self.no_azure() from error
        except (AzureError, OSError) as error:
            raise unreachable(self.name, self._endpoint, plain(error)) from error

    def no_azure(self) -> StoreError:
        return no_such_service(self.name, self._endpoint, "Azure Blob Storage")

    @property
    def _endpoint(self) -> str:
        return f"{self.client.scheme}://{self.client.primary_hostname}"

    def _refusal(self, error: HttpResponseError, key: str) -> DrError:
        status, code = error.status_code or 0, code_of(error)
        if status == 404 and not code:  # Azure always gives one: not its word, so no proof of absence
            code = "ContainerNotFound"
        where = f"{self._endpoint}/{self.client.container_name}"
        return refusal(self.name, where, key, status=status, code=code)


def code_of(error: HttpResponseError) -> str:
    told = getattr(error, "error_code", None)
    if not told:  # some of the SDK's calls do not look for it
        told = getattr(error.response, "headers", {}).get("x-ms-error-code")
    return str(getattr(told, "value", told or ""))  # the SDK gives an enum for the codes that it knows


def status_of(error: BaseException) -> int:
    """The HTTP status behind an error that `told` raised; 0 when there was no answer."""
    return int(getattr(error.__cause__, "status_code", 0) or 0)


def plain(error: BaseException) -> str:
    """The error's words without the queries of URLs: one may hold a SAS token."""
    return re.sub(r"\?\S*", "", str(error))
