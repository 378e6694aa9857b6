"""The blobs of a container of Azure Blob Storage, as they are: any key that its addresses can hold, headers, metadata.

Metadata is ASCII on the wire, and its names are identifiers. Source: Azure, "Naming and referencing containers, blobs,
and metadata".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from secrets import token_hex
from typing import Any

from azure.core import MatchConditions
from azure.storage.blob import BlobBlock, ContainerClient, ContentSettings

from dr_pipelines.errors import AccessDenied, ObjectChanged, ObjectExists, ObjectNotFound, StoreError
from dr_pipelines.storage.azure_container import AzureContainer
from dr_pipelines.storage.bucket import BucketObject, ObjectHeaders
from dr_pipelines.storage.bucket_service import Page, Sent
from dr_pipelines.storage.header_text import TEXTS, from_header, raw, to_header, unfit

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class AzureObjects:
    """A `BucketService`. Parts must not be larger than what the client puts in one request."""

    conditional = reads_one_version = True
    most_parts = 50_000

    def __init__(self, container: ContainerClient, name: str | None = None, *, page_size: int = 5000) -> None:
        self.name = name or str(container.container_name)
        self._container, self._page_size = AzureContainer(container, self.name), page_size

    def page(self, prefix: str, token: str | None) -> Page:
        try:
            with self._container.told(prefix):
                blobs = self._container.client.list_blobs(
                    name_starts_with=prefix or None, results_per_page=self._page_size
                )
                pages: Any = blobs.by_page(continuation_token=token)
                found = [_object(blob.name, blob) for blob in next(pages, ())]
                return Page(found, pages.continuation_token or None)
        except AccessDenied as error:
            hint = "give this key the right to list the container (l of a SAS, or Storage Blob Data Reader)."
            raise AccessDenied(error.message, hint=hint) from error

    def open(self, found: BucketObject, offset: int) -> tuple[ObjectHeaders, Iterator[bytes]]:
        which: dict[str, Any] = {
            "version": found.version,
            "etag": found.etag,
            "match_condition": MatchConditions.IfNotModified,
        }
        key, count = self._addressable(found.key), found.size - offset
        with self._unchanged(key):
            if count <= 0:
                return _headers(self._container.head(key, **which).properties), iter(())
            first, properties = self._container.piece(key, offset, count, **which)
        rest = self._container.pieces(key, offset + len(first), count - len(first), **which)
        return _headers(properties), self._unchanged_pieces(key, first, rest)

    def stat(self, key: str) -> tuple[BucketObject, ObjectHeaders]:
        found = self._container.head(self._addressable(key)).properties
        return _object(key, found), _headers(found)

    def put(
        self, key: str, data: bytes, headers: ObjectHeaders, *, if_absent: bool = False, if_match: str = ""
    ) -> Sent:
        with self._container.told(key):
            told: Any = self._container.blob(self._writable(key)).upload_blob(
                data, overwrite=not if_absent, validate_content=True, **_asked(headers), **_only(False, if_match)
            )
        return Sent(_etag(told), proven=True)

    def begin(self, key: str, headers: ObjectHeaders) -> str:
        """Blocks of uploads at the same time do not replace each other: each has names of its own."""
        self._writable(key)
        return token_hex(8)

    def send(self, key: str, upload: str, number: int, data: bytes) -> str:
        block = f"{upload}-{number:05}"
        with self._container.told(key):
            self._container.blob(key).stage_block(block, data, validate_content=True)
        return block

    def finish(
        self,
        key: str,
        upload: str,
        parts: Sequence[str],
        headers: ObjectHeaders,
        *,
        if_absent: bool = False,
        if_match: str = "",
    ) -> Sent:
        with self._container.told(key):
            told: Any = self._container.blob(key).commit_block_list(
                [BlobBlock(block) for block in parts], **_asked(headers), **_only(if_absent, if_match)
            )
        return Sent(_etag(told), proven=True)

    def abort(self, key: str, upload: str) -> None:
        """The service drops blocks that nothing was made of after a week."""

    def delete(self, found: BucketObject) -> None:
        try:
            with self._container.told(found.key):
                self._container.blob(self._addressable(found.key)).delete_blob()
        except ObjectNotFound:
            return

    def cannot_hold(self, headers: ObjectHeaders) -> tuple[str, ...]:
        return unfit(headers, _NAME)

    def _addressable(self, key: str) -> str:
        """On its way an address loses such parts, and is then that of another blob, or of another container."""
        if any(part in (".", "..") for part in key.split("/")):
            raise self._no_address(key)
        return key

    def _writable(self, key: str) -> str:
        if "\\" in key:  # the service makes it a slash without a word
            raise self._no_address(key)
        return self._addressable(key)

    def _no_address(self, key: str) -> StoreError:
        return StoreError(
            f"{self.name}: Azure has no address for the key {key!r}",
            hint="a key here has no backslash, and no part that is . or .. alone: give the object another.",
        )

    def _unchanged_pieces(self, key: str, first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
        yield first
        with self._unchanged(key):
            yield from rest

    @contextmanager
    def _unchanged(self, key: str) -> Iterator[None]:
        try:
            yield
        except ObjectExists as error:  # what 412 means of a put, and here of what is gone too
            self._container.head(key)
            raise ObjectChanged(
                f"{self.name}: {key} was replaced since it was listed", hint="look at it again."
            ) from error


def _object(key: str, told: Any) -> BucketObject:
    return BucketObject(key, int(told.size), told.last_modified, _etag(told), told.version_id or None)


def _etag(told: Any) -> str:
    return str(told["etag"]).strip('"')


def _headers(told: Any) -> ObjectHeaders:
    texts = {text: raw(value) for text in TEXTS if (value := getattr(told.content_settings, text))}
    return ObjectHeaders(**texts, metadata={n: from_header(v) for n, v in (told.metadata or {}).items()})


def _only(if_absent: bool, if_match: str) -> dict[str, Any]:
    if if_absent:
        return {"match_condition": MatchConditions.IfMissing}
    return {"etag": if_match, "match_condition": MatchConditions.IfNotModified} if if_match else {}


def _asked(headers: ObjectHeaders) -> dict[str, Any]:
    return {
        "content_settings": ContentSettings(**{text: getattr(headers, text) for text in TEXTS}),
        "metadata": {name: to_header(value) for name, value in headers.metadata.items()},
    }
