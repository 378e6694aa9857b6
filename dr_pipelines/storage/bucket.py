"""A bucket of other people's objects: what backups of files are taken from, and what they are restored to.

Not an `ObjectStore`: keys are whatever the service takes (any Unicode, `a//b`, `a/`), objects have headers, and others
change them while we look. `open_bucket` opens the one that the plan describes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class BucketObject:
    """One object as it was when it was listed or looked at. `size` in bytes, `modified` in whole seconds; `etag`
    without quotes, empty where the service gives none. An object whose content was written anew may keep its ETag on
    S3 (it is often the content's MD5), never on Azure. `version`: only of `stat`, `put`, in a bucket with versions."""

    key: str
    size: int
    modified: datetime
    etag: str
    version: str | None = None

    def is_still(self, now: BucketObject) -> bool:
        """By the ETag and size; by the time where one of them has no ETag."""
        if self.etag and now.etag:
            return (self.etag, self.size) == (now.etag, now.size)
        return (self.modified, self.size) == (now.modified, now.size)


@dataclass(frozen=True)
class ObjectHeaders:
    """What is kept with the bytes. `metadata` is the user's, in Unicode; names as the service gives them. Tags, access
    lists, storage classes and locks are not among it."""

    content_type: str | None = None
    cache_control: str | None = None
    content_disposition: str | None = None
    content_encoding: str | None = None
    content_language: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


class Bucket(Protocol):
    """Keys are relative to the store's prefix in the plan; what lies beside it is not seen.

    Raises only errors of `dr_pipelines.errors`: `AccessDenied`, `ObjectNotFound`, `StoreUnavailable` (after it was
    tried again), `StoreError` for a key that the service cannot hold. All methods may be called from several threads.
    """

    name: str

    def list(self, prefix: str = "") -> Iterator[BucketObject]:
        """Every object whose key starts with `prefix`, in the service's order, page by page: whole when it ends
        without an error. The prefix's own folder marker, which would have an empty key, is left out."""
        ...

    def read(self, found: BucketObject) -> tuple[ObjectHeaders, Iterator[bytes]]:
        """Exactly what was found: its headers, and its bytes in pieces, whole when they end without an error.

        Raises `ObjectChanged` when it was replaced, at once or while it is read (what came until then is to be thrown
        away: `stat` and read again), `ObjectNotFound` when it is gone, `ObjectOffline` when it is in an archive.
        """
        ...

    def stat(self, key: str) -> tuple[BucketObject, ObjectHeaders]:
        """Raises `ObjectNotFound`."""
        ...

    def put(
        self,
        key: str,
        pieces: Iterable[bytes],
        headers: ObjectHeaders,
        *,
        size: int,
        if_absent: bool = True,
        replacing: BucketObject | None = None,
    ) -> tuple[BucketObject, ObjectHeaders]:
        """Store `size` bytes as one object; what is there then, as `stat` tells it: some services keep fewer headers
        than they were given. The content was confirmed by the service's digest of it, or read back. One part is held
        in memory. `replacing`: an object that must still be there, and is then replaced (whatever `if_absent` says).

        Raises `ObjectExists` when `if_absent` and something is there, `ObjectChanged` when what is to be replaced is
        not there any more (without conditional puts it is looked at before, so two writers at once are not told
        apart), `IntegrityError` when the pieces are not `size` bytes (nothing is stored) or something else arrived (it
        is removed), `StoreError` for headers that the service cannot hold.
        """
        ...

    def delete(self, found: BucketObject) -> None:
        """Take back what was put; absence is success. In an S3 bucket with versions, what was there before comes back.
        Raises `ObjectChanged` when another object is there by now."""
        ...

    def cannot_hold(self, headers: ObjectHeaders) -> tuple[str, ...]:
        """What of these headers no object of this service can have (`metadata.foo-bar`): a restore from another
        service has to leave that out, and say so."""
        ...
