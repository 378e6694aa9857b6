"""Stored objects whole, proven by their SHA-256. Nothing else hands out what a store gave back."""

from __future__ import annotations

import hashlib

from dr_pipelines.errors import IntegrityError
from dr_pipelines.repository.manifest import StoredObject
from dr_pipelines.storage.base import Body, ObjectStore

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
    digest, pieces, size = hashlib.sha256(), [], 0
    for piece in store.open(stored.key):
        size += len(piece)
        if size > stored.size:
            break
        digest.update(piece)
        pieces.append(piece)
    else:
        if size == stored.size and digest.hexdigest() == stored.sha256:
            return Body(pieces, sha256=stored.sha256, size=size, hashed=True)
    raise _damaged(store, stored)


def _damaged(store: ObjectStore, stored: StoredObject) -> IntegrityError:
    return IntegrityError(f"{stored.key} on {store.name} does not match its size and SHA-256", hint=DAMAGED)
