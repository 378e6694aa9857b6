"""Stored objects whole, proven by their SHA-256. Nothing else hands out what a store gave back."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dr_pipelines.errors import DrError, IntegrityError, StoreError
from dr_pipelines.repository.manifest import StoredObject
from dr_pipelines.storage.base import Body, ObjectStore

_STREAMED = 1024 * 1024
"""What is larger, in bytes, is sent on while it arrives; what is smaller is there at once."""
Fetch = Callable[[StoredObject, memoryview], None]
"""Brings a stored object into memory of its size, proven. Raises as `fetch_into`."""
DAMAGED = "take the backup from another tier (`dr restore --tier …`) or an older one; `dr verify` says which are whole."


def fetch_verified(store: ObjectStore, stored: StoredObject) -> bytes:
    """A stored object whole. Raises `IntegrityError` that names it when it is not what its manifest says."""
    data = bytearray(stored.size)
    fetch_into(store, stored, memoryview(data))
    return bytes(data)


def fetch_into(store: ObjectStore, stored: StoredObject, target: memoryview) -> None:
    """As `fetch_verified`, into `target` of the object's size."""
    digest, at = hashlib.sha256(), 0
    for piece in store.open(stored.key):
        end = at + len(piece)
        if end > stored.size:
            break
        target[at:end] = piece
        digest.update(piece)
        at = end
    else:
        if at == stored.size and digest.hexdigest() == stored.sha256:
            return
    raise _damaged(store, stored)


def fetch_body(store: ObjectStore, stored: StoredObject) -> Body:
    """As `fetch_verified`, in the pieces in which it came, so that it can be put elsewhere without a copy."""
    pieces = store.open(stored.key)
    md5 = getattr(pieces, "md5", None)
    return Body([*_proven(store, stored, pieces)], sha256=stored.sha256, size=stored.size, hashed=True, md5=md5)


class SourceFailed(StoreError):
    """Raised through the store that takes a body, where the one that it comes from failed: its `cause` is the error to
    tell. Not transient, for that store has tried again itself."""

    def __init__(self, cause: DrError) -> None:
        super().__init__(cause.message, hint=cause.hint)
        self.cause = cause


def streamed_body(store: ObjectStore, stored: StoredObject) -> Body:
    """A stored object on its way elsewhere, with a piece or two of it in memory. The last piece is given only when the
    whole is proven, so that what is not what its manifest says never gets to its end, and so never becomes an object.
    Going through it raises `SourceFailed`; so may the call, for what is small is fetched whole at once."""
    if stored.size > _STREAMED:
        return Body(_Streamed(store, stored), sha256=stored.sha256, size=stored.size, hashed=True, at_hand=False)
    with _told():
        return fetch_body(store, stored)


class _Streamed:
    def __init__(self, store: ObjectStore, stored: StoredObject) -> None:
        self._store, self._stored = store, stored
        self.md5: str | None = None

    def __iter__(self) -> Iterator[bytes]:
        with _told():
            pieces = self._store.open(self._stored.key)
            self.md5 = getattr(pieces, "md5", None)
            yield from _proven(self._store, self._stored, pieces)


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except DrError as error:
        raise SourceFailed(error) from error


def _proven(store: ObjectStore, stored: StoredObject, pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Its pieces; the last, which is not empty, when all of them are right."""
    digest, size, held = hashlib.sha256(), 0, b""
    for piece in pieces:
        size += len(piece)
        if size > stored.size:
            break
        digest.update(piece)
        if held and piece:
            yield held
        held = piece or held
    else:
        if size == stored.size and digest.hexdigest() == stored.sha256:
            yield held
            return
    raise _damaged(store, stored)


def _damaged(store: ObjectStore, stored: StoredObject) -> IntegrityError:
    return IntegrityError(f"{stored.key} on {store.name} does not match its size and SHA-256", hint=DAMAGED)
