"""What a store is: six verbs over bytes under keys, and beyond them locks, storage classes, old versions.

Callers ask a store what it can do (`capabilities`), never which store it is; `Plain` answers for those that can no
more. What cuts across stores (retry, read-only, a prefix) is a wrapper in `wrappers.py`. Nothing here knows what a
backup is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from dr_pipelines.errors import StoreError


@dataclass(frozen=True)
class Capabilities:
    """What a store promises beyond the six verbs.

    `conditional_put`: `put(if_absent=True)` is atomic at the store; without it a put over an existing key
    replaces silently, so keys must be unique by construction.
    `confirms_digest`: the store itself refuses a body that does not match the digest that it was sent with; without it
    `put` makes sure before it returns, by the service's digest of what is there or by reading it back.
    `object_lock`: `put(retain_until=…)` makes the object immutable. `versioning`: old versions survive.
    `largest_put`: what is larger, in bytes, is sent in parts; None where every object is one piece.
    `storage_classes`: the names that `put(storage_class=…)` and `set_class` take, coldest last; none where it has none.
    """

    conditional_put: bool = False
    confirms_digest: bool = False
    object_lock: bool = False
    versioning: bool = False
    largest_put: int | None = None
    storage_classes: tuple[str, ...] = ()


class Availability(StrEnum):
    """Whether an object's bytes can be read now. Of an archive class they must be recalled first, which takes hours."""

    ONLINE = "online"
    OFFLINE = "offline"
    ARRIVING = "arriving"


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object as the store lists it. `size` in bytes; `storage_class` is None for the store's ordinary one.
    `retain_until` and `availability` are known only from `stat`."""

    key: str
    size: int
    modified: datetime
    retain_until: datetime | None = None
    storage_class: str | None = None
    availability: Availability = Availability.ONLINE


@dataclass(frozen=True)
class LifecycleRule:
    """What a bucket does by itself to objects under `prefix`; days None: not that."""

    name: str
    prefix: str = ""
    enabled: bool = True
    expires_days: int | None = None
    old_versions_expire_days: int | None = None
    unfinished_uploads_days: int | None = None
    moves: tuple[tuple[int, str], ...] = ()
    """(after days, to storage class)."""


@dataclass(frozen=True)
class BucketSettings:
    """What the bucket says of itself. None: this store has no such setting, or does not tell."""

    versioning: bool | None = None
    object_lock: bool | None = None
    default_lock_days: int | None = None
    encryption: str | None = None
    lifecycle: tuple[LifecycleRule, ...] | None = None


@dataclass(frozen=True)
class LockAttempt:
    """One try to break a lock with the store's own credentials. `held`: the locked bytes are still there, unshortened;
    `said` is what the service answered."""

    what: str
    held: bool
    said: str


class Body:
    """Bytes to put: buffers with known size and SHA-256, which can be gone through again, so that a put can be retried
    from the start and never needs a second copy in one piece. `hashed`: the digest was taken of these very bytes just
    now, or is as they come. `at_hand`: they are in memory; else each time they are gone through they come anew from
    where they are, and what comes is whole only when going through it ends without an error."""

    def __init__(
        self,
        chunks: Iterable[bytes | bytearray | memoryview],
        *,
        sha256: str,
        size: int,
        hashed: bool = False,
        at_hand: bool = True,
        md5: str | None = None,
    ) -> None:
        self.chunks = chunks
        self.sha256 = sha256
        self.size = size
        self.at_hand = at_hand
        self._hashed = hashed
        self._md5 = md5

    @property
    def md5(self) -> str | None:
        """In hex, where the store that it comes from has said so: known once the first chunk is there, and to be
        believed only when the store that it goes to finds the same."""
        return self._md5 or getattr(self.chunks, "md5", None)

    @classmethod
    def of(cls, data: bytes) -> Body:
        return cls([data], sha256=hashlib.sha256(data).hexdigest(), size=len(data), hashed=True)

    def held(self) -> Body:
        """The same in memory."""
        if self.at_hand:
            return self
        return Body([*self.chunks], sha256=self.sha256, size=self.size, hashed=self._hashed)

    def matches(self) -> bool:
        """Are the bytes those of the digest? For stores that do not see the digest themselves."""
        return self._hashed or sha256_of(self.chunks) == self.sha256


class Pieces(Iterator[bytes]):
    """An object's bytes as they come. `md5`: of the whole object in hex, as the service knows it of itself."""

    def __init__(self, pieces: Iterator[bytes], md5: str | None) -> None:
        self._pieces = pieces
        self.md5 = md5

    def __next__(self) -> bytes:
        return next(self._pieces)


