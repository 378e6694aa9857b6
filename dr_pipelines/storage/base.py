"""What a store is: six verbs over bytes under keys, and what it can do beyond that.

Callers ask a store what it can do (`capabilities`), never which store it is. What cuts across stores (retry,
read-only, a prefix) is a wrapper in `wrappers.py`. Nothing here knows what a backup is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True)
class Capabilities:
    """What a store promises beyond the six verbs.

    `conditional_put`: `put(if_absent=True)` is atomic at the store; without it a put over an existing key
    replaces silently, so keys must be unique by construction.
    `confirms_digest`: the store itself refuses a body that does not match the digest that it was sent with; without it
    `put` reads the object back before it returns.
    `object_lock`: `put(retain_until=…)` makes the object immutable. `versioning`: old versions survive.
    `largest_put`: what is larger, in bytes, is sent in parts; None where every object is one piece.
    """

    conditional_put: bool = False
    confirms_digest: bool = False
    object_lock: bool = False
    versioning: bool = False
    largest_put: int | None = None


@dataclass(frozen=True)
class ObjectInfo:
    """One object as the store lists it. `size` in bytes; `retain_until` only from `stat`."""

    key: str
    size: int
    modified: datetime
    retain_until: datetime | None = None


class Body:
    """Bytes to put: a sequence of buffers with known size and SHA-256, so that a put can be retried from the start
    and never needs a second copy in one piece."""

    def __init__(self, chunks: Sequence[bytes | bytearray | memoryview], *, sha256: str, size: int) -> None:
        self.chunks = chunks
        self.sha256 = sha256
        self.size = size

    @classmethod
    def of(cls, data: bytes) -> Body:
        return cls([data], sha256=hashlib.sha256(data).hexdigest(), size=len(data))

    def matches(self) -> bool:
        """Are the bytes those of the digest? For stores that do not see the digest themselves."""
        return sha256_of(self.chunks) == self.sha256


class ObjectStore(Protocol):
    """Bytes under keys. Keys are relative, of `A-Za-z0-9_/.-` only, without empty, `.` or `..` parts.

    Every method raises only errors of `dr_pipelines.errors` (`StoreUnavailable` is transient, the others are not).
    All methods may be called from several threads.
    """

    name: str
    """For messages: the tier's name in the plan, or where the store is."""

    @property
    def capabilities(self) -> Capabilities: ...

    def put(self, key: str, body: Body, *, if_absent: bool = True, retain_until: datetime | None = None) -> ObjectInfo:
        """Store the whole body, or nothing. When it returns, the object is durable and its digest was confirmed
        by the store or read back.

        Raises `ObjectExists` when `if_absent` and other content is there; the same content again is success.
        Raises `IntegrityError` when what the store holds is not what was sent (it is then removed).
        """
        ...

    def open(self, key: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The object's bytes in pieces, from `offset`; none where `offset` is the size or beyond.
        A stream that ends early raises `StoreUnavailable`. Raises `ObjectNotFound`."""
        ...

    def stat(self, key: str) -> ObjectInfo:
        """Raises `ObjectNotFound`."""
        ...

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Every object whose key starts with `prefix`, in key order. Either the listing is whole or it raises."""
        ...

    def delete(self, key: str) -> None:
        """Remove; absence is success. Raises `ObjectLocked`."""
        ...

    def extend_lock(self, key: str, retain_until: datetime) -> None:
        """Lengthen an object's immutability; raises `StoreError` where the store cannot lock."""
        ...


def sha256_of(pieces: Iterable[bytes | bytearray | memoryview]) -> str:
    """In hex."""
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def read_all(store: ObjectStore, key: str) -> bytes:
    """A small object whole."""
    return b"".join(store.open(key))
