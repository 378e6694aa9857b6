"""What a service must do for buckets of it to be opened: one request a call, tried once. `retrying_bucket.py` makes a
bucket of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from dr_pipelines.storage.bucket import BucketObject, ObjectHeaders


@dataclass(frozen=True)
class Page:
    """A piece of a listing. `following` asks for what comes after it; None at the end."""

    objects: Sequence[BucketObject]
    following: str | None


@dataclass(frozen=True)
class Sent:
    """What the answer to a write says: the ETag of what is there now, and whether that proves that the bytes are those
    that were sent. Empty: it does not tell."""

    etag: str = ""
    proven: bool = False


class BucketService(Protocol):
    """Full keys. Raises errors of `dr_pipelines.errors` only, those of `Bucket` among them."""

    name: str
    conditional: bool
    """Are `if_absent` and `if_match` kept by the service itself? Only then they are asked."""
    reads_one_version: bool
    """Are the bytes of an answer all of one version, whoever writes meanwhile?"""
    most_parts: int

    def page(self, prefix: str, token: str | None) -> Page: ...

    def open(self, found: BucketObject, offset: int) -> tuple[ObjectHeaders, Iterator[bytes]]: ...

    def stat(self, key: str) -> tuple[BucketObject, ObjectHeaders]: ...

    def put(
        self, key: str, data: bytes, headers: ObjectHeaders, *, if_absent: bool = False, if_match: str = ""
    ) -> Sent:
        """`if_match`: the ETag of what it replaces. Raises `ObjectExists` for either condition."""
        ...

    def begin(self, key: str, headers: ObjectHeaders) -> str:
        """An upload in parts."""
        ...

    def send(self, key: str, upload: str, number: int, data: bytes) -> str:
        """Part `number`, from 1 on; sending it again replaces it. How `finish` is told of it."""
        ...

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
        """Make one object of the parts. Conditions as those of `put`."""
        ...

    def abort(self, key: str, upload: str) -> None: ...

    def delete(self, found: BucketObject) -> None:
        """Absence is success."""
        ...

    def cannot_hold(self, headers: ObjectHeaders) -> tuple[str, ...]: ...