class ObjectStore(Protocol):
    """Bytes under keys. Keys are relative, of `A-Za-z0-9_/.-` only, without empty, `.` or `..` parts.

    Every method raises only errors of `dr_pipelines.errors` (`StoreUnavailable` is transient, the others are not).
    All methods may be called from several threads.
    """

    name: str
    """For messages: the tier's name in the plan, or where the store is."""

    @property
    def capabilities(self) -> Capabilities: ...

    def put(
        self,
        key: str,
        body: Body,
        *,
        if_absent: bool = True,
        retain_until: datetime | None = None,
        storage_class: str | None = None,
    ) -> ObjectInfo:
        """Store the whole body, or nothing. When it returns, the object is durable and its digest was confirmed
        by the store or read back.

        Raises `ObjectExists` when `if_absent` and other content is there; the same content again is success.
        Raises `IntegrityError` when what the store holds is not what was sent (it is then removed).
        """
        ...

    def open(self, key: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The object's bytes in pieces, from `offset`; none where `offset` is the size or beyond.
        A stream that ends early raises `StoreUnavailable`. Raises `ObjectNotFound`. Some give `Pieces`."""
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

    def set_class(self, key: str, storage_class: str) -> None:
        """Move an object to another storage class; its bytes, key and lock stay. Raises `StoreError` where there is
        no such class."""
        ...

    def recall(self, key: str, *, urgent: bool = False) -> Availability:
        """Ask for an offline object's bytes; asking again is harmless. Once it is `ONLINE`, `open` reads it for some
        days."""
        ...

    def revive(self, key: str, sha256: str) -> bool:
        """Make the old version with this content the current one again, whatever was laid over it or deleted. False
        when the store holds none."""
        ...

    def settings(self) -> BucketSettings:
        """How the bucket is set up. Raises `AccessDenied` when this key may not ask."""
        ...

    def attack(self, key: str) -> Sequence[LockAttempt]:
        """Try to delete, overwrite and shorten the lock of an object, by all means that this store's API has. Only for
        canaries: what does not hold is gone. Raises `StoreError` where the store cannot lock."""
        ...


class Plain:
    """For stores with no locks, storage classes or old versions."""

    name: str

    def extend_lock(self, key: str, retain_until: datetime) -> None:
        raise self.cannot_lock()

    def set_class(self, key: str, storage_class: str) -> None:
        raise self.no_classes()

    def recall(self, key: str, *, urgent: bool = False) -> Availability:
        return Availability.ONLINE

    def revive(self, key: str, sha256: str) -> bool:
        return False

    def settings(self) -> BucketSettings:
        return BucketSettings()

    def attack(self, key: str) -> Sequence[LockAttempt]:
        raise self.cannot_lock()

    def refuse(self, retain_until: datetime | None, storage_class: str | None) -> None:
        """Raises `StoreError` when a put asks for what there is not here."""
        if retain_until is not None:
            raise self.cannot_lock()
        if storage_class is not None:
            raise self.no_classes()

    def cannot_lock(self) -> StoreError:
        return StoreError(f"{self.name} cannot lock objects", hint="use a bucket with object lock for this tier.")

    def no_classes(self) -> StoreError:
        return StoreError(f"{self.name} has no storage classes", hint="take `classes` out of this store in the plan.")


def sha256_of(pieces: Iterable[bytes | bytearray | memoryview]) -> str:
    """In hex."""
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def read_all(store: ObjectStore, key: str) -> bytes:
    """A small object whole."""
    return b"".join(store.open(key))
